//! Measures a store alone: 32 callers that create requests, then read them, then vote on them.
//!
//! `cargo run --release -p countersign-store --example store_throughput -- [SECONDS] [DIRECTORY | URL [REPLICAS]]`
//!
//! It prints the durable writes per second, the latency percentiles of a write, and what each has taken: of the embedded
//! store, in a directory, the processor time of the writer thread (on Linux); of a Redis, whose URL is given, its processor
//! time, scripts and commands, bytes, and memory. With a number of replicas, each write waits for them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use countersign_core::lifecycle::{
    Act, Actor, AuditEntry, Count, Digest, Effect, Event, Needs, Open, Origin, Party, Request, RequestId,
    Requirement, RequirementKind, State, Status, Submission, Timestamp,
};
use countersign_store::{
    Commit, Committed, Create, Created, Durability, MostOpen, RedisOptions, RedisStore, SqliteStore, Store,
};
use serde_json::json;

const CALLERS: u64 = 32;
const START: u64 = 1_772_366_400_000;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().map_or(Ok(5), |text| text.parse()).context("SECONDS is no number")?;
    let target = args.next();
    let directory = match target.as_deref().filter(|target| !target.starts_with("redis")) {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let path = directory.path().join("throughput.db");
    let (store, redis): (Arc<dyn Store>, Option<Redis>) = match target {
        Some(url) if url.starts_with("redis") => {
            let namespace = format!("bench-{:08x}", std::process::id());
            let durability = match args.next() {
                Some(replicas) => {
                    let replicas = replicas.parse().context("REPLICAS is no number")?;
                    Durability::Replicas { replicas, timeout: Duration::from_secs(1) }
                }
                None => Durability::Primary,
            };
            let options = RedisOptions { namespace, durability, ..RedisOptions::new(url.parse()?) };
            (Arc::new(RedisStore::open(options).await?), Some(Redis::of(&url).await?))
        }
        _ => (Arc::new(SqliteStore::open(&path)?), None),
    };
    let redis = redis.as_ref();

    let span = Duration::from_secs(seconds);
    let made = Arc::new(AtomicU64::new(0));
    let numbers = Arc::clone(&made);
    let create = move |store: Arc<dyn Store>, _: u64| {
        let made = Arc::clone(&numbers);
        async move { create(&*store, made.fetch_add(1, Ordering::Relaxed)).await }
    };
    measure("create", &store, redis, span, create).await?;
    let made = made.load(Ordering::Relaxed);
    let read = move |store: Arc<dyn Store>, number: u64| async move {
        store.request(id(number % made)).await?.context("a stored request is gone").map(drop)
    };
    measure("read", &store, redis, span, read).await?;
    let vote = move |store: Arc<dyn Store>, number: u64| async move { vote(&*store, number % made).await };
    measure("read and vote", &store, redis, span, vote).await?;

    for suffix in ["", "-wal"] {
        let file = format!("{}{suffix}", path.display());
        if let Ok(metadata) = Path::new(&file).metadata() {
            let name = if suffix.is_empty() { "database" } else { "log" };
            println!("{name}: {:.1} MiB", metadata.len() as f64 / 1_048_576.0);
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
async fn measure<F, R>(
    name: &str,
    store: &Arc<dyn Store>,
    redis: Option<&Redis>,
    span: Duration,
    work: F,
) -> anyhow::Result<()>
where
    F: Fn(Arc<dyn Store>, u64) -> R,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
    F: Clone + Send + 'static,
{
    let before = writer_time();
    let usage = match redis {
        Some(redis) => Some((redis, redis.usage().await?)),
        None => None,
    };
    let began = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (work, store) = (work.clone(), Arc::clone(store));
        callers.spawn(async move {
            let mut took = Vec::new();
            let mut number = caller;
            while began.elapsed() < span {
                let asked = Instant::now();
                work(Arc::clone(&store), number).await?;
                took.push(asked.elapsed());
                number += CALLERS;
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(caller) = callers.join_next().await {
        took.extend(caller??);
    }
    let elapsed = began.elapsed();
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    let rate = took.len() as f64 / elapsed.as_secs_f64();
    print!("{name}: {rate:.0} a second; p50 {:.2?}, p99 {:.2?}, p99.9 {:.2?}", at(0.5), at(0.99), at(0.999));
    if let Some(after) = writer_time() {
        // At the beginning the thread may have had no name yet.
        let before = before.unwrap_or_default();
        print!("; {:.1} µs of the writer each", (after - before).as_secs_f64() * 1e6 / took.len() as f64);
    }
    println!();
    if let Some((redis, before)) = usage {
        redis.usage().await?.print_since(&before, took.len());
    }
    Ok(())
}

/// The Redis that is measured, beside the store.
struct Redis(redis::aio::MultiplexedConnection);

/// What a Redis has used since it was started.
struct Usage {
    cpu_secs: f64,
    memory: f64,
    received: f64,
    sent: f64,
    scripts: f64,
    commands: f64,
}

impl Redis {
    async fn of(url: &str) -> anyhow::Result<Redis> {
        Ok(Redis(redis::Client::open(url)?.get_multiplexed_async_connection().await?))
    }

    async fn usage(&self) -> anyhow::Result<Usage> {
        let mut connection = self.0.clone();
        let mut info = redis::cmd("INFO");
        info.arg("everything");
        let info: String = info.query_async(&mut connection).await?;
        let lines = || info.lines().filter_map(|line| line.split_once(':'));
        let number = |name: &str| {
            let found = lines().find(|(field, _)| *field == name);
            found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0.0)
        };
        let calls = |(field, value): (&str, &str)| -> Option<(bool, f64)> {
            let command = field.strip_prefix("cmdstat_")?;
            let calls = value.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
            Some((command == "evalsha" || command == "eval", calls))
        };
        let sum = |scripts| lines().filter_map(calls).filter(|it| it.0 == scripts).map(|it| it.1).sum();
        Ok(Usage {
            cpu_secs: number("used_cpu_user") + number("used_cpu_sys"),
            memory: number("used_memory"),
            received: number("total_net_input_bytes"),
            sent: number("total_net_output_bytes"),
            scripts: sum(true),
            commands: sum(false),
        })
    }
}

impl Usage {
    fn print_since(&self, before: &Usage, count: usize) {
        let each = |after: f64, before: f64| (after - before) / count as f64;
        println!(
            "    of Redis each: {:.1} µs of CPU, {:.1} scripts with {:.1} commands, {:.0} bytes in, {:.0} out, {:.0} of memory",
            each(self.cpu_secs, before.cpu_secs) * 1e6,
            each(self.scripts, before.scripts),
            each(self.commands, before.commands),
            each(self.received, before.received),
            each(self.sent, before.sent),
            each(self.memory, before.memory),
        );
    }
}

/// The processor time used by the writer thread.
fn writer_time() -> Option<Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let writer = tasks.flatten().map(|task| task.path()).find(|task| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "store-writer")
    })?;
    let ran = std::fs::read_to_string(writer.join("schedstat")).ok()?;
    ran.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

async fn create(store: &dyn Store, number: u64) -> anyhow::Result<()> {
    let request = request(number);
    let entry = audit(&request, "created");
    let counts = vec![Count::one("approval_requests_total", &[("action", "deploy_prod")])];
    let effects = vec![Effect::ShowRequest];
    let new = Create {
        request,
        idempotency: None,
        most_open: MostOpen::default(),
        nonce: None,
        audit: vec![entry],
        effects,
        dispatches: Vec::new(),
        counts,
    };
    anyhow::ensure!(store.create(new).await? == Created::New, "a fresh request was not new");
    Ok(())
}

async fn vote(store: &dyn Store, number: u64) -> anyhow::Result<()> {
    let mut request = store.request(id(number)).await?.context("a stored request is gone")?;
    request.version += 1;
    let seq = u32::try_from(request.history.len())?;
    let by = Some(Actor {
        id: "U0REL1".into(),
        groups: ["release-managers".into()].into(),
        groups_as_of: None,
        ..Actor::default()
    });
    let act = Act::Approve { edits: Vec::new() };
    request.history.push(Event { seq, at: Timestamp::from_millis(START + 1000), by, act });
    let entry = audit(&request, "approve");
    let counts = vec![Count::one("approvals_total", &[("action", "deploy_prod")])];
    let effects = vec![Effect::ShowRequest];
    let commit = Commit { request, nonce: None, audit: vec![entry], effects, dispatches: vec![], counts };
    // After a full round, two callers may vote on the same request; then one gets a conflict.
    let committed = store.commit(commit).await?;
    anyhow::ensure!(committed != Committed::Repeated, "a vote without a nonce was taken for a repeated one");
    Ok(())
}

fn id(number: u64) -> RequestId {
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RequestId::new(Timestamp::from_millis(START + number / 10), 0, random)
}

fn audit(request: &Request, event: &str) -> AuditEntry {
    let detail = json!({ "requester": "ci-bot", "channel": "C0PRIVATE" });
    AuditEntry {
        at: request.submission.submitted_at,
        event: event.to_owned(),
        action: request.submission.action.clone(),
        request: Some(request.id),
        status: Some(Status::AwaitingPersonas),
        actor: None,
        policy_hash: Some(request.submission.policy_hash),
        payload_hash: Some(request.payload_hash()),
        detail: detail.as_object().cloned().unwrap_or_default(),
    }
}

fn request(number: u64) -> Request {
    let at = Timestamp::from_millis(START + number / 10);
    let id = id(number);
    let params = json!({ "ref": "refs/tags/v1.42.0", "replicas": number % 7, "region": "eu-west-1" });
    let params = params.as_object().cloned().unwrap_or_default();
    let submission = Submission {
        action: "deploy_prod".into(),
        rules: "deploy".into(),
        lineage: id,
        depth: 0,
        rerequested_by: None,
        caller: None,
        requester_is: None,
        owners: Default::default(),
        rerequester_is: None,
        requester: Party { id: "ci-bot".into(), source: "github".into(), display: None },
        requester_groups: Default::default(),
        origin: Origin {
            repo: "acme/shop".into(),
            branch: Some("main".into()),
            pr: Some(json!(1234)),
            run_id: Some(json!("987654321")),
        },
        justification: "Ship the fix for the checkout outage of this morning".into(),
        links: Vec::new(),
        policy_hints: None,
        digests: countersign_core::lifecycle::parameter_digests(&params),
        payload_hash_version: countersign_core::lifecycle::PayloadHashVersion::One,
        salt: None,
        params,
        redacted: [].into(),
        policy_hash: Digest::of(b"policy"),
        token_hash: Digest::of(&number.to_be_bytes()),
        submitted_at: at,
        expires_at: at.plus(1_200_000),
        escalate_at: Some(at.plus(900_000)),
        unattended: false,
        consent: Default::default(),
        terms: Default::default(),
        supersede: Default::default(),
        gate: None,
    };
    let requirement = |kind, label: &str, eligible: &[&str]| Requirement {
        kind,
        label: label.into(),
        have: 0,
        need: 1,
        eligible: eligible.iter().map(|id| (*id).to_owned()).collect(),
        excluded: Vec::new(),
    };
    let open = Open {
        requirements: vec![
            requirement(RequirementKind::Acknowledgement, "security", &["U0SEC1", "U0SEC2"]),
            requirement(RequirementKind::Approval, "2 of 3", &["U0REL1", "U0REL2", "@release-managers"]),
        ],
        editable: ["replicas".into()].into(),
        escalation: countersign_core::lifecycle::Escalation::At(at.plus(900_000)),
        wake_at: None,
        superseding: false,
    };
    Request {
        id,
        version: 1,
        submission: Arc::new(submission),
        memos: Arc::from([String::new(), String::new(), String::new()]),
        history: vec![Event { seq: 0, at, by: None, act: Act::Submitted }],
        needs: Needs { approvals: vec![0, 2, 0], personas: vec!["security".into()] },
        superseded: Vec::new(),
        trace: None,
        state: State::Open(open),
    }
}
