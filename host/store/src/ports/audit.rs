//! The audit log: entries in partitions, each numbered from 1 without gaps, in the order in which they were stored.
//!
//! What is about one request is in the partition of its shard, and what is about none is in the last one. Most entries
//! are stored with the change that they describe, by the port that stores the change. What proves that none was changed
//! since is in `countersign_core::audit`.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count, Digest, RequestId, Timestamp};

use super::{Committed, Nonce};
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

    /// Up to `limit` entries after a place in the log, as they are stored.
    ///
    /// Those of one partition are in the order of their numbers; how partitions are mixed is the backend's affair, except
    /// that those of a period come by their time. Whoever goes on from the last page's end until there is nothing more
    /// has read every entry once. A page can be shorter than `limit`, and even empty, although more follow.
    async fn audit_log(
        &self,
        range: AuditRange,
        after: &AuditCursor,
        limit: usize,
    ) -> Result<LogPage, StoreError>;

    /// As [`Audit::audit_log`] of the whole log, with each entry as it was written.
    async fn audit(&self, after: &AuditCursor, limit: usize) -> Result<AuditPage, StoreError> {
        let page = self.audit_log(AuditRange::default(), after, limit).await?;
        let entries = page.entries.iter().map(LogEntry::entry).collect::<Result<_, _>>()?;
        Ok(AuditPage { entries, next: page.next })
    }

    /// How many entries each partition has had, by partition. The last partition is of what is about no request.
    async fn audit_sizes(&self) -> Result<Vec<u64>, StoreError>;

    /// The entry with the given number of each partition, if it is there. `None` of a store that never loses what it has
    /// acknowledged, and need not be asked.
    async fn audit_entries_at(&self, numbers: &[u64]) -> Result<Option<Vec<Option<LogEntry>>>, StoreError> {
        let _ = numbers;
        Ok(None)
    }

    /// The entries that a place in the whole log comes right after, as far as they are there: one, or one of each partition.
    async fn audit_before(&self, place: &AuditCursor) -> Result<Vec<LogEntry>, StoreError>;

    /// Appends an entry to a partition, whatever it is about, and returns its number.
    async fn append_to(&self, partition: u16, entry: AuditEntry) -> Result<u64, StoreError>;

    /// Removes the entries of a partition up to the one with this number, in one write. The numbers of those that follow stay
    /// as they are, and so does the size of the partition.
    async fn remove_audit(&self, partition: u16, through: u64) -> Result<(), StoreError>;

    /// The newest checkpoint.
    async fn audit_checkpoint(&self) -> Result<Option<KeptCheckpoint>, StoreError>;

    /// Stores a checkpoint in the place of the one before it. It is a conflict unless its sequence is the stored one plus
    /// one, or 1 if none is stored.
    async fn keep_audit_checkpoint(&self, checkpoint: KeptCheckpoint) -> Result<Committed, StoreError>;
}

/// A place in the audit log. What its text means is the backend's affair; the default is the beginning. A place in one range
/// is no place in another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditCursor(pub(crate) String);

impl AuditCursor {
    /// The place with this text.
    #[must_use]
    pub fn parse(text: &str) -> AuditCursor {
        AuditCursor(text.to_owned())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A part of the audit log that the backend finds without reading all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditRange {
    /// Only entries about this request.
    pub request: Option<RequestId>,
    /// Only entries from the first of these times on, and before the second one.
    pub period: Option<(Timestamp, Timestamp)>,
}

impl AuditRange {
    /// Whether a time is in it.
    #[must_use]
    pub fn has(&self, at: Timestamp) -> bool {
        self.period.is_none_or(|(since, until)| since <= at && at < until)
    }
}

/// A part of the audit log as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The entries.
    pub entries: Vec<LogEntry>,
    /// Where it goes on.
    pub next: AuditCursor,
    /// Whether there was nothing more.
    pub is_last: bool,
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its partition.
    pub partition: u16,
    /// Its number in the partition, from 1 on.
    pub number: u64,
    /// SHA-256 of `body`, as it is stored.
    pub digest: Digest,
    /// Its bytes: the canonical JSON (RFC 8785) of an [`AuditEntry`], or, of one that an earlier version wrote, other
    /// JSON.
    pub body: String,
    /// What the store keeps beside it to find it by, if that could differ from what it says.
    pub columns: Option<LogColumns>,
}

/// Copies of what is in an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogColumns {
    /// When it happened, in milliseconds since the epoch.
    pub at: i64,
    /// The bytes of the request's id.
    pub request: Option<Vec<u8>>,
}

impl LogEntry {
    /// The entry as it was written.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn entry(&self) -> Result<AuditEntry, StoreError> {
        serde_json::from_str(&self.body).map_err(|error| StoreError::Corrupt {
            table: "audit",
            column: "body",
            key: format!("{}/{}", self.partition, self.number),
            detail: error.to_string(),
        })
    }
}

/// A part of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditPage {
    /// The entries. None if there are no more, or if none was asked for.
    pub entries: Vec<AuditEntry>,
    /// Where it goes on.
    pub next: AuditCursor,
}

/// A checkpoint as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// Its number in the line of checkpoints, from 1 on.
    pub sequence: u64,
    /// The signed note.
    pub note: String,
    /// What whoever signs the next one must know.
    pub state: String,
}

/// The bytes of an entry that are stored, and their digest.
pub(crate) fn encoded(entry: &AuditEntry) -> Result<(String, Digest), StoreError> {
    let value = serde_json::to_value(entry).map_err(|error| StoreError::Corrupt {
        table: "audit",
        column: "body",
        key: entry.event.clone(),
        detail: error.to_string(),
    })?;
    let body = countersign_core::lifecycle::canonical(&value);
    let digest = Digest::of(body.as_bytes());
    Ok((body, digest))
}
