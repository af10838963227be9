//! Checkpoints: moving committed pages from the write-ahead log to the database file, so that the log stays short.
//!
//! SQLite restarts the log when a write finds that all of its pages were moved.
//! Under steady writes that never happens by itself: while one thread moves pages, the writer adds some.
//! So a background thread moves pages until few are left, and the writer moves those between two transactions.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use crate::sqlite::log_mark::LogMark;

/// How many pages the log may have before a checkpoint begins: 32 MiB.
///
/// Each checkpoint ends with the writer waiting for the disk, some ten milliseconds however few pages are left.
/// So it must be rare enough that fewer than one caller in a hundred is in the queue then.
const CHECKPOINT_AT: u32 = 8_000;

/// How many pages the writer moves itself, while callers wait. The others are moved in the background.
const REST: u32 = 2_000;

/// How many pages of the log are worth a warning: 256 MiB.
const UNUSUAL: u32 = 64_000;

/// Decides when to checkpoint. Owned by the writer thread.
pub(super) struct Checkpoints {
    /// How many pages the log had after the last transaction.
    pages: Arc<AtomicU32>,
    /// How many pages the log has when the next checkpoint begins.
    next_at: u32,
    background: Background,
}

/// The thread that moves pages.
enum Background {
    Idle(Thread),
    Running(Thread),
    /// It has ended, so the writer moves the pages itself.
    Ended,
}

struct Thread {
    start: SyncSender<()>,
    /// How many pages a checkpoint has moved; `None` if it failed.
    moved: Receiver<Option<u32>>,
}

impl Checkpoints {
    /// Counts the log's pages after each transaction of `writer`, and starts the background thread.
    pub(super) fn start(
        writer: &mut Connection,
        background: Connection,
    ) -> io::Result<(Checkpoints, JoinHandle<()>)> {
        Checkpoints::start_with(writer, move || checkpoint(&background, "PASSIVE"))
    }

    /// The same with another way to move pages in the background.
    fn start_with(
        writer: &mut Connection,
        mut move_pages: impl FnMut() -> Option<u32> + Send + 'static,
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
                if report.send(move_pages()).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("store-log".to_owned()).spawn(run)?;
        let background = Background::Idle(Thread { start, moved });
        Ok((Checkpoints { pages, next_at: CHECKPOINT_AT, background }, thread))
    }

    /// Starts or finishes a checkpoint if it is time. Called after each transaction.
    pub(super) fn advance(&mut self, db: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < CHECKPOINT_AT {
            self.next_at = CHECKPOINT_AT;
        }
        self.background = match std::mem::replace(&mut self.background, Background::Ended) {
            Background::Running(thread) => match thread.moved.try_recv() {
                Ok(moved) => {
                    self.moved(db, pages, moved);
                    Background::Idle(thread)
                }
                Err(TryRecvError::Empty) => Background::Running(thread),
                Err(TryRecvError::Disconnected) => ended(),
            },
            Background::Idle(thread) if pages >= self.next_at => {
                mark(db, LogMark::Needed);
                match thread.start.try_send(()) {
                    Ok(()) => Background::Running(thread),
                    Err(_) => ended(),
                }
            }
            Background::Ended if pages >= self.next_at => {
                mark(db, LogMark::Needed);
                self.finish(db, pages, checkpoint(db, "PASSIVE"));
                Background::Ended
            }
            unchanged => unchanged,
        };
    }

    /// The background thread has moved pages.
    fn moved(&mut self, db: &Connection, pages: u32, moved: Option<u32>) {
        match moved {
            Some(moved) if pages.saturating_sub(moved) <= REST => {
                self.finish(db, pages, checkpoint(db, "PASSIVE"));
            }
            // The writer has added many pages meanwhile.
            Some(moved) if moved >= self.next_at / 2 => {}
            incomplete => self.finish(db, pages, incomplete),
        }
    }

    /// A checkpoint that fails, or that a reader holds up, is tried again after some more pages, not after each transaction.
    fn finish(&mut self, db: &Connection, pages: u32, moved: Option<u32>) {
        self.next_at = if moved.is_some_and(|moved| moved >= pages) {
            CHECKPOINT_AT
        } else {
            pages.saturating_add(REST).max(CHECKPOINT_AT)
        };
        mark(db, LogMark::Merged);
        if pages >= UNUSUAL {
            tracing::warn!(pages, "the write-ahead log is long: a reader holds it, or checkpoints fail");
        }
    }
}

fn ended() -> Background {
    tracing::error!("the thread that shortens the write-ahead log has ended; the writer does it from now on");
    Background::Ended
}

/// Has the database file say that it needs the log, once it has all that the log has; the log says otherwise.
pub(in crate::sqlite) fn begin_log(db: &Connection) -> rusqlite::Result<()> {
    LogMark::Needed.write(db)?;
    checkpoint(db, "PASSIVE");
    LogMark::Merged.write(db)
}

/// Moves every page, and truncates the log.
pub(super) fn truncate_log(db: &Connection) {
    mark(db, LogMark::Merged);
    checkpoint(db, "TRUNCATE");
}

fn mark(db: &Connection, mark: LogMark) {
    if let Err(error) = mark.write(db) {
        // At worst a copy of the database file alone is taken for complete.
        tracing::warn!(%error, "cannot mark the write-ahead log");
    }
}

/// Returns how many of the log's pages are in the database file afterwards; `None` if it failed.
fn checkpoint(db: &Connection, mode: &str) -> Option<u32> {
    match db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(2)) {
        Ok(moved) => Some(moved),
        Err(error) => {
            // Nothing is lost: the log keeps what was committed, and a later checkpoint moves it.
            tracing::warn!(%error, "WAL checkpoint failed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::sqlite::file::Database;

    fn database() -> (TempDir, Database, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let (database, connection) = Database::open(&directory.path().join("store.db")).unwrap();
        (directory, database, connection)
    }

    /// Adds some 8,200 pages to the log; SQLite would not write the same content again.
    fn fill(db: &Connection) {
        db.execute_batch("INSERT OR REPLACE INTO meta (key, value) VALUES ('big', randomblob(33554432))")
            .unwrap();
    }

    fn pages(checkpoints: &Checkpoints) -> u32 {
        checkpoints.pages.load(Ordering::Relaxed)
    }

    /// If the thread that moves pages ends, the log is kept short all the same.
    #[test]
    fn the_writer_shortens_the_log_if_nobody_else_does() {
        let (_directory, _database, mut db) = database();
        let (mut checkpoints, thread) = Checkpoints::start_with(&mut db, || panic!("a defect")).unwrap();
        fill(&db);
        assert!(pages(&checkpoints) >= CHECKPOINT_AT);
        checkpoints.advance(&db);
        assert!(thread.join().is_err());
        // It is noticed, and then the pages are moved.
        checkpoints.advance(&db);
        checkpoints.advance(&db);
        fill(&db);
        assert!(pages(&checkpoints) < 2 * CHECKPOINT_AT, "the log grew to {} pages", pages(&checkpoints));
    }

    /// A reader that holds the log is not asked again after each transaction.
    #[test]
    fn a_checkpoint_that_is_held_up_is_tried_again_later() {
        let (_directory, database, mut db) = database();
        let reader = database.reader().unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM meta").unwrap();
        let (asked, attempts) = sync_channel(1);
        let (answer, answers) = sync_channel::<()>(1);
        let background = database.checkpointer().unwrap();
        let move_pages = move || {
            let moved = checkpoint(&background, "PASSIVE");
            asked.send(()).ok()?;
            answers.recv().ok()?;
            moved
        };
        let (mut checkpoints, _thread) = Checkpoints::start_with(&mut db, move_pages).unwrap();
        fill(&db);
        checkpoints.advance(&db);
        attempts.recv().unwrap();
        answer.send(()).unwrap();
        // Until the result is there.
        while matches!(checkpoints.background, Background::Running(_)) {
            checkpoints.advance(&db);
            thread::yield_now();
        }
        for _ in 0..3 {
            checkpoints.advance(&db);
            assert!(matches!(checkpoints.background, Background::Idle(_)));
        }
        fill(&db);
        checkpoints.advance(&db);
        attempts.recv().unwrap();
        drop(answer);
    }
}
