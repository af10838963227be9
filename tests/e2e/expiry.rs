//! Nobody decides: the request escalates once, then expires once, both on time.

use countersign_tests::{Click, Home, millis};
use serde_json::json;

use crate::ledger::Ledger;

/// The drift that is allowed, in milliseconds.
const DRIFT_MS: i64 = 1000;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 3s
    escalate: { before: 2s, channel: C0ONCALL, mention: U0LEAD }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 1, escalated_approvals: 2 }
";

#[tokio::test]
async fn it_escalates_once_and_expires_once_and_on_time() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let mut stream = gateway.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");

    let escalated = stream.state().await;
    assert_eq!(escalated.status(), "ready_for_approval");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("escalations_total", &[("action", "deploy")]), 1);
    assert_eq!(metrics.count("expired_total", &[]), 0);

    assert_eq!(stream.state().await.status(), "expired");
    assert!(stream.rest().await.iter().all(|event| event.name != "state"), "it goes on after the end");
    let after = gateway.ended(&request.token).await;
    let drift = millis(&after["decidedAt"]) - millis(&request.body["expiresAt"]);
    assert!((0..DRIFT_MS).contains(&drift), "it expired {drift} ms late");
    assert_eq!(gateway.click_refused(&Click::approve("U0ALICE", &request.id)).await, "already_decided");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("escalations_total", &[("action", "deploy")]), 1);
    assert_eq!(metrics.count("expired_total", &[("action", "deploy")]), 1);

    let ledger = Ledger::of(&gateway.kill());
    assert_eq!(ledger.audit_of(&request.id), ["created", "escalated", "expired", "refused"]);
    let escalation = &ledger.audit_entries(&request.id, "escalated")[0];
    let drift =
        escalation["at"].as_i64().expect("it has a time") - (millis(&request.body["expiresAt"]) - 2000);
    assert!((0..DRIFT_MS).contains(&drift), "it escalated {drift} ms late");
    assert_eq!(ledger.outbox("notify_escalation"), [request.id.as_str()]);
    assert_eq!(ledger.outbox("show_request"), [request.id.as_str()]);
}

#[tokio::test]
async fn more_approvals_are_needed_after_the_escalation() {
    let gateway = Home::new(&ACTIONS.replace("3s", "60s").replace("2s", "59s")).start().await;
    let request = gateway.open("deploy").await;
    let mut stream = gateway.stream(&request.token).await;
    stream.state().await;
    stream.state().await;

    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let status = gateway.status(&request.id).await;
    assert_eq!((&status["status"], &status["minApprovals"]), (&json!("ready_for_approval"), &json!(2)));
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;

    assert_eq!(gateway.ended(&request.token).await["status"], "approved");
    assert_eq!(gateway.metrics().await.count("expired_total", &[]), 0);
}

#[tokio::test]
async fn a_decision_before_it_leaves_nothing_to_escalate_or_expire() {
    // Long enough for the decision, on a busy machine, too.
    let gateway = Home::new(&ACTIONS.replace("3s", "8s")).start().await;
    let request = gateway.open("deploy").await;
    let witness = gateway.open("deploy").await;

    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;

    // Made later, so that once this one has expired the other one would have, too.
    assert_eq!(gateway.ended(&witness.token).await["status"], "expired");
    assert_eq!(gateway.look(&request.token).await["status"], "approved");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("escalations_total", &[]), 1);
    assert_eq!(metrics.count("expired_total", &[]), 1);
}
