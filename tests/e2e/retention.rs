//! Ended requests go after their time, each into the archive once; what can still matter stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use countersign_tests::{Ask, Call, Click, Gateway, Home, Receipt, countersign, deploy, within};
use serde_json::{Value, json};

const ARCHIVE: &str = "requests.ndjson";

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 1h
    redact: { hide: [password] }
    rerequest: { cooldown: 1s, limit: 5, window: 1h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
  held:
    description: Can be used for an hour
    timeout: 1h
    valid_for: 1h
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
";

fn with_retention(home: Home) -> Home {
    home.with("REQUEST_RETENTION_SEC", "1").with("REQUEST_RETENTION_SWEEP_SEC", "1")
}

/// The whole lines of an archive, by the ids of their requests; each is there once.
fn archived(path: &Path) -> BTreeMap<String, Value> {
    let mut lines = BTreeMap::new();
    let text = fs::read_to_string(path).unwrap_or_default();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        assert_eq!(line["archived_request"], 1);
        let id = line["request"]["id"].as_str().expect("an id").to_owned();
        assert_eq!(lines.insert(id.clone(), line), None, "{id} is there once");
    }
    lines
}

/// Waits until so many requests were removed.
async fn removed(gateway: &Gateway, count: u64) {
    let removed = async {
        while gateway.metrics().await.count("purged_requests_total", &[]) < count {
            tokio::task::yield_now().await;
        }
    };
    within("requests to be removed", removed).await;
}

async fn is_there(gateway: &Gateway, request: &Receipt) -> bool {
    let reply = gateway.send(&Call::get(&format!("/api/guard/status?requestId={}", request.id))).await;
    assert!([200, 404].contains(&reply.status()), "{}", reply.text());
    reply.status() == 200
}

async fn decided(gateway: &Gateway, ask: &Ask, by: fn(&str, &str) -> Click) -> Receipt {
    let made = gateway.create(ask).await.expect("it is admitted");
    gateway.click_ok(&by("U0ALICE", &made.id)).await;
    made
}

#[tokio::test]
async fn what_has_ended_is_archived_and_what_can_still_matter_stays() {
    const HOUR: i64 = 60 * 60;
    let home = with_retention(Home::new(ACTIONS).administered().with_settable_clock());
    let home = home.with("REQUEST_RETENTION_SEC", "600").with_file("REQUEST_ARCHIVE_FILE", ARCHIVE);
    let gateway = home.start().await;
    let open = gateway.open("deploy").await;
    let held = decided(&gateway, &Ask::new("held"), Click::approve).await;
    let keyed = Ask::new("deploy").idempotency_key("once");
    let with_key = decided(&gateway, &keyed, Click::approve).await;
    let again = decided(&gateway, &Ask::new("deploy"), Click::deny).await;
    let newest = gateway.rerequest_patiently(&again, "U0ALICE").await;
    let secret = json!({"ref": "v1", "replicas": 2, "password": "hunter2"});
    let approved = decided(&gateway, &Ask::new("deploy").params(secret), Click::approve).await;
    let denied = decided(&gateway, &Ask::new("deploy"), Click::deny).await;
    let keys = gateway.send(&Call::get("/.well-known/jwks.json")).await.text();

    gateway.set_clock(700);
    removed(&gateway, 2).await;
    for gone in [&approved, &denied] {
        assert!(!is_there(&gateway, gone).await);
    }
    for stays in [&open, &held, &with_key, &again, &newest] {
        assert!(is_there(&gateway, stays).await);
    }
    // The same key is the same request, and no new one.
    assert_eq!(gateway.create(&keyed).await.expect("it is known").id, with_key.id);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("archived_requests_total", &[]), 2);
    assert_eq!(metrics.count("request_archive_failures_total", &[]), 0);

    let home = gateway.home();
    let lines = archived(&home.path(ARCHIVE));
    let expected = BTreeSet::from([&approved.id, &denied.id]);
    assert_eq!(lines.keys().collect::<BTreeSet<_>>(), expected);
    let text = fs::read_to_string(home.path(ARCHIVE)).expect("it is there");
    assert!(!text.contains("hunter2") && !text.contains(&approved.token), "{text}");
    // What it says is proven without the gateway.
    home.write("jwks.json", keys.as_bytes());
    let line = &lines[&approved.id];
    home.write("receipt", line["receipt"].as_str().expect("a receipt").as_bytes());
    let (receipt, keys) = (home.path("receipt"), home.path("jwks.json"));
    let words =
        ["receipt", "verify", receipt.to_str().expect("text"), "--jwks", keys.to_str().expect("text")];
    let checked = countersign(words);
    assert!(checked.status.success(), "{checked:?}");
    assert!(String::from_utf8_lossy(&checked.stdout).contains(&approved.id));
    // The audit log still says what happened, where the archive says that it does.
    let log = gateway.seen(&format!("audit?request={}", approved.id)).await;
    let entries = log["entries"].as_array().expect("entries");
    let places = line["audit"].as_array().expect("places");
    assert_eq!(places.len(), entries.len());
    for (place, entry) in places.iter().zip(entries) {
        assert_eq!((&place["partition"], &place["number"]), (&entry["partition"], &entry["number"]));
    }
    let summary = gateway.seen("audit?event=requests_removed").await;
    let sweeps = summary["entries"].as_array().expect("entries");
    let counted = sweeps.iter().map(|it| {
        assert_eq!(it["entry"]["requests"], it["entry"]["archived"]);
        it["entry"]["requests"].as_u64().expect("a number")
    });
    assert_eq!(counted.sum::<u64>(), 2);

    // Once nothing of them can matter any more, the others go, too.
    gateway.set_clock(72 * HOUR);
    for expires in [&open, &newest] {
        assert_eq!(gateway.ended(&expires.token).await["status"], "expired");
    }
    gateway.set_clock(74 * HOUR);
    removed(&gateway, 7).await;
    for gone in [&open, &held, &with_key, &again, &newest] {
        assert!(!is_there(&gateway, gone).await);
    }
    assert_eq!(archived(&gateway.home().path(ARCHIVE)).len(), 7);
}

/// Wherever the gateway is killed between the archive and the store, each request is archived once, and goes.
#[tokio::test]
async fn each_request_is_archived_once_whenever_the_gateway_is_killed() {
    const REQUESTS: usize = 220;
    let gateway = Home::new(ACTIONS).start().await;
    let mut made = Vec::new();
    for _ in 0..REQUESTS {
        let request = gateway.open("deploy").await;
        gateway.cancel(&request.token, None).await.expect("it can be cancelled");
        made.push(request.id);
    }
    let mut home = with_retention(gateway.stop().await).with_file("REQUEST_ARCHIVE_FILE", ARCHIVE);
    let path = home.path(ARCHIVE);
    let length = || fs::metadata(&path).map_or(0, |file| file.len());
    let mut kills = 0;
    while archived(&path).len() < REQUESTS {
        let before = length();
        let gateway = home.start().await;
        let grows = async {
            while length() == before {
                tokio::task::yield_now().await;
            }
        };
        within("the archive to grow", grows).await;
        home = gateway.kill();
        kills += 1;
    }
    assert!(kills > 1, "one batch has all");
    let gateway = home.start().await;
    removed(&gateway, REQUESTS as u64).await;
    let metrics = gateway.metrics().await;
    for metric in ["purged_requests_total", "archived_requests_total"] {
        assert_eq!(metrics.count(metric, &[]), REQUESTS as u64);
    }
    made.sort();
    assert_eq!(archived(&path).into_keys().collect::<Vec<_>>(), made);
    assert!(!gateway.home().path("requests.ndjson.batch").exists());
}

#[tokio::test]
async fn nothing_goes_while_the_archive_cannot_be_written() {
    // Its folder is not there yet, as on a disk that is not mounted.
    let home = with_retention(Home::new(ACTIONS)).with_file("REQUEST_ARCHIVE_FILE", "later/requests.ndjson");
    let path = home.path("later/requests.ndjson");
    let gateway = home.start().await;
    let denied = decided(&gateway, &Ask::new("deploy"), Click::deny).await;
    let broken = [("reason", "in_use")];
    let failed = async {
        while gateway.metrics().await.count("request_archive_failures_total", &broken) < 2 {
            tokio::task::yield_now().await;
        }
    };
    within("the archive to fail", failed).await;
    assert!(is_there(&gateway, &denied).await);
    let ready = gateway.send(&Call::get("/readyz")).await;
    assert_eq!((ready.status(), &ready.json()["degraded"]), (200, &json!(["request_archive"])));
    gateway.logged("requests cannot be archived, so none is removed", 1).await;
    fs::create_dir(gateway.home().path("later")).expect("it can be made");
    removed(&gateway, 1).await;
    assert!(!is_there(&gateway, &denied).await);
    assert_eq!(archived(&path).into_keys().collect::<Vec<_>>(), [denied.id]);
    gateway.logged("requests are archived again", 1).await;
}

#[tokio::test]
async fn without_an_archive_requests_are_removed_for_good_and_without_retention_none_is() {
    let gateway = Home::new(ACTIONS).start().await;
    let kept = decided(&gateway, &Ask::new("deploy"), Click::deny).await;
    let home = with_retention(gateway.stop().await);
    let gateway = home.start().await;
    removed(&gateway, 1).await;
    assert!(!is_there(&gateway, &kept).await);
    assert_eq!(gateway.metrics().await.count("archived_requests_total", &[]), 0);
}

/// A set that no request was made under goes; what a request was made under stays as long as the request.
#[tokio::test]
async fn policy_sets_that_nothing_needs_are_removed() {
    const HOUR: i64 = 60 * 60;
    let home = Home::new(ACTIONS).administered().with_settable_clock();
    let home = home.with("REQUEST_RETENTION_SEC", "36000").with("REQUEST_RETENTION_SWEEP_SEC", "1");
    let gateway = home.with("POLICY_RETENTION_SEC", "3600").start().await;
    let first = gateway.policy().await;
    let asked = decided(&gateway, &Ask::new("deploy"), Click::deny).await;
    let stored = async || {
        let sets = gateway.seen("policy-sets").await;
        let sets = sets["sets"].as_array().expect("sets");
        sets.iter().map(|set| set["hash"].as_str().expect("a hash").to_owned()).collect::<BTreeSet<_>>()
    };
    let store = async |minutes: u32| {
        let actions = deploy(1).replace("timeout: 10m", &format!("timeout: {minutes}m"));
        let document = Home::new(&actions).policy_set();
        let stored = gateway.admin("POST", "policy-sets", &json!({"document": document})).await;
        stored.expect("it can be stored")["hash"].as_str().expect("a hash").to_owned()
    };
    // Nobody can tell of sets that were stored at about the same time which one the request was made under.
    gateway.set_clock(HOUR / 2);
    let mut later = Vec::new();
    for minutes in 20..30 {
        let hash = store(minutes).await;
        gateway.activate(&hash, &gateway.policy().await).await.expect("it is stored");
        later.push(hash);
    }
    let never = store(30).await;
    assert!(stored().await.contains(&never));

    // Both are as old; the request keeps the one that it was made under.
    gateway.set_clock(3 * HOUR);
    gateway.metrics_until("purged_policy_sets_total", &[], 1).await;
    let left = stored().await;
    assert!(!left.contains(&never) && left.contains(&first), "{left:?}");
    gateway.set_clock(12 * HOUR);
    gateway.metrics_until("purged_policy_sets_total", &[], 2).await;
    assert!(!is_there(&gateway, &asked).await);
    assert_eq!(stored().await, later.iter().cloned().collect());
    let entries = gateway.seen("audit?event=policy_set_removed").await;
    let entries = entries["entries"].as_array().expect("entries");
    let hashes: Vec<_> = entries.iter().map(|it| it["entry"]["hash"].as_str().expect("a hash")).collect();
    assert_eq!(hashes, [&*never, &*first]);
    let modules = gateway.metrics().await.count("purged_policy_modules_total", &[]);
    assert_eq!(modules, 0, "all have the same module");

    // What is left can be gone back to, also after a restart.
    let current = gateway.policy().await;
    let body = json!({"expectedCurrent": current, "actor": "ada"});
    gateway.admin("POST", "policy-sets/rollback", &body).await.expect("the one before is there");
    let home = gateway.stop().await;
    let gateway = home.start().await;
    assert_eq!(gateway.policy().await, later[8]);
    gateway.open("deploy").await;
}
