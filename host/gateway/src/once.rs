//! An act that may be delivered more than once: it counts once, or is refused once.
//!
//! Which of the two it was is stored in the write that stores the act or the audit entry of its refusal, as one of two
//! nonces that exclude each other. So a crash cannot separate the two, and a later delivery finds out what became of it.

use countersign_core::lifecycle::{Digest, RequestId, Timestamp};
use countersign_store::Nonce;

use super::{Gateway, GatewayError};

/// Identifies an act, however often it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// The same for each delivery, and for no other act.
    pub identity: Digest,
    /// When this delivery came.
    pub at: Timestamp,
    /// Until when it is remembered.
    pub until: Timestamp,
}

impl Once {
    /// The nonce of the write by which the act counts, for a request in this shard.
    pub(super) fn counted(self, shard: u16) -> Nonce {
        let Once { identity, at, until } = self;
        let nonce = |outcome: &[u8]| Digest::of(&[outcome, identity.as_bytes()].concat());
        Nonce { shard, digest: nonce(b"counted\0"), excluded_by: nonce(b"refused\0"), at, until }
    }

    /// The nonce of the write that audits its refusal.
    pub(super) fn refused(self, shard: u16) -> Nonce {
        let counted = self.counted(shard);
        Nonce { digest: counted.excluded_by, excluded_by: counted.digest, ..counted }
    }
}

impl Gateway {
    /// Whether the act on this request counted when it was delivered before.
    ///
    /// # Errors
    /// If the store cannot say.
    pub async fn has_counted(&self, id: RequestId, once: Once) -> Result<bool, GatewayError> {
        let (now, shard) = (self.clock.now(), id.shard());
        Ok(self.store.has_nonce(shard, &once.counted(shard).digest, now).await?)
    }
}
