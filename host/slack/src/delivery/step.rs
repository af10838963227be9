//! What is to be done about a message next: one call of Slack at most. Pure, as the core is.
//!
//! Whatever a step finds out is stored before the next one is decided on, so that every step can be the first
//! one of a process: nothing is known but what is in the store.

use super::rate_limit::Method;
use countersign_core::lifecycle::{Request, Timestamp};
use countersign_core::record::{Mark, PostState, SlackPost, Slot};

/// How long after its end a request that was never shown is not worth showing any more, in milliseconds.
const FORGET_MS: u64 = 24 * 60 * 60 * 1000;

/// How long to wait for a change that comes right after another, in milliseconds.
const QUIET_MS: u64 = 250;

/// How long a change waits for others at most, in milliseconds.
const WAIT_MS: u64 = 1_000;

/// One of a request's messages, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrackedMessage {
    /// Which.
    pub(super) mark: Mark,
    /// The channel, as the policy names it.
    pub(super) channel: String,
    /// The message that it answers.
    pub(super) thread: Option<String>,
    /// How far it has come.
    pub(super) post: SlackPost,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Done,
    /// Post it.
    Post,
    /// Have the message of this name show what there is to be shown now, where that is anything else.
    Update {
        /// Slack's name for it.
        ts: String,
    },
    /// See whether it was posted.
    Search {
        /// When that was tried.
        since: Timestamp,
    },
    /// Nothing before then.
    Wait(Timestamp),
}

impl TrackedMessage {
    /// What is to be done about it at `now`.
    pub(super) fn step(&self, request: &Request, now: Timestamp) -> Step {
        match &self.post.state {
            PostState::Absent if self.mark.slot == Slot::Main && is_forgotten(request, now) => Step::Done,
            PostState::Absent => Step::Post,
            PostState::Posting { look_at, .. } if now < *look_at => Step::Wait(*look_at),
            PostState::Posting { since, .. } => Step::Search { since: *since },
            // A notice is told once.
            PostState::Posted { .. } if self.mark.slot != Slot::Main => Step::Done,
            PostState::Posted { ts } => Step::Update { ts: ts.clone() },
        }
    }

    /// The budget of the call that the step makes.
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

/// Whether the message already shows the request's newest version.
pub(super) fn is_shown(request: &Request, post: &SlackPost) -> bool {
    post.ts().is_some() && post.looks.is_some() && post.shown >= request.version
}

/// When a change may be shown. What people must see at once is shown at once;
/// other changes wait a moment, since they come in bursts, and only the last one counts.
pub(super) fn settled_at(request: &Request, post: &SlackPost, since: Timestamp) -> Timestamp {
    if request.status().is_terminal() || post.ts().is_none() {
        return since;
    }
    let changed_at = request.history.last().map_or(since, |event| event.at);
    changed_at.plus(QUIET_MS).min(since.plus(WAIT_MS))
}

fn is_forgotten(request: &Request, now: Timestamp) -> bool {
    request.decided_at().is_some_and(|ended_at| now.since(ended_at) >= FORGET_MS)
}
