//! The audit log: entries in the order in which they were written.
//!
//! Most entries are stored with the change that they describe, by the port that stores the change.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count};

use super::Nonce;
use crate::StoreError;

/// Appends to the audit log and reads it.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Appends audit entries and counts that change no request, all or nothing.
    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError>;

    /// As [`Audit::append`], together with a nonce. False if nothing was stored, since the nonce, or the one that
    /// excludes it, was stored before.
    async fn append_once(
        &self,
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        nonce: Nonce,
    ) -> Result<bool, StoreError>;

    /// Up to `limit` audit entries with sequence numbers above `after`, each with its number, oldest first.
    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<(u64, AuditEntry)>, StoreError>;
}
