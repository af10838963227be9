//! What a change of the policy set would do, before it is made: beside live requests, and with recorded ones.

use countersign_tests::{Ask, Click, Gateway, Home, Redis, countersign};
use serde_json::{Value, json};

fn actions(approvals: u32) -> String {
    format!(
        "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: {{ hide: [] }}
    policies:
      - use: quorum
        with: {{ approvers: [U0ALICE, U0BOB, U0CAROL, \"@release-managers\"], approvals: {approvals} }}
      - use: override-guard
        with: {{ keys: [replicas], max_keys: 1, max_chars: 10 }}
  rotate:
    description: Rotate a secret
    timeout: 10m
    redact: {{ hide: [password] }}
    policies:
      - use: persona-gate
        with: {{ personas: {{ security: [U0SEC] }} }}
      - use: quorum
        with: {{ approvers: [U0ALICE, U0BOB], approvals: {approvals} }}
  brief:
    description: Over soon
    timeout: 1s
    policies:
      - use: quorum
        with: {{ approvers: [U0ALICE] }}
"
    )
}

/// Somebody presses, and it counts or not. Each press is delivered once, since a second delivery is an event of its own: one
/// that takes longer than Slack waits has an empty answer, and its effect all the same.
async fn press(gateway: &Gateway, click: Click, counts: bool) {
    let answer = gateway.click_once(&click).await;
    assert!(answer == json!({}) || answer["ok"] == counts, "{click:?}: {answer}");
}

/// Requests with every kind of ending, by this gateway.
async fn live(gateway: &Gateway) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let approved = gateway.open("deploy").await;
        press(gateway, Click::approve("U0ALICE", &approved.id), true).await;
        ids.push(approved.id);
    }
    let twice = gateway.open("deploy").await;
    press(gateway, Click::edit("U0RM1", &twice.id, &[("replicas", "3")]), true).await;
    ids.push(twice.id);
    let denied = gateway.open("deploy").await;
    press(gateway, Click::deny("U0BOB", &denied.id), true).await;
    let cancelled = gateway.open("deploy").await;
    gateway.cancel(&cancelled.token, None).await.expect("it is open");
    let stranger = gateway.open("deploy").await;
    press(gateway, Click::approve("U0STRANGER", &stranger.id), false).await;
    let secret = Ask::new("rotate").params(json!({"password": "hunter2", "name": "db"}));
    let secret = gateway.create(&secret).await.expect("it is admitted");
    press(gateway, Click::acknowledge("security", "U0SEC", &secret.id), true).await;
    let acknowledged = async { while gateway.status(&secret.id).await["status"] == "awaiting_personas" {} };
    countersign_tests::within("the acknowledgement", acknowledged).await;
    press(gateway, Click::approve("U0BOB", &secret.id), true).await;
    ids.push(secret.id);
    let brief = gateway.open("brief").await;
    assert_eq!(gateway.ended(&brief.token).await["status"], "expired");
    ids
}

/// Waits until the shadow has judged this many events.
async fn judged(gateway: &Gateway, count: u64) -> Value {
    let judged = async {
        loop {
            let shadow = gateway.seen("shadow").await;
            if shadow["judged"].as_u64() >= Some(count) {
                return shadow;
            }
        }
    };
    countersign_tests::within("the shadow to have judged", judged).await
}

#[tokio::test]
async fn a_shadow_shows_exactly_the_changes() {
    let gateway = Home::new(&actions(1)).administered().start().await;
    let first = gateway.policy().await;
    let document = |actions: &str| Home::new(actions).policy_set();
    let same = gateway.store_set(&document(&actions(1).replace("Over soon", "Soon over"))).await;
    gateway.admin("POST", &format!("policy-sets/{same}/shadow"), &json!({})).await.expect("it is stored");
    live(&gateway).await;
    // Eight submissions, and nine events: one that did not count, and the expiry among them.
    let shadow = judged(&gateway, 17).await;
    assert_eq!(
        (&shadow["different"], &shadow["unjudged"], &shadow["dropped"]),
        (&json!(0), &json!(0), &json!(0)),
        "{shadow}"
    );
    let required = json!({"expectedCurrent": first, "requireShadow": {"events": 17}});
    let activated = gateway.admin("POST", &format!("policy-sets/{same}/activate"), &required).await;
    assert_eq!(activated.expect("it has shown enough")["hash"], json!(same));

    let stricter = gateway.store_set(&document(&actions(2))).await;
    gateway.admin("POST", &format!("policy-sets/{stricter}/shadow"), &json!({})).await.expect("it is stored");
    live(&gateway).await;
    let shadow = judged(&gateway, 17).await;
    let differences: Vec<_> = shadow["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| (&found["action"], &found["kind"], &found["count"]))
        .collect();
    let kind = json!("approve: counted(approved) -> counted(ready_for_approval)");
    assert_eq!(differences, [(&json!("deploy"), &kind, &json!(3)), (&json!("rotate"), &kind, &json!(1))]);
    assert_eq!(shadow["samples"].as_array().map(Vec::len), Some(4));
    assert!(!shadow.to_string().contains("hunter2"), "{shadow}");
    let required = json!({"expectedCurrent": same, "requireShadow": {"events": 17}});
    let problem = gateway.admin("POST", &format!("policy-sets/{stricter}/activate"), &required).await;
    assert_eq!(problem.expect_err("it judges otherwise").is(), (409, "shadow_not_ready"));
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("policy_shadow_events_total", &[("result", "different")]), 4);
    assert_eq!(metrics.count("policy_failures_total", &[]), 0);
    assert_eq!(gateway.policy().await, same, "it has no effect");
}

/// What a replay printed, and how it ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str]) -> Ran {
    let output = countersign(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Replays the requests since then, under the set in the folder of `candidate`.
fn replay_since(since: &str, home: &Home, candidate: &Home, more: &[&str]) -> Ran {
    let store = format!("sqlite:{}", home.path("data/countersign.db").display());
    let set = candidate.path("policies").display().to_string();
    let fixed = ["policy", "replay", "--since", since, "--set", &set, "--store", &store];
    run(&[&fixed, more].concat())
}

fn replay(home: &Home, candidate: &Home, more: &[&str]) -> Ran {
    replay_since("1d", home, candidate, more)
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[tokio::test]
async fn a_replay_shows_exactly_the_changes() {
    let gateway = Home::new(&actions(1)).start().await;
    let approved = live(&gateway).await;
    let (same, stricter) = (Home::new(&actions(1).replace("Over soon", "Soon over")), Home::new(&actions(2)));

    // Beside the running gateway, whose lock it does not need.
    let ran = replay(gateway.home(), &same, &["--format", "json", "--max-changes", "0"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let nothing = report(&ran);
    let counts = ["requests", "same", "changes", "withoutHiddenParameters"].map(|key| nothing[key].as_u64());
    assert_eq!(counts, [8, 8, 0, 0].map(Some), "{nothing}");

    let ran = replay(gateway.home(), &stricter, &["--format", "json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let changed = report(&ran);
    let found = &changed["changed"][0];
    assert_eq!(
        (&found["from"], &found["to"], &found["count"]),
        (&json!("approved"), &json!("waiting"), &json!(4)),
        "{changed}"
    );
    let mut ids: Vec<_> = found["requests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["requestId"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort_unstable();
    let mut expected = approved.clone();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert_eq!((&changed["same"], &changed["notJudged"]), (&json!(4), &json!([])));
    assert_eq!(
        changed["withoutHiddenParameters"], 1,
        "the persona gate remembers; the quorum is another one"
    );

    for (most, code) in [("4", 0), ("3", 1)] {
        let ran = replay(gateway.home(), &stricter, &["--max-changes", most]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stdout.contains("approved → waiting: 4\n"), "{}", ran.stdout);
        assert!(ran.stdout.contains(&format!("    deploy: {}", approved[0])), "{}", ran.stdout);
        assert!(!ran.stdout.contains("hunter2"));
    }

    // An approver less, an edit less, an action less, and people who are in another group.
    let other = actions(1)
        .replace("approvers: [U0ALICE, U0BOB, U0CAROL, ", "approvers: [U0BOB, U0CAROL, ")
        .replace("keys: [replicas]", "keys: [ref]");
    let other = Home::new(&other[..other.find("  brief:").expect("an action")]);
    let changed = report(&replay(gateway.home(), &other, &["--format", "json"]));
    assert_eq!(changed["changed"][0]["count"], 3, "{changed}");
    let gone = &changed["changed"][1];
    let outcome = (&gone["from"], &gone["to"], &gone["count"]);
    assert_eq!(outcome, (&json!("expired"), &json!("denied (unknown action)"), &json!(1)), "{changed}");

    // A set that lets none of them through is all change.
    let none = replay(
        gateway.home(),
        &Home::new("  other:\n    policies: [{ use: quorum, with: { approvers: [U0A] } }]\n"),
        &["--max-changes", "0"],
    );
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stdout.contains("approved → denied (unknown action): 4\n"), "{none:?}");

    // When the gateway is gone as well, and nothing is written.
    let home = gateway.stop().await;
    let database = || std::fs::read(home.path("data/countersign.db")).expect("readable");
    let before = database();
    assert_eq!(report(&replay(&home, &stricter, &["--format", "json"]))["changes"], 4);
    assert_eq!(database(), before);
    let none = report(&replay_since("0s", &home, &stricter, &["--format", "json"]));
    assert_eq!(none["requests"], 0);
    home.start().await.stop().await;
}

#[tokio::test]
async fn a_replay_that_cannot_run_is_an_error() {
    let home = Home::new(&actions(1));
    let ran = replay(&home, &home, &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("countersign.db"), "{ran:?}");
    let home = home.start().await.stop().await;
    home.set_policy_set("version: 2");
    let ran = replay(&home, &home, &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("policy-set.yaml:1:10: the version must be 1"), "{ran:?}");
    let ran = run(&["policy", "replay", "--since", "soon", "--set", "policies"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("a duration such as `30d`"), "{ran:?}");
}

/// The set in force is compared with a folder, and stored sets with each other, beside the gateway that runs on the store.
async fn stored_sets_are_compared(home: Home, store: &str) {
    let gateway = home.administered().start().await;
    let first = gateway.policy().await;
    let candidate = Home::new(&actions(2));
    let folder = candidate.path("policies").display().to_string();
    let diff = |sets: [&str; 2], more: &[&str]| {
        run(&[&["policy", "diff"], &sets[..], &["--store", store], more].concat())
    };

    let changes = diff(["active", &folder], &[]);
    assert_eq!(changes.code, Some(1), "{changes:?}");
    let text = &changes.stdout;
    assert!(text.contains("deploy\n") && text.contains("  approvals needed: 1 → 2\n"), "{text}");
    assert!(text.contains("\n2 actions changed, 0 new, 0 removed\n"), "{text}");
    assert_eq!(diff([&first, &folder], &[]).stdout, *text, "it is the set in force");

    let second = gateway.store_set(&candidate.policy_set()).await;
    assert_eq!(diff([&second, &folder], &[]).code, Some(0), "it is the same set");
    assert_eq!(diff([&first, &second], &[]).stdout, *text);
    let json = diff(["active", &second], &["--format", "json"]);
    let report: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&report["old"], &report["new"]), (&json!(first), &json!(second)));

    gateway.activate(&second, &first).await.expect("it is stored");
    assert_eq!(diff(["active", &folder], &[]).code, Some(0), "another set is in force");
    assert_eq!(diff([&first, "active"], &[]).stdout, *text);

    let unknown = "0".repeat(64);
    for (set, says) in [
        (unknown.as_str(), format!("no policy set with the hash {unknown} is stored")),
        (&first[..12], "given by its whole hash, 64 hexadecimal digits".to_owned()),
    ] {
        let refused = diff([set, &folder], &[]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(&says), "{refused:?}");
    }
    assert_eq!(gateway.policy().await, second, "nothing has changed");
    gateway.open("deploy").await;
}

#[tokio::test]
async fn sets_stored_in_a_file_are_compared() {
    let home = Home::new(&actions(1));
    let path = home.path("data/compared.db").display().to_string();
    let store = format!("sqlite:{path}");
    stored_sets_are_compared(home.with("COUNTERSIGN_STORE", &store), &store).await;
    let missing = format!("{store}.missing");
    let none = run(&["policy", "diff", "active", "active", "--store", &missing]);
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.stderr.contains(&format!("cannot read the store `{missing}`")), "{none:?}");
}

#[tokio::test]
async fn sets_stored_in_redis_are_compared() {
    let redis = Redis::start().await;
    let url = redis.url();
    stored_sets_are_compared(Home::new(&actions(1)).with_redis(&redis), &url).await;
    let empty = Redis::start().await;
    let none = run(&["policy", "diff", "active", "active", "--store", &empty.url()]);
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.stderr.contains("there is no store"), "{none:?}");
}
