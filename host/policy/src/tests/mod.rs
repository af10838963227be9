//! The policy engine on real modules, and on small ones that do one thing wrong.

mod actions;
mod caching;
mod modules;
mod sandbox;
mod schemas;
mod sets;
mod trust;
mod warnings;

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::{ActionPolicy, Engine, Limits, Module};
use countersign_core::lifecycle::{
    Act, Actor, Digest, Event, Needs, Open, Origin, Party, PayloadHashVersion, Request, RequestId, State,
    Submission, Timestamp, parameter_digests,
};
use countersign_core::record::{PolicyEntry, PolicyUse, Redaction};

const SUBMITTED_AT: Timestamp = Timestamp::from_millis(1_772_366_400_000);

/// One engine for most tests, so that each module is compiled once.
fn engine() -> Engine {
    static ENGINE: LazyLock<(Engine, Vec<Arc<Module>>)> = LazyLock::new(|| {
        let engine = fresh_engine();
        let names = ["quorum", "persona-gate", "override-guard", "misbehaving"];
        let modules = names.map(|name| module(&engine, name)).into();
        (engine, modules)
    });
    ENGINE.0.clone()
}

/// With fuel enough to fill the memory, and a deadline that a busy machine does not reach.
fn fresh_engine() -> Engine {
    let limits = Limits { fuel: 100_000_000, deadline_ms: 60_000, concurrent_calls: 4, ..Limits::default() };
    Engine::new(limits, None, crate::Trust::default()).unwrap()
}

/// The bytes of a module of this workspace.
fn bytes_of(module: &str) -> Vec<u8> {
    countersign_test_modules::bytes(module)
}

fn module(engine: &Engine, name: &str) -> Arc<Module> {
    engine.load(&bytes_of(name), &[]).unwrap()
}

/// An action with these policies, which shows every parameter.
fn action(engine: &Engine, policies: &[(&str, Value)]) -> ActionPolicy {
    let modules: Vec<Arc<Module>> = policies.iter().map(|(name, _)| module(engine, name)).collect();
    let uses = policies.iter().zip(&modules).map(|((name, config), module)| PolicyUse {
        name: (*name).to_owned(),
        digest: module.digest(),
        config: config.clone(),
    });
    let entry = PolicyEntry {
        action: "deploy".to_owned(),
        description: String::new(),
        timeout_ms: 600_000,
        channel: None,
        escalate: None,
        redact: Redaction::Hide(["secret".to_owned()].into()),
        rerequest: None,
        unattended: false,
        consent: Default::default(),
        notify: false,
        terms: Default::default(),
        supersede: Default::default(),
        unsatisfiable: Default::default(),
        schema: None,
        groups: [("admins".to_owned(), ["U0ADMIN".to_owned()].into())].into(),
        policies: uses.collect(),
    };
    let find = |digest: &Digest| modules.iter().find(|module| module.digest() == *digest).cloned();
    ActionPolicy::new(entry, find).unwrap()
}

fn params() -> Map<String, Value> {
    json!({ "ref": "v1", "replicas": 3, "secret": "hunter2" }).as_object().unwrap().clone()
}

fn submission(policy: &ActionPolicy) -> Submission {
    let (shown, redacted) = policy.entry().redact.apply(params());
    Submission {
        action: "deploy".to_owned(),
        rules: "deploy".into(),
        lineage: id(),
        depth: 0,
        rerequested_by: None,
        caller: None,
        requester_is: None,
        owners: Default::default(),
        rerequester_is: None,
        requester: Party { id: "U0REQUESTER".to_owned(), source: "slack".to_owned(), display: None },
        requester_groups: Default::default(),
        origin: Origin { repo: "acme/shop".to_owned(), branch: None, pr: None, run_id: None },
        justification: "because".to_owned(),
        links: Vec::new(),
        policy_hints: None,
        params: shown,
        redacted,
        digests: parameter_digests(&params()),
        payload_hash_version: PayloadHashVersion::One,
        salt: None,
        policy_hash: policy.hash(),
        token_hash: Digest::of(b"token"),
        submitted_at: SUBMITTED_AT,
        expires_at: SUBMITTED_AT.plus(600_000),
        escalate_at: None,
        unattended: false,
        consent: Default::default(),
        terms: Default::default(),
        supersede: Default::default(),
        gate: None,
    }
}

fn id() -> RequestId {
    RequestId::new(SUBMITTED_AT, 7, 7)
}

/// An admitted request with this history.
fn request(policy: &ActionPolicy, history: Vec<Event>) -> Request {
    let submission = submission(policy);
    let memos = policy.admit(id(), &submission, &params(), |_| None).unwrap();
    Request {
        id: id(),
        version: 1,
        submission: Arc::new(submission),
        memos: memos.into(),
        history,
        needs: Needs::default(),
        superseded: Vec::new(),
        trace: None,
        state: State::Open(Open::default()),
    }
}

fn submitted() -> Event {
    Event { seq: 0, at: SUBMITTED_AT, by: None, act: Act::Submitted }
}

fn act(seq: u32, by: &str, act: Act) -> Event {
    let by = Actor { id: by.to_owned(), groups: Default::default(), groups_as_of: None, ..Actor::default() };
    Event { seq, at: SUBMITTED_AT.plus(u64::from(seq) * 1000), by: Some(by), act }
}

fn approve(seq: u32, by: &str) -> Event {
    act(seq, by, Act::Approve { edits: Vec::new() })
}
