//! What the shadow is told of: live submissions and events, with what became of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::{Commitments, Digest, Intent, RequestId, Submission, Timestamp};
use countersign_policy::decide::{Again, Ask};

use super::Waiting;
use crate::simulation::{Outcome, Timers, size};

/// A live submission or event, and what became of it.
#[derive(Debug)]
pub struct Observed {
    pub(crate) request: RequestId,
    /// The entry that it was judged by: the action, or `*`.
    pub(crate) action: String,
    pub(crate) at: Timestamp,
    pub(crate) outcome: Outcome,
    pub(crate) what: Observation,
}

/// What was observed.
#[derive(Debug)]
pub(crate) enum Observation {
    /// A submission, with all its parameters. They go no further than the candidate's `admit`.
    Submission {
        /// What was asked for.
        ask: Arc<Ask>,
        /// The request that was made again, and who wanted that.
        again: Option<(Arc<Submission>, Again)>,
        /// What stands for its parameters in the payload hash; nothing if no request was made.
        commitments: Commitments,
        /// What will happen to the request by itself, if one was made.
        timers: Timers,
    },
    /// A request has another version, and nothing has happened to it.
    Note {
        /// Its version before.
        version: u64,
    },
    /// An event of a request.
    Event {
        /// The request's version before it.
        version: u64,
        /// What happened.
        cause: Cause,
        /// What will happen to the request by itself after it, if it counted.
        timers: Timers,
    },
}

/// What happened to a request, by whom.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) intent: Intent,
    /// Who acted; `None` for what happened by itself, and for the caller.
    pub(crate) by: Option<String>,
    /// The payload hash of what they saw, if that is known.
    pub(crate) seen: Option<Digest>,
    /// The commitments to the new values of edits, by parameter.
    pub(crate) commitments: BTreeMap<String, Digest>,
}

impl Observed {
    /// How many bytes it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let what = match &self.what {
            Observation::Submission { ask, again, commitments, .. } => {
                let again = again.as_ref().map_or(0, |(earlier, _)| size::of_submission(earlier));
                size::of_ask(ask) + again + size::of_map(&commitments.digests, |_| 0)
            }
            Observation::Note { .. } => 0,
            Observation::Event { cause: Cause { intent, by, commitments, .. }, .. } => {
                let by = by.as_ref().map_or(0, String::len);
                size::of_intent(intent) + by + size::of_map(commitments, |_| 0)
            }
        };
        size_of::<Waiting>() + self.action.len() + what
    }
}
