//! The log has one line for each decision, whoever or whatever makes it, and no names.

use std::collections::BTreeMap;

use countersign_tests::{Ask, Click, Home};
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    consume: required
    supersede: [ref]
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
  patch:
    description: Patch a machine
    timeout: 1s
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

fn ask(reference: &str) -> Ask {
    Ask::new("deploy").params(json!({"ref": reference}))
}

/// The lines of a log with this message, each as JSON.
fn lines(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

#[tokio::test]
async fn each_decision_is_one_line() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let mut expected = BTreeMap::new();
    let mut expect = |id: &str, outcome: &str, by: &str, approvers: u64| {
        expected.insert(id.to_owned(), json!(["deploy", outcome, by, approvers]));
    };

    let approved = gateway.create(&ask("v1")).await.expect("it is admitted");
    for person in ["U0ALICE", "U0BOB"] {
        gateway.click_ok(&Click::approve(person, &approved.id)).await;
    }
    gateway.click_refused(&Click::deny("U0ALICE", &approved.id)).await;
    expect(&approved.id, "approved", "person", 2);
    let consume = json!({"token": approved.token, "params": {"ref": "v1"}});
    let consumed = gateway.send(&countersign_tests::Call::post("/api/guard/consume", &consume)).await;
    assert_eq!(consumed.status(), 200, "{}", consumed.text());

    let denied = gateway.create(&ask("v2")).await.expect("it is admitted");
    gateway.click_ok(&Click::approve("U0ALICE", &denied.id)).await;
    gateway.click_ok(&Click::deny_because("U0BOB", &denied.id, "not on a Friday")).await;
    expect(&denied.id, "denied", "person", 1);

    let taken_back = gateway.create(&ask("v3")).await.expect("it is admitted");
    gateway.cancel(&taken_back.token, Some("not any more")).await.expect("it is open");
    expect(&taken_back.id, "cancelled", "caller", 0);

    for (reference, act, outcome) in [("v4", "cancel", "cancelled"), ("v5", "expire", "expired")] {
        let request = gateway.create(&ask(reference)).await.expect("it is admitted");
        let reason = json!({"reason": "an incident"});
        gateway.admin("POST", &format!("requests/{}/{act}", request.id), &reason).await.expect(act);
        expect(&request.id, outcome, "admin", 0);
    }

    let older = gateway.create(&ask("v6")).await.expect("it is admitted");
    gateway.create(&ask("v6")).await.expect("it is admitted");
    expect(&older.id, "cancelled", "successor", 0);

    let expired = gateway.open("patch").await;
    gateway.ended(&expired.token).await;
    expected.insert(expired.id.clone(), json!(["patch", "expired", "time", 0]));

    for refused in [Ask::new("deploi"), {
        let mut body = ask("v7").body();
        body["meta"]["requester"] = json!({"id": "mallory", "source": "github"});
        Ask::of(body)
    }] {
        assert_eq!(gateway.create(&refused).await.expect_err("it is refused").is(), (403, "policy_denied"));
    }

    let since = gateway.terminate();
    let (_, exit) = gateway.stopped(since).await;
    let decided = lines(&exit.output, "request decided");
    assert_eq!(decided.len(), expected.len(), "{decided:?}");
    for line in &decided {
        let id = line["request"].as_str().expect("an id");
        let logged = json!([line["action"], line["outcome"], line["by"], line["approvers"]]);
        assert_eq!(Some(&logged), expected.get(id), "{line}");
        assert!(line["ms"].is_u64() && line["level"] == "INFO", "{line}");
    }
    let not_made = lines(&exit.output, "request not made");
    let not_made: Vec<Value> = not_made.iter().map(|line| json!([line["action"], line["outcome"]])).collect();
    assert_eq!(not_made, [json!([null, "unknown_action"]), json!(["deploy", "policy_denied"])]);
    // The name of an unknown action is the caller's own text.
    for name in ["deploi", "U0ALICE", "U0BOB", "U0REQ", "mallory", "Friday", "not any more", "incident"] {
        assert!(!exit.output.contains(name), "`{name}` is in the log");
    }
}
