//! Requests and records for tests: this crate's, and those of crates that use a store.

#![expect(missing_docs, reason = "the names say what the fixtures are")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::lifecycle::{
    Act, Actor, AuditEntry, Commitments, Consumption, Count, Decided, Digest, Effect, Event, Needs, Open,
    Origin, Party, Request, RequestId, Requirement, RequirementKind, Salt, State, Submission, Timestamp,
    WrappedSalt,
};
use countersign_core::record::{
    AdminCall, Authentication, ChangeKind, ChangeOutcome, ChangeTrigger, Escalate, PolicyChange, PolicyEntry,
    PolicyUse, Redaction,
};
use countersign_core::trace::{TraceContext, TraceParent};
use serde_json::{Map, Value, json};

use crate::*;

pub fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_772_366_400_000 + millis)
}

/// The ids of some numbers each are in one shard, in the order of the numbers.
pub fn id(number: u64) -> RequestId {
    id_in(u16::try_from(number / 8).unwrap(), number)
}

pub fn id_in(shard: u16, number: u64) -> RequestId {
    RequestId::new(at(0), shard, number)
}

/// A claim that no other one is taken for.
pub fn claim(now: Timestamp, until: Timestamp) -> Claim {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Claim { id: NEXT.fetch_add(1, Ordering::Relaxed), now, until }
}

pub fn key(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

pub fn fingerprint(request: &Request) -> Digest {
    Digest::of(&request.id.to_bytes())
}

/// What stands for an encrypted salt; nobody decrypts it.
pub fn wrapped_salt(number: u64) -> WrappedSalt {
    WrappedSalt { key: "0a1b2c3d".into(), sealed: Digest::of(&number.to_le_bytes()).as_bytes().to_vec() }
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// A new open request, submitted at `at(0)`.
pub fn request(number: u64) -> Request {
    request_at(number, at(0))
}

/// As [`request`], in this shard.
pub fn request_in(shard: u16, number: u64) -> Request {
    let mut request = Request { id: id_in(shard, number), ..request(number) };
    Arc::make_mut(&mut request.submission).lineage = request.id;
    request
}

pub fn request_at(number: u64, made: Timestamp) -> Request {
    let params = object(json!({ "ref": "v1", "replicas": 3 }));
    let Commitments { version, digests, salt } =
        Commitments::salted(&params, &Salt::new([9; 32]), wrapped_salt(number));
    let submission = Submission {
        action: "deploy".into(),
        rules: "deploy".into(),
        lineage: id(number),
        depth: 0,
        rerequested_by: None,
        caller: None,
        requester_is: None,
        owners: Default::default(),
        rerequester_is: None,
        requester: Party { id: "ci".into(), source: "github".into(), display: Some("CI".into()) },
        requester_groups: Default::default(),
        origin: Origin { repo: "acme/shop".into(), branch: None, pr: Some(json!(12)), run_id: None },
        justification: "because".into(),
        links: vec![],
        policy_hints: Some(json!({ "hint": 1 })),
        digests,
        payload_hash_version: version,
        salt,
        params,
        redacted: BTreeSet::new(),
        policy_hash: Digest::of(b"policy"),
        token_hash: Digest::of(&number.to_be_bytes()),
        submitted_at: made,
        expires_at: made.plus(600_000),
        escalate_at: None,
        unattended: false,
        consent: Default::default(),
        terms: Default::default(),
        supersede: Default::default(),
        gate: None,
    };
    Request {
        id: id(number),
        version: 1,
        submission: Arc::new(submission),
        memos: Arc::from(["{}".to_owned()]),
        history: vec![Event { seq: 0, at: made, by: None, act: Act::Submitted }],
        needs: Needs { approvals: vec![2], personas: vec![] },
        superseded: Vec::new(),
        trace: trace(number),
        state: open(1),
    }
}

/// Where every other request is traced.
fn trace(number: u64) -> Option<TraceContext> {
    let parent = TraceParent { trace: [7; 16], span: number.to_be_bytes(), sampled: true };
    (number > 0 && number.is_multiple_of(2)).then(|| TraceContext { parent, state: Some("rojo=1".into()) })
}

/// A re-request of `first`, at this depth of its lineage.
pub fn again(first: &Request, number: u64, depth: u32) -> Request {
    let mut request = Request { id: id_in(first.id.shard(), number), ..first.clone() };
    let submission = Arc::make_mut(&mut request.submission);
    (submission.lineage, submission.depth) = (first.id, depth);
    request
}

/// The request's next version: with one more event, and with `change` applied.
pub fn next(request: &Request, now: Timestamp, change: impl FnOnce(&mut Request)) -> Request {
    let mut request = request.clone();
    request.version += 1;
    let by = Some(Actor {
        id: "U1".into(),
        groups: ["group".into()].into(),
        groups_as_of: None,
        ..Actor::default()
    });
    let seq = request.history.len() as u32;
    request.history.push(Event { seq, at: now, by, act: Act::Approve { edits: vec![] } });
    change(&mut request);
    request
}

/// Open; an approval and the acknowledgements of this many personas are missing.
pub fn open(personas: u8) -> State {
    let requirement = |kind, label: String| Requirement {
        kind,
        label,
        have: 0,
        need: 1,
        eligible: vec!["U1".into(), "@group".into()],
        excluded: Vec::new(),
    };
    let acknowledgements = (0..personas)
        .map(|persona| requirement(RequirementKind::Acknowledgement, format!("persona {persona}")));
    let approval = requirement(RequirementKind::Approval, "an approval".into());
    State::Open(Open { requirements: acknowledgements.chain([approval]).collect(), ..Open::default() })
}

pub fn approved(at: Timestamp) -> State {
    State::Approved { decided: Decided { at, by: Some("U1".into()), reason: None }, consumed: None }
}

/// The next version of an approved request: its approval was consumed.
pub fn consumed(request: &Request, at: Timestamp) -> Request {
    let State::Approved { decided, .. } = &request.state else { panic!("it is {}", request.status()) };
    let consumed = Consumption { at, by: None, repeat: None, report: None };
    let state = State::Approved { decided: decided.clone(), consumed: Some(consumed) };
    Request { version: request.version + 1, state, ..request.clone() }
}

pub fn denied(at: Timestamp) -> State {
    State::Denied(Decided { at, by: None, reason: Some("no".into()) })
}

pub fn audit(request: &Request, event: &str) -> AuditEntry {
    AuditEntry {
        at: request.history.last().unwrap().at,
        event: event.into(),
        action: request.submission.action.clone(),
        request: Some(request.id),
        status: Some(request.status()),
        actor: None,
        policy_hash: Some(request.submission.policy_hash),
        payload_hash: Some(request.payload_hash()),
        detail: object(json!({ "decision": "none" })),
    }
}

/// Stores a new request with one audit entry, one effect and one count.
pub fn new(request: &Request) -> Create {
    Create {
        request: request.clone(),
        idempotency: None,
        most_open: MostOpen::default(),
        nonce: None,
        audit: vec![audit(request, "created")],
        effects: vec![Effect::ShowRequest],
        dispatches: Vec::new(),
        counts: vec![Count::one("approval_requests_total", &[("action", &request.submission.action)])],
    }
}

pub fn with_key(request: &Request, key: u64, until: Timestamp) -> Create {
    let fingerprint = fingerprint(request);
    let idempotency = Some(Idempotency { key: self::key(key), fingerprint, until });
    Create { idempotency, ..new(request) }
}

/// Stores a request's next version with one audit entry, one effect and one count.
pub fn change(request: &Request) -> Commit {
    Commit {
        request: request.clone(),
        nonce: None,
        audit: vec![audit(request, "changed")],
        effects: vec![Effect::ShowRequest],
        dispatches: Vec::new(),
        counts: vec![Count::one("events_total", &[("action", &request.submission.action)])],
    }
}

/// A nonce that is stored in shard 0 from `at(0)` to `at(until)`; that of `number` plus 100 excludes it.
pub fn nonce(number: u64, until: u64) -> Nonce {
    Nonce { shard: 0, digest: key(number), excluded_by: key(number + 100), at: at(0), until: at(until) }
}

/// A policy set with an entry for each of these actions.
pub fn stored_set(actions: &[&str], stored_at: Timestamp) -> StoredSet {
    let entries = actions.iter().map(|action| ((*action).to_owned(), Digest::of(action.as_bytes())));
    let entries: BTreeMap<_, _> = entries.collect();
    StoredSet { hash: Digest::of_json(&json!(entries)), entries, stored_at }
}

/// A change by an admin that puts the set `to` in force.
pub fn change_of(now: u64, from: Option<Digest>, to: Digest) -> PolicyChange {
    PolicyChange {
        at: at(now),
        what: ChangeKind::Activate,
        trigger: ChangeTrigger::Api,
        actor: Some("ada".into()),
        call: Some(AdminCall {
            authentication: Authentication::ApiKey,
            address: Ipv4Addr::new(192, 0, 2, 7).into(),
            claimed_actor: Some("grace".into()),
        }),
        outcome: ChangeOutcome::Ok,
        from,
        to: Some(to),
        folder: Some(Digest::of(b"folder")),
        signed_by: vec!["MCow".into()],
        faults: vec![],
    }
}

/// Stores a change with its own audit entry and counts.
pub fn changing(change: &PolicyChange) -> ChangePolicy {
    ChangePolicy { change: change.clone(), audit: vec![change.audit()], counts: change.counts() }
}

/// A policy entry for the action.
pub fn policy_entry(action: &str) -> PolicyEntry {
    let config = json!({ "approvals": 2, "share": 0.1, "nested": { "b": [1, null], "a": "é" } });
    PolicyEntry {
        action: action.into(),
        description: "to be tested".into(),
        timeout_ms: 600_000,
        channel: None,
        escalate: None,
        redact: Redaction::Show(["ref".to_owned()].into()),
        rerequest: None,
        unattended: false,
        consent: Default::default(),
        notify: false,
        terms: Default::default(),
        supersede: Default::default(),
        unsatisfiable: Default::default(),
        schema: Some(json!({ "type": "object" })),
        groups: BTreeMap::from([("group".to_owned(), BTreeSet::from(["U1".to_owned()]))]),
        policies: vec![PolicyUse { name: "quorum".into(), digest: Digest::of(b"module"), config }],
    }
}

/// A policy entry whose messages go to the channel `C1`, and whose escalations go to `C9`.
pub fn entry_with_channels() -> PolicyEntry {
    PolicyEntry {
        channel: Some("C1".into()),
        escalate: Some(Escalate { before_ms: 1, channel: Some("C9".into()), mention: None }),
        ..policy_entry("deploy")
    }
}
