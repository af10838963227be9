//! Messages in Slack: the delivery state of each one that a request has.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count, RequestId, Timestamp};
use countersign_core::record::{SlackPost, Slot};

use super::Committed;
use crate::StoreError;

/// Stores the delivery state of Slack messages.
#[async_trait]
pub trait Messages: Send + Sync {
    /// The delivery state of a request's message.
    async fn slack_post(&self, request: RequestId, slot: Slot) -> Result<Option<SlackPost>, StoreError>;

    /// Stores the delivery state of a message with its audit entries and counts, all or nothing.
    ///
    /// It is a conflict unless its revision is the stored revision plus one.
    async fn keep_slack_post(&self, keep: KeepPost) -> Result<Committed, StoreError>;

    /// Messages whose `refresh_at` has passed at `now`, or is further ahead than [`LONGEST_WAIT_MS`](crate::LONGEST_WAIT_MS):
    /// up to `limit` of each channel, most overdue first.
    async fn stale_slack_posts(&self, now: Timestamp, limit: usize) -> Result<Vec<StalePost>, StoreError>;

    /// Claims a message that is due for a refresh: it is due again at `until`, unless its state is stored before. False if
    /// it is not (or no longer) due at `now`.
    async fn claim_refresh(
        &self,
        request: RequestId,
        slot: Slot,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// A message that is due for a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StalePost {
    /// The request.
    pub request: RequestId,
    /// Which of the request's messages.
    pub slot: Slot,
    /// Its channel.
    pub channel: String,
    /// Since when it is due: its `refresh_at`.
    pub since: Timestamp,
}

/// The delivery state of a message, and what must be stored with it.
#[derive(Clone, Debug)]
pub struct KeepPost {
    /// The request.
    pub request: RequestId,
    /// Which of the request's messages.
    pub slot: Slot,
    /// The delivery state; it is a conflict unless its revision is the stored revision plus one.
    pub post: SlackPost,
    /// Audit entries to append.
    pub audit: Vec<AuditEntry>,
    /// Increments of counters.
    pub counts: Vec<Count>,
}
