//! Checkpoints: moving committed pages from the write-ahead log to the database file, so that the log stays short.
//!
//! SQLite restarts the log when a write finds that all of its pages were moved.
//! Under steady writes that never happens by itself: while one thread moves pages, the writer adds some.
//! So a background thread moves pages until few are left, and the writer moves those between two transactions.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

/// How many pages the log may have before a checkpoint begins: 32 MiB.
///
/// Each checkpoint ends with the writer waiting for the disk, some ten milliseconds however few pages are left.
/// So it must be rare enough that fewer than one caller in a hundred is in the queue then.
const CHECKPOINT_AT: u32 = 8_000;

/// How many pages the writer moves itself, while callers wait. The others are moved in the background.
const REST: u32 = 2_000;

/// Decides when to checkpoint. Owned by the writer thread.
pub(super) struct Checkpoints {
    /// How many pages the log had after the last transaction.
    pages: Arc<AtomicU32>,
    start: SyncSender<()>,
    /// How many pages a background checkpoint has moved.
    moved: Receiver<u32>,
    running: bool,
}

impl Checkpoints {
    /// Counts the log's pages after each transaction of `writer`, and starts the background thread.
    pub(super) fn start(
        writer: &mut Connection,
        background: Connection,
    ) -> io::Result<(Checkpoints, JoinHandle<()>)> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        let hook = writer.wal_hook(Some(move |_: &mut _, count| {
            counted.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }));
        hook.map_err(io::Error::other)?;
        let (start, started) = sync_channel(1);
        let (report, moved) = sync_channel(1);
        let run = move || {
            for () in started {
                if report.send(checkpoint(&background, "PASSIVE")).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("store-log".to_owned()).spawn(run)?;
        Ok((Checkpoints { pages, start, moved, running: false }, thread))
    }

    /// Starts or finishes a checkpoint if it is time. Called after each transaction.
    pub(super) fn advance(&mut self, db: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if let Ok(moved) = self.moved.try_recv() {
            self.running = false;
            if pages.saturating_sub(moved) <= REST {
                checkpoint(db, "PASSIVE");
                return;
            }
        }
        if pages >= CHECKPOINT_AT && !self.running {
            self.running = self.start.try_send(()).is_ok();
        }
    }
}

/// Moves every page, and truncates the log.
pub(super) fn truncate_log(db: &Connection) {
    checkpoint(db, "TRUNCATE");
}

/// Returns how many of the log's pages are in the database file afterwards.
fn checkpoint(db: &Connection, mode: &str) -> u32 {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(2)).unwrap_or_else(|error| {
        // Nothing is lost: the log keeps what was committed, and the next checkpoint moves it.
        tracing::warn!(%error, "WAL checkpoint failed");
        0
    })
}
