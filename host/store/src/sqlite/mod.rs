//! The embedded store: one SQLite database in WAL mode, with one writer thread and many readers.
//!
//! A write is prepared (serialised, hashed) on its caller's thread, to keep the writer thread free for writing.
//! Here the store is opened and closed; each port has a file of its own.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod deadline;
mod file;
mod inode;
mod log_mark;
mod maintenance;
mod readers;
mod schema;
mod secret;
mod writer;

mod audit;
mod dispatches;
mod documents;
mod guards;
mod idempotency;
mod messages;
mod open_requests;
mod outbox;
mod policies;
mod request_row;
mod requests;
mod retention;
mod salts;
mod statistics;

mod archive;
mod column;
pub(crate) mod copy;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::lifecycle::Timestamp;
use rusqlite::Connection;

use self::column::other;
use self::deadline::Deadline;
use self::file::Database;
use self::readers::Readers;
use self::writer::{Writer, begin_log};
use crate::{Store, StoreError};

pub use archive::SqliteArchive;
pub use file::OpenError;

const BACKEND: &str = "sqlite";

/// How many expired idempotency keys and nonces are deleted when one is added.
///
/// More than one, so that expired rows become fewer; few, so that no write is delayed noticeably.
const PURGE: i64 = 4;

/// The embedded store.
///
/// Dropping it blocks until the queued writes are durable.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Arc<Readers>,
}

impl SqliteStore {
    /// Opens the database at `path`, and creates it if there is none; the directory must exist.
    ///
    /// Only one store at a time can have a database open: it holds a lock on the file `PATH.lock`.
    pub fn open(path: &Path) -> Result<SqliteStore, OpenError> {
        let (database, connection) = file::Database::open(path)?;
        let marked = copy::has_mark(&connection);
        if marked.map_err(|cause| OpenError::Sqlite { path: path.to_owned(), cause })? {
            return Err(OpenError::Unfinished { path: path.to_owned() });
        }
        let released = dispatches::release_claims(&connection);
        released.map_err(|cause| OpenError::Sqlite { path: path.to_owned(), cause })?;
        SqliteStore::of(path, database, connection)
    }

    /// The store of an open database and its connection for writing.
    fn of(path: &Path, database: Database, connection: Connection) -> Result<SqliteStore, OpenError> {
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        let io = |cause| OpenError::Io { path: path.to_owned(), cause };
        begin_log(&connection).map_err(sqlite)?;
        let checkpointer = database.checkpointer().map_err(sqlite)?;
        let deadline = Deadline::start().map_err(io)?;
        let writer =
            Writer::start(connection, checkpointer, deadline.clone(), database.place()).map_err(io)?;
        Ok(SqliteStore { writer, readers: Readers::of(database, deadline) })
    }

    /// A store in memory, which ends with it. For trying things out, and for tests that must run in the same order each
    /// time: it has no threads, and each call is carried out before it is first awaited to the end.
    ///
    /// # Errors
    /// If SQLite has no memory left.
    pub fn in_memory() -> rusqlite::Result<SqliteStore> {
        let (database, connection) = file::Database::in_memory()?;
        Ok(SqliteStore {
            writer: Writer::inline(connection),
            readers: Readers::of(database, Deadline::never()),
        })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writer.closing()();
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // Only a write that reaches the disk shows that the disk accepts writes, and SQLite leaves out one that changes
        // nothing. It also finds that somebody has replaced the file.
        let written = self.writer.write(|scope| {
            let mut write = scope.db.prepare_cached(
                "INSERT INTO meta (key, value) VALUES ('ping', x'00')
                 ON CONFLICT DO UPDATE SET value = CASE value WHEN x'00' THEN x'01' ELSE x'00' END",
            )?;
            write.execute([])?;
            Ok(())
        });
        written.await
    }

    async fn maintain(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer.write(move |scope| maintenance::maintain(scope.db, now)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let closed = tokio::task::spawn_blocking(self.writer.closing()).await;
        closed.map_err(other)
    }

    async fn failed(&self) {
        self.writer.died().await;
    }
}
