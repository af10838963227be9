//! The audit log: what is about one request is in the order in which it was written.
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
    ///
    /// All entries are about one request, or about none.
    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError>;

    /// As [`Audit::append`], together with a nonce. False if nothing was stored, since the nonce, or the one that
    /// excludes it, was stored before. Entries about a request are about one in the nonce's shard.
    async fn append_once(
        &self,
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        nonce: Nonce,
    ) -> Result<bool, StoreError>;

    /// Up to `limit` audit entries after a place in the log. Those about one request are in the order in which they were
    /// written, and so are those about none; how they are mixed is the backend's affair.
    ///
    /// Whoever goes on from the last page's end until there is nothing more has seen every entry once.
    async fn audit(&self, after: &AuditCursor, limit: usize) -> Result<AuditPage, StoreError>;
}

/// A place in the audit log. What its text means is the backend's affair; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditCursor(pub(crate) String);

/// A part of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditPage {
    /// The entries. None if there are no more, or if none was asked for.
    pub entries: Vec<AuditEntry>,
    /// Where it goes on.
    pub next: AuditCursor,
}
