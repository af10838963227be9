//! Guards: nonces, each of which is accepted once, alone or with a write.
//!
//! A nonce belongs to one shard, and is looked for there alone.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Timestamp};

use crate::StoreError;

/// Stores replay protection.
#[async_trait]
pub trait Guards: Send + Sync {
    /// Stores `nonce` in `shard` until `until`. False if it is already stored there at `now`: a replay.
    async fn claim_nonce(
        &self,
        shard: u16,
        nonce: Digest,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Whether `nonce` is stored in `shard` at `now`, by whatever write.
    async fn has_nonce(&self, shard: u16, nonce: &Digest, now: Timestamp) -> Result<bool, StoreError>;
}

/// The nonce of a write that may be asked for more than once: it is stored in the same transaction as the write.
///
/// If it, or the one that excludes it, is stored in its shard already at `at`, nothing of the write is stored.
/// A write that stores nothing for another reason does not use its nonce up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// Where it is stored: in the shard of the request that the write is about.
    pub shard: u16,
    /// Identifies the write.
    pub digest: Digest,
    /// The nonce of the other outcome that the same event can have: only one of the two is ever stored.
    pub excluded_by: Digest,
    /// The current time.
    pub at: Timestamp,
    /// Until when it is stored.
    pub until: Timestamp,
}
