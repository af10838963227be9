//! Stories about one policy, in YAML: a setting, what happens, and what is expected to come of it.
//!
//! `read` makes them of a file, `play` tells them to a module in the gateway's own sandbox. A story is about one
//! module alone, as a scenario of the SDK is: whether an act counts once other policies have their say too is shown
//! by `countersign policy judge`.

mod claim;
mod play;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::event::Event;
use super::synthetic;
use countersign_core::lifecycle::{FailureKind, RequirementKind};
use countersign_core::record::Redaction;
use countersign_gateway::Intent;
use countersign_policy::Module;
use countersign_policy::decide::Ask;

pub(crate) use claim::Mismatch;
pub(crate) use play::{Calls, Played, StoryLine, play};
#[cfg(test)]
pub(crate) use read::parse;
pub(crate) use read::read;

/// A story.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// Where it begins in its file.
    pub(crate) line: u64,
    setting: Setting,
    /// JSON Pointers to every fault of the configuration; the story is told already, then.
    config_refused: Option<Vec<String>>,
    /// What comes of making the request.
    expect: Option<Expect>,
    events: Vec<Step>,
}

impl Scenario {
    /// A story for measuring a module of which nothing is known but what it says of itself: a configuration that its
    /// schema takes, where one is easily made up, and a few acts of one person. Nothing is expected of it.
    pub(crate) fn made_up(module: &Module) -> Scenario {
        let step = |intent: Intent| Step {
            line: 0,
            event: Event { at_ms: None, by: Some("a".to_owned()), intent },
            expect: None,
        };
        Scenario {
            name: "a made-up story".to_owned(),
            line: 0,
            setting: Setting {
                config: module.made_up_config().unwrap_or_else(|| Value::Object(Map::new())),
                groups: BTreeMap::new(),
                ask: synthetic::ask(ACTION),
                depth: 0,
                redact: Redaction::Hide(BTreeSet::new()),
                schema: None,
                timeout_ms: 600_000,
                granted_elsewhere: true,
            },
            config_refused: None,
            expect: None,
            events: vec![step(Intent::approve()), step(Intent::Withdraw)],
        }
    }
}

/// The action of every scenario.
const ACTION: &str = "scenario";

/// What is so before anything happens.
#[derive(Clone, Debug)]
struct Setting {
    config: Value,
    groups: BTreeMap<String, BTreeSet<String>>,
    ask: Ask,
    /// How many requests of the same lineage came before.
    depth: u32,
    redact: Redaction,
    /// JSON Schema of the parameters, which edits are checked against.
    schema: Option<Value>,
    timeout_ms: u64,
    /// Another policy grants every act, so that what this one does not refuse counts.
    granted_elsewhere: bool,
}

/// Something that happens, and what is expected to come of it.
#[derive(Clone, Debug)]
struct Step {
    line: u64,
    event: Event,
    expect: Option<Expect>,
}

/// What is expected of one event.
#[derive(Clone, Debug)]
struct Expect {
    line: u64,
    outcome: Option<Wanted>,
    grants: Option<bool>,
    editable: Option<BTreeSet<String>>,
    /// Milliseconds after the submission; `None` within for no wish to be woken.
    wake_at: Option<Option<u64>>,
    memo: Option<Value>,
}

/// What an event should come to.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Satisfied,
    /// With exactly these requirements, where any are given.
    Waiting(Option<Vec<WantedRequirement>>),
    Denied(WantedReason),
    /// It is neither refused nor granted, and does not count.
    Silent,
    /// With exactly these reasons, in any order, where any are given.
    Refused(Option<Vec<WantedReason>>),
    /// The policy gives no usable answer.
    Fails(FailureKind),
}

/// What is said of a requirement; the rest may be anything.
#[derive(Clone, Debug, Default, PartialEq)]
struct WantedRequirement {
    kind: Option<RequirementKind>,
    label: Option<String>,
    have: Option<u32>,
    need: Option<u32>,
    eligible: Option<BTreeSet<String>>,
}

/// What is said of a reason; the rest may be anything.
#[derive(Clone, Debug, Default, PartialEq)]
struct WantedReason {
    code: Option<String>,
    message: Option<String>,
    path: Option<String>,
}
