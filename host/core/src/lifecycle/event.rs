//! What can happen to a request, and what a policy says of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::Digest;
use super::timestamp::Timestamp;

/// What kind of thing somebody is, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// A person: one of the access file, or a user of Slack.
    Person,
    /// A program.
    Machine,
    /// Nobody that is known: it may be an approver under another name.
    #[default]
    Unknown,
}

/// Who somebody is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The one id by which policies know them, whatever name they come under.
    pub id: String,
    /// What kind of thing they are.
    pub known: Known,
    /// Whether the name was proven, rather than asserted by whoever asks.
    pub authenticated: bool,
}

/// Somebody who acts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The one id by which policies know them: a person's name, or a Slack id.
    pub id: String,
    /// The name that they acted under, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// What kind of thing they are. Whoever acted before that was kept came from Slack.
    #[serde(default = "from_slack")]
    pub known: Known,
    /// Every group of the policy set that holds `id`, as found when the event happened.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Slack said so of some of them at this time, and could not be asked again since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_as_of: Option<Timestamp>,
}

fn from_slack() -> Known {
    Known::Person
}

/// One parameter that an approver wants changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// The top-level parameter.
    pub key: String,
    /// Its value so far; `None` if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub before: Option<Value>,
    /// Its value from now on; `None` if it goes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub after: Option<Value>,
    /// The commitment to `after` under the request's salt. `None` if the parameter goes, or if the request's payload hash
    /// has no salt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<Digest>,
    /// What was found when `after` was checked against the action's JSON Schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
}

/// A value that is there, though it be `null`: to set a parameter to `null` is not to remove it.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// The request was admitted. Always the first event, without an actor.
    Submitted,
    /// A persona was acknowledged.
    Acknowledge {
        /// The persona's name.
        persona: String,
    },
    /// Approved: as it stands if `edits` is empty, else with these edits.
    Approve {
        /// What the approver changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<Edit>,
    },
    /// Denied.
    Deny {
        /// Why, in the actor's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The actor takes back their own approval and acknowledgements.
    Withdraw,
    /// The escalation time passed.
    Escalated,
    /// The time that an earlier ruling asked to be woken at.
    Tick,
}

impl Act {
    /// The name that metrics and the audit log use.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Act::Submitted => "submitted",
            Act::Acknowledge { .. } => "acknowledge",
            Act::Approve { .. } => "approve",
            Act::Deny { .. } => "deny",
            Act::Withdraw => "withdraw",
            Act::Escalated => "escalated",
            Act::Tick => "tick",
        }
    }
}

/// An act, by whom, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the request's history, from 0.
    pub seq: u32,
    /// When it happened.
    pub at: Timestamp,
    /// Who acted; `None` for what happens by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// What was done.
    #[serde(flatten)]
    pub act: Act,
}

/// Why something is not allowed: `code` for machines and metrics, `message` for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A stable code, documented by the policy that gave it.
    pub code: String,
    /// What to tell a person.
    pub message: String,
    /// The parameter or configuration key that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What kind of thing is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequirementKind {
    /// Somebody must approve.
    Approval,
    /// A persona must be acknowledged.
    Acknowledgement,
    /// Some time must come.
    Time,
}

/// What is still missing before a policy is satisfied; shown to people as progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// What kind of thing is missing.
    pub kind: RequirementKind,
    /// What to call it; the persona's name for an acknowledgement.
    pub label: String,
    /// How many there are.
    pub have: u32,
    /// How many there must be.
    pub need: u32,
    /// Actor ids and `@group` names that can meet it.
    pub eligible: Vec<String>,
    /// Ids of people who may not meet it although `eligible` names them or a group of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
}

/// Where a request stands with one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The policy asks for nothing more.
    Satisfied,
    /// These are missing.
    Waiting(Vec<Requirement>),
    /// The policy ends it.
    Denied(Reason),
}

/// What a policy says of an event that it does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Whether the policy gives the actor the right to act so.
    pub grants: bool,
    /// Where the request stands once the event counts.
    pub standing: Standing,
    /// Parameters that an approver may edit from here on.
    pub editable: Vec<String>,
    /// When to judge again, should nothing happen before.
    pub wake_at: Option<Timestamp>,
}

/// What one policy answered when it was asked to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no objection.
    Ruled(Ruling),
    /// The event must not count, for these reasons.
    Refused(Vec<Reason>),
    /// It gave no usable answer, which never counts as consent.
    Failed(PolicyFailure),
}

/// A policy that gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy `{policy}` failed ({kind}): {detail}")]
pub struct PolicyFailure {
    /// The module's name.
    pub policy: String,
    /// How it failed.
    pub kind: FailureKind,
    /// What to tell an operator. Holds no parameter.
    pub detail: String,
}

/// How a policy failed; the values of the metric label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// It trapped: a panic, an overflowed stack, an instruction that must not be.
    Trap,
    /// It used up its fuel.
    Fuel,
    /// It ran past the deadline.
    Deadline,
    /// It asked for more memory than it may have.
    Memory,
    /// It answered with something that breaks the contract.
    Malformed,
}

impl FailureKind {
    /// Its code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureKind::Trap => "trap",
            FailureKind::Fuel => "fuel",
            FailureKind::Deadline => "deadline",
            FailureKind::Memory => "memory",
            FailureKind::Malformed => "malformed",
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
