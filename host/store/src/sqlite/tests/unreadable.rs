//! Rows that were changed from outside: they are reported, and never returned.

use countersign_core::lifecycle::{Digest, Timestamp};

use super::{store, tamper};
use crate::{AuditCursor, fixtures};

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_stops_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
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
        assert!(store.lineage(ids[0], 0, 100).await.is_err());
        assert!(store.request(ids[1]).await.unwrap().is_some());
        assert_eq!(store.due(far, None, 10).await.unwrap().requests.len(), 3);
        assert_eq!(store.open_requests().await.unwrap().len(), 1);
        let body = serde_json::to_string(&fixtures::request(1)).unwrap();
        tamper(&directory, &format!("UPDATE request SET body = '{body}' {where_first}"));
        assert_eq!(store.request(ids[0]).await.unwrap(), Some(fixtures::request(1)));
    }

    // A part of a salt is no salt; without any there is none, which is not for the store to judge.
    tamper(&directory, &format!("UPDATE request SET salt = NULL {where_first}"));
    let error = store.request(ids[0]).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read `salt` of `request` where its key is `"), "{error}");
    assert!(store.salts(None, 10).await.is_err());
    tamper(&directory, &format!("UPDATE request SET salt_key = NULL {where_first}"));
    assert_eq!(store.request(ids[0]).await.unwrap().unwrap().submission.salt, None);
    assert_eq!(store.salts(None, 10).await.unwrap().len(), 2);

    tamper(&directory, &format!("UPDATE outbox SET effect = 'sing' WHERE request = {first}"));
    let soon = fixtures::request(1).submission.submitted_at;
    for limit in [10, 2] {
        // The second time it is postponed, and does not take up the limit.
        let ready = store.ready_outbox(soon, limit).await.unwrap();
        assert_eq!(ready.iter().map(|entry| entry.request).collect::<Vec<_>>(), ids[1..]);
    }

    tamper(&directory, "UPDATE audit SET body = '[]' WHERE seq = 2");
    let error = store.audit(&AuditCursor::default(), 10).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read `body` of `audit` where its key is `0/2`: "), "{error}");
    assert_eq!(store.audit(&AuditCursor::default(), 1).await.unwrap().entries.len(), 1);
    assert_eq!(store.audit(&AuditCursor("2".into()), 10).await.unwrap().entries.len(), 1);

    tamper(&directory, "UPDATE counter SET value = -1");
    let error = store.counters().await.unwrap_err().to_string();
    assert!(error.contains("`value` of `counter` where its key is `approval_requests_total {"), "{error}");
}

#[tokio::test]
async fn what_is_due_is_listed_beside_rows_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    for number in 1..=4 {
        store.create(fixtures::new(&fixtures::request(number))).await.unwrap();
    }
    let ids = [1, 2, 3, 4].map(|number| fixtures::request(number).id);
    tamper(&directory, "UPDATE request SET id = x'00', lineage = x'00' WHERE seq = 1");
    tamper(&directory, "UPDATE request SET due_at = -1 WHERE seq = 3");
    let far = Timestamp::from_millis(u64::MAX);
    for limit in [2, 10] {
        let due = store.due(far, None, limit).await.unwrap();
        assert_eq!(due.requests.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ids[1], ids[3]]);
        let named: Vec<String> = due.unreadable.iter().map(ToString::to_string).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        assert!(named[0].starts_with("cannot read `due_at` of `request` where its key is `3`"), "{named:?}");
        assert!(named[1].starts_with("cannot read `id` of `request` where its key is `1`"), "{named:?}");
    }
    assert_eq!(
        store.next_due(Timestamp::EPOCH).await.unwrap(),
        Some(fixtures::request(2).submission.expires_at)
    );
}

#[tokio::test]
async fn content_that_changed_is_not_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
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
async fn a_set_that_changed_is_not_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let set = fixtures::stored_set(&["deploy"], Timestamp::from_millis(1));
    store.keep_policy_set(set.clone(), "document".into()).await.unwrap();
    tamper(&directory, "UPDATE policy_set SET entries = '{}'");
    let error = store.policy_set(set.hash).await.unwrap_err().to_string();
    let expected =
        format!("cannot read `entries` of `policy_set` where its key is `{}`: their digest is ", set.hash);
    assert!(error.starts_with(&expected), "{error}");
}
