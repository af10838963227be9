//! Statistics: counters, and what is open or undelivered now.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::{Counter, Status, Timestamp};

use crate::StoreError;

/// Reads the numbers that metrics are made of.
#[async_trait]
pub trait Statistics: Send + Sync {
    /// Every counter's value.
    async fn counters(&self) -> Result<BTreeMap<Counter, u64>, StoreError>;

    /// The open requests, by action and status.
    async fn open_requests(&self) -> Result<Vec<OpenRequests>, StoreError>;

    /// The number of open requests that wait for each persona, as (action, persona, number).
    async fn waiting_personas(&self) -> Result<Vec<(String, String, u64)>, StoreError>;

    /// The number of undelivered outbox entries, and the age of the oldest.
    async fn outbox_depth(&self) -> Result<OutboxDepth, StoreError>;
}

/// Open requests of one action in one status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequests {
    /// The action.
    pub action: String,
    /// The status.
    pub status: Status,
    /// How many.
    pub count: u64,
    /// When the oldest was submitted.
    pub oldest: Timestamp,
    /// The sum of the submission times, in milliseconds since the epoch, for their average age.
    pub sum_submitted_ms: u128,
}

/// Undelivered outbox entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxDepth {
    /// Number of entries, claimed ones included.
    pub entries: u64,
    /// When the oldest was first enqueued.
    pub oldest: Option<Timestamp>,
}
