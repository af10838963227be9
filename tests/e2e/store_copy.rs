//! A store is moved between SQLite and Redis, and a gateway goes on with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use countersign_tests::{
    Ask, Click, Gateway, Home, Metrics, Receipt, Redis, Slack, countersign_with, deploy,
};
use serde_json::{Value, json};

/// Copies a store with the command; both are of this home, if they are files.
fn copy(from: &str, to: &str, more: &[&str]) -> Output {
    let secret = ("COUNTERSIGN_SECRET", PathBuf::from("5e".repeat(32)));
    countersign_with([secret], [&["store", "copy", "--from", from, "--to", to], more].concat())
}

fn copied(from: &str, to: &str) -> String {
    let output = copy(from, to, &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The counters, which are kept in the store.
fn counts(metrics: &Metrics) -> [u64; 4] {
    ["approval_requests_total", "approvals_total", "denies_total", "policy_reloads_total"]
        .map(|name| metrics.count(name, &[]))
}

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: { hide: [password] }
    rerequest: { cooldown: 1s, limit: 5, window: 24h }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0CAROL], approvals: 2 }
      - use: override-guard
        with: { keys: [ref] }
";

/// What has happened before, and must still be so.
struct Past {
    open: Receipt,
    keyed: Ask,
    denied: Receipt,
    approved: Receipt,
    seen: Value,
    lineage: Value,
    counts: [u64; 4],
    policy: String,
    salt: Value,
}

async fn fill(gateway: &Gateway, slack: &Slack) -> Past {
    let keyed = Ask::new("deploy").params(json!({"ref": "v1"})).idempotency_key("run-1");
    let open = gateway.create(&keyed).await.expect("it is taken");
    let denied = gateway.open("deploy").await;
    let approved = gateway.open("deploy").await;
    for request in [&open, &denied, &approved] {
        slack.shown(&request.id).await;
        gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    }
    gateway.click_ok(&Click::approve("U0ALICE", &open.id)).await;
    gateway.click_ok(&Click::deny_because("U0BOB", &denied.id, "not today")).await;
    for who in ["U0ALICE", "U0BOB"] {
        gateway.click_ok(&Click::approve(who, &approved.id)).await;
    }
    for number in 0..20 {
        let request = gateway.create(&Ask::new("deploy").requester(&format!("U0CI{number}"))).await;
        slack.shown(&request.expect("it is taken").id).await;
    }
    gateway.rerequest_patiently(&denied, "U0ALICE").await;
    gateway.seen("policy-sets/history").await;
    Past {
        seen: gateway.look(&open.token).await,
        lineage: gateway.lineage(&denied.id).await,
        counts: counts(&gateway.metrics().await),
        policy: gateway.policy().await,
        salt: open.body["payloadSalt"].clone(),
        open,
        keyed,
        denied,
        approved,
    }
}

impl Past {
    /// Nothing of it is lost, and nothing happens again.
    async fn still_holds(&self, gateway: &Gateway) {
        assert_eq!(gateway.look(&self.open.token).await, self.seen);
        assert_eq!(gateway.lineage(&self.denied.id).await, self.lineage);
        assert_eq!(gateway.policy().await, self.policy);
        assert_eq!(gateway.ended(&self.denied.token).await["status"], "denied");
        assert_eq!(gateway.ended(&self.approved.token).await["status"], "approved");
        let again = gateway.create(&self.keyed).await.expect("its key is known");
        assert_eq!((&again.id, &again.token), (&self.open.id, &self.open.token));
        assert_eq!(again.body["payloadSalt"], self.salt);
        let refused = gateway.click(&Click::approve("U0ALICE", &self.open.id)).await;
        assert_eq!(refused["error"], "duplicate_approval", "{refused}");
        assert_eq!(counts(&gateway.metrics().await), self.counts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_goes_on_with_a_store_that_was_moved() {
    let (redis, slack) = (Redis::start().await, Slack::start().await);
    let home = Home::new(ACTIONS).administered();
    let file = |home: &Home, name: &str| format!("sqlite:{}", home.path(name).display());
    let original = file(&home, "data/original.db");
    let gateway = slack.gateway(home.with("COUNTERSIGN_STORE", &original)).await;
    let past = fill(&gateway, &slack).await;
    let in_use = copy(&original, &redis.url(), &[]);
    assert_eq!(in_use.status.code(), Some(2), "{in_use:?}");
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("in use by a gateway"), "{in_use:?}");

    // A command that reads what is there makes nothing that a copy would take for another store.
    for words in [["audit", "export"], ["audit", "verify"], ["keys", "rewrap"]] {
        let secret = ("COUNTERSIGN_SECRET", PathBuf::from("5e".repeat(32)));
        let none = countersign_with([secret], [&words[..], &["--store", &redis.url()]].concat());
        let said = String::from_utf8_lossy(&none.stderr);
        assert!(none.status.code() == Some(2) && said.contains("there is no store `cs`"), "{none:?}");
    }
    // To Redis.
    let home = gateway.stop().await;
    let told = copied(&original, &redis.url());
    assert!(told.contains("24 requests") && told.contains("copied and verified"), "{told}");
    let gateway = slack.gateway(home.with_redis(&redis)).await;
    past.still_holds(&gateway).await;
    let in_use = copy(&redis.url(), &file(gateway.home(), "data/back.db"), &[]);
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("in use by a gateway"), "{in_use:?}");

    // And back.
    let home = gateway.stop().await;
    let back = file(&home, "data/back.db");
    let not_empty = copy(&original, &redis.url(), &["--restart"]);
    assert!(String::from_utf8_lossy(&not_empty.stderr).contains("not empty"), "{not_empty:?}");
    copied(&redis.url(), &back);
    let gateway = slack.gateway(home.with("COUNTERSIGN_STORE", &back)).await;
    past.still_holds(&gateway).await;

    gateway.click_ok(&Click::approve("U0CAROL", &past.open.id)).await;
    let ended = gateway.ended(&past.open.token).await;
    assert_eq!((&ended["status"], &ended["approvers"]), (&json!("approved"), &json!(["U0ALICE", "U0CAROL"])));
    slack.shown_when(&past.open.id, "to say so", |message| message.shown().contains("Approved")).await;
    for request in [&past.open, &past.denied, &past.approved] {
        assert_eq!(slack.posted(&request.id).len(), 1, "it is the message that it had");
    }
}

/// The secret is not in a store, so a copy to where another one would be used is refused.
#[tokio::test]
async fn a_copy_for_another_secret_is_refused() {
    let home = Home::new(&deploy(1));
    let store = format!("sqlite:{}", home.path("data/a.db").display());
    let home = home.with("COUNTERSIGN_STORE", &store).start().await.stop().await;
    let to = format!("sqlite:{}", home.path("data/b.db").display());
    let other = ("COUNTERSIGN_SECRET", PathBuf::from("6f".repeat(32)));
    let refused = countersign_with([other], ["store", "copy", "--from", &store, "--to", &to]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("COUNTERSIGN_SECRET"), "{refused:?}");
    assert!(!home.path("data/b.db").exists());
    let told = copied(&store, &to);
    assert!(told.contains("copied and verified"), "{told}");
}

/// A replay reads a store in Redis as it does one in a file, beside the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_reads_a_store_in_redis() {
    let redis = Redis::start().await;
    let gateway = Home::new(&deploy(1)).with_redis(&redis).start().await;
    let mut approved = Vec::new();
    for number in 0..30 {
        let request = gateway.open("deploy").await;
        if number % 2 == 0 {
            gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
            approved.push(request.id);
        }
    }
    let stricter = Home::new(&deploy(2));
    let set = stricter.path("policies").display().to_string();
    let words =
        ["policy", "replay", "--since", "1d", "--set", &set, "--store", &redis.url(), "--format", "json"];
    let output = countersign_with([], words);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["requests"], &report["changes"], &report["same"]),
        (&json!(30), &json!(15), &json!(15))
    );
    let found = report["changed"][0]["requests"].as_array().expect("a list").iter();
    let mut found: Vec<String> = found.map(|it| it["requestId"].as_str().expect("text").to_owned()).collect();
    found.sort_unstable();
    approved.sort_unstable();
    assert_eq!(found, approved);

    let empty = Redis::start().await;
    let url = empty.url();
    let none = countersign_with([], ["policy", "replay", "--since", "1d", "--set", &set, "--store", &url]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no store"), "{none:?}");
}

/// Nothing is sent to another machine without TLS, unless it is allowed.
#[tokio::test]
async fn a_redis_elsewhere_needs_tls() {
    let home = Home::new(&deploy(1)).with("COUNTERSIGN_STORE", "redis://redis.invalid:6379");
    let refused = home.fail_to_start().await;
    assert!(refused.stderr.contains("`redis.invalid` is on another machine"), "{}", refused.stderr);
    assert!(refused.stderr.contains("COUNTERSIGN_REDIS_PLAINTEXT"), "{}", refused.stderr);
    let allowed = home.with("COUNTERSIGN_REDIS_PLAINTEXT", "true").fail_to_start().await;
    assert!(allowed.stderr.contains("cannot connect to redis://redis.invalid:6379"), "{}", allowed.stderr);
}

#[tokio::test]
async fn an_embedded_store_is_backed_up_while_its_gateway_runs() {
    let gateway = Home::alone(&deploy(1)).start().await;
    let before = gateway.open("deploy").await;
    let back_up = |gateway: &Gateway, to: &str| {
        let store = format!("sqlite:{}", gateway.home().path("data/countersign.db").display());
        countersign_with([("UNUSED", PathBuf::new())], ["store", "backup", "--store", &store, to])
    };
    let file = gateway.home().path("backup.db");
    let name = file.display().to_string();
    let output = back_up(&gateway, &name);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("countersign.db.key"), "{output:?}");
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let streamed = back_up(&gateway, "-");
    assert!(streamed.status.success() && streamed.stdout.starts_with(b"SQLite format 3\0"));
    let left = fs::read_dir(gateway.home().path("data")).expect("it is there");
    let left: Vec<String> =
        left.map(|it| it.expect("it is").file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.contains("backup")), "{left:?}");

    // What is there already is left alone.
    let bytes = fs::read(&file).expect("it is there");
    let output = back_up(&gateway, &name);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read(&file).expect("it is there"), bytes);
    let output = back_up(&gateway, "/nowhere/backup.db");
    assert_eq!(output.status.code(), Some(2), "{output:?}");

    let after = gateway.open("deploy").await;
    for bytes in [bytes, streamed.stdout] {
        let home = Home::alone(&deploy(1));
        fs::create_dir_all(home.path("data")).expect("there is room");
        fs::write(home.path("data/countersign.db"), bytes).expect("there is room");
        let key = gateway.home().path("data/countersign.db.key");
        fs::copy(key, home.path("data/countersign.db.key")).expect("there is room");
        let restored = home.start().await;
        restored.click_ok(&Click::approve("U0ALICE", &before.id)).await;
        assert_eq!(restored.look(&before.token).await["status"], "approved");
        assert_eq!(restored.metrics().await.count("approval_requests_total", &[]), 1, "and not {}", after.id);
    }
}
