//! Opening a database file: the lock, the permissions, and files that are refused.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{path, store, tamper};
use crate::SqliteStore;

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
    check("has version 99, and this gateway knows versions up to 7");
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
