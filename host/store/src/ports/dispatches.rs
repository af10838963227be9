//! Dispatches: what programs outside are still to be told of requests. One entry for each request and target.
//!
//! [`Requests::create`](super::Requests::create) and [`Requests::commit`](super::Requests::commit) add entries, with the
//! state that they are about; this port hands them out and settles them. An entry holds no payload, but the place of the
//! first milestone that its target was not told of ([`Request::milestones`]): so milestones are told in order, and none is
//! lost or told under another name after a crash.
//!
//! [`Request::milestones`]: countersign_core::lifecycle::Request::milestones

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, RequestId, Timestamp};

use super::outbox::Claim;
use crate::StoreError;

/// The longest that a dispatch is ever postponed, in milliseconds: more than the longest pause of any schedule.
///
/// What is postponed for longer than this was postponed before the clock was set back, and is ready.
pub const LONGEST_PAUSE_MS: u64 = 26 * 60 * 60 * 1000;

/// Hands out dispatches to workers.
#[async_trait]
pub trait Dispatches: Send + Sync {
    /// The dispatches that are ready at `now`: of each target up to `limit` that were neither claimed nor postponed before,
    /// as many that are due, and as many that wait for too long. So no target hides another.
    async fn ready_dispatches(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(RequestId, String)>, StoreError>;

    /// Claims a dispatch exclusively. `None` if it is not (or no longer) ready.
    async fn claim_dispatch(
        &self,
        request: RequestId,
        target: &str,
        claim: Claim,
    ) -> Result<Option<Dispatch>, StoreError>;

    /// Renews a claim of a dispatch: it ends at `claim.until` now. `false` if this claim does not hold the dispatch (any more);
    /// then nothing changes. One that has ended can be renewed as long as nobody else has claimed the dispatch.
    async fn renew_dispatch(
        &self,
        request: RequestId,
        target: &str,
        claim: Claim,
    ) -> Result<bool, StoreError>;

    /// Releases a claimed dispatch. Does nothing if another worker has claimed it since.
    async fn settle_dispatch(
        &self,
        dispatch: &Dispatch,
        now: Timestamp,
        settled: Settled,
    ) -> Result<(), StoreError>;

    /// Up to `limit` dead letters of a target, those that died first first.
    async fn dead_letters(&self, target: &str, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// Makes a dead letter ready again, with this audit entry. `false` if there is none, and then nothing is stored.
    async fn revive_dispatch(
        &self,
        request: RequestId,
        target: &str,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;

    /// Removes up to `limit` dispatches of a target, dead letters included. Returns how many there were.
    async fn drop_dispatches(&self, target: &str, limit: usize) -> Result<u64, StoreError>;

    /// How many wait for each target, and how many are dead. A target that nothing waits for may be missing.
    async fn dispatch_depth(&self) -> Result<Vec<DispatchDepth>, StoreError>;
}

/// A target that must be told of a request's new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDispatch {
    /// The target's name: its kind, and if there are several of the kind a colon and its own name.
    pub target: String,
    /// The place of the first milestone of this version. An entry that is there already keeps its own, which is less.
    pub position: u32,
}

/// A claimed dispatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The request that it is about.
    pub request: RequestId,
    /// Who is to be told.
    pub target: String,
    /// The place of the first milestone that it was not told of.
    pub position: u32,
    /// Failed attempts at this milestone.
    pub attempts: u32,
    /// Since when it waits.
    pub since: Timestamp,
    /// The claim, by which it is known as long as nobody else claims it.
    pub claim: u64,
}

/// What became of a claimed dispatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The target was told of the milestones before `position`, of the request at `version`. If `complete` and no newer
    /// version has been stored for the target since, the dispatch is removed; else it is ready for the next milestone.
    Told {
        /// The place of the next milestone.
        position: u32,
        /// The version that was read.
        version: u64,
        /// Whether that version has no more milestones.
        complete: bool,
    },
    /// The target was told of everything of the request at `version`, and is to be called again at this time, or as soon as
    /// there is something new.
    Held {
        /// The place of the next milestone.
        position: u32,
        /// The version that was read.
        version: u64,
        /// No more than [`LONGEST_PAUSE_MS`] ahead.
        until: Timestamp,
    },
    /// The attempt failed, and the dispatch is ready again at this time.
    Retry {
        /// No more than [`LONGEST_PAUSE_MS`] ahead.
        at: Timestamp,
    },
    /// Nothing was attempted; it is ready again at this time.
    Released {
        /// No more than [`LONGEST_PAUSE_MS`] ahead.
        at: Timestamp,
    },
    /// Nobody will try again by themselves. What happens to the request later waits behind it.
    Dead {
        /// Why, for people.
        failure: String,
    },
    /// It is removed, told or not.
    Dropped,
}

/// A dispatch that nobody tries to deliver any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The request that it is about.
    pub request: RequestId,
    /// Who was not told.
    pub target: String,
    /// The place of the first milestone that it was not told of.
    pub position: u32,
    /// Since when it waited.
    pub since: Timestamp,
    /// When it was given up.
    pub died_at: Timestamp,
    /// Why, for people.
    pub failure: String,
}

/// How much waits for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchDepth {
    /// The target.
    pub target: String,
    /// How many dispatches wait, claimed and held ones included.
    pub waiting: u64,
    /// Since when the oldest of them waits.
    pub oldest: Option<Timestamp>,
    /// How many are dead.
    pub dead: u64,
}
