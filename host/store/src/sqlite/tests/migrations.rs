//! Databases of older versions.

use countersign_core::lifecycle::{Digest, Request, Timestamp};
use countersign_core::record::Slot;

use super::{store, tamper};
use crate::{
    AuditCursor, AuditRange, Create, Created, DispatchDepth, MostOpen, OpenPolicy, Urgency, fixtures,
};

/// A database of version 1 is migrated, and so are its outbox entries.
#[tokio::test]
async fn an_older_database_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    tamper(&directory, include_str!("../schema.sql"));
    tamper(&directory, "PRAGMA application_id = 0x43745367; PRAGMA user_version = 1");
    let [open, ended] = [1, 2].map(fixtures::request);
    for (request, version, due_at) in [(&open, 1, "1"), (&ended, 2, "NULL")] {
        let id = hex::encode(request.id.to_bytes());
        tamper(
            &directory,
            &format!(
                "INSERT INTO request (id, version, action, status, submitted_at, due_at, lineage, depth, body)
                 VALUES (x'{id}', {version}, 'deploy', 'pending', 1, {due_at}, x'{id}', 0, '{{}}');
                 INSERT INTO outbox (request, effect, revision, attempts, since, ready_at)
                 VALUES (x'{id}', 'show_request', {version}, 0, 1, 1)"
            ),
        );
    }
    let store = store(&directory);
    let ready = store.ready_outbox(Timestamp::from_millis(1), 10).await.unwrap();
    let ready: Vec<_> = ready.iter().map(|entry| (entry.request, entry.urgency)).collect();
    assert_eq!(ready, [(open.id, Urgency::First), (ended.id, Urgency::Unseen)], "nothing was posted yet");
    assert_eq!(store.slack_post(open.id, Slot::Main).await.unwrap(), None);
    assert_eq!(store.recall("usergroup:S1").await.unwrap(), None);
}

/// Requests that were open in version 2 are counted by their policy, too.
#[tokio::test]
async fn open_requests_of_an_older_database_have_their_policy() {
    let directory = tempfile::tempdir().unwrap();
    tamper(&directory, include_str!("../schema.sql"));
    tamper(&directory, include_str!("../schema_2.sql"));
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
    let store = store(&directory);
    let counted = store.open_policies().await.unwrap();
    let hash = open.submission.policy_hash;
    assert_eq!(counted, [OpenPolicy { policy: hash, action: "deploy".into(), count: 1 }]);
    assert_eq!(store.open_requests().await.unwrap().len(), 1);
}

/// What waited in version 6 is found by its channel, and what was posted before it ended stays the most urgent.
#[tokio::test]
async fn waiting_entries_of_an_older_database_have_their_channel() {
    let directory = tempfile::tempdir().unwrap();
    for schema in [
        include_str!("../schema.sql"),
        include_str!("../schema_2.sql"),
        include_str!("../schema_3.sql"),
        include_str!("../schema_4.sql"),
        include_str!("../schema_5.sql"),
        include_str!("../schema_6.sql"),
        "PRAGMA application_id = 0x43745367; PRAGMA user_version = 6",
    ] {
        tamper(&directory, schema);
    }
    let entry = fixtures::entry_with_channels();
    let (hash, entry) = (entry.hash(), serde_json::to_string(&entry).unwrap());
    tamper(
        &directory,
        &format!(
            "INSERT INTO policy_entry (hash, body) VALUES (x'{}', '{entry}')",
            hex::encode(hash.as_bytes())
        ),
    );
    let [open, seen, unseen, nowhere, ended_as_made] = [1, 2, 3, 4, 5].map(fixtures::request);
    let hash = |request: &Request| match request.id == nowhere.id {
        true => Digest::of(b"no entry"),
        false => hash,
    };
    for (request, version, due_at, urgency) in [
        (&open, 1, "1", 1),
        (&seen, 2, "NULL", 0),
        (&unseen, 2, "NULL", 0),
        (&nowhere, 1, "1", 1),
        (&ended_as_made, 1, "NULL", 0),
    ] {
        let (id, hash) = (hex::encode(request.id.to_bytes()), hex::encode(hash(request).as_bytes()));
        tamper(
            &directory,
            &format!(
                "INSERT INTO request
                     (id, version, action, status, submitted_at, due_at, lineage, depth, body, policy_hash)
                 VALUES (x'{id}', {version}, 'deploy', 'pending', 1, {due_at}, x'{id}', 0, '{{}}', x'{hash}');
                 INSERT INTO outbox (request, effect, revision, attempts, since, ready_at, urgency)
                 VALUES (x'{id}', 'show_request', {version}, 0, 1, 1, {urgency})"
            ),
        );
    }
    let (open_id, seen_id) = (hex::encode(open.id.to_bytes()), hex::encode(seen.id.to_bytes()));
    tamper(
        &directory,
        &format!(
            "INSERT INTO outbox (request, effect, revision, attempts, since, ready_at, urgency)
             VALUES (x'{open_id}', 'notify_escalation', 1, 0, 1, 1, 1);
             INSERT INTO slack_post (request, slot, revision, body) VALUES (x'{seen_id}', 'main', 1, '{{}}')"
        ),
    );
    let store = store(&directory);
    let ready = store.ready_outbox(Timestamp::from_millis(1), 10).await.unwrap();
    let ready: Vec<_> =
        ready.iter().map(|entry| (entry.urgency, entry.channel.as_str(), entry.request)).collect();
    let expected = [
        (Urgency::Ended, "C1", seen.id),
        (Urgency::First, "", nowhere.id),
        (Urgency::First, "C1", open.id),
        (Urgency::First, "C9", open.id),
        (Urgency::Changed, "C1", ended_as_made.id),
        (Urgency::Unseen, "C1", unseen.id),
    ];
    assert_eq!(ready, expected);

    // Two were open, and count towards the limit; a third may be open.
    let limited = async |number, most| {
        let most_open = MostOpen { in_all: Some(most), of_action: None };
        store.create(Create { most_open, ..fixtures::new(&fixtures::request(number)) }).await.unwrap()
    };
    assert_eq!(limited(6, 2).await, Created::TooManyOpen);
    assert_eq!(limited(6, 3).await, Created::New);
}

/// What was to be told in version 13 is counted.
#[tokio::test]
async fn dispatches_of_an_older_database_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    for migration in [
        include_str!("../schema.sql"),
        include_str!("../schema_2.sql"),
        include_str!("../schema_3.sql"),
        include_str!("../schema_4.sql"),
        include_str!("../schema_5.sql"),
        include_str!("../schema_6.sql"),
        include_str!("../schema_7.sql"),
        include_str!("../schema_8.sql"),
        include_str!("../schema_9.sql"),
        include_str!("../schema_10.sql"),
        include_str!("../schema_11.sql"),
        include_str!("../schema_12.sql"),
        include_str!("../schema_13.sql"),
        "PRAGMA application_id = 0x43745367; PRAGMA user_version = 13",
        "INSERT INTO dispatch (request, target, position, revision, attempts, since, ready_at, failure)
         VALUES (x'01', 'a', 0, 1, 0, 7, 0, NULL), (x'02', 'a', 0, 1, 0, 5, 0, NULL),
                (x'03', 'a', 0, 1, 0, 3, 0, 'no'), (x'01', 'b', 0, 1, 0, 9, 0, 'no')",
    ] {
        tamper(&directory, migration);
    }
    let oldest = Some(Timestamp::from_millis(5));
    let expected = [
        DispatchDepth { target: "a".into(), waiting: 2, oldest, dead: 1 },
        DispatchDepth { target: "b".into(), waiting: 0, oldest: None, dead: 1 },
    ];
    assert_eq!(store(&directory).dispatch_depth().await.unwrap(), expected);
}

/// The log of version 8 is numbered in its order, by the partitions of the requests; its bytes stay as they are.
#[tokio::test]
async fn an_older_audit_log_is_numbered() {
    let directory = tempfile::tempdir().unwrap();
    for migration in [
        include_str!("../schema.sql"),
        include_str!("../schema_2.sql"),
        include_str!("../schema_3.sql"),
        include_str!("../schema_4.sql"),
        include_str!("../schema_5.sql"),
        include_str!("../schema_6.sql"),
        include_str!("../schema_7.sql"),
        include_str!("../schema_8.sql"),
        "PRAGMA application_id = 0x43745367; PRAGMA user_version = 8",
    ] {
        tamper(&directory, migration);
    }
    let requests = [fixtures::request_in(3, 1), fixtures::request_in(20, 2), fixtures::request_in(4, 3)];
    let mut written = Vec::new();
    for number in 0..7_u64 {
        let request = requests.get(usize::try_from(number).unwrap() % 4);
        let mut entry = fixtures::audit(request.unwrap_or(&requests[0]), &format!("event {number}"));
        entry.request = request.map(|request| request.id);
        let body = serde_json::to_string(&entry).unwrap();
        let id =
            request.map_or("NULL".into(), |request| format!("x'{}'", hex::encode(request.id.to_bytes())));
        let at = entry.at.as_millis();
        tamper(
            &directory,
            &format!(
                "INSERT INTO audit (at, event, action, request, body) VALUES ({at}, 'e', 'a', {id}, '{body}')"
            ),
        );
        written.push((body, entry));
    }
    let store = store(&directory);
    let page = store.audit_log(AuditRange::default(), &AuditCursor::default(), 100).await.unwrap();
    let found: Vec<(u16, u64, &str)> =
        page.entries.iter().map(|entry| (entry.partition, entry.number, entry.body.as_str())).collect();
    let numbers = [(3, 1), (4, 1), (4, 2), (16, 1), (3, 2), (4, 3), (4, 4)];
    let expected: Vec<(u16, u64, &str)> = numbers
        .iter()
        .zip(&written)
        .map(|((log, number), (body, _))| (*log, *number, body.as_str()))
        .collect();
    assert_eq!(found, expected);
    assert!(page.entries.iter().all(|entry| entry.digest == Digest::of(entry.body.as_bytes())));
    let of_request = AuditRange { request: Some(requests[1].id), period: None };
    assert_eq!(store.audit_log(of_request, &AuditCursor::default(), 9).await.unwrap().entries.len(), 2);
    // What is written from now on goes on with the numbers.
    store.append(vec![fixtures::audit(&requests[0], "new")], vec![]).await.unwrap();
    let sizes = store.audit_sizes().await.unwrap();
    assert_eq!((sizes[3], sizes[4], sizes[16], sizes.iter().sum::<u64>()), (3, 4, 1, 8));
}
