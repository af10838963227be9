//! Scenario tests of one policy, in YAML: a setting, a sequence of events, and the expected outcomes.
//!
//! `read` parses a file, and `play` runs scenarios against a module in the gateway's sandbox.
//! A scenario tests one module alone, as the SDK's scenarios do; `countersign policy judge` evaluates a whole policy set.

mod claim;
mod play;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::lifecycle::{FailureKind, RequirementKind};
use countersign_core::record::Redaction;
use countersign_gateway::Intent;
use countersign_policy::Module;
use serde_json::{Map, Value};

use crate::event::Event;
use crate::synthetic::{Somebody, SyntheticRequest};

pub(crate) use self::claim::Mismatch;
pub(crate) use self::play::{Calls, Played, PlayedStep, play};
#[cfg(test)]
pub(crate) use self::read::parse;
pub(crate) use self::read::read;

/// A scenario test.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The line in its file on which it starts.
    pub(crate) line: u64,
    setting: Setting,
    /// JSON Pointers to every fault that the configuration should have. If given, no request is made.
    config_refused: Option<Vec<String>>,
    /// The expected outcome of the submission.
    expect: Option<Expect>,
    events: Vec<Step>,
}

impl Scenario {
    /// A synthetic scenario, to measure a module for which there are no scenarios: a generated configuration that its
    /// schema accepts, if there is a simple one, and two acts of one person. It expects nothing.
    pub(crate) fn synthetic(module: &Module) -> Scenario {
        let step = |intent: Intent| Step {
            line: 0,
            event: Event { at_ms: None, by: Some("a".to_owned()), intent },
            expect: None,
        };
        Scenario {
            name: "a synthetic scenario".to_owned(),
            line: 0,
            setting: Setting {
                config: module.synthetic_config().unwrap_or_else(|| Value::Object(Map::new())),
                groups: BTreeMap::new(),
                request: SyntheticRequest::new(ACTION, Somebody::default()),
                redact: Redaction::Hide(BTreeSet::new()),
                schema: None,
                timeout_ms: 600_000,
                granted_elsewhere: true,
                editable_elsewhere: BTreeSet::new(),
            },
            config_refused: None,
            expect: None,
            events: vec![step(Intent::approve()), step(Intent::Withdraw)],
        }
    }
}

/// The action of every scenario.
const ACTION: &str = "scenario";

/// The state before the first event.
#[derive(Clone, Debug)]
struct Setting {
    config: Value,
    groups: BTreeMap<String, BTreeSet<String>>,
    request: SyntheticRequest,
    redact: Redaction,
    /// The JSON Schema that edited parameters are validated against.
    schema: Option<Value>,
    timeout_ms: u64,
    /// Whether another policy is assumed to grant every act, so that acts which this one does not refuse are counted.
    granted_elsewhere: bool,
    /// The parameters that another policy is assumed to let people edit.
    editable_elsewhere: BTreeSet<String>,
}

/// An event and its expected outcome.
#[derive(Clone, Debug)]
struct Step {
    line: u64,
    event: Event,
    expect: Option<Expect>,
}

/// What is expected of one event; `None` fields are not compared.
#[derive(Clone, Debug)]
struct Expect {
    line: u64,
    outcome: Option<Wanted>,
    grants: Option<bool>,
    editable: Option<BTreeSet<String>>,
    /// Milliseconds after the submission; `Some(None)` if the policy should not ask to be woken.
    wake_at: Option<Option<u64>>,
    memo: Option<Value>,
}

/// The expected outcome of an event.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Satisfied,
    /// With exactly these requirements, if any are given.
    Waiting(Option<Vec<WantedRequirement>>),
    Denied(WantedReason),
    /// Neither refused nor granted, and so not counted.
    Silent,
    /// With exactly these reasons, in any order, if any are given.
    Refused(Option<Vec<WantedReason>>),
    /// The policy fails.
    Fails(FailureKind),
}

/// An expected requirement; `None` fields are not compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct WantedRequirement {
    kind: Option<RequirementKind>,
    label: Option<String>,
    have: Option<u32>,
    need: Option<u32>,
    eligible: Option<BTreeSet<String>>,
}

/// An expected reason; `None` fields are not compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct WantedReason {
    code: Option<String>,
    message: Option<String>,
    path: Option<String>,
}
