//! The archive: reading a database that a store may have open.

use std::sync::Arc;

use countersign_core::lifecycle::Digest;

use super::{path, store, tamper};
use crate::{SqliteArchive, fixtures};

#[tokio::test]
async fn an_archive_is_read_beside_a_store_and_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let missing = SqliteArchive::open(&path(&directory)).unwrap_err().to_string();
    assert!(missing.contains("store.db") && missing.contains("No such file"), "{missing}");
    let store = store(&directory);
    let salts = [1, 2, 3].map(|number| (fixtures::id(number), fixtures::wrapped_salt(number)));
    let requests = [1, 2, 3].map(|number| {
        let mut request = fixtures::request(number);
        Arc::make_mut(&mut request.submission).salt = None;
        request
    });
    for number in [2, 1, 3] {
        store.create(fixtures::new(&fixtures::request(number))).await.unwrap();
    }
    let entry = fixtures::policy_entry("deploy");
    store.pin(vec![entry.clone()], vec![]).await.unwrap();
    store.keep("usergroup:S1", b"one".to_vec()).await.unwrap();
    store.keep("usergroup:%", b"two".to_vec()).await.unwrap();
    let check = |archive: &SqliteArchive| {
        assert_eq!(archive.requests(requests[0].id, 10).unwrap(), requests);
        assert_eq!(archive.requests(requests[0].id.next(), 1).unwrap(), requests[1..2]);
        assert_eq!(archive.requests(requests[2].id.next(), 10).unwrap(), []);
        assert_eq!(archive.salts(None, 10).unwrap()[..3], salts);
        assert_eq!(archive.salts(Some(salts[0].0), 1).unwrap(), salts[1..2]);
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
    // It sees later writes, and does not block them.
    store.create(fixtures::new(&fixtures::request(4))).await.unwrap();
    assert_eq!(archive.requests(requests[0].id, 10).unwrap().len(), 4);
    drop((store, archive));
    let archive = SqliteArchive::open(&path(&directory)).unwrap();
    assert_eq!(archive.requests(requests[0].id, 3).unwrap(), requests);
    drop(archive);
    // An older version has no salts, and is read as it is.
    tamper(&directory, "PRAGMA user_version = 5");
    let archive = SqliteArchive::open(&path(&directory)).unwrap();
    assert_eq!(archive.salts(None, 10).unwrap(), []);
    std::fs::write(directory.path().join("letter"), "this is a letter to a friend\n".repeat(100)).unwrap();
    let refused = SqliteArchive::open(&directory.path().join("letter")).unwrap_err().to_string();
    assert!(refused.contains("no SQLite database"), "{refused}");
}
