//! A pool of read-only connections. They see what is committed, and neither wait for the writer nor block it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::column::unavailable;
use super::file::Database;
use crate::StoreError;

/// How many idle connections to keep; each has a page cache of its own.
const IDLE: usize = 8;

/// The idle connections. If there is none, another one is opened.
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

    /// Reads on this thread: for a few rows found by an index.
    ///
    /// That takes some ten microseconds, less than handing the work to another thread and waking up for its result.
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

    /// Reads on a thread that may block: for every result whose size is not known beforehand.
    pub(super) async fn scan<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.database.is_in_memory() {
            // Nothing blocks, and tests need the same order each time.
            return self.read(read);
        }
        let readers = Arc::clone(self);
        tokio::task::spawn_blocking(move || readers.read(read)).await.map_err(unavailable)?
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A panic cannot leave a list of connections half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
