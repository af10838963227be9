//! A writer without threads, for databases in memory, and for tests that must run in the same order each time: whoever
//! queues a write carries it out.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use tokio::sync::watch;

use super::{Deadline, Message, QUEUE, Writer, commit};

/// The receiving end of the queue, and the connection that its writes are carried out on.
#[derive(Debug)]
pub(super) struct Inline(Mutex<(Connection, Receiver<Message>)>);

impl Writer {
    /// A writer that writes on its callers' threads. It never moves pages of a write-ahead log.
    pub(in crate::sqlite) fn inline(connection: Connection) -> Writer {
        let (queue, queued) = sync_channel(QUEUE);
        let inline = Some(Inline(Mutex::new((connection, queued))));
        let (_, died) = watch::channel(false);
        Writer { queue, threads: Mutex::default(), deadline: Deadline::never(), died, inline }
    }
}

impl Inline {
    /// Carries out what is queued, each write in a transaction of its own.
    pub(super) fn write_queued(&self) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (connection, queued) = &mut *guard;
        while let Ok(Message::Write(write)) = queued.try_recv() {
            let mut batch = [write];
            let committed = commit(connection, &mut batch);
            for write in batch {
                write.reply(committed.as_ref().copied());
            }
        }
    }
}
