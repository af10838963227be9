//! What happens to a request: events, the acts they carry, and edits.

use crate::{Actor, Instant, Json};

/// Something that happened to a request, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place among the request's events.
    pub seq: u32,
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub act: Act,
}

/// What happened. An act of a person carries that person, so that a vote by nobody cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The request was admitted. Always the first event.
    Submitted,
    /// A persona was acknowledged.
    Acknowledge {
        /// Who acknowledged.
        by: Actor,
        /// The persona's name.
        persona: String,
    },
    /// The request was approved: as it stands if `edits` is empty, else with these edits.
    Approve {
        /// Who approved.
        by: Actor,
        /// What they want changed.
        edits: Vec<Edit>,
    },
    /// The request was denied.
    Deny {
        /// Who denied.
        by: Actor,
        /// Why, in their words.
        message: Option<String>,
    },
    /// The actor took back their own approval and acknowledgements.
    Withdraw {
        /// Who withdrew.
        by: Actor,
    },
    /// The escalation time passed.
    Escalated,
    /// The time that an earlier ruling asked to be woken at.
    Tick,
}

impl Act {
    /// Who acted; nobody if time did.
    #[must_use]
    pub fn by(&self) -> Option<&Actor> {
        match self {
            Self::Acknowledge { by, .. }
            | Self::Approve { by, .. }
            | Self::Deny { by, .. }
            | Self::Withdraw { by } => Some(by),
            Self::Submitted | Self::Escalated | Self::Tick => None,
        }
    }
}

/// One parameter that an approver wants changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The parameter's key, at the top level of `params`.
    pub key: String,
    /// The value as it stands; nothing if the parameter is absent.
    pub before: Option<Json>,
    /// The value wanted, as the gateway's canonical JSON text (RFC 8785); nothing if the parameter is to go.
    pub after: Option<Json>,
    /// What the gateway found when it checked `after` against the action's JSON Schema.
    pub violations: Vec<String>,
}
