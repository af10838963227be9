//! The ports to durable state, one file for each kind of data. A backend implements all of them.

mod audit;
mod dispatches;
mod documents;
mod guards;
mod messages;
mod outbox;
mod policies;
mod requests;
mod retention;
mod salts;
mod shared;
mod statistics;

use async_trait::async_trait;
use countersign_core::lifecycle::Timestamp;

use crate::StoreError;

pub(crate) use audit::encoded;
pub use audit::{Audit, AuditCursor, AuditPage, AuditRange, KeptCheckpoint, LogColumns, LogEntry, LogPage};
pub use dispatches::{
    DeadLetter, Dispatch, DispatchDepth, Dispatches, LONGEST_PAUSE_MS, NewDispatch, Settled,
};
pub use documents::{DOCUMENT_PREFIXES, Documents};
pub use guards::{Guards, Nonce};
pub use messages::{KeepPost, Messages, StalePost};
pub use outbox::{Claim, LONGEST_WAIT_MS, Outbox, OutboxEntry, ReadyEntry, Urgency};
pub use policies::{ChangePolicy, OpenPolicy, Policies, RemovePolicySet, StoredSet, policy_set_use};
pub use requests::{Commit, Create, Created, Due, Idempotency, MostOpen, Requests};
pub use retention::{ARCHIVAL_CLAIM_MS, Removable, Removal, RemovedRequest, Retention};
pub use salts::{NewSalt, Salts};
pub use shared::{Change, Rate, Shared};
pub use statistics::{OpenRequests, OutboxDepth, Statistics};

/// How long idempotency keys and nonces are kept at least after they expired, in milliseconds.
///
/// Until then they count again if the clock was ahead and is set back, so that nothing can be replayed.
pub const EXPIRED_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// Durable state: the sum of all ports.
///
/// A call that returns `Ok` is durable: from then on it survives `kill -9` at any instant.
/// A write that returns an error either happened completely or not at all.
/// Repeating it is safe, since a repeated commit is a conflict, and a write with a nonce that was stored is known by it.
/// A period "until" a time excludes that time.
#[async_trait]
pub trait Store:
    Requests
    + Retention
    + Salts
    + Outbox
    + Dispatches
    + Messages
    + Policies
    + Guards
    + Documents
    + Audit
    + Statistics
    + 'static
{
    /// The backend's name: `sqlite`, `redis`.
    fn backend(&self) -> &'static str;

    /// What the instances that share it need of each other. `None` if only one process at a time can have it open.
    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    /// Whether the store can be reached and written to.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Removes some of what expired more than [`EXPIRED_KEPT_MS`] before `now`, and gives some of the unused space back to
    /// the disk. To be called every second or so: each call is short, however much there is.
    async fn maintain(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Completes the queued writes and stops the writer; every later write is refused.
    async fn close(&self) -> Result<(), StoreError>;

    /// Returns once nothing can be written any more until the process starts again; otherwise never.
    async fn failed(&self) {
        std::future::pending().await
    }
}

/// Result of a write that is guarded by a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Everything was stored.
    Done,
    /// Nothing was stored: the stored version is another one, the request is unknown, or it has ended with another status.
    Conflict,
    /// Nothing was stored: the write's nonce, or the one that excludes it, was stored before.
    Repeated,
}
