//! The payload hash is what docs/PAYLOAD-HASH.md says: a second implementation computes the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use countersign_tests::{Ask, Click, Home, payload_hash, unsalted_payload_hash};
use rusqlite::Connection;
use serde_json::{Value, json};

const ACTIONS: &str = "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [password] }
    rerequest: { cooldown: 1s, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 1 }
      - use: override-guard
        with: { keys: [replicas, zone, ratio], max_keys: 2, max_chars: 20 }
";

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Runs Python with these arguments; `-B`, so that it leaves nothing in the folder of its sources.
fn python(arguments: &[&Path]) -> Output {
    let output = Command::new("python3").arg("-B").args(arguments).output();
    output.unwrap_or_else(|error| panic!("this test needs python3: {error}"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn the_published_vectors_are_those_of_the_second_implementation() {
    let (program, vectors) = (docs("payload_hash.py"), docs("payload-hash-vectors.json"));
    let output = python(&[&program, Path::new("--vectors"), &vectors]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).ends_with("vectors, 0 wrong\n"), "{output:?}");

    // With a vector that is wrong it fails.
    let folder = tempfile::tempdir().expect("a folder");
    let altered = folder.path().join("vectors.json");
    let published = std::fs::read_to_string(&vectors).expect("the vectors can be read");
    std::fs::write(&altered, published.replacen("\"replicas\": 3", "\"replicas\": 4", 1)).expect("written");
    let output = python(&[&program, Path::new("--vectors"), &altered]);
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn the_snippet_of_the_docs_runs() {
    let page = std::fs::read_to_string(docs("PAYLOAD-HASH.md")).expect("the page can be read");
    let (_, rest) = page.split_once("```python\n").expect("there is a snippet");
    let (snippet, _) = rest.split_once("```").expect("it ends");
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("snippet.py");
    let run = |snippet: &str| {
        std::fs::write(&program, snippet).expect("written");
        python(&[&program])
    };
    let output = run(snippet);
    assert!(output.status.success(), "{output:?}");
    let expected = "run with {\"service\": \"shop\", \"replicas\": 3, \"password\": \"483920\"}\n";
    assert_eq!(text(&output.stdout), expected);
    let output = run(&snippet.replacen("\"replicas\": 3", "\"replicas\": 4", 1));
    assert!(text(&output.stderr).contains("not the parameters that were approved"), "{output:?}");

    // The example is one of the vectors.
    let vectors =
        std::fs::read_to_string(docs("payload-hash-vectors.json")).expect("the vectors can be read");
    let vectors: Value = serde_json::from_str(&vectors).expect("JSON");
    let example = vectors.as_array().and_then(|all| all.iter().find(|it| it["name"] == "the worked example"));
    let example = example.expect("it is there");
    let commitments = example["commitments"].as_object().expect("an object");
    for part in commitments.values().chain([&example["salt"], &example["payload_hash"]]) {
        let part = part.as_str().expect("a text");
        assert!(page.contains(part), "{part} is not in the page");
    }
}

/// What a gateway answers is what the second implementation computes, after an edit too.
#[tokio::test]
async fn a_caller_makes_the_hash_of_an_answer_again() {
    let gateway = Home::new(ACTIONS).start().await;
    let params = json!({
        "replicas": 2, "zone": "a", "password": "483920", "ratio": 0.1,
        "numbers": [1e-7, 1.5e-9, 0.000001, -0.5, 1234.5678, 9_007_199_254_740_991_u64, 5e-324, 0],
        "Grüße": {"\u{fb33}": 1, "😀": "👋", "": [], "deep": {"er": {}}},
        "escaped": "\u{0} \u{1f} \u{7f} \u{2028} \" \\ / \n",
    });
    let request = gateway.create(&Ask::new("scale").params(params.clone())).await.expect("it is admitted");
    let folder = tempfile::tempdir().expect("a folder");
    let (sent, answered) = (folder.path().join("params.json"), folder.path().join("answer.json"));
    let check = |params: &Value, answer: &Value| {
        std::fs::write(&sent, params.to_string()).expect("written");
        std::fs::write(&answered, answer.to_string()).expect("written");
        python(&[&docs("payload_hash.py"), &sent, &answered])
    };
    let before = gateway.look(&request.token).await;
    assert_eq!(before["payloadSalt"], request.body["payloadSalt"]);
    let not_approved = |output: &Output, status: &str| {
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""), "{output:?}");
        assert!(text(&output.stderr).contains(&format!("not approved: {status}")), "{output:?}");
    };
    not_approved(&check(&params, &before), "ready_for_approval");
    let mut said = before.clone();
    said["status"] = "approved".into();
    assert!(check(&params, &said).status.success(), "its hash is that of these parameters");

    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("replicas", "5"), ("ratio", "0.25")])).await;

    let after = gateway.ended(&request.token).await;
    assert_ne!(after["payloadHash"], before["payloadHash"]);
    let output = check(&params, &after);
    assert!(output.status.success(), "{output:?}");
    let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut merged = params.clone();
    (merged["replicas"], merged["ratio"]) = (json!(5), json!(0.25));
    assert_eq!(run, merged);
    let mut other = params.clone();
    other["password"] = json!("483921");
    assert!(!check(&other, &after).status.success(), "it is not what was approved");

    let denied = gateway.create(&Ask::new("scale").params(params.clone())).await.expect("it is admitted");
    gateway.click_ok(&Click::deny("U0BOB", &denied.id)).await;
    not_approved(&check(&params, &gateway.ended(&denied.token).await), "denied");
    let twice = after.to_string().replacen("\"status\"", "\"status\":\"denied\",\"status\"", 1);
    std::fs::write(&answered, twice).expect("written");
    let output = python(&[&docs("payload_hash.py"), &sent, &answered]);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}

/// A request that an earlier version stored keeps its hash, through an edit too.
#[tokio::test]
async fn a_request_of_version_1_keeps_it_to_its_end() {
    let gateway = Home::new(ACTIONS).start().await;
    let sent = json!({"replicas": 2, "zone": "a", "password": "hunter2"});
    let request = gateway.create(&Ask::new("scale").params(sent.clone())).await.expect("it is admitted");
    let other = gateway.create(&Ask::new("scale").params(sent.clone())).await.expect("it is admitted");
    let home = gateway.stop().await;
    as_version_5(&home.path("data/countersign.db"), &[&request.id, &other.id], &sent);

    let gateway = home.start().await;
    let before = gateway.look(&request.token).await;
    assert_eq!((&before["payloadHashVersion"], &before["payloadSalt"]), (&json!(1), &Value::Null));
    assert_eq!(before["payloadHash"], unsalted_payload_hash(&sent).as_str());
    assert_eq!(gateway.status(&request.id).await["payloadHashVersion"], 1);

    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("replicas", "5")])).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["payloadHashVersion"]), (&json!("approved"), &json!(1)));
    assert_eq!(after["payloadSalt"], Value::Null);
    let mut merged = sent.clone();
    merged["replicas"] = json!(5);
    assert_eq!(after["payloadHash"], unsalted_payload_hash(&merged).as_str());

    // Made again it has the hidden value in the form in which that is known.
    gateway.click_ok(&Click::deny("U0ALICE", &other.id)).await;
    let again = gateway.rerequest_patiently(&other, "U0REQ").await;
    assert_eq!((&again.body["payloadHashVersion"], &again.body["payloadSalt"]), (&json!(1), &Value::Null));
    let again = gateway.look(&again.token).await;
    assert_eq!(again["payloadHash"], unsalted_payload_hash(&sent).as_str());

    let new = gateway.create(&Ask::new("scale").params(sent.clone())).await.expect("it is admitted");
    let new = gateway.look(&new.token).await;
    assert_eq!(new["payloadHash"], payload_hash(&new, &sent).as_str());
}

/// Makes a database what version 5 of it was, with these requests, all of the same parameters.
fn as_version_5(path: &Path, ids: &[&str], params: &Value) {
    let database = Connection::open(path).expect("the database can be opened");
    let sha256 = |value: &Value| {
        let digest = ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes());
        Value::from(hex::encode(digest))
    };
    let digests = params.as_object().expect("an object").iter();
    let digests = Value::Object(digests.map(|(key, value)| (key.clone(), sha256(value))).collect());
    for id in ids {
        let select = "SELECT body FROM request WHERE body ->> '$.id' = ?1";
        let body: String = database.query_row(select, [id], |row| row.get(0)).expect("the request is there");
        let mut body: Value = serde_json::from_str(&body).expect("JSON");
        let submission = body["submission"].as_object_mut().expect("an object");
        assert_eq!(submission.remove("payload_hash_version"), Some(json!(2)));
        submission.insert("digests".to_owned(), digests.clone());
        let update = "UPDATE request SET body = ?2 WHERE body ->> '$.id' = ?1";
        assert_eq!(database.execute(update, [*id, &body.to_string()]), Ok(1));
    }
    let older = "
        DROP INDEX outbox_since;
        DROP INDEX request_subject;
        ALTER TABLE request DROP COLUMN subject;

        DROP INDEX request_ended;
        ALTER TABLE request DROP COLUMN key_until;
        ALTER TABLE request DROP COLUMN ended_at;
        DROP TABLE dispatch;
        DROP TABLE dispatch_depth;

        DROP INDEX request_supersede;
        ALTER TABLE request DROP COLUMN supersede;

        ALTER TABLE audit RENAME TO newer;
        CREATE TABLE audit (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            event TEXT NOT NULL,
            action TEXT NOT NULL,
            status TEXT,
            request BLOB,
            body TEXT NOT NULL
        ) STRICT;
        INSERT INTO audit
            SELECT seq, at, body ->> '$.event', body ->> '$.action', body ->> '$.status', request, body FROM newer ORDER BY seq;
        DROP TABLE newer;
        DROP TABLE audit_partition;
        DROP TABLE audit_checkpoint;

        ALTER TABLE request DROP COLUMN salt;
        ALTER TABLE request DROP COLUMN salt_key;
        ALTER TABLE outbox DROP COLUMN claim;

        DROP TABLE open_requests;
        DROP INDEX request_open;
        CREATE INDEX request_open ON request (action, status, submitted_at, policy_hash) WHERE due_at IS NOT NULL;
        CREATE INDEX request_open_by_caller ON request (caller) WHERE caller IS NOT NULL AND due_at IS NOT NULL;
        CREATE INDEX request_waiting ON request (action, waits_for) WHERE waits_for IS NOT NULL;
        DROP INDEX outbox_ready;
        ALTER TABLE outbox DROP COLUMN channel;
        CREATE INDEX outbox_ready ON outbox (urgency, ready_at);
        DROP INDEX slack_post_refresh;
        ALTER TABLE slack_post DROP COLUMN channel;
        CREATE INDEX slack_post_refresh ON slack_post (refresh_at) WHERE refresh_at IS NOT NULL;
        ALTER TABLE policy_entry DROP COLUMN channel;
        ALTER TABLE policy_entry DROP COLUMN escalation_channel;
        PRAGMA user_version = 5";
    database.execute_batch(older).expect("the schema is the older one");
}
