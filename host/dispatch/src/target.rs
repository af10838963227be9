//! What a target is.

use async_trait::async_trait;
use countersign_core::lifecycle::{Milestone, Request, RequestId, Timestamp};

/// A program outside that is told of requests. Its configuration may be replaced at any time, by a reload.
#[async_trait]
pub trait Target: Send + Sync {
    /// Whether it is told of this milestone of a request. The answer must not depend on anything that changes by itself.
    fn wants(&self, request: &Request, milestone: Milestone) -> bool;

    /// Tells it, once. It is called for one milestone of a request at a time, in order, and again after a crash: what it
    /// sends must have the same [`Telling::id`] each time. A call that takes longer than 30 seconds is cut off, and failed.
    async fn tell(&self, telling: &Telling<'_>) -> Answer;

    /// How long after it was told of everything so far it must be told again ([`What::Again`]), in milliseconds; `None`,
    /// which is the default, if it need not. Asked after each time that it was told.
    fn again_after_ms(&self, _request: &Request) -> Option<u64> {
        None
    }
}

/// What a target is told.
#[derive(Debug)]
pub struct Telling<'a> {
    /// The request, at its newest version: it may be past the milestone.
    pub request: &'a Request,
    /// Why it is told.
    pub what: What,
    /// The target's name.
    pub target: &'a str,
    /// The place of the milestone in the request's list.
    pub position: u32,
    /// How many attempts have failed before.
    pub failed: u32,
    /// The wall clock.
    pub now: Timestamp,
}

/// Why a target is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The request reached this milestone, then.
    Reached(Milestone, Timestamp),
    /// It was told of everything, and asked to be told again.
    Again,
}

impl Telling<'_> {
    /// Tells it from everything else that was ever told, and stays the same when it is told again: a receiver knows by it
    /// what it has already.
    #[must_use]
    pub fn id(&self) -> String {
        let at = match self.what {
            What::Reached(_, at) => Some(at),
            What::Again => None,
        };
        message_id(self.request.id, self.position, at, self.target)
    }
}

/// The id of what a target is told of a milestone of a request, which was reached `at` this time: [`Telling::id`]. Of a store
/// that lost what it had stored last, the same place of a request may be reached again, by something else. It has no full stop,
/// which Standard Webhooks puts between an id and what follows it.
#[must_use]
pub fn message_id(request: RequestId, position: u32, at: Option<Timestamp>, target: &str) -> String {
    let at = at.map(|at| format!("-{}", at.as_millis())).unwrap_or_default();
    format!("{request}-{position}{at}-{}", target.replace([':', '.'], "-"))
}

/// What a target answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has taken it.
    Told,
    /// It has not, or it is not known whether it has.
    Failed {
        /// Why, for people. Holds no secret.
        why: String,
        /// How long it asks to be left alone, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// It never will: a dead letter at once.
    Refused {
        /// Why, for people. Holds no secret.
        why: String,
    },
}

impl Answer {
    /// It has not taken it, and does not say when to try again.
    #[must_use]
    pub fn failed(why: impl Into<String>) -> Answer {
        Answer::Failed { why: why.into(), wait_ms: None }
    }
}
