//! A pool of read-only connections. They see what is committed, and neither wait for the writer nor block it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::column::other;
use super::deadline::Deadline;
use super::file::Database;
use crate::StoreError;

/// How many connections there are at most, and so how many reads may be under way. Each has a page cache of its own, and
/// all are kept, since to open one takes longer than most reads. Others wait, so that a disk that hangs does not take every
/// thread that may block.
const CONNECTIONS: usize = 8;

/// The idle connections. If there is none, another one is opened.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    under_way: Arc<Semaphore>,
    deadline: Deadline,
    // Last, so that the lock on the database outlives the connections.
    database: Database,
}

impl Readers {
    pub(super) fn of(database: Database, deadline: Deadline) -> Arc<Readers> {
        let under_way = Arc::new(Semaphore::new(CONNECTIONS));
        Arc::new(Readers { idle: Mutex::new(Vec::new()), under_way, deadline, database })
    }

    /// Reads on a thread that may block: a page that is not in memory comes from the disk, and that can take any time.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.database.is_in_memory() {
            // Nothing blocks, and tests need the same order each time.
            return self.read_here(read);
        }
        let work = async {
            let under_way = Arc::clone(&self.under_way).acquire_owned().await.map_err(other)?;
            let readers = Arc::clone(self);
            let work = tokio::task::spawn_blocking(move || {
                let answer = readers.read_here(read);
                drop(under_way);
                answer
            });
            work.await.map_err(other)?
        };
        self.deadline.within(work).await?
    }

    fn read_here<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                // One to another file would be beside those to the file that is open.
                self.database.place().map_or(Ok(()), |place| place.check()).map_err(other)?;
                self.database.reader()?
            }
        };
        let answer = read(&connection);
        self.idle().push(connection);
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A panic cannot leave a list of connections half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
