//! What must happen because of a step: words for the audit log, work for the outbox, counts for the metrics.
//!
//! All of it is stored in the same atomic write as the request that caused it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::audit_event::AuditEvent;
use super::digest::Digest;
use super::id::RequestId;
use super::request::Status;
use super::timestamp::Timestamp;

/// Work that is delivered later, and surely. It names what is stale, not what to send:
/// whoever delivers it renders the newest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The request's message no longer shows its state.
    ShowRequest,
    /// The notices of the request's escalation are missing, or do not say how the request ended.
    NotifyEscalation,
    /// The same for the notices to those whose approvals edits have replaced.
    NotifyReplaced,
}

impl Effect {
    /// The name under which it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::ShowRequest => "show_request",
            Effect::NotifyEscalation => "notify_escalation",
            Effect::NotifyReplaced => "notify_replaced",
        }
    }
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it happened.
    pub at: Timestamp,
    /// What happened: one of [`AuditEvent`], or what another version called it.
    pub event: String,
    /// The action that was asked for.
    pub action: String,
    /// The request; `None` if none was made.
    #[serde(rename = "requestId", default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// The request's status after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Who did it; `None` for what happens by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The rules that it was judged by.
    #[serde(rename = "policy_hash", default, skip_serializing_if = "Option::is_none")]
    pub policy_hash: Option<Digest>,
    /// The parameters that it was about.
    #[serde(rename = "payload_hash", default, skip_serializing_if = "Option::is_none")]
    pub payload_hash: Option<Digest>,
    /// What else is to be known; of a decision, `decision` and `approvers`.
    #[serde(flatten)]
    pub detail: Map<String, Value>,
}

impl AuditEntry {
    /// SHA-256 of its canonical JSON (RFC 8785).
    #[must_use]
    pub fn digest(&self) -> Digest {
        // It is made of strings, numbers and JSON values: it always serialises.
        Digest::of_json(&serde_json::to_value(self).unwrap_or_default())
    }

    /// An entry that concerns no request, and no action.
    #[must_use]
    pub fn of_admin(
        at: Timestamp,
        event: AuditEvent,
        actor: Option<String>,
        detail: Map<String, Value>,
    ) -> AuditEntry {
        AuditEntry {
            at,
            event: event.as_str().to_owned(),
            action: String::new(),
            request: None,
            status: None,
            actor,
            policy_hash: None,
            payload_hash: None,
            detail,
        }
    }
}

/// A metric that grows with the write that it belongs to, so that a restart forgets nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Counter {
    /// The metric's name.
    pub metric: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// By how much a counter grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Which.
    pub counter: Counter,
    /// By how much.
    pub by: u64,
}

impl Count {
    /// `metric{labels}` grows by one.
    #[must_use]
    pub fn one(metric: &str, labels: &[(&str, &str)]) -> Count {
        Count::of(metric, labels, 1)
    }

    /// `metric{labels}` grows by `by`.
    #[must_use]
    pub fn of(metric: &str, labels: &[(&str, &str)], by: u64) -> Count {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Count { counter: Counter { metric: metric.to_owned(), labels }, by }
    }
}
