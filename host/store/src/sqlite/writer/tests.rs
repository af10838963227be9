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
        self.batch.push(Box::new(Task { run, answer: None, reply }));
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

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let bench = Bench::new();
    let checkpointer = bench.database.checkpointer().unwrap();
    let writer = Arc::new(Writer::start(bench.connection, checkpointer).unwrap());
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
