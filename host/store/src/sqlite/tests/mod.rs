//! The contract for SQLite, and tests that only concern SQLite.

mod archive;
mod durability;
mod migrations;
mod opening;
mod power;
mod query_plans;
mod unreadable;

use std::path::PathBuf;
use std::sync::Arc;

use countersign_core::lifecycle::{Digest, Timestamp};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::contract::{Backend, store_contract};
use crate::{
    Archive, Created, EXPIRED_KEPT_MS, Idempotency, SqliteArchive, SqliteStore, Store, StoreFault, fixtures,
};

/// A directory with a database.
struct Sqlite(TempDir);

impl Backend for Sqlite {
    async fn fresh() -> Sqlite {
        Sqlite(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Arc<dyn Store> {
        store(&self.0)
    }

    fn archive(&self) -> Archive {
        Archive::Sqlite(SqliteArchive::open(&path(&self.0)).unwrap())
    }
}

store_contract!(Sqlite);

fn path(directory: &TempDir) -> PathBuf {
    directory.path().join("store.db")
}

fn store(directory: &TempDir) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&path(directory)).unwrap())
}

/// Changes the database on a connection of its own.
fn tamper(directory: &TempDir, sql: &str) {
    let connection = Connection::open(path(directory)).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[tokio::test]
async fn closing_finishes_what_was_queued() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let mut writes = JoinSet::new();
    for number in 0..50 {
        let store = Arc::clone(&store);
        writes.spawn(async move { store.create(fixtures::new(&fixtures::request(number))).await });
    }
    // The runtime has one thread: when a later task has run, every task has queued its write.
    tokio::spawn(async {}).await.unwrap();
    store.close().await.unwrap();
    let made = writes.join_all().await;
    assert!(made.iter().all(|made| made.as_ref().is_ok_and(|made| *made == Created::New)), "{made:?}");

    let refused = store.create(fixtures::new(&fixtures::request(99))).await.unwrap_err().to_string();
    assert_eq!(refused, "the sqlite store is unavailable: it is closed");
    assert!(store.ping().await.is_err());
    assert!(store.request(fixtures::request(1).id).await.unwrap().is_some(), "it can still be read");
    store.close().await.unwrap();
    let log = directory.path().join("store.db-wal");
    assert_eq!(log.metadata().map_or(0, |log| log.len()), 0, "all of it is in the database file");
}

/// A ping that writes nothing would find a full disk ready.
#[tokio::test]
async fn each_ping_reaches_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let log = directory.path().join("store.db-wal");
    let mut seen = Vec::new();
    for _ in 0..3 {
        store.ping().await.unwrap();
        let bytes = std::fs::read(&log).unwrap();
        assert!(!bytes.is_empty() && !seen.contains(&bytes), "it wrote nothing");
        seen.push(bytes);
    }
}

/// As by a restore of a backup without a stop of the gateway. SQLite would go on with the file that has no name any more.
#[tokio::test]
async fn nothing_is_written_once_the_file_was_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (here, aside) = (path(&directory), directory.path().join("aside"));
    let store = store(&directory);
    let create = async |number| store.create(fixtures::new(&fixtures::request(number))).await;
    assert_eq!(create(1).await.unwrap(), Created::New);
    std::fs::write(directory.path().join("backup"), "another one").unwrap();
    let refused = async |number| {
        let error = store.ping().await.unwrap_err();
        assert_eq!(error.fault(), Some(StoreFault::ReadOnly), "{error}");
        assert!(error.to_string().contains("was replaced or removed"), "{error}");
        assert_eq!(create(number).await.unwrap_err().fault(), Some(StoreFault::ReadOnly));
    };
    std::fs::rename(&here, &aside).unwrap();
    refused(2).await;
    std::fs::rename(directory.path().join("backup"), &here).unwrap();
    refused(3).await;
    // Nobody knows what happened to it meanwhile.
    std::fs::rename(&aside, &here).unwrap();
    refused(4).await;
    store.close().await.unwrap();
    drop(store);
    let store = self::store(&directory);
    store.ping().await.unwrap();
    for (number, is_there) in [(1, true), (2, false), (3, false), (4, false)] {
        let found = store.request(fixtures::request(number).id).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{number}");
    }
}

/// Also if nothing is added any more.
#[tokio::test]
async fn what_ran_out_is_removed_by_maintenance() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    tamper(
        &directory,
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1200)
             INSERT INTO nonce SELECT CAST(x AS BLOB), x FROM n;
         INSERT INTO idempotency SELECT nonce, x'', x'', until FROM nonce",
    );
    let connection = Connection::open(path(&directory)).unwrap();
    for left in [1200 - 500, 1200 - 1000, 100, 100] {
        store.maintain(Timestamp::from_millis(1100 + EXPIRED_KEPT_MS)).await.unwrap();
        for table in ["nonce", "idempotency"] {
            let count = format!("SELECT count(*) FROM {table}");
            let count: i64 = connection.query_one(&count, [], |row| row.get(0)).unwrap();
            assert_eq!(count, left, "{table}");
        }
    }
}

/// What was removed gives its space back to the disk, a part at a time.
#[tokio::test]
async fn unused_space_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    store.keep("big", vec![7; 32 << 20]).await.unwrap();
    let pages = || {
        let connection = Connection::open(path(&directory)).unwrap();
        connection.query_one("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let full = pages();
    store.keep("big", vec![]).await.unwrap();
    let now = Timestamp::from_millis(0);
    store.maintain(now).await.unwrap();
    let given_back = full - pages();
    // With them go pages of SQLite that say which page is where.
    assert!((1..=520).contains(&given_back), "{given_back} pages at once");
    for _ in 0..20 {
        store.maintain(now).await.unwrap();
    }
    assert!(pages() < full - 3_500, "{full} pages became {}", pages());
    // A part is given back as long as more than 4,096 are unused.
    assert!(pages() > 4_096 - 512, "some are kept for what is stored next");
}

#[tokio::test]
async fn what_ran_out_is_removed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    for number in 0..50_u64 {
        let now = Timestamp::from_millis(number * EXPIRED_KEPT_MS / 5);
        assert!(store.claim_nonce(0, Digest::of(&number.to_be_bytes()), now, now.plus(1)).await.unwrap());
        let mut new = fixtures::new(&fixtures::request(number));
        Arc::make_mut(&mut new.request.submission).submitted_at = now;
        let digest = Digest::of(&number.to_be_bytes());
        new.idempotency = Some(Idempotency { key: digest, fingerprint: digest, until: now.plus(1) });
        assert_eq!(store.create(new).await.unwrap(), Created::New);
    }
    let connection = Connection::open(path(&directory)).unwrap();
    for table in ["nonce", "idempotency"] {
        let count = format!("SELECT count(*) FROM {table}");
        let count: i64 = connection.query_one(&count, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 6, "{table}");
    }
}
