//! The one thread that writes: it takes whatever is queued and commits it together, with one sync of the disk.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{integer, unavailable};
use crate::StoreError;
use countersign_core::lifecycle::Count;

/// How many writes may wait. One more is refused at once: to queue it would only make everybody wait longer.
const QUEUE: usize = 1024;

/// How many writes go into one transaction, so that the first of them does not wait for all that come after it.
const BATCH: usize = 256;

/// How many pages the log may have before they are moved to the database file: 32 MiB.
///
/// Each time ends with the writer waiting for the disk, some ten milliseconds however few pages are left,
/// so it must be rare enough that fewer than one caller in a hundred is in the queue then.
const CHECKPOINT_AT: u32 = 8_000;

/// How many pages the writer moves itself, while everybody waits. The others are moved in the background.
const REST: u32 = 2_000;

/// The queue's near end.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Message>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

enum Message {
    Write(Box<dyn Write>),
    /// Stop, after what was queued before.
    Close,
}

/// A write that is queued: what to do, and whom to tell.
trait Write: Send {
    /// Does it, and keeps the answer. May run twice, the first time having been rolled back.
    fn run(&mut self, scope: &mut Scope<'_>) -> Result<(), Failed>;

    /// Tells the caller, now that the transaction is durable, or is not.
    fn settle(self: Box<Self>, committed: Result<(), &Failed>);
}

/// Why a write, or the whole transaction, failed.
struct Failed(String);

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        Failed(error.to_string())
    }
}

/// What a write may use.
pub(super) struct Scope<'a> {
    /// The connection, in a transaction.
    pub(super) db: &'a Connection,
    counts: &'a mut Counts,
}

impl Scope<'_> {
    /// Has the counts added to their counters in the same transaction.
    pub(super) fn count(&mut self, counts: &[CountRow]) {
        for count in counts {
            self.counts.add(&count.counter, count.by);
        }
    }
}

/// By how much each counter grows in a transaction: a counter that every write touches is written once.
#[derive(Default)]
struct Counts(HashMap<CounterRow, u64>);

/// A counter as it is stored: the metric's name, and its labels as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CounterRow {
    metric: String,
    labels: String,
}

/// A count as it is stored.
#[derive(Clone, Debug)]
pub(super) struct CountRow {
    counter: CounterRow,
    by: u64,
}

impl CountRow {
    pub(super) fn of(count: Count) -> Result<CountRow, StoreError> {
        let labels = serde_json::to_string(&count.counter.labels).map_err(unavailable)?;
        Ok(CountRow { counter: CounterRow { metric: count.counter.metric, labels }, by: count.by })
    }
}

impl Counts {
    fn add(&mut self, counter: &CounterRow, by: u64) {
        match self.0.get_mut(counter) {
            Some(sum) => *sum = sum.saturating_add(by),
            None => {
                self.0.insert(counter.clone(), by);
            }
        }
    }

    fn add_all(&mut self, other: Counts) {
        for (counter, by) in other.0 {
            self.add(&counter, by);
        }
    }

    fn store(self, db: &Connection) -> rusqlite::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut add = db.prepare_cached(
            "INSERT INTO counter (metric, labels, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = value + excluded.value",
        )?;
        for (CounterRow { metric, labels }, by) in self.0 {
            add.execute(params![metric, labels, integer(by)])?;
        }
        Ok(())
    }
}

impl Writer {
    /// Starts the thread that writes, and one that keeps the log short.
    pub(super) fn start(mut connection: Connection, checkpointer: Connection) -> io::Result<Writer> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        let watched = connection.wal_hook(Some(move |_: &mut _, count| {
            counted.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }));
        watched.map_err(io::Error::other)?;
        let (queue, queued) = sync_channel(QUEUE);
        let (ask, asked) = sync_channel(1);
        let (tell, told) = sync_channel(1);
        let log = Log { pages, ask, told, asked: false };
        let write = move || write_all(connection, &queued, log);
        let checkpoint = move || {
            for () in asked {
                let moved = checkpoint(&checkpointer, "PASSIVE");
                if tell.send(moved).is_err() {
                    break;
                }
            }
        };
        let threads = vec![
            thread::Builder::new().name("store-writer".to_owned()).spawn(write)?,
            thread::Builder::new().name("store-log".to_owned()).spawn(checkpoint)?,
        ];
        Ok(Writer { queue, threads: Mutex::new(threads) })
    }

    /// Queues a write, and answers once it is durable.
    ///
    /// `run` may be called twice, so it must not use up what it holds.
    pub(super) async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Scope<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Box::new(Task { run, answer: None, reply });
        self.queue.try_send(Message::Write(task)).map_err(|error| match error {
            TrySendError::Full(_) => unavailable(format_args!("{QUEUE} writes are waiting already")),
            TrySendError::Disconnected(_) => unavailable("it is closed"),
        })?;
        answer.await.map_err(|_| unavailable("it was closed before the write was done"))?
    }

    /// What stops it once everything that was queued before is durable. Blocks until then.
    pub(super) fn closing(&self) -> impl FnOnce() + Send + 'static {
        let queue = self.queue.clone();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        move || {
            // An error means that the thread has stopped already.
            let _ = queue.send(Message::Close);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the store panicked");
                }
            }
        }
    }
}

struct Task<T, F> {
    run: F,
    answer: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Write for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Scope<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, scope: &mut Scope<'_>) -> Result<(), Failed> {
        let answer = (self.run)(scope);
        let done = match &answer {
            Ok(_) => Ok(()),
            Err(StoreError::Unavailable { detail, .. }) => Err(Failed(detail.clone())),
            Err(error) => Err(Failed(error.to_string())),
        };
        self.answer = Some(answer);
        done
    }

    fn settle(self: Box<Self>, committed: Result<(), &Failed>) {
        let answer = match (committed, self.answer) {
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(unavailable("the write was not tried")),
            (Err(Failed(detail)), _) => Err(unavailable(detail)),
        };
        // A caller who no longer waits has gone away; the write stands.
        let _ = self.reply.send(answer);
    }
}

fn write_all(mut db: Connection, queue: &Receiver<Message>, mut log: Log) {
    let mut batch: Vec<Box<dyn Write>> = Vec::with_capacity(BATCH);
    let mut open = true;
    while open {
        let Ok(first) = queue.recv() else { break };
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Write(write) => batch.push(write),
                Message::Close => open = false,
            }
            next = if open && batch.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        // INVARIANT: nobody is told of a write before the transaction that holds it is durable.
        let committed = commit(&mut db, &mut batch);
        for write in batch.drain(..) {
            write.settle(committed.as_ref().copied());
        }
        log.shorten(&db);
    }
    checkpoint(&db, "TRUNCATE");
}

/// Does all the writes in one transaction. Where one fails, the others are done without it.
fn commit(db: &mut Connection, batch: &mut [Box<dyn Write>]) -> Result<(), Failed> {
    if batch.is_empty() || together(db.transaction_with_behavior(TransactionBehavior::Immediate)?, batch)? {
        return Ok(());
    }
    apart(db.transaction_with_behavior(TransactionBehavior::Immediate)?, batch)
}

/// False where a write failed and everything was rolled back. Failures are rare, and savepoints are not free.
fn together(transaction: Transaction<'_>, batch: &mut [Box<dyn Write>]) -> Result<bool, Failed> {
    let mut counts = Counts::default();
    let mut scope = Scope { db: &transaction, counts: &mut counts };
    if !batch.iter_mut().all(|write| write.run(&mut scope).is_ok()) {
        // Rolls back, unless the failure was one that SQLite answered by doing so.
        transaction.finish()?;
        return Ok(false);
    }
    counts.store(&transaction)?;
    transaction.commit()?;
    Ok(true)
}

/// Each write in a savepoint of its own, so that one that fails changes nothing.
fn apart(mut transaction: Transaction<'_>, batch: &mut [Box<dyn Write>]) -> Result<(), Failed> {
    let mut all = Counts::default();
    for write in batch {
        let savepoint = transaction.savepoint()?;
        let mut counts = Counts::default();
        match write.run(&mut Scope { db: &savepoint, counts: &mut counts }) {
            Ok(()) => {
                savepoint.commit()?;
                all.add_all(counts);
            }
            // SQLite answers some failures, a full disk among them, by rolling everything back.
            // Then there is no savepoint to go back to, and the batch has failed for the same reason.
            Err(failed) => savepoint.finish().map_err(|_| failed)?,
        }
    }
    all.store(&transaction)?;
    Ok(transaction.commit()?)
}

/// The write-ahead log, which must not grow for ever.
///
/// It starts over where a write finds that all of it was moved to the database file, which under steady writes
/// never comes by itself: while one thread moves pages, the other adds some. So the pages are moved
/// in the background until few are left, and the writer moves those between two transactions.
struct Log {
    /// How many pages it had after the last transaction.
    pages: Arc<AtomicU32>,
    ask: SyncSender<()>,
    told: Receiver<u32>,
    asked: bool,
}

impl Log {
    fn shorten(&mut self, db: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if let Ok(moved) = self.told.try_recv() {
            self.asked = false;
            if pages.saturating_sub(moved) <= REST {
                checkpoint(db, "PASSIVE");
                return;
            }
        }
        if pages >= CHECKPOINT_AT && !self.asked {
            self.asked = self.ask.try_send(()).is_ok();
        }
    }
}

/// Moves pages from the log to the database file; returns how many of the log's are moved.
fn checkpoint(db: &Connection, mode: &str) -> u32 {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(2)).unwrap_or_else(|error| {
        // Nothing is lost: the log keeps what was committed, and the next checkpoint moves it.
        tracing::warn!(%error, "the store's log could not be moved to the database file");
        0
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use tempfile::TempDir;
    use tokio::sync::oneshot;

    use super::*;
    use crate::sqlite::file::Database;

    type Reply = oneshot::Receiver<Result<i64, StoreError>>;

    /// A database, and a batch for it.
    struct Bench {
        _directory: TempDir,
        database: Database,
        connection: Connection,
        batch: Vec<Box<dyn Write>>,
        replies: Vec<Reply>,
    }

    impl Bench {
        fn new() -> Bench {
            let directory = tempfile::tempdir().unwrap();
            let (database, connection) = Database::open(&directory.path().join("store.db")).unwrap();
            Bench { _directory: directory, database, connection, batch: vec![], replies: vec![] }
        }

        /// Adds a write that stores a key, counts one, and then does `then`.
        fn write(&mut self, key: &'static str, then: &'static str) {
            let run = move |scope: &mut Scope<'_>| {
                scope.db.execute("INSERT INTO meta (key, value) VALUES (?1, x'')", [key])?;
                scope.count(&[CountRow::of(Count::one("written_total", &[]))?]);
                scope.db.execute_batch(then)?;
                Ok(scope.db.query_one("SELECT count(*) FROM meta", [], |row| row.get(0))?)
            };
            let (reply, answer) = oneshot::channel();
            self.batch.push(Box::new(Task { run, answer: None, reply }));
            self.replies.push(answer);
        }

        /// Commits the batch, and returns each answer, what is stored, and the counter.
        fn commit(&mut self) -> (Vec<Result<i64, String>>, Vec<String>, i64) {
            let committed = commit(&mut self.connection, &mut self.batch);
            for write in self.batch.drain(..) {
                write.settle(committed.as_ref().copied());
            }
            let answers = self
                .replies
                .drain(..)
                .map(|mut reply| reply.try_recv().unwrap().map_err(|error| error.to_string()));
            let reader = self.database.reader().unwrap();
            let mut select = reader.prepare("SELECT key FROM meta ORDER BY key").unwrap();
            let keys = select.query_map([], |row| row.get(0)).unwrap();
            let counter = "SELECT coalesce(sum(value), 0) FROM counter";
            let counter = reader.query_one(counter, [], |row| row.get(0)).unwrap();
            (answers.collect(), keys.collect::<Result<_, _>>().unwrap(), counter)
        }
    }

    #[test]
    fn a_batch_is_one_transaction() {
        let mut bench = Bench::new();
        let log = Arc::new(AtomicU32::new(0));
        let transactions = Arc::clone(&log);
        let count = move |_: &mut _, _| {
            transactions.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        bench.connection.wal_hook(Some(count)).unwrap();
        for key in ["a", "b", "c"] {
            bench.write(key, "");
        }
        let (answers, keys, counter) = bench.commit();
        assert_eq!(answers, [Ok(1), Ok(2), Ok(3)]);
        assert_eq!((keys.concat().as_str(), counter), ("abc", 3));
        assert_eq!(log.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_write_that_fails_midway_changes_nothing_and_stops_nobody() {
        let mut bench = Bench::new();
        bench.write("a", "");
        bench.write("b", "INSERT INTO meta (key, value) VALUES ('a', x'')");
        bench.write("c", "");
        bench.write("d", "no such statement");
        let (answers, keys, counter) = bench.commit();
        let [Ok(1), Err(one), Ok(2), Err(other)] = &answers[..] else { panic!("{answers:?}") };
        assert!(one.contains("UNIQUE"), "{one}");
        assert!(other.contains("syntax error"), "{other}");
        assert_eq!((keys.concat().as_str(), counter), ("ac", 2));
    }

    #[test]
    fn nobody_hears_of_success_where_the_transaction_is_lost() {
        let mut bench = Bench::new();
        bench.write("a", "");
        // What SQLite does by itself where the disk fails.
        bench.write("b", "ROLLBACK; no such statement");
        bench.write("c", "");
        let (answers, keys, counter) = bench.commit();
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
        assert_eq!((keys.len(), counter), (0, 0));

        bench.write("d", "");
        let (answers, ..) = bench.commit();
        assert_eq!(answers, [Ok(1)], "the next batch is not affected");
    }

    #[test]
    fn a_full_disk_is_told_and_survived() {
        let mut bench = Bench::new();
        let pages: i64 = bench.connection.query_one("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let limit = |bench: &Bench, pages: i64| {
            let set = format!("PRAGMA max_page_count = {pages}");
            bench.connection.query_one(&set, [], |_| Ok(())).unwrap();
        };
        limit(&bench, pages);
        bench.write("a", "");
        bench.write("b", "INSERT INTO meta (key, value) VALUES ('big', zeroblob(100000))");
        let (answers, keys, counter) = bench.commit();
        let full = |answer: &Result<_, String>| answer.as_ref().is_err_and(|error| error.contains("is full"));
        assert!(answers.iter().all(full), "{answers:?}");
        assert_eq!((keys.len(), counter), (0, 0));

        limit(&bench, pages + 1000);
        bench.write("c", "INSERT INTO meta (key, value) VALUES ('big', zeroblob(100000))");
        assert!(bench.commit().0[0].is_ok());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let bench = Bench::new();
        let checkpointer = bench.database.checkpointer().unwrap();
        let writer = Arc::new(Writer::start(bench.connection, checkpointer).unwrap());
        // The writer is held up by the first, while the others fill the queue.
        let (started, has_started) = oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let mut started = Some(started);
        let held = writer.write(move |_| {
            started.take().map(|started| started.send(()));
            Ok(released.recv().is_err())
        });
        let mut held = Box::pin(held);
        let first = tokio::select! {
            biased;
            _ = &mut held => false,
            begun = has_started => begun.is_ok(),
        };
        assert!(first);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..QUEUE {
            let writer = Arc::clone(&writer);
            waiting.spawn(async move { writer.write(|_| Ok(())).await });
        }
        // Every one of them has had its turn on this one thread once a task that came after has.
        tokio::spawn(async {}).await.unwrap();
        let refused = writer.write(|_| Ok(())).await.unwrap_err().to_string();
        assert!(refused.contains("1024 writes are waiting already"), "{refused}");
        drop(release);
        assert!(held.await.unwrap());
        assert!(waiting.join_all().await.iter().all(Result::is_ok));
    }
}
