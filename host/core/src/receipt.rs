//! The document of a receipt: what was decided about a request, for whoever was not there. docs/RECEIPTS.md is its
//! definition.
//!
//! It holds no value of a parameter and no salt: who has only the receipt can check all but the parameters. It is a
//! function of the stored request and its rules, so it can be made again at any time, and is the same each time.

pub mod signed;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::Recorded;
use crate::lifecycle::{
    Act, Consent, Digest, Known, PayloadHashVersion, Request, RequestId, State, Status, Timestamp, canonical,
    payload_hash,
};
use crate::record::PolicyEntry;

/// The version of the document that is made, and the only one that is read.
pub const VERSION: u32 = 1;

/// What was decided about a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptDocument {
    /// [`VERSION`].
    pub version: u32,
    /// The request.
    pub request_id: RequestId,
    /// The first request of its lineage.
    pub lineage_id: RequestId,
    /// The caller of the access file that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Who wanted the action done.
    pub requester: Requester,
    /// The action.
    pub action: String,
    /// When it was asked for.
    pub asked_at: Time,
    /// The rules that it was decided by.
    pub policy: Policy,
    /// The parameters that it is about.
    pub payload: Payload,
    /// `approved`, `denied`, `expired` or `cancelled`.
    pub decision: Status,
    /// When.
    pub decided_at: Time,
    /// Whose act settled it, if somebody's did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// Why, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose approvals stood, in their order.
    pub approvers: Vec<Approver>,
    /// What people must have read for their approval to count.
    pub consent: Consent,
    /// Whether the approval must be consumed before anything is run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub consume_required: bool,
    /// Until when it can be consumed; absent if that has no end, and of anything but an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Time>,
    /// The entry of the audit log that says the same.
    pub audit: AuditPosition,
    /// What the decision was made of, as a bundle has it.
    pub recorded: Recorded,
}

/// Who wanted an action done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requester {
    /// The id, as the request has it.
    pub id: String,
    /// The system that the id belongs to.
    pub source: String,
    /// The id by which the policies knew them.
    pub known_as: String,
    /// What kind of thing they are.
    pub known: Known,
    /// Whether the name was proven, rather than asserted by the caller.
    pub authenticated: bool,
}

/// The rules that a request was decided by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// The hash of the action's entry.
    pub hash: Digest,
    /// The modules that judged, in order.
    pub modules: Vec<Module>,
}

/// A module that judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Module {
    /// The name that the policy set gives it.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// The parameters that a decision is about. No value is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payload {
    /// How the hashes are made: 1 or 2.
    pub version: PayloadHashVersion,
    /// The payload hash of what was asked for.
    pub asked: Digest,
    /// The payload hash of what was decided about, edits included.
    pub decided: Digest,
    /// The keys of the parameters that people were shown.
    pub shown: BTreeSet<String>,
    /// The keys of those that were hidden from them.
    pub hidden: BTreeSet<String>,
}

/// Somebody whose approval stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approver {
    /// The id by which the policies knew them.
    pub id: String,
    /// The name that they acted under, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// When they approved.
    pub at: Time,
    /// How it is known who they are.
    pub authenticated_by: AuthenticatedBy,
}

/// How it is known who somebody is that acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticatedBy {
    /// Slack has signed what they did, or has delivered it over a connection that the gateway opened.
    Slack,
}

/// Where the audit log says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditPosition {
    /// SHA-256 of the canonical JSON of the entry.
    pub entry: Digest,
}

/// A point in time as the document has it: in RFC 3339, which others can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Time(pub Timestamp);

impl From<Time> for String {
    fn from(Time(at): Time) -> String {
        at.to_string()
    }
}

impl TryFrom<String> for Time {
    type Error = crate::lifecycle::BadTimestamp;

    fn try_from(text: String) -> Result<Time, Self::Error> {
        let at = Time(text.parse()?);
        // One time has one spelling.
        if String::from(at) == text { Ok(at) } else { Err(crate::lifecycle::BadTimestamp) }
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ReceiptDocument {
    /// The document of a request that has ended, under its rules; `None` of one that is open.
    #[must_use]
    pub fn of(request: &Request, entry: &PolicyEntry) -> Option<ReceiptDocument> {
        let submission = &request.submission;
        let decided_at = request.decided_at()?;
        let (decided_by, reason) = match &request.state {
            State::Open(_) => return None,
            State::Approved { decided, .. } | State::Denied(decided) => {
                (decided.by.clone(), decided.reason.clone())
            }
            State::Expired { by, reason, .. } | State::Cancelled { by, reason, .. } => {
                (by.clone(), reason.clone())
            }
        };
        let identity = submission.requester_is.as_ref();
        let keys: BTreeSet<String> = request.params().into_iter().map(|(key, _)| key).collect();
        let (hidden, shown) = keys.into_iter().partition(|key| submission.redacted.contains(key));
        let modules = entry.policies.iter();
        Some(ReceiptDocument {
            version: VERSION,
            request_id: request.id,
            lineage_id: submission.lineage,
            caller: submission.caller.clone(),
            requester: Requester {
                id: submission.requester.id.clone(),
                source: submission.requester.source.clone(),
                known_as: submission.requester_id().to_owned(),
                known: identity.map(|identity| identity.known).unwrap_or_default(),
                authenticated: identity.is_some_and(|identity| identity.authenticated),
            },
            action: submission.action.clone(),
            asked_at: Time(submission.submitted_at),
            policy: Policy {
                hash: submission.policy_hash,
                modules: modules
                    .map(|used| Module { name: used.name.clone(), digest: used.digest })
                    .collect(),
            },
            payload: Payload {
                version: submission.payload_hash_version,
                asked: payload_hash(&submission.digests),
                decided: request.payload_hash(),
                shown,
                hidden,
            },
            decision: request.status(),
            decided_at: Time(decided_at),
            decided_by,
            reason,
            approvers: approvers(request),
            consent: submission.consent,
            consume_required: submission.terms.required,
            valid_until: request.valid_until().map(Time),
            audit: AuditPosition { entry: request.decision_entry()?.digest() },
            recorded: Recorded::of(request)?,
        })
    }

    /// As it is signed: canonical JSON (RFC 8785), which is the same for the same decision.
    #[must_use]
    pub fn canonical(&self) -> String {
        // It is made of strings, numbers and lists of them: it always serialises.
        canonical(&serde_json::to_value(self).unwrap_or(Value::Null))
    }
}

fn approvers(request: &Request) -> Vec<Approver> {
    let approved = |id: &str| {
        request.history.iter().rev().find_map(|event| {
            let actor = event.by.as_ref().filter(|actor| actor.id == id)?;
            matches!(event.act, Act::Approve { .. }).then(|| Approver {
                id: actor.id.clone(),
                alias: actor.alias.clone(),
                at: Time(event.at),
                authenticated_by: AuthenticatedBy::Slack,
            })
        })
    };
    request.approvers().into_iter().filter_map(approved).collect()
}
