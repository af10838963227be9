//! Connections that only read. They see what is committed, and neither wait for the writer nor hold it up.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::file::Database;
use super::unavailable;
use crate::StoreError;

/// How many idle connections to keep; each has a page cache of its own.
const IDLE: usize = 8;

/// The connections that nobody uses now. One more is opened where there is none.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    // Last, so that the lock on the database outlives the connections.
    database: Database,
}

impl Readers {
    pub(super) fn of(database: Database) -> Arc<Readers> {
        Arc::new(Readers { idle: Mutex::new(Vec::new()), database })
    }

    /// Reads on this thread: right for a few rows found by an index, which takes some ten microseconds,
    /// less than it takes to hand the work to another thread and to be woken by it.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.database.reader()?,
        };
        let answer = read(&connection);
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        answer
    }

    /// Reads on a thread that may block: right for everything whose size is not known beforehand.
    pub(super) async fn scan<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(self);
        tokio::task::spawn_blocking(move || readers.read(read)).await.map_err(unavailable)?
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A list of connections has no state that a panic elsewhere could leave half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
