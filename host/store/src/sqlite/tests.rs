use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::contract::{Backend, store_contract};
use crate::fixtures;
use crate::{Created, Idempotency, OpenPolicy, SqliteArchive, SqliteStore, Store, Urgency};
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::record::Slot;

/// A directory with a database.
struct Sqlite(TempDir);

impl Backend for Sqlite {
    async fn fresh() -> Sqlite {
        Sqlite(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.0.path().join("store.db")).unwrap())
    }
}

store_contract!(Sqlite);

fn path(directory: &TempDir) -> PathBuf {
    directory.path().join("store.db")
}

/// Does something to the database behind the store's back.
fn tamper(directory: &TempDir, sql: &str) {
    let connection = Connection::open(path(directory)).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn refusal(path: &Path) -> String {
    SqliteStore::open(path).unwrap_err().to_string()
}

#[test]
fn only_one_store_has_a_database_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&path(&directory)).unwrap();
    let in_use = refusal(&path(&directory));
    assert!(in_use.contains("is in use by another gateway"), "{in_use}");
    // However the file is named.
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(path(&directory), &link).unwrap();
    assert_eq!(refusal(&link), in_use);
    drop(store);
    SqliteStore::open(&link).unwrap();
}

#[test]
fn only_the_owner_may_read_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let _store = SqliteStore::open(&path(&directory)).unwrap();
    let mut modes = BTreeMap::new();
    for file in directory.path().read_dir().unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        modes.insert(file.file_name().into_string().unwrap(), mode);
    }
    let expected = ["store.db", "store.db-shm", "store.db-wal", "store.db.lock"];
    assert_eq!(modes, expected.map(|name| (name.to_owned(), 0o600)).into());
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = path(&directory);
    let check = |detail: &str| {
        let before = std::fs::read(&path).unwrap();
        let refusal = refusal(&path);
        assert!(refusal.ends_with(detail), "{refusal}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::remove_file(&path).unwrap();
    };
    std::fs::write(&path, "this is a letter to a friend\n".repeat(100)).unwrap();
    check("is no Countersign database: it is no SQLite database");
    tamper(&directory, "CREATE TABLE theirs (a)");
    check("is no Countersign database: it is the SQLite database of another program");
    tamper(&directory, "PRAGMA application_id = 7");
    check("is no Countersign database: it is the SQLite database of another program");

    drop(SqliteStore::open(&path).unwrap());
    tamper(&directory, "PRAGMA user_version = 99");
    check("has version 99, and this gateway knows versions up to 4");
}

/// A database as the first version made it is taken over, and so is what waits in it.
#[tokio::test]
async fn an_older_database_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    tamper(&directory, include_str!("schema.sql"));
    tamper(&directory, "PRAGMA application_id = 0x43745367; PRAGMA user_version = 1");
    let [open, ended] = [1, 2].map(fixtures::request);
    for (request, due_at) in [(&open, "1"), (&ended, "NULL")] {
        let id = hex::encode(request.id.to_bytes());
        tamper(
            &directory,
            &format!(
                "INSERT INTO request (id, version, action, status, submitted_at, due_at, lineage, depth, body)
                 VALUES (x'{id}', 1, 'deploy', 'pending', 1, {due_at}, x'{id}', 0, '{{}}');
                 INSERT INTO outbox (request, effect, revision, attempts, since, ready_at)
                 VALUES (x'{id}', 'show_request', 1, 0, 1, 1)"
            ),
        );
    }
    let store = SqliteStore::open(&path(&directory)).unwrap();
    let ready = store.ready_outbox(Timestamp::from_millis(1), 10).await.unwrap();
    let ready: Vec<_> = ready.iter().map(|entry| (entry.request, entry.urgency)).collect();
    assert_eq!(ready, [(ended.id, Urgency::Ended), (open.id, Urgency::First)]);
    assert_eq!(store.slack_post(open.id, Slot::Main).await.unwrap(), None);
    assert_eq!(store.recall("usergroup:S1").await.unwrap(), None);
}

#[test]
fn an_empty_file_is_a_new_database() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(path(&directory), "").unwrap();
    drop(SqliteStore::open(&path(&directory)).unwrap());
    SqliteStore::open(&path(&directory)).unwrap();
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing").join("store.db");
    let refusal = refusal(&path);
    assert!(refusal.contains("missing/store.db") && refusal.contains("No such file"), "{refusal}");
}

#[tokio::test]
async fn closing_finishes_what_was_queued() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&path(&directory)).unwrap());
    let mut writes = JoinSet::new();
    for number in 0..50 {
        let store = Arc::clone(&store);
        writes.spawn(async move { store.create(fixtures::new(&fixtures::request(number))).await });
    }
    // Every task has queued its write, on this one thread, once a task that came after has had its turn.
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

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_stops_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&path(&directory)).unwrap();
    for number in 1..=3 {
        store.create(fixtures::new(&fixtures::request(number))).await.unwrap();
    }
    let ids = [1, 2, 3].map(|number| fixtures::request(number).id);
    let far = Timestamp::from_millis(u64::MAX);
    let blob = |bytes: &[u8]| format!("x'{}'", hex::encode(bytes));
    let first = blob(&ids[0].to_bytes());
    let where_first = format!("WHERE id = {first}");

    for (change, detail) in [
        (format!("body = '{{' {where_first}"), "EOF while parsing"),
        (format!("body = (SELECT body FROM request WHERE id > {first}) {where_first}"), "it is the request"),
        (format!("body = replace(body, '\"version\":1', '\"version\":7') {where_first}"), "the row 1"),
    ] {
        tamper(&directory, &format!("UPDATE request SET {change}"));
        let error = store.request(ids[0]).await.unwrap_err().to_string();
        let expected = format!("cannot read `body` of `request` where its key is `{}`: ", ids[0]);
        assert!(error.starts_with(&expected) && error.contains(detail), "{error}, not {detail}");
        assert!(store.lineage(ids[0]).await.is_err());
        assert!(store.request(ids[1]).await.unwrap().is_some());
        assert_eq!(store.due(far, 10).await.unwrap().len(), 3);
        assert_eq!(store.open_requests().await.unwrap().len(), 1);
        let body = serde_json::to_string(&fixtures::request(1)).unwrap();
        tamper(&directory, &format!("UPDATE request SET body = '{body}' {where_first}"));
        assert_eq!(store.request(ids[0]).await.unwrap(), Some(fixtures::request(1)));
    }

    tamper(&directory, &format!("UPDATE outbox SET effect = 'sing' WHERE request = {first}"));
    let soon = fixtures::request(1).submission.submitted_at;
    for limit in [10, 2] {
        // The second time it does not even take a place from those that can be read.
        let ready = store.ready_outbox(soon, limit).await.unwrap();
        assert_eq!(ready.iter().map(|entry| entry.request).collect::<Vec<_>>(), ids[1..]);
    }

    tamper(&directory, "UPDATE audit SET body = '[]' WHERE seq = 2");
    let error = store.audit(0, 10).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read `body` of `audit` where its key is `2`: "), "{error}");
    assert_eq!(store.audit(0, 1).await.unwrap().len(), 1);
    assert_eq!(store.audit(2, 10).await.unwrap().len(), 1);

    tamper(&directory, "UPDATE counter SET value = -1");
    let error = store.counters().await.unwrap_err().to_string();
    assert!(error.contains("`value` of `counter` where its key is `approval_requests_total {"), "{error}");
}

#[tokio::test]
async fn content_that_changed_is_not_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&path(&directory)).unwrap();
    let (bytes, entry) = (b"\0asm".to_vec(), fixtures::policy_entry("deploy"));
    store.pin(vec![entry.clone()], vec![bytes.clone()]).await.unwrap();
    tamper(&directory, "UPDATE module SET bytes = x'00'; UPDATE policy_entry SET body = body || ' '");
    let digest = Digest::of(&bytes);
    let error = store.module(digest).await.unwrap_err().to_string();
    let expected = format!("cannot read `bytes` of `module` where its key is `{digest}`: its digest is ");
    assert!(error.starts_with(&expected), "{error}");
    let error = store.policy_entry(entry.hash()).await.unwrap_err().to_string();
    assert!(error.contains("`body` of `policy_entry`"), "{error}");
}

#[tokio::test]
async fn what_ran_out_is_removed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&path(&directory)).unwrap();
    for number in 0..50_u64 {
        let now = Timestamp::from_millis(number);
        assert!(store.claim_nonce(Digest::of(&number.to_be_bytes()), now, now.plus(5)).await.unwrap());
        let mut new = fixtures::new(&fixtures::request(number));
        Arc::make_mut(&mut new.request.submission).submitted_at = now;
        let digest = Digest::of(&number.to_be_bytes());
        new.idempotency = Some(Idempotency { key: digest, fingerprint: digest, until: now.plus(5) });
        assert_eq!(store.create(new).await.unwrap(), Created::New);
    }
    let connection = Connection::open(path(&directory)).unwrap();
    for table in ["nonce", "idempotency"] {
        let count = format!("SELECT count(*) FROM {table}");
        let count: i64 = connection.query_one(&count, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 5, "{table}");
    }
}

#[tokio::test]
async fn an_archive_is_read_beside_a_store_and_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let missing = SqliteArchive::open(&path(&directory)).unwrap_err().to_string();
    assert!(missing.contains("store.db") && missing.contains("No such file"), "{missing}");
    let store = SqliteStore::open(&path(&directory)).unwrap();
    let requests = [1, 2, 3].map(fixtures::request);
    for request in [&requests[1], &requests[0], &requests[2]] {
        store.create(fixtures::new(request)).await.unwrap();
    }
    let entry = fixtures::policy_entry("deploy");
    store.pin(vec![entry.clone()], vec![]).await.unwrap();
    store.keep("usergroup:S1", b"one".to_vec()).await.unwrap();
    store.keep("usergroup:%", b"two".to_vec()).await.unwrap();
    let check = |archive: &SqliteArchive| {
        assert_eq!(archive.requests(requests[0].id, 10).unwrap(), requests);
        assert_eq!(archive.requests(requests[0].id.next(), 1).unwrap(), requests[1..2]);
        assert_eq!(archive.requests(requests[2].id.next(), 10).unwrap(), []);
        assert_eq!(archive.policy_entry(entry.hash()).unwrap().as_ref(), Some(&entry));
        assert_eq!(archive.policy_entry(Digest::of(b"unknown")).unwrap(), None);
        let kept = archive.kept("usergroup:").unwrap();
        assert_eq!(
            kept.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
            ["usergroup:%", "usergroup:S1"]
        );
        assert_eq!(archive.kept("usergroup:%").unwrap().len(), 1);
        assert_eq!(archive.kept("other:").unwrap(), []);
    };
    let archive = SqliteArchive::open(&path(&directory)).unwrap();
    check(&archive);
    // It sees what is stored meanwhile, and keeps nobody from storing it.
    store.create(fixtures::new(&fixtures::request(4))).await.unwrap();
    assert_eq!(archive.requests(requests[0].id, 10).unwrap().len(), 4);
    drop((store, archive));
    let archive = SqliteArchive::open(&path(&directory)).unwrap();
    assert_eq!(archive.requests(requests[0].id, 3).unwrap(), requests);
    std::fs::write(directory.path().join("letter"), "this is a letter to a friend\n".repeat(100)).unwrap();
    let refused = SqliteArchive::open(&directory.path().join("letter")).unwrap_err().to_string();
    assert!(refused.contains("no SQLite database"), "{refused}");
}

/// Requests that were open when the version before wrote them are counted by their policy, too.
#[tokio::test]
async fn open_requests_of_an_older_database_have_their_policy() {
    let directory = tempfile::tempdir().unwrap();
    tamper(&directory, include_str!("schema.sql"));
    tamper(&directory, include_str!("schema_2.sql"));
    tamper(&directory, "PRAGMA application_id = 0x43745367; PRAGMA user_version = 2");
    let open = fixtures::request(1);
    let (id, body) = (hex::encode(open.id.to_bytes()), serde_json::to_string(&open).unwrap());
    tamper(
        &directory,
        &format!(
            "INSERT INTO request (id, version, action, status, submitted_at, due_at, lineage, depth, body)
             VALUES (x'{id}', 1, 'deploy', 'pending', 1, 1, x'{id}', 0, '{body}')"
        ),
    );
    let store = SqliteStore::open(&path(&directory)).unwrap();
    let counted = store.open_policies().await.unwrap();
    let hash = open.submission.policy_hash;
    assert_eq!(counted, [OpenPolicy { policy: hash, action: "deploy".into(), count: 1 }]);
    assert_eq!(store.open_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_set_that_changed_is_not_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&path(&directory)).unwrap();
    let set = fixtures::stored_set(&["deploy"], Timestamp::from_millis(1));
    store.keep_policy_set(set.clone(), "document".into()).await.unwrap();
    tamper(&directory, "UPDATE policy_set SET entries = '{}'");
    let error = store.policy_set(set.hash).await.unwrap_err().to_string();
    let expected =
        format!("cannot read `entries` of `policy_set` where its key is `{}`: their digest is ", set.hash);
    assert!(error.starts_with(&expected), "{error}");
}
