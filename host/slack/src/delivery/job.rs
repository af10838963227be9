//! A delivery job: something that the worker can deliver.

use countersign_core::lifecycle::{Effect, RequestId};

/// How often the message of an unchanged request is refreshed, in milliseconds.
pub(super) const REFRESH_MS: u64 = 60_000;

/// Something to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Job {
    /// An entry of the outbox.
    Outbox(RequestId, Effect),
    /// The message of an unchanged request, to update the time that is left. It has no entry in the outbox.
    Refresh(RequestId),
}

impl Job {
    pub(super) fn request(self) -> RequestId {
        match self {
            Job::Outbox(request, _) | Job::Refresh(request) => request,
        }
    }
}
