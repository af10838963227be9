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
use crate::lifecycle::Count;
use crate::store::StoreError;

/// How many writes may wait. One more is refused at once: to queue it would only make everybody wait longer.
const QUEUE: usize = 1024;

/// How many writes go into one transaction, so that the first of them does not wait for all that come after it.
const BATCH: usize = 256;

/// How many pages the log may have before they are moved to the database file in the background.
const CHECKPOINT_AT: u32 = 1_000;

/// How many pages the log may have before the writer itself moves what the background left.
/// The log can only start over at a moment when nothing is left, which under steady writes never comes by itself.
const CATCH_UP_AT: u32 = 8_000;

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
    /// Does it, and keeps the answer. False where it failed. May run twice, the first time having been rolled back.
    fn run(&mut self, scope: &mut Scope<'_>) -> bool;

    /// Tells the caller, now that the transaction is durable, or is not.
    fn settle(self: Box<Self>, committed: Result<(), &str>);
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
        let log = Arc::new(AtomicU32::new(0));
        let pages = Arc::clone(&log);
        let watched = connection.wal_hook(Some(move |_: &mut _, count| {
            pages.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }));
        watched.map_err(io::Error::other)?;
        let (queue, queued) = sync_channel(QUEUE);
        let (wake, woken) = sync_channel(1);
        let write = move || write_all(connection, &queued, &log, &wake);
        let checkpoint = move || {
            for () in woken {
                checkpoint(&checkpointer, "PASSIVE");
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

    /// Stops once everything that was queued before is durable.
    pub(super) fn close(&self) {
        // An error means that the thread has stopped already.
        let _ = self.queue.send(Message::Close);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
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
    fn run(&mut self, scope: &mut Scope<'_>) -> bool {
        let answer = (self.run)(scope);
        let done = answer.is_ok();
        self.answer = Some(answer);
        done
    }

    fn settle(self: Box<Self>, committed: Result<(), &str>) {
        let answer = match (committed, self.answer) {
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(unavailable("the write was not tried")),
            (Err(detail), _) => Err(unavailable(detail)),
        };
        // A caller who no longer waits has gone away; the write stands.
        let _ = self.reply.send(answer);
    }
}

fn write_all(mut db: Connection, queue: &Receiver<Message>, log: &AtomicU32, wake: &SyncSender<()>) {
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
        let committed = commit(&mut db, &mut batch).map_err(|error| error.to_string());
        for write in batch.drain(..) {
            write.settle(committed.as_ref().copied().map_err(String::as_str));
        }
        let pages = log.load(Ordering::Relaxed);
        if pages >= CATCH_UP_AT {
            checkpoint(&db, "PASSIVE");
        } else if pages >= CHECKPOINT_AT {
            // Where it is full, the thread has been woken already.
            let _ = wake.try_send(());
        }
    }
    checkpoint(&db, "TRUNCATE");
}

/// Does all the writes in one transaction. Where one fails, the others are done without it.
fn commit(db: &mut Connection, batch: &mut [Box<dyn Write>]) -> rusqlite::Result<()> {
    if batch.is_empty() || together(db.transaction_with_behavior(TransactionBehavior::Immediate)?, batch)? {
        return Ok(());
    }
    apart(db.transaction_with_behavior(TransactionBehavior::Immediate)?, batch)
}

/// False where a write failed and everything was rolled back. Failures are rare, and savepoints are not free.
fn together(transaction: Transaction<'_>, batch: &mut [Box<dyn Write>]) -> rusqlite::Result<bool> {
    let mut counts = Counts::default();
    let mut scope = Scope { db: &transaction, counts: &mut counts };
    if !batch.iter_mut().all(|write| write.run(&mut scope)) {
        // Rolls back, unless the failure was one that SQLite answered by doing so.
        transaction.finish()?;
        return Ok(false);
    }
    counts.store(&transaction)?;
    transaction.commit()?;
    Ok(true)
}

/// Each write in a savepoint of its own, so that one that fails changes nothing.
fn apart(mut transaction: Transaction<'_>, batch: &mut [Box<dyn Write>]) -> rusqlite::Result<()> {
    let mut all = Counts::default();
    for write in batch {
        let savepoint = transaction.savepoint()?;
        let mut counts = Counts::default();
        if write.run(&mut Scope { db: &savepoint, counts: &mut counts }) {
            savepoint.commit()?;
            all.add_all(counts);
        } else {
            // SQLite answers some failures by rolling everything back; then this fails too, and so does the batch.
            savepoint.finish()?;
        }
    }
    all.store(&transaction)?;
    transaction.commit()
}

fn checkpoint(db: &Connection, mode: &str) {
    let done = db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
    if let Err(error) = done {
        // Nothing is lost: the log keeps what was committed, and the next checkpoint moves it.
        tracing::warn!(%error, "the store's log could not be moved to the database file");
    }
}
