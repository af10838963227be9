//! How long a judgement takes: every call in a fresh sandbox, on the sample policies.
//!
//! `cargo xtask policies --out target/policies --with-misbehaving`, then
//! `cargo run --release -p countersign-policy --example judge_latency [-- DIR [CALLS]]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Act, Digest, Event, Needs, Open, Origin, Party, PayloadHashVersion, Request, RequestId, State,
    Submission, Timestamp, Verdict, parameter_digests,
};
use countersign_policy::{ActionPolicy, Engine, Limits, PolicySet, Trust};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| "target/policies".to_owned()));
    let calls: usize = arguments.next().map_or(Ok(20_000), |calls| calls.parse())?;
    let engine = Engine::new(Limits::default(), None, Trust::default())?;
    let started = now();
    let set = PolicySet::load(&dir, &engine)?;
    println!("set loaded, compiled and tried in {} ms", started.elapsed().as_millis());
    for action in ["deploy_staging", "rotate_secret", "deploy_prod"] {
        let Some(policy) = set.action(action) else { continue };
        measure(policy, calls)?;
    }
    Ok(())
}

fn measure(policy: &ActionPolicy, calls: usize) -> anyhow::Result<()> {
    let (request, event) = request(policy)?;
    let policies = policy.entry().policies.len();
    let mut times = Vec::with_capacity(calls);
    for call in 0..calls + calls / 10 {
        let started = now();
        let verdicts = policy.judge(&request, &event);
        let time = started.elapsed();
        anyhow::ensure!(
            !verdicts.iter().any(|verdict| matches!(verdict, Verdict::Failed(_))),
            "{verdicts:?}"
        );
        // The first tenth warms up.
        if call >= calls / 10 {
            times.push(time);
        }
    }
    times.sort();
    let at = |per_mille: usize| micros(times.get(times.len().saturating_sub(1) * per_mille / 1000).copied());
    println!(
        "{:<16} {policies} policies  p50 {:>6.1}  p95 {:>6.1}  p99 {:>6.1}  p99.9 {:>6.1} µs",
        policy.entry().action,
        at(500),
        at(950),
        at(990),
        at(999),
    );
    Ok(())
}

/// A request with a vote in its history, and the next vote.
fn request(policy: &ActionPolicy) -> anyhow::Result<(Request, Event)> {
    let at = Timestamp::from_millis(1_772_366_400_000);
    let id = RequestId::new(at, 1, 1);
    let entry = policy.entry();
    let params = serde_json::json!({ "ref": "v1.42.0", "replicas": 3, "service": "billing", "secret": "s" });
    let params = params.as_object().cloned().unwrap_or_default();
    let (shown, redacted) = entry.redact.apply(params.clone());
    let submission = Submission {
        action: entry.action.clone(),
        rules: "deploy".into(),
        lineage: id,
        depth: 0,
        rerequested_by: None,
        caller: None,
        requester_is: None,
        owners: Default::default(),
        rerequester_is: None,
        requester: Party { id: "U0CAROLINE".to_owned(), source: "slack".to_owned(), display: None },
        requester_groups: Default::default(),
        origin: Origin { repo: "acme/billing".to_owned(), branch: None, pr: None, run_id: None },
        justification: "Release of the week".to_owned(),
        links: Vec::new(),
        policy_hints: None,
        params: shown,
        redacted,
        digests: parameter_digests(&params),
        payload_hash_version: PayloadHashVersion::One,
        salt: None,
        policy_hash: policy.hash(),
        token_hash: Digest::of(b"token"),
        submitted_at: at,
        expires_at: at.plus(entry.timeout_ms),
        escalate_at: None,
        unattended: false,
        consent: Default::default(),
        terms: Default::default(),
        supersede: Default::default(),
        gate: None,
    };
    let memos = policy.admit(id, &submission, &params, |_| None).map_err(|why| anyhow::anyhow!("{why:?}"))?;
    let event = |seq: u32, by: Option<&str>, act| Event {
        seq,
        at: at.plus(u64::from(seq) * 1000),
        by: by.map(|by| entry.actor(by, &Directory::default(), at)),
        act,
    };
    let vote = || Act::Approve { edits: Vec::new() };
    let history = vec![event(0, None, Act::Submitted), event(1, Some("U0ALICE"), vote())];
    let request = Request {
        id,
        version: 2,
        submission: Arc::new(submission),
        memos: memos.into(),
        history,
        needs: Needs::default(),
        superseded: Vec::new(),
        trace: None,
        state: State::Open(Open::default()),
    };
    Ok((request, event(2, Some("U0BOB"), vote())))
}

fn micros(time: Option<Duration>) -> f64 {
    time.unwrap_or_default().as_secs_f64() * 1e6
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}
