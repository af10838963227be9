//! The audit log proves itself: what a gateway wrote is verified offline, and what somebody did to it is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use countersign_tests::{
    ADMIN_TOKEN, Call, Click, Gateway, Home, Receipt, Redis, countersign_with, deploy, within,
};
use serde_json::{Value, json};

const ENTRIES: &str = "audit.ndjson";

/// In a folder that a test makes when it likes.
const LATER: &str = "later/audit.ndjson";

fn home() -> Home {
    Home::new(&deploy(1))
        .administered()
        .with_file("AUDIT_FILE", ENTRIES)
        .with("COUNTERSIGN_AUDIT_CHECKPOINT_SEC", "1")
}

/// Runs `countersign audit` with these words, and returns its exit code and what it printed.
fn audit(home: &Home, words: &[&str]) -> (i32, String) {
    let embedded = format!("sqlite:{}", home.path("data/countersign.db").display());
    let mut all = vec!["audit".to_owned(), words[0].to_owned()];
    all.extend(["--store".to_owned(), home.redis().unwrap_or(embedded)]);
    all.extend(words[1..].iter().map(|word| match word.strip_prefix("./") {
        Some(file) => home.path(file).display().to_string(),
        None => (*word).to_owned(),
    }));
    // That of every home.
    let secret = PathBuf::from("5e".repeat(32));
    let Output { status, stdout, stderr } = countersign_with([("COUNTERSIGN_SECRET", secret)], all);
    (status.code().expect("a code"), String::from_utf8([stdout, stderr].concat()).expect("text"))
}

fn done(home: &Home, words: &[&str]) -> String {
    let (code, text) = audit(home, words);
    assert_eq!(code, 0, "{text}");
    text
}

async fn approved(gateway: &Gateway) -> Receipt {
    let made = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &made.id)).await;
    made
}

/// The entries of a file of lines, by partition, in the order of the lines.
fn numbers(text: &str) -> BTreeMap<u64, Vec<u64>> {
    let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        if let Some(partition) = line["partition"].as_u64() {
            numbers.entry(partition).or_default().push(line["number"].as_u64().expect("a number"));
        }
    }
    numbers
}

fn read(home: &Home, name: &str) -> String {
    fs::read_to_string(home.path(name)).expect("it is there")
}

#[tokio::test]
async fn a_log_is_exported_and_verified_offline() {
    let gateway = home().start().await;
    for _ in 0..5 {
        approved(&gateway).await;
    }
    let home = gateway.stop().await;
    home.write("key", done(&home, &["key"]).as_bytes());
    let text = done(&home, &["verify"]);
    assert!(text.contains("\nentries after the newest checkpoint, which nothing covers yet: 0\n"), "{text}");
    let entries: usize = numbers(&done(&home, &["export"])).values().map(Vec::len).sum();
    let (_, last) = text.split_once("\nThe log is what was written.\n").expect("it is what was written");
    assert!(
        last.starts_with(&format!("proved: {entries} entries up to 20")) && last.lines().count() == 1,
        "{text}"
    );
    assert!(last.contains(", covered by the checkpoint of 20"), "{text}");
    let shown: Value = serde_json::from_str(&done(&home, &["verify", "--format", "json"])).expect("JSON");
    assert_eq!((&shown["result"], &shown["proved"]["entries"]), (&json!("right"), &json!(entries)));
    assert!(last.contains(shown["proved"]["checkpoint"].as_str().expect("a time")), "{shown} {text}");
    assert!(last.contains(shown["proved"]["until"].as_str().expect("a time")), "{shown} {text}");
    done(&home, &["verify", "--key", "./key", "--checkpoint", "./audit.ndjson.checkpoints"]);

    let export = done(&home, &["export"]);
    home.write("export", export.as_bytes());
    let check = |name: &str, text: &str| {
        home.write(name, text.as_bytes());
        audit(&home, &["verify", "--file", &format!("./{name}"), "--key", "./key"])
    };
    assert_eq!(check("export", &export).0, 0);
    let lines: Vec<&str> = export.lines().collect();
    let entry = lines.iter().position(|line| line.contains("\"event\":\"created\"")).expect("one was");
    let parsed: Value = serde_json::from_str(lines[entry]).expect("JSON");
    let named = format!("{}/{}", parsed["partition"], parsed["number"]);
    let without = |from: usize, to: usize| {
        let kept = lines[..from].iter().chain(&lines[to..]);
        kept.map(|line| format!("{line}\n")).collect::<String>()
    };
    let (last, first) = (lines.len() - 1, 1);
    for (text, expected) in [
        (without(last, last + 1), "cut off: the export has no last line".to_owned()),
        (without(entry, entry + 1), format!("missing: entry {named}")),
        (without(first, last), "cut off: partition ".to_owned()),
        (export.replacen("\"approved\"", "\"improved\"", 1), "altered: entry ".to_owned()),
        (export.replacen("\"whole\":true", "\"whole\":true ", 1), "altered: the export had ".to_owned()),
        (format!("{export}\n"), "altered: the export goes on after its last line".to_owned()),
        (
            export.replacen("{\"partition\":", "{\"partition\": ", 1),
            "altered: line 2 of the export".to_owned(),
        ),
        (
            export.replacen("\\npartition 0 ", "\\npartition 0 1", 1),
            "altered: a checkpoint of the export".to_owned(),
        ),
    ] {
        assert_ne!(text, export, "{expected}");
        let (code, found) = check("changed", &text);
        assert!(code == 1 && found.contains(&expected), "{expected}: {code} {found}");
        assert!(found.ends_with("The log is NOT what was written.\n"), "{found}");
    }

    // What cannot be checked is not taken for right.
    let filtered = done(&home, &["export", "--event", "approved"]);
    assert_eq!(numbers(&filtered).values().map(Vec::len).sum::<usize>(), 5, "{filtered}");
    let (code, found) = check("filtered", &filtered);
    assert!(code == 2 && found.contains("does not have every entry"), "{found}");
    let other_key = "countersign-audit/x+6e1d7f2c+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
    let (code, found) = audit(&home, &["verify", "--key", other_key]);
    assert!(code == 2 && found.contains("no key"), "{found}");

    home.write("empty", b"\n");
    let (code, found) = audit(&home, &["verify", "--key", "./empty"]);
    assert!(code == 2 && found.contains("there is no key in"), "{found}");

    let csv =
        done(&home, &["export", "--format", "csv", "--actor", "U0ALICE", "--event", "approval_recorded"]);
    let rows: Vec<&str> = csv.lines().collect();
    assert!(rows[0].starts_with("partition,number,at,event,action,request,"), "{csv}");
    assert!(rows[1..rows.len() - 1].iter().all(|row| row.contains(",U0ALICE,")), "{csv}");
    assert!(rows[rows.len() - 1].starts_with("# complete: 5 entries with SHA-256 "), "{csv}");
}

#[tokio::test]
async fn what_was_done_to_the_database_is_named() {
    let gateway = home().start().await;
    let made = approved(&gateway).await;
    let home = gateway.stop().await;
    if home.redis().is_some() {
        return;
    }
    done(&home, &["verify"]);
    let database = || rusqlite::Connection::open(home.path("data/countersign.db")).expect("a database");
    let select = format!(
        "SELECT partition || '/' || number FROM audit WHERE body ->> '$.requestId' = '{}' ORDER BY seq DESC LIMIT 1",
        made.id
    );
    let last: String = database().query_row(&select, (), |row| row.get(0)).expect("an entry");
    let (partition, number) = last.split_once('/').expect("a partition and a number");
    let its = format!("WHERE partition = {partition} AND number = {number}");
    let tamper = |sql: &str, undo: &str, expected: &str| {
        database().execute_batch(sql).expect("whoever owns a database can change it");
        let (code, text) = audit(&home, &["verify"]);
        assert!(code == 1 && text.contains(expected), "{sql}: {code} {text}");
        database().execute_batch(undo).expect("it can be undone");
        done(&home, &["verify"]);
    };
    tamper(
        &format!("UPDATE audit SET body = replace(body, 'U0ALICE', 'U0MALLO') {its}"),
        &format!("UPDATE audit SET body = replace(body, 'U0MALLO', 'U0ALICE') {its}"),
        &format!("altered: entry {last} is not what was written"),
    );
    tamper(
        &format!("UPDATE audit SET at = at - 60000 {its}"),
        &format!("UPDATE audit SET at = at + 60000 {its}"),
        &format!("altered: column `at` of entry {last} is not what the entry says"),
    );
    tamper(
        &format!("CREATE TABLE kept_aside AS SELECT * FROM audit {its}; DELETE FROM audit {its}"),
        "INSERT INTO audit SELECT * FROM kept_aside; DROP TABLE kept_aside",
        &format!("cut off: partition {partition} ends with entry "),
    );

    // A tail that is cut off before the next start is seen by the gateway itself, which signs nothing over it.
    database()
        .execute_batch(&format!(
            "DELETE FROM audit {its}; UPDATE audit_partition SET size = size - 1 WHERE partition = {partition}"
        ))
        .expect("whoever owns a database can change it");
    let gateway = home.start().await;
    gateway.logged("the audit log is not what was signed before", 1).await;
    let ready = gateway.send(&Call::get("/readyz")).await;
    assert_eq!((ready.status(), &ready.json()["status"]), (200, &Value::from("degraded")));
    // Everybody may ask, so it says no more.
    assert_eq!(ready.json()["audit"], json!(["signing"]));
    assert_eq!(gateway.metrics().await.sum("audit_signing_refused", &[]), 1.0);
    // It goes on deciding.
    approved(&gateway).await;
}

/// A failover can lose what was acknowledged last. What takes its place under the same numbers is another log, and is not
/// signed until somebody accepts the loss.
#[tokio::test]
async fn a_redis_that_lost_entries_is_not_signed() {
    let redis = Redis::start().await;
    let home = home().with("COUNTERSIGN_STORE", &redis.url()).with_file("COUNTERSIGN_SPOOL_DIR", "spool");
    let gateway = home.start().await;
    approved(&gateway).await;
    let home = gateway.stop().await;
    let store = redis.url();
    let audit = |words: &[&str]| {
        let words = [&["audit", words[0], "--store", &store], &words[1..]].concat();
        let secret = PathBuf::from("5e".repeat(32));
        let Output { status, stdout, stderr } = countersign_with([("COUNTERSIGN_SECRET", secret)], words);
        (status.code().expect("a code"), String::from_utf8([stdout, stderr].concat()).expect("text"))
    };
    assert_eq!(audit(&["verify"]).0, 0);

    let client = redis::Client::open(redis.url()).expect("an address");
    let mut connection = client.get_connection().expect("it runs");
    let mut size = |partition: u16| -> u64 {
        let size: Option<u64> = redis::cmd("GET")
            .arg(format!("{{cs:{partition}}}:audit:n"))
            .query(&mut connection)
            .expect("it runs");
        size.unwrap_or_default()
    };
    let (partition, last) =
        (0..16).map(|partition| (partition, size(partition))).find(|(_, size)| *size > 0).expect("an entry");
    let tag = format!("{{cs:{partition}}}");
    let ask = |connection: &mut redis::Connection, words: &[&str]| {
        let _: redis::Value = redis::cmd(words[0]).arg(&words[1..]).query(connection).expect("it runs");
    };
    let key = format!("{tag}:audit");
    ask(&mut connection, &["XDEL", &key, &format!("{last}-0")]);
    let (code, text) = audit(&["verify"]);
    assert!(
        code == 1 && text.contains(&format!("cut off: partition {partition} ends with entry {}", last - 1)),
        "{text}"
    );
    // Another one took its number.
    ask(&mut connection, &["DEL", &key]);
    for number in 1..=last {
        ask(&mut connection, &["XADD", &key, &format!("{number}-0"), "b", "{}", "d", &"0".repeat(64)]);
    }
    let gateway = home.start().await;
    gateway.logged("the audit log is not what was signed before", 1).await;
    let ready = gateway.send(&Call::get("/readyz")).await;
    assert_eq!(ready.json()["audit"], json!(["signing"]));
    let home = gateway.stop().await;

    let checkpoints = home.path("audit.ndjson.checkpoints").display().to_string();
    let (code, text) = audit(&["accept-loss", "--checkpoint-file", &checkpoints]);
    assert_eq!(code, 0, "{text}");
    let gateway = home.start().await;
    approved(&gateway).await;
    assert_eq!(gateway.send(&Call::get("/readyz")).await.json()["status"], "ready");
    // Its folder has the checkpoints.
    let _home = gateway.stop().await;
    let (code, text) = audit(&["verify", "--checkpoint", &checkpoints]);
    assert!(code == 2 && text.contains("are of another log, `"), "{text}");
    let ended = text.rsplit("--ended-log ").next().expect("words").trim().trim_end_matches('`').to_owned();
    let (code, text) = audit(&["verify", "--checkpoint", &checkpoints, "--ended-log", &ended]);
    // What was put in by hand has no digest; the checkpoints fit.
    assert!(code == 1 && text.contains("checkpoints of another log, which are not compared: "), "{text}");
    assert!(!text.contains("cut off") && !text.contains("others than those"), "{text}");
}

/// Those that the store has lost are in the file as well: it is kept where the store is not.
#[tokio::test]
async fn after_a_restore_the_audit_file_has_every_new_entry() {
    let home = home();
    let gateway = home.start().await;
    approved(&gateway).await;
    let home = gateway.stop().await;
    if home.redis().is_some() {
        return;
    }
    let files = |home: &Home| -> Vec<PathBuf> {
        let names = ["", "-wal", "-shm"].map(|end| home.path(&format!("data/countersign.db{end}")));
        names.into_iter().filter(|path| path.exists()).collect()
    };
    let backup: Vec<_> =
        files(&home).into_iter().map(|path| (path.clone(), fs::read(path).expect("it is there"))).collect();
    let gateway = home.start().await;
    for _ in 0..4 {
        approved(&gateway).await;
    }
    let home = gateway.stop().await;
    let lines = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| line.starts_with("{\"partition\":")).map(str::to_owned).collect()
    };
    let lost = lines(&done(&home, &["export"]));

    for path in files(&home) {
        fs::remove_file(path).expect("it is there");
    }
    for (path, bytes) in backup {
        fs::write(path, bytes).expect("there is room");
    }
    done(&home, &["accept-loss", "--checkpoint-file", "./audit.ndjson.checkpoints"]);
    let gateway = home.start().await;
    gateway.logged("the audit log is not the one that the audit file was written from", 1).await;
    for _ in 0..8 {
        approved(&gateway).await;
    }
    let home = gateway.stop().await;
    let written = read(&home, ENTRIES);
    let in_file = lines(&written);
    assert_eq!(in_file.len(), written.lines().count(), "each once");
    let all = lines(&done(&home, &["export"]));
    assert!(all.is_subset(&in_file), "missing: {:?}", all.difference(&in_file).collect::<Vec<_>>());
    assert!(lost.is_subset(&in_file));
    let gateway = home.start().await;
    approved(&gateway).await;
    let home = gateway.stop().await;
    let all = lines(&done(&home, &["export"]));
    assert!(all.is_subset(&lines(&read(&home, ENTRIES))), "it goes on from there");
}

#[tokio::test]
async fn every_entry_is_in_the_audit_file_once() {
    let gateway = home().start().await;
    approved(&gateway).await;
    let home = gateway.kill();
    let gateway = home.start().await;
    approved(&gateway).await;
    let home = gateway.stop().await;
    let expected = numbers(&done(&home, &["export"]));
    assert_eq!(numbers(&read(&home, ENTRIES)), expected);

    // It is renamed, as tools do that rotate logs.
    fs::rename(home.path(ENTRIES), home.path("audit.1")).expect("it is there");
    let gateway = home.start().await;
    approved(&gateway).await;
    let home = gateway.stop().await;
    let all = format!("{}{}", read(&home, "audit.1"), read(&home, ENTRIES));
    assert_eq!(numbers(&all), numbers(&done(&home, &["export"])));
    assert_ne!(numbers(&all), expected);

    // The position was lost, as if the gateway had ended between the two files: the end of the file says how far it is.
    fs::remove_file(home.path("audit.ndjson.position")).expect("it is there");
    fs::write(home.path(ENTRIES), &all).expect("it can be written");
    let home = home.start().await.stop().await;
    let expected = numbers(&done(&home, &["export"]));
    assert_eq!(numbers(&read(&home, ENTRIES)), expected);
    for numbers in expected.values() {
        assert_eq!(*numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_audit_file_that_cannot_be_written_is_made_up_for() {
    // Its folder is not there yet, as on a disk that is not mounted.
    let home = home().with_file("AUDIT_FILE", LATER);
    let gateway = home.start().await;
    approved(&gateway).await;
    gateway.logged("audit file not written; it is made up for later", 2).await;
    let ready = gateway.send(&Call::get("/readyz")).await;
    assert_eq!((ready.status(), &ready.json()["status"]), (200, &Value::from("degraded")));
    assert_eq!(ready.json()["audit"], json!(["checkpoint_file", "file"]));
    for part in ["file", "checkpoint_file"] {
        assert_eq!(gateway.metrics().await.sum("audit_file_failing", &[("file", part)]), 1.0);
    }
    fs::create_dir(gateway.home().path("later")).expect("it can be made");
    gateway.logged("the audit log is in order again", 2).await;
    assert_eq!(gateway.send(&Call::get("/readyz")).await.json()["status"], "ready");
    let home = gateway.stop().await;
    assert_eq!(numbers(&read(&home, LATER)), numbers(&done(&home, &["export"])));
    done(&home, &["verify", "--checkpoint", "./later/audit.ndjson.checkpoints"]);
}

#[tokio::test]
async fn admins_read_the_log() {
    let gateway = home().start().await;
    let (first, second) = (approved(&gateway).await, approved(&gateway).await);
    let list = async |query: &str| {
        let call = Call::get(&format!("/api/admin/audit?{query}")).bearer(ADMIN_TOKEN);
        gateway.send(&call).await
    };
    let events = async |query: &str| {
        let answer = list(query).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let entries = answer.json()["entries"].as_array().cloned().expect("entries");
        entries
            .iter()
            .map(|it| it["entry"]["event"].as_str().expect("an event").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(events(&format!("request={}", first.id)).await, ["created", "approval_recorded", "approved"]);
    assert_eq!(events(&format!("request={}&event=approved", second.id)).await, ["approved"]);
    assert_eq!(events("actor=U0ALICE&status=approved&action=deploy&event=approval_recorded").await.len(), 2);
    assert_eq!(events("until=2020-01-01T00:00:00Z").await, Vec::<String>::new());
    assert_eq!(events("since=2020-01-01T00:00:00Z&event=created").await, ["created", "created"]);

    // Page by page, each entry once.
    let whole = list("limit=500").await.json()["entries"].as_array().cloned().expect("entries");
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("limit=3&cursor={cursor}")).await.json();
        paged.extend(page["entries"].as_array().cloned().expect("entries"));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    assert_eq!(paged, whole);
    assert!(paged.len() >= 4, "{paged:?}");

    for (query, path) in [
        ("since=yesterday", "since"),
        ("status=open", "status"),
        ("request=1", "request"),
        ("limit=many", "limit"),
        ("cursor=x", "cursor"),
        ("event=a&event=b", "event"),
    ] {
        let answer = list(query).await;
        assert_eq!((answer.status(), &answer.json()["errors"][0]["path"]), (400, &Value::from(path)));
    }
    assert_eq!(gateway.send(&Call::get("/api/admin/audit")).await.status(), 401);
}

/// Old entries go, and what is left proves that nothing else did.
#[tokio::test]
async fn old_entries_are_removed_and_the_log_proves_itself() {
    const DAY: i64 = 24 * 60 * 60;
    let home = home().with_settable_clock().with("REQUEST_RETENTION_SEC", "3600");
    let home = home.with("REQUEST_RETENTION_SWEEP_SEC", "1").with("AUDIT_RETENTION_SEC", "86400");
    let gateway = home.start().await;
    for _ in 0..5 {
        approved(&gateway).await;
    }
    let home = gateway.stop().await;
    let before = done(&home, &["export"]);
    let last = |text: &str| -> BTreeMap<u64, u64> {
        let last = |numbers: Vec<u64>| *numbers.last().expect("a number");
        numbers(text).into_iter().map(|(partition, numbers)| (partition, last(numbers))).collect()
    };
    let removed = last(&before);

    let gateway = home.start().await;
    gateway.set_clock(2 * DAY);
    gateway.logged("old audit entries removed", 1).await;
    let (code, text) = audit(gateway.home(), &["verify", "--checkpoint", "./audit.ndjson.checkpoints"]);
    assert_eq!(code, 3, "{text}");
    for (partition, number) in &removed {
        let found = text.lines().find_map(|line| {
            let rest =
                line.strip_prefix(&format!("removed by retention: partition {partition} up to entry "))?;
            rest.split([',', ' ']).next()?.parse::<u64>().ok()
        });
        assert!(found.is_some_and(|found| found >= *number), "{partition}: {text}");
    }
    // The file has them all; and what is left goes on being signed.
    let mirrored = read(gateway.home(), ENTRIES);
    for (partition, numbers) in numbers(&mirrored) {
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{partition}");
    }
    gateway.open("deploy").await;
    let home = gateway.stop().await;
    let export = done(&home, &["export"]);
    for (partition, numbers) in numbers(&export) {
        let removed = removed.get(&partition).copied().unwrap_or_default();
        assert!(numbers.first().is_some_and(|first| *first > removed), "{partition}: {export}");
    }
    assert_eq!(export.matches("\"event\":\"audit_trimmed\"").count(), removed.len(), "{export}");
    home.write("export", export.as_bytes());
    assert_eq!(audit(&home, &["verify", "--file", "./export"]).0, 3);
    // Without the entry that says so, it is missing.
    let trimmed = export.lines().find(|line| line.contains("\"event\":\"audit_trimmed\"")).expect("one is");
    let forged = export.replace(&format!("{trimmed}\n"), "");
    home.write("forged", forged.as_bytes());
    let (code, text) = audit(&home, &["verify", "--file", "./forged"]);
    let is_named = ["missing: ", "cut off: "].iter().any(|finding| text.contains(finding));
    assert!(code == 1 && is_named, "{text}");
}

/// Each of several gateways has a file of its own, and one of them may be behind.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_not_in_the_file_of_another_gateway_yet_stay() {
    let redis = Redis::start().await;
    // A gateway whose clock is not that of the Redis removes nothing, so all of this is old soon.
    let home = || {
        let home = home().with_redis(&redis).with("REQUEST_RETENTION_SEC", "1");
        home.with("REQUEST_RETENTION_SWEEP_SEC", "1").with("AUDIT_RETENTION_SEC", "1")
    };
    let behind = home().with_file("AUDIT_FILE", LATER);
    let (one, other) = (home().start().await, behind.start().await);
    let ended = async || {
        let made = one.open("deploy").await;
        one.cancel(&made.token, None).await.expect("it is open");
    };
    for _ in 0..5 {
        ended().await;
    }
    // Two sweeps: old entries are looked for as often as old requests.
    for requests in [5, 6] {
        one.metrics_until("purged_requests_total", &[], requests).await;
        ended().await;
    }
    let audit = |word: &str| {
        let secret = PathBuf::from("5e".repeat(32));
        countersign_with([("COUNTERSIGN_SECRET", secret)], ["audit", word, "--store", &redis.url()])
    };
    let export = audit("export");
    assert!(export.status.success(), "{export:?}");
    for (partition, numbers) in numbers(&String::from_utf8_lossy(&export.stdout)) {
        assert_eq!(numbers.first(), Some(&1), "{partition}");
    }
    fs::create_dir(other.home().path("later")).expect("it can be made");
    let removed = async {
        while audit("verify").status.code() != Some(3) {
            tokio::task::yield_now().await;
        }
    };
    within("old entries to be removed", removed).await;
    for (partition, numbers) in numbers(&read(other.home(), LATER)) {
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{partition}");
    }
}
