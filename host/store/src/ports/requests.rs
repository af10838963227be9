//! Requests: each one's newest version, its lineage, its idempotency key and its next due time.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count, Digest, Effect, Request, RequestId, Timestamp};

use super::{Committed, NewDispatch, Nonce};
use crate::StoreError;

/// Stores requests and finds them by id, idempotency key, lineage or due time.
#[async_trait]
pub trait Requests: Send + Sync {
    /// Stores a new request with its audit entries, outbox entries, dispatches and counts, all or nothing.
    ///
    /// The current time is the request's `submitted_at`: an idempotency key that has expired by then is ignored.
    async fn create(&self, new: Create) -> Result<Created, StoreError>;

    /// Stores a request's next version with its audit entries, outbox entries, dispatches and counts, all or nothing.
    ///
    /// The submission never changes. A request that has ended keeps its status, and is never due or open again: a further
    /// version of it says what was done with its approval, and is a conflict if it has another status. The salt stays as
    /// it is stored.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// A request by its id.
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError>;

    /// The fingerprint and the request that an idempotency key was first used for, if it is still valid at `now`.
    /// A key belongs to one shard, that of its request, and is looked for there alone.
    async fn idempotent(
        &self,
        shard: u16,
        key: &Digest,
        now: Timestamp,
    ) -> Result<Option<(Digest, Request)>, StoreError>;

    /// Up to `limit` requests of a lineage with depths from `from` on, oldest first.
    async fn lineage(&self, lineage: RequestId, from: u32, limit: usize) -> Result<Vec<Request>, StoreError>;

    /// The newest request of a lineage.
    async fn newest_of_lineage(&self, lineage: RequestId) -> Result<Option<Request>, StoreError>;

    /// When the newest `limit` requests of a lineage were submitted, newest first, as far as that was after `since`.
    async fn recent_in_lineage(
        &self,
        lineage: RequestId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timestamp>, StoreError>;

    /// Up to `limit` open requests that are due at `now`, most overdue first, and by id if their due times are equal;
    /// those that come `after` a request of an earlier call, if that is given.
    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestId)>,
        limit: usize,
    ) -> Result<Due, StoreError>;

    /// The earliest due time of an open request after `after`.
    async fn next_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// The ids of up to `limit` requests, ended ones included, newest first: those with ids below `before`, if that is given.
    async fn newest(&self, before: Option<RequestId>, limit: usize) -> Result<Vec<RequestId>, StoreError>;

    /// The open requests that were made with this supersede key ([`SupersedeKey::key`]), those that were stored first
    /// first; now and then one that has just ended. `request` is one that has the key, if it is not asked for another reason.
    ///
    /// Of two requests whose creates have both returned, at least whoever asks last for one of them is told of both.
    ///
    /// [`SupersedeKey::key`]: countersign_core::lifecycle::SupersedeKey::key
    async fn with_supersede_key(
        &self,
        key: &Digest,
        request: Option<RequestId>,
    ) -> Result<Vec<RequestId>, StoreError>;
}

/// Requests that are due.
#[derive(Debug, Default)]
pub struct Due {
    /// Each with its due time.
    pub requests: Vec<(RequestId, Timestamp)>,
    /// What was found on the way and cannot be read. It keeps no other request from being listed.
    pub unreadable: Vec<StoreError>,
}

/// A new request, and what must be stored with it.
#[derive(Clone, Debug)]
pub struct Create {
    /// The request, at version 1.
    pub request: Request,
    /// Present if the caller sent an idempotency key.
    pub idempotency: Option<Idempotency>,
    /// How many open requests its caller may have, this one included.
    pub most_open: MostOpen,
    /// Present if the create may be asked for more than once without an idempotency key.
    pub nonce: Option<Nonce>,
    /// Audit entries to append.
    pub audit: Vec<AuditEntry>,
    /// Effects to enqueue in the outbox.
    pub effects: Vec<Effect>,
    /// Targets outside that must be told of it.
    pub dispatches: Vec<NewDispatch>,
    /// Increments of counters.
    pub counts: Vec<Count>,
}

/// How many requests of one caller may be open; `None` for any number. Requests without a caller are those of one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MostOpen {
    /// Whatever their action.
    pub in_all: Option<u32>,
    /// Of the action of the new one.
    pub of_action: Option<u32>,
}

/// What makes a repeated create return the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the caller and its key.
    pub key: Digest,
    /// Digest of the body: the same key with another body is refused.
    pub fingerprint: Digest,
    /// When the key expires.
    pub until: Timestamp,
}

/// Result of a create.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// The request was stored.
    New,
    /// Nothing was stored: the idempotency key was used before, with this fingerprint and for this request.
    Known(Digest, Box<Request>),
    /// Nothing was stored: the lineage already has a request at this depth, or none at the one before, or the id is taken.
    LineageConflict,
    /// Nothing was stored: the caller has as many open requests already as it may have, in all or of this action.
    TooManyOpen,
    /// Nothing was stored: the nonce, or the one that excludes it, was stored before.
    Repeated,
}

/// A request's next version, and what must be stored with it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The request; it is a conflict unless its version is the stored version plus one.
    pub request: Request,
    /// Present if the same event may be delivered more than once. It is looked at before the version.
    pub nonce: Option<Nonce>,
    /// Audit entries to append.
    pub audit: Vec<AuditEntry>,
    /// Effects to enqueue in the outbox.
    pub effects: Vec<Effect>,
    /// Targets outside that must be told of it.
    pub dispatches: Vec<NewDispatch>,
    /// Increments of counters.
    pub counts: Vec<Count>,
}
