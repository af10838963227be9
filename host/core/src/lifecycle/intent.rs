//! What is to happen to a request, before it is known how the request stands.

use std::collections::BTreeMap;

use serde_json::Value;

use super::operate::{AdminEnd, Ending};
use super::refusal::Refusal;
use super::request::Request;
use super::step::Step;
use super::timestamp::Timestamp;

/// What is to happen to a request. An [`super::Act`] is made of it once the request is loaded; the last three end a
/// request without one.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// A person acknowledges a persona.
    Acknowledge {
        /// The persona's name.
        persona: String,
    },
    /// A person approves.
    Approve {
        /// New values by parameter; `None` removes it.
        edits: BTreeMap<String, Option<Value>>,
    },
    /// A person denies.
    Deny {
        /// Why.
        reason: Option<String>,
    },
    /// A person takes back their own approval and acknowledgements.
    Withdraw,
    /// The escalation is due.
    Escalate,
    /// A wake-up that a policy asked for is due.
    Wake,
    /// The expiry is due.
    Expire,
    /// The caller takes the request back.
    Cancel {
        /// Why.
        reason: Option<String>,
    },
    /// An admin ends the request.
    End(AdminEnd),
}

impl Intent {
    /// An approval without edits.
    #[must_use]
    pub fn approve() -> Intent {
        Intent::Approve { edits: BTreeMap::new() }
    }

    /// What ends `request` without any policy being asked, so that it happens even if its rules cannot be loaded; `None`
    /// for what policies judge.
    #[must_use]
    pub fn ending(&self, request: &Request, at: Timestamp) -> Option<Result<Step, Refusal>> {
        match self {
            Intent::Expire => Some(request.expire(at)),
            Intent::Cancel { reason } => Some(request.cancel(at, reason.clone())),
            Intent::End(end) => Some(request.end_by_admin(at, end)),
            Intent::Acknowledge { .. }
            | Intent::Approve { .. }
            | Intent::Deny { .. }
            | Intent::Withdraw
            | Intent::Escalate
            | Intent::Wake => None,
        }
    }

    /// The name that metrics and reports use.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Intent::Acknowledge { .. } => "acknowledge",
            Intent::Approve { .. } => "approve",
            Intent::Deny { .. } => "deny",
            Intent::Withdraw => "withdraw",
            Intent::Escalate => "escalated",
            Intent::Wake => "tick",
            Intent::Expire => "expired",
            Intent::Cancel { .. } => "cancelled",
            Intent::End(AdminEnd { ending: Ending::Expired, .. }) => "expired_by_admin",
            Intent::End(AdminEnd { ending: Ending::Cancelled, .. }) => "cancelled_by_admin",
        }
    }
}
