//! The writer thread: it takes all queued writes and commits them together, with one sync of the disk.

mod checkpoint;
mod counts;
mod inline;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{oneshot, watch};

use self::checkpoint::{Checkpoints, truncate_log};
use self::counts::Counts;
use super::column::{fault, other, unavailable};
use super::deadline::Deadline;
use super::inode::Place;
use super::open_requests::Changes;
use crate::{StoreError, StoreFault};

pub(super) use self::checkpoint::begin_log;
pub(super) use self::counts::CountRow;

/// How many writes may be queued. A further one is refused at once, since queuing it would only delay everyone.
const QUEUE: usize = 1024;

/// How many writes go into one transaction. Bounds how long the first of them waits for the others.
const BATCH: usize = 256;

/// The sending end of the queue, and the threads behind it.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Message>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    deadline: Deadline,
    /// Whether the writer thread has panicked.
    died: watch::Receiver<bool>,
    /// Takes the place of the threads.
    inline: Option<inline::Inline>,
}

/// What a write may use.
pub(super) struct Scope<'a> {
    /// The connection, in a transaction.
    pub(super) db: &'a Connection,
    counts: &'a mut Counts,
    /// How the numbers of open requests change.
    pub(super) open: &'a mut Changes,
}

impl Scope<'_> {
    /// Adds the counts to their counters in the same transaction.
    pub(super) fn count(&mut self, counts: &[CountRow]) {
        for count in counts {
            self.counts.add(count);
        }
    }
}

impl Writer {
    /// Starts the writer thread, and the thread that keeps the write-ahead log short.
    pub(super) fn start(
        mut connection: Connection,
        checkpointer: Connection,
        deadline: Deadline,
        place: Option<Place>,
    ) -> io::Result<Writer> {
        let (checkpoints, background) = Checkpoints::start(&mut connection, checkpointer)?;
        let (queue, queued) = sync_channel(QUEUE);
        let (dies, died) = watch::channel(false);
        let run = move || {
            // Nothing is used after the panic but the flag.
            if catch_unwind(AssertUnwindSafe(|| write_all(connection, queued, checkpoints, place))).is_err() {
                dies.send_replace(true);
            }
        };
        let writer = thread::Builder::new().name("store-writer".to_owned()).spawn(run)?;
        Ok(Writer { queue, threads: Mutex::new(vec![writer, background]), deadline, died, inline: None })
    }

    /// Queues a write, and returns its result once it is durable.
    ///
    /// `run` may be called twice, so it must not consume what it captures.
    pub(super) async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Scope<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Box::new(Task { run, panicked: false, answer: None, reply });
        self.queue.try_send(Message::Write(task)).map_err(|error| match error {
            TrySendError::Full(_) => {
                unavailable(StoreFault::Busy, format_args!("{QUEUE} writes are waiting already"))
            }
            TrySendError::Disconnected(_) => other("it is closed"),
        })?;
        if let Some(inline) = &self.inline {
            inline.write_queued();
        }
        let answer = self.deadline.within(answer).await?;
        // Without an answer the writer has died, before or after the write was durable.
        answer.map_err(|_| unavailable(StoreFault::Slow, "it was closed before the write was done"))?
    }

    /// Returns once the writer thread has panicked: then nothing is written any more.
    pub(super) async fn died(&self) {
        let mut died = self.died.clone();
        if died.wait_for(|died| *died).await.is_err() {
            // It was stopped.
            std::future::pending::<()>().await;
        }
    }

    /// Returns a function that stops the threads, and blocks until the writes queued before are durable.
    pub(super) fn closing(&self) -> impl FnOnce() + Send + 'static {
        let queue = self.queue.clone();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        move || {
            // An error means that the thread has stopped already.
            let _ = queue.send(Message::Close);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("store thread panicked");
                }
            }
        }
    }
}

enum Message {
    Write(Box<dyn Write>),
    /// Stop, after the writes queued before.
    Close,
}

/// A queued write.
trait Write: Send {
    /// Executes the write and keeps its result. May be called twice, if the first call was rolled back.
    fn run(&mut self, scope: &mut Scope<'_>) -> Result<(), Failed>;

    /// Sends the result to the caller, after the transaction has become durable or has failed.
    fn reply(self: Box<Self>, committed: Result<(), &Failed>);
}

/// Why a write, or the whole transaction, failed.
struct Failed {
    fault: StoreFault,
    detail: String,
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        Failed { fault: fault(&error), detail: error.to_string() }
    }
}

struct Task<T, F> {
    run: F,
    panicked: bool,
    answer: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Write for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Scope<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, scope: &mut Scope<'_>) -> Result<(), Failed> {
        // A write that has panicked is in an unknown state, so it is not executed again. What it did to the database is
        // rolled back, and statements are reset when they are dropped.
        let attempt =
            if self.panicked { None } else { catch_unwind(AssertUnwindSafe(|| (self.run)(scope))).ok() };
        self.panicked = attempt.is_none();
        let answer = attempt.unwrap_or_else(|| Err(other("the write panicked")));
        let done = match &answer {
            Ok(_) => Ok(()),
            Err(StoreError::Unavailable { fault, detail, .. }) => {
                Err(Failed { fault: *fault, detail: detail.clone() })
            }
            Err(error) => Err(Failed { fault: StoreFault::Other, detail: error.to_string() }),
        };
        self.answer = Some(answer);
        done
    }

    fn reply(self: Box<Self>, committed: Result<(), &Failed>) {
        let answer = match (committed, self.answer) {
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(other("the write was not tried")),
            (Err(Failed { fault, detail }), _) => Err(unavailable(*fault, detail)),
        };
        // An error means that the caller no longer waits; the write is stored nevertheless.
        let _ = self.reply.send(answer);
    }
}

/// What writes are carried out on, until another file takes the place of the database.
struct Guarded {
    place: Option<Place>,
    is_lost: bool,
}

impl Guarded {
    /// Fails once the database was replaced: what is written to it then is in no file that has a name. It stays so if the
    /// file comes back, since nobody knows what was done to it and to its log meanwhile.
    fn check(&mut self) -> Result<(), Failed> {
        let Some(place) = &self.place else { return Ok(()) };
        if !self.is_lost {
            match place.check() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {
                    tracing::error!(
                        "the database file was replaced or removed while it is open: nothing is written any more; restart the \
                         gateway with the file that is to count"
                    );
                    self.is_lost = true;
                }
                Err(error) => {
                    let detail = format!("cannot tell whether the database file is still there: {error}");
                    return Err(Failed { fault: StoreFault::Io, detail });
                }
            }
        }
        let detail = "the database file was replaced or removed while it is open".to_owned();
        Err(Failed { fault: StoreFault::ReadOnly, detail })
    }
}

fn write_all(
    mut db: Connection,
    queue: Receiver<Message>,
    mut checkpoints: Checkpoints,
    place: Option<Place>,
) {
    let mut guarded = Guarded { place, is_lost: false };
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
        // INVARIANT: no caller gets a result before the transaction of its write is durable.
        let committed = guarded.check().and_then(|()| commit(&mut db, &mut batch));
        for write in batch.drain(..) {
            write.reply(committed.as_ref().copied());
        }
        checkpoints.advance(&db);
    }
    truncate_log(&db);
}

/// Executes all writes in one transaction. If one fails, the others are executed without it.
fn commit(db: &mut Connection, batch: &mut [Box<dyn Write>]) -> Result<(), Failed> {
    if batch.is_empty() {
        return Ok(());
    }
    if commit_together(db.transaction_with_behavior(TransactionBehavior::Immediate)?, batch)? {
        return Ok(());
    }
    commit_apart(db.transaction_with_behavior(TransactionBehavior::Immediate)?, batch)
}

/// Without savepoints, which are not free, since failures are rare.
/// False if a write failed and the transaction was rolled back.
fn commit_together(transaction: Transaction<'_>, batch: &mut [Box<dyn Write>]) -> Result<bool, Failed> {
    let (mut counts, mut open) = (Counts::default(), Changes::default());
    let mut scope = Scope { db: &transaction, counts: &mut counts, open: &mut open };
    if !batch.iter_mut().all(|write| write.run(&mut scope).is_ok()) {
        // Rolls back, unless SQLite has already done so because of the failure.
        transaction.finish()?;
        return Ok(false);
    }
    counts.store(&transaction)?;
    open.store(&transaction)?;
    transaction.commit()?;
    Ok(true)
}

/// With a savepoint for each write, so that one that fails changes nothing.
fn commit_apart(mut transaction: Transaction<'_>, batch: &mut [Box<dyn Write>]) -> Result<(), Failed> {
    let (mut all_counts, mut all_open) = (Counts::default(), Changes::default());
    for write in batch {
        let savepoint = transaction.savepoint()?;
        let (mut counts, mut open) = (Counts::default(), Changes::default());
        match write.run(&mut Scope { db: &savepoint, counts: &mut counts, open: &mut open }) {
            Ok(()) => {
                savepoint.commit()?;
                all_counts.merge(counts);
                all_open.merge(open);
            }
            // On some failures, such as a full disk, SQLite rolls the whole transaction back.
            // Then there is no savepoint to return to, and the batch has failed for the same reason.
            Err(failed) => savepoint.finish().map_err(|_| failed)?,
        }
    }
    all_counts.store(&transaction)?;
    all_open.store(&transaction)?;
    Ok(transaction.commit()?)
}
