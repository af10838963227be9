//! Retention: which ended requests it is time to look at, and removing them.
//!
//! What may be removed is decided by whoever calls; a store sees to it that nothing has changed since.

use async_trait::async_trait;
use countersign_core::lifecycle::{Count, Request, RequestId, Timestamp};

use crate::StoreError;

/// How long requests stay those of the archive that claimed them, if nothing is heard of it, in milliseconds.
pub const ARCHIVAL_CLAIM_MS: u64 = 24 * 60 * 60 * 1000;

/// Finds ended requests and removes them.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Up to `limit` ended requests that ended before `until` and were not put off until later, those that ended first
    /// first.
    async fn ended(&self, until: Timestamp, limit: usize) -> Result<Vec<RequestId>, StoreError>;

    /// Puts ended requests off: each is listed by [`Retention::ended`] as if it had ended at the given time.
    async fn put_off(&self, requests: Vec<(RequestId, Timestamp)>) -> Result<(), StoreError>;

    /// The oldest `limit` requests of a lineage, which are at least two, in their order.
    async fn removable(&self, lineage: RequestId, limit: usize) -> Result<Vec<Removable>, StoreError>;

    /// Claims requests for the archive with this id, and returns those that are its own now. Another archive gets those that
    /// were claimed longer than [`ARCHIVAL_CLAIM_MS`] before `now`. A store that one process at a time can have open need not
    /// remember any claim: all are the archive's own.
    async fn claim_archival(
        &self,
        requests: &[RequestId],
        archive: u64,
        now: Timestamp,
    ) -> Result<Vec<RequestId>, StoreError> {
        let _ = (archive, now);
        Ok(requests.to_vec())
    }

    /// Removes requests with their outbox entries, dispatches, messages and claims, each removal all or nothing, and tells of each whether
    /// it was done: not if it is another version, is open, or is gone, if the newest of its lineage is another one, or if an
    /// archive other than `archive` has claimed it.
    ///
    /// Idempotency keys, nonces and audit entries stay.
    async fn remove(&self, removals: Vec<Removal>, archive: Option<u64>) -> Result<Vec<bool>, StoreError>;
}

/// A request that may be removed, and what the store knows of it beside what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Removable {
    /// The request, without its salt.
    pub request: Request,
    /// Until when its idempotency key counts. `None` if it is not known whether it has one; the epoch if it has none.
    pub key_until: Option<Timestamp>,
    /// Whether somebody is still to be told of it: by a message in Slack that is to be updated, or as a target outside. A dead
    /// letter is nothing that is still to be told.
    pub is_undelivered: bool,
}

/// The oldest requests of a lineage, to be removed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The lineage.
    pub lineage: RequestId,
    /// The newest request of the lineage: nothing is removed once it has been made again.
    pub newest: RequestId,
    /// The requests, oldest first.
    pub requests: Vec<RemovedRequest>,
    /// Increments of counters.
    pub counts: Vec<Count>,
}

/// A request to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovedRequest {
    /// Its id.
    pub id: RequestId,
    /// Its version.
    pub version: u64,
    /// How many events its history has: each may have a notice in Slack.
    pub events: u32,
}

impl RemovedRequest {
    /// What is to be removed of a request.
    #[must_use]
    pub fn of(request: &Request) -> RemovedRequest {
        RemovedRequest {
            id: request.id,
            version: request.version,
            events: u32::try_from(request.history.len()).unwrap_or(u32::MAX),
        }
    }
}
