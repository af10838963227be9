//! Where a log is read from: the file of an embedded store, or a shared store.

use std::sync::Arc;

use countersign_store::{AuditCursor, AuditRange, KeptCheckpoint, LogPage, SqliteArchive, Store, StoreError};

/// A store that is read.
pub(super) enum Source {
    /// A file.
    File(SqliteArchive),
    /// A store that others have open too.
    Shared(Arc<dyn Store>),
}

/// How many entries are read at once. Each page is a short read, so that no write waits for an export.
pub(super) const PAGE: usize = 1000;

impl Source {
    pub(super) async fn page(&self, range: AuditRange, after: &AuditCursor) -> Result<LogPage, StoreError> {
        match self {
            Source::File(archive) => archive.audit_log(range, after, PAGE),
            Source::Shared(store) => store.audit_log(range, after, PAGE).await,
        }
    }

    pub(super) async fn checkpoint(&self) -> Result<Option<KeptCheckpoint>, StoreError> {
        match self {
            Source::File(archive) => archive.audit_checkpoint(),
            Source::Shared(store) => store.audit_checkpoint().await,
        }
    }
}
