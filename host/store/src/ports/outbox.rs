//! The outbox: effects that are stored with a decision and delivered afterwards, at least once.
//!
//! [`Requests::create`](super::Requests::create) and [`Requests::commit`](super::Requests::commit) add entries;
//! this port claims, finishes and postpones them.

use async_trait::async_trait;
use countersign_core::lifecycle::{Effect, RequestId, Timestamp};

use crate::StoreError;

/// The longest that an entry or a message is ever postponed, in milliseconds.
///
/// What is postponed for longer than this was postponed before the clock was set back. How long it has waited is not known,
/// so it waits no longer.
pub const LONGEST_WAIT_MS: u64 = 20 * 60 * 1000;

/// Hands out outbox entries to delivery workers.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Outbox entries that are ready at `now`, by urgency, longest waiting first: up to `limit` of each urgency and channel
    /// that were neither claimed nor postponed before, and as many that were.
    ///
    /// So neither an urgency nor a channel hides another, and the cost depends on how many channels there are, not on how
    /// many entries wait.
    /// An entry is ready from the moment it is stored, whatever the clock said then, unless it is claimed or postponed.
    /// When a claim expires, the entry is ready again; and also if the claim ends, or the entry is postponed, further
    /// ahead of `now` than [`LONGEST_WAIT_MS`].
    async fn ready_outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<ReadyEntry>, StoreError>;

    /// Claims an outbox entry exclusively. `None` if it is not (or no longer) ready.
    async fn claim_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        claim: Claim,
    ) -> Result<Option<OutboxEntry>, StoreError>;

    /// Renews a claim of an entry: it ends at `claim.until` now. `false` if this claim does not hold the entry (any more); then
    /// nothing changes. One that has ended can be renewed as long as nobody else has claimed the entry.
    async fn renew_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        claim: Claim,
    ) -> Result<bool, StoreError>;

    /// Removes an entry that was delivered with the request at version `delivered`.
    ///
    /// If a newer version has enqueued it since, it stays: ready at once, or with the worker that holds it now.
    async fn finish_outbox(&self, entry: &OutboxEntry, delivered: u64) -> Result<(), StoreError>;

    /// Releases an undelivered entry, to be ready again at `at`, which is no more than [`LONGEST_WAIT_MS`] ahead of `now`.
    /// If the attempt `failed`, the attempts are incremented.
    ///
    /// Does nothing if another worker has claimed it since.
    async fn retry_outbox(
        &self,
        entry: &OutboxEntry,
        now: Timestamp,
        at: Timestamp,
        failed: bool,
    ) -> Result<(), StoreError>;
}

/// A claim of something that one worker at a time may have.
///
/// A store that several instances share goes by a clock of its own: what counts for it is how far `until` is from `now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Tells the claim from all others: drawn at random.
    pub id: u64,
    /// The time by the claimer's clock.
    pub now: Timestamp,
    /// When the claim ends.
    pub until: Timestamp,
}

impl Claim {
    /// The claim of this number for [`CLAIM_MS`](crate::CLAIM_MS), or its renewal.
    #[must_use]
    pub fn at(id: u64, now: Timestamp) -> Claim {
        Claim { id, now, until: now.plus(crate::CLAIM_MS) }
    }
}

/// Priority of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// The request has ended: its message must stop offering a decision, or say what was done with its approval.
    Ended,
    /// The request is new or escalated: nobody has been notified yet.
    First,
    /// The request has changed.
    Changed,
    /// The request has ended before anything was posted: there is nothing to post or to update.
    Unseen,
}

impl Urgency {
    /// All, most urgent first.
    pub const ALL: [Urgency; 4] = [Urgency::Ended, Urgency::First, Urgency::Changed, Urgency::Unseen];
}

/// An entry that can be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyEntry {
    /// The request it belongs to.
    pub request: RequestId,
    /// What to deliver.
    pub effect: Effect,
    /// Priority of the delivery.
    pub urgency: Urgency,
    /// Where it is delivered, as the policy entry names it: for an escalation its own channel, if it has one. Empty if the
    /// policy entry names no channel.
    pub channel: String,
    /// The request's version that enqueued it last.
    pub revision: u64,
    /// When it was first enqueued.
    pub since: Timestamp,
}

/// A claimed entry. There is at most one entry for each request and effect.
///
/// Enqueuing an effect again while its entry is undelivered keeps `since`, resets the failed attempts and makes it ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The request it belongs to.
    pub request: RequestId,
    /// What to deliver.
    pub effect: Effect,
    /// The request's version that enqueued it last; distinguishes a delivered entry from one that is stale again.
    pub revision: u64,
    /// Failed delivery attempts.
    pub attempts: u32,
    /// When it was first enqueued: the time of the event or decision.
    pub since: Timestamp,
    /// The claim, by which it is known as long as nobody else claims the entry.
    pub claim: u64,
    /// Whether it was claimed before, and that claim has ended by itself: whoever had it may have begun what is not known to
    /// have been done.
    pub taken_over: bool,
}
