//! Guards: nonces, each of which is accepted once.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Timestamp};

use crate::StoreError;

/// Stores replay protection.
#[async_trait]
pub trait Guards: Send + Sync {
    /// Stores `nonce` until `until`. False if it is already stored at `now`: a replay.
    async fn claim_nonce(&self, nonce: Digest, now: Timestamp, until: Timestamp) -> Result<bool, StoreError>;
}
