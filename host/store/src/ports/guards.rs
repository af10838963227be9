//! Guards: nonces, each of which is accepted once, and the server secret.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Timestamp};

use crate::StoreError;

/// Stores replay protection and the server secret.
#[async_trait]
pub trait Guards: Send + Sync {
    /// Stores `nonce` until `until`. False if it is already stored at `now`: a replay.
    async fn claim_nonce(&self, nonce: Digest, now: Timestamp, until: Timestamp) -> Result<bool, StoreError>;

    /// The server secret: the stored one, else `fresh`, which is stored.
    async fn secret(&self, fresh: [u8; 32]) -> Result<[u8; 32], StoreError>;
}
