//! The writer's transactions, with failures injected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use countersign_core::lifecycle::Count;
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

    /// Adds a write that stores a key, increments a counter, and then executes `then`.
    fn write(&mut self, key: &'static str, then: &'static str) {
        let run = move |scope: &mut Scope<'_>| {
            scope.db.execute("INSERT INTO meta (key, value) VALUES (?1, x'')", [key])?;
            scope.count(&[CountRow::of(Count::one("written_total", &[]))?]);
            scope.db.execute_batch(then)?;
            Ok(scope.db.query_one("SELECT count(*) FROM meta", [], |row| row.get(0))?)
        };
        let (reply, answer) = oneshot::channel();
        self.batch.push(Box::new(Task { run, panicked: false, answer: None, reply }));
        self.replies.push(answer);
    }

    /// Commits the batch, and returns the results, the stored keys and the counter.
    fn commit(&mut self) -> (Vec<Result<i64, String>>, Vec<String>, i64) {
        let committed = commit(&mut self.connection, &mut self.batch);
        for write in self.batch.drain(..) {
            write.reply(committed.as_ref().copied());
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

impl Bench {
    /// Commits a batch of one write, and returns what is wrong with the store.
    fn fault(&mut self) -> Option<StoreFault> {
        let committed = commit(&mut self.connection, &mut self.batch);
        for write in self.batch.drain(..) {
            write.reply(committed.as_ref().copied());
        }
        let answer = self.replies.pop().unwrap().try_recv().unwrap();
        answer.err().and_then(|error| error.fault())
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
    // SQLite does the same by itself when the disk fails.
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

/// What is wrong is known by its kind, too.
#[test]
fn a_failure_says_what_is_wrong_with_the_store() {
    let mut bench = Bench::new();
    let pages: i64 = bench.connection.query_one("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    bench.connection.query_one(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    bench.write("a", "INSERT INTO meta (key, value) VALUES ('big', zeroblob(100000))");
    assert_eq!(bench.fault(), Some(StoreFault::Full));
    bench.connection.pragma_update(None, "query_only", "on").unwrap();
    bench.write("a", "");
    assert_eq!(bench.fault(), Some(StoreFault::ReadOnly));
    bench.connection.pragma_update(None, "query_only", "off").unwrap();
    let other = bench.database.checkpointer().unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    bench.connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    bench.write("a", "");
    assert_eq!(bench.fault(), Some(StoreFault::Busy));
    other.execute_batch("ROLLBACK").unwrap();
    bench.write("a", "");
    assert_eq!(bench.fault(), None);
}

/// A write that panics fails alone, and is not executed again.
#[test]
fn a_write_that_panics_changes_nothing_and_stops_nobody() {
    let mut bench = Bench::new();
    bench.write("a", "");
    let executed = Arc::new(AtomicU32::new(0));
    let (reply, panicked) = oneshot::channel();
    let counted = Arc::clone(&executed);
    let run = move |scope: &mut Scope<'_>| -> Result<i64, StoreError> {
        counted.fetch_add(1, Ordering::Relaxed);
        scope.db.execute("INSERT INTO meta (key, value) VALUES ('b', x'')", [])?;
        panic!("a defect")
    };
    bench.batch.push(Box::new(Task { run, panicked: false, answer: None, reply }));
    bench.replies.push(panicked);
    bench.write("c", "");
    let (answers, keys, counter) = bench.commit();
    let [Ok(1), Err(error), Ok(2)] = &answers[..] else { panic!("{answers:?}") };
    assert!(error.contains("the write panicked"), "{error}");
    assert_eq!((keys.concat().as_str(), counter), ("ac", 2));
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

/// A write that is not answered in time fails for its caller, and may be stored all the same.
#[tokio::test]
async fn a_write_that_takes_too_long_is_given_up_and_may_be_stored() {
    let bench = Bench::new();
    let checkpointer = bench.database.checkpointer().unwrap();
    let (ticks, deadline) = Deadline::manual();
    let writer = Writer::start(bench.connection, checkpointer, deadline, None).unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let mut held = Box::pin(writer.write(move |scope| {
        let _ = released.recv();
        Ok(scope.db.execute("INSERT INTO meta (key, value) VALUES ('a', x'')", [])?)
    }));
    for tick in 1..=11 {
        let early = tokio::select! {
            biased;
            answer = &mut held => Some(answer),
            () = std::future::ready(()) => None,
        };
        assert!(early.is_none(), "{early:?} before the tick {tick}");
        ticks.send_replace(tick);
    }
    let given_up = held.await.unwrap_err();
    assert_eq!(given_up.fault(), Some(StoreFault::Slow));
    assert!(given_up.to_string().contains("may still be stored"), "{given_up}");
    drop(release);
    // Writes are done in order.
    let stored = writer.write(|scope| {
        Ok(scope.db.query_one("SELECT count(*) FROM meta WHERE key = 'a'", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(stored.await.unwrap(), 1);
}

/// Whoever waits for the writer's death hears of it, and of nothing else.
#[tokio::test]
async fn the_death_of_the_writer_is_noticed() {
    let bench = Bench::new();
    let checkpointer = bench.database.checkpointer().unwrap();
    let (_ticks, deadline) = Deadline::manual();
    let writer = Writer::start(bench.connection, checkpointer, deadline, None).unwrap();
    let lives = async |writer: &Writer| {
        tokio::select! {
            biased;
            () = writer.died() => false,
            () = std::future::ready(()) => true,
        }
    };
    let failed = writer.write::<(), _>(|_| panic!("a defect of one write")).await.unwrap_err();
    assert!(failed.to_string().contains("the write panicked"), "{failed}");
    assert!(lives(&writer).await);
    // What panics outside of a write.
    struct Defect;
    impl Write for Defect {
        fn run(&mut self, _: &mut Scope<'_>) -> Result<(), Failed> {
            panic!("a defect of the writer")
        }
        fn reply(self: Box<Self>, _: Result<(), &Failed>) {}
    }
    writer.queue.send(Message::Write(Box::new(Defect))).unwrap();
    writer.died().await;
    assert!(writer.write(|_| Ok(())).await.is_err());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let bench = Bench::new();
    let checkpointer = bench.database.checkpointer().unwrap();
    let (_ticks, deadline) = Deadline::manual();
    let writer = Arc::new(Writer::start(bench.connection, checkpointer, deadline, None).unwrap());
    // The first write blocks the writer, while the others fill the queue.
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
    // The runtime has one thread: when a later task has run, every task has queued its write.
    tokio::spawn(async {}).await.unwrap();
    let refused = writer.write(|_| Ok(())).await.unwrap_err().to_string();
    assert!(refused.contains("1024 writes are waiting already"), "{refused}");
    drop(release);
    assert!(held.await.unwrap());
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
}
