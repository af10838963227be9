//! Opening a database file: the lock, the permissions, and files that are refused.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::{path, store, tamper};
use crate::{SqliteArchive, SqliteStore, fixtures};

fn refusal(path: &Path) -> String {
    SqliteStore::open(path).unwrap_err().to_string()
}

#[test]
fn only_one_store_has_a_database_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let in_use = refusal(&path(&directory));
    assert!(in_use.contains("is in use by another gateway"), "{in_use}");
    // The lock is the same under another name of the file.
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(path(&directory), &link).unwrap();
    assert_eq!(refusal(&link), in_use);
    drop(store);
    SqliteStore::open(&link).unwrap();
}

/// A hard link has a write-ahead log of its own, so two stores would destroy the database.
#[test]
fn a_file_with_two_names_is_refused_under_each() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&path(&directory)).unwrap();
    let link = directory.path().join("link.db");
    std::fs::hard_link(path(&directory), &link).unwrap();
    let in_use = refusal(&link);
    assert!(in_use.contains("is in use by another gateway"), "{in_use}");
    drop(store);
    for name in [&link, &path(&directory)] {
        let refusal = refusal(name);
        assert!(refusal.contains("has 2 names (hard links)"), "{refusal}");
    }
    std::fs::remove_file(&link).unwrap();
    SqliteStore::open(&path(&directory)).unwrap();
}

/// The lock is on the file, so that it holds under names that are not links either, such as bind mounts.
#[test]
fn the_file_itself_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(path(&directory), "").unwrap();
    // Opened before the store, since closing it meanwhile would release SQLite's locks.
    let other = std::fs::File::open(path(&directory)).unwrap();
    let store = SqliteStore::open(&path(&directory)).unwrap();
    assert!(other.try_lock().is_err());
    drop(store);
    other.try_lock().unwrap();
    let in_use = refusal(&path(&directory));
    assert!(in_use.contains("is in use by another gateway, which holds the lock on"), "{in_use}");
}

/// A copy of a database that a gateway has open, without the log: what was stored last is not in it.
#[tokio::test]
async fn a_copy_without_its_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store = store(&directory);
    store.create(fixtures::new(&fixtures::request(1))).await.unwrap();
    std::fs::copy(path(&directory), path(&copy)).unwrap();
    for refusal in [refusal(&path(&copy)), SqliteArchive::open(&path(&copy)).unwrap_err().to_string()] {
        assert!(refusal.contains("is not whole") && refusal.contains("store.db-wal"), "{refusal}");
    }
    let files = copy.path().read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.collect();
    files.sort();
    assert_eq!(files, ["store.db", "store.db.lock"], "nothing that a second attempt would take for the log");

    // With the log it is whole.
    let log = |directory: &TempDir| directory.path().join("store.db-wal");
    std::fs::copy(log(&directory), log(&copy)).unwrap();
    let archive = SqliteArchive::open(&path(&copy)).unwrap();
    assert_eq!(archive.requests(fixtures::request(1).id, 10).unwrap().len(), 1);
    drop(archive);

    // So is what SQLite itself copies, what a stopped store leaves, and what another program has merged after a crash.
    let backup = tempfile::tempdir().unwrap();
    tamper(&directory, &format!("VACUUM INTO '{}'", path(&backup).display()));
    drop(store);
    let stopped = tempfile::tempdir().unwrap();
    std::fs::copy(path(&directory), path(&stopped)).unwrap();
    std::fs::remove_file(copy.path().join("store.db-shm")).unwrap();
    tamper(&copy, "SELECT count(*) FROM request");
    assert!(!log(&copy).exists());
    for whole in [&backup, &stopped, &copy] {
        let archive = SqliteArchive::open(&path(whole)).unwrap();
        assert_eq!(archive.requests(fixtures::request(1).id, 10).unwrap().len(), 1);
        drop(archive);
        drop(SqliteStore::open(&path(whole)).unwrap());
    }
}

/// Somebody who has lost the log can go on, but has to say so.
#[tokio::test]
async fn a_lost_log_can_be_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store = store(&directory);
    store.create(fixtures::new(&fixtures::request(1))).await.unwrap();
    std::fs::copy(path(&directory), path(&copy)).unwrap();
    assert!(refusal(&path(&copy)).contains("is not whole"));
    std::fs::write(copy.path().join("store.db-wal"), "").unwrap();
    let reopened = self::store(&copy);
    assert_eq!(reopened.request(fixtures::request(1).id).await.unwrap(), None, "it was in the log alone");
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
    check("has version 99, and this gateway knows versions up to 14");
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
