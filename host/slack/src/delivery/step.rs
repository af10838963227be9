//! The next step of delivering a message: at most one call. Pure, like the core.
//!
//! The outcome of a step is stored before the next one is chosen, so any step can be the first one of a process.

use countersign_core::lifecycle::{Request, Timestamp};
use countersign_core::record::{Mark, PostState, SlackPost, Slot};

use super::rate_limit::Method;
use super::sender::CALL_MS;

/// A notice of replaced approvals is not posted any more if its request ended so long ago, and neither is a request that
/// ended as it was made; in milliseconds.
const FORGET_MS: u64 = 24 * 60 * 60 * 1000;

/// A change waits this long for another one to follow it, in milliseconds.
const QUIET_MS: u64 = 250;

/// The longest that a change waits for others, in milliseconds.
const WAIT_MS: u64 = 1_000;

/// One of a request's messages: where it belongs, and what is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrackedMessage {
    /// Which message of which request.
    pub(super) mark: Mark,
    /// The channel, as the policy entry names it.
    pub(super) channel: String,
    /// The `ts` of the message that it replies to.
    pub(super) thread: Option<String>,
    /// What is stored of its delivery.
    pub(super) post: SlackPost,
}

/// The next step of delivering a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing to do.
    Done,
    /// Post it.
    Post,
    /// Update it, if it shows anything else than it should.
    Update {
        /// The message's `ts`.
        ts: String,
    },
    /// Find out whether it was posted.
    Search {
        /// When posting it was tried.
        since: Timestamp,
    },
    /// Nothing before then, by the time of delivery.
    Wait(Timestamp),
}

impl TrackedMessage {
    /// The next step at `now` by the time of delivery, and at `wall` by the wall clock.
    pub(super) fn step(&self, request: &Request, now: Timestamp, wall: Timestamp) -> Step {
        match &self.post.state {
            PostState::Absent if !self.is_worth_posting(request, wall) => Step::Done,
            PostState::Absent => Step::Post,
            // It is further ahead only if the clock was set back before a restart; a call ends with its process.
            PostState::Posting { look_at, .. } if (1..=CALL_MS).contains(&look_at.since(now)) => {
                Step::Wait(*look_at)
            }
            PostState::Posting { since, .. } => Step::Search { since: *since },
            PostState::Posted { .. } if self.mark.slot != Slot::Main && !self.is_to_be_closed(request) => {
                Step::Done
            }
            PostState::Posted { ts } => Step::Update { ts: ts.clone() },
        }
    }

    /// Whether a message that does not exist is posted.
    fn is_worth_posting(&self, request: &Request, wall: Timestamp) -> bool {
        match self.mark.slot {
            // An ended request needs nobody's attention; if nobody saw it, nobody waits for its end either.
            Slot::EscalationThread | Slot::EscalationChannel => !request.status().is_terminal(),
            // Of one that ended as it was made, this is the only word.
            Slot::Main if request.ended_as_made() => !is_too_old(request, wall),
            Slot::Main => !request.status().is_terminal(),
            Slot::Replaced(_) => !is_too_old(request, wall),
        }
    }

    /// Whether a notice does not say yet that its request has ended. It is updated for nothing else.
    fn is_to_be_closed(&self, request: &Request) -> bool {
        request.status().is_terminal() && self.post.shown < request.version
    }

    /// The method that the step calls.
    pub(super) fn method(&self, step: &Step) -> Option<Method> {
        match step {
            Step::Done | Step::Wait(_) => None,
            Step::Post => Some(Method::Post(self.channel.clone())),
            Step::Update { .. } => Some(Method::Update),
            Step::Search { .. } if self.thread.is_some() => Some(Method::Replies),
            Step::Search { .. } => Some(Method::History),
        }
    }
}

/// Whether the message already shows the request's newest version, or will once it is refreshed: what is to be sent again
/// later is not sent at once.
pub(super) fn is_current(request: &Request, post: &SlackPost) -> bool {
    let is_known = post.looks.is_some() || post.refresh_at.is_some();
    post.ts().is_some() && is_known && post.shown >= request.version
}

/// How long a change that waits since `since` still waits at `wall`, in milliseconds. New and ended requests are shown at
/// once; other changes come in bursts of which only the last one matters, so they wait a moment.
pub(super) fn debounce_ms(request: &Request, post: &SlackPost, since: Timestamp, wall: Timestamp) -> u64 {
    if request.status().is_terminal() || post.ts().is_none() {
        return 0;
    }
    let changed_at = request.history.last().map_or(since, |event| event.at);
    // The change may lie ahead of a clock that was set back since.
    let quiet_ms = changed_at.plus(QUIET_MS).since(wall).min(QUIET_MS);
    quiet_ms.min(since.plus(WAIT_MS).since(wall))
}

fn is_too_old(request: &Request, wall: Timestamp) -> bool {
    request.decided_at().is_some_and(|ended_at| wall.since(ended_at) >= FORGET_MS)
}
