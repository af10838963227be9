//! Where a log is read from: the file of an embedded store, or a shared store.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_console::Progress;
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
    /// Says how far a log is while it is read, whole or in part.
    pub(super) async fn position<'a>(
        &self,
        progress: &'a Progress,
        whole: bool,
    ) -> Result<Position<'a>, StoreError> {
        if whole {
            let sizes = match self {
                Source::File(archive) => archive.audit_sizes()?,
                Source::Shared(store) => store.audit_sizes().await?,
            };
            progress.total(sizes.into_iter().fold(0, u64::saturating_add));
        }
        Ok(Position { progress, whole, last: BTreeMap::new(), read: 0 })
    }
}

/// How far a log is read. Of a whole one, entries that retention has removed count as read: how many there were is known, and
/// how many are left is not.
pub(super) struct Position<'a> {
    progress: &'a Progress,
    whole: bool,
    /// The number of the last entry of each partition.
    last: BTreeMap<u16, u64>,
    read: u64,
}

impl Position<'_> {
    /// This entry is read.
    pub(super) fn read(&mut self, partition: u16, number: u64) {
        let step = match self.whole {
            true => number.saturating_sub(self.last.insert(partition, number).unwrap_or_default()),
            false => 1,
        };
        self.read = self.read.saturating_add(step);
        self.progress.set(self.read);
    }
}
