//! One denial ends a request, with the reason that was given.

use countersign_tests::{Click, Home};
use serde_json::json;

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0CAROL], approvals: 2 }
";

#[tokio::test]
async fn a_denial_ends_it_although_somebody_approved() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;

    gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "denied");
    assert_eq!(after["reason"], "denied by an approver");
    assert_eq!(gateway.click_refused(&Click::approve("U0CAROL", &request.id)).await, "already_decided");
    assert_eq!(gateway.look(&request.token).await, after);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("denies_total", &[("action", "deploy")]), 1);
    assert_eq!(metrics.count("approvals_total", &[]), 0);
    assert_eq!(
        metrics.count("decision_latency_seconds_count", &[("action", "deploy"), ("outcome", "denied")]),
        1
    );
    assert_eq!(metrics.count("pending_requests", &[]), 0);

    let decisions = Ledger::of(&gateway.kill()).audit_entries(&request.id, "denied");
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0]["decision"], "denied");
    assert_eq!(decisions[0]["actor"], "U0BOB");
    assert_eq!(decisions[0]["approvers"], json!(["U0ALICE"]));
    assert_eq!(decisions[0]["policy_hash"], after["policyHash"]);
    assert_eq!(decisions[0]["payload_hash"], after["payloadHash"]);
}

#[tokio::test]
async fn the_reason_reaches_the_caller() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;

    gateway.click_ok(&Click::deny_because("U0BOB", &request.id, "not on a Friday")).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["reason"]), (&json!("denied"), &json!("not on a Friday")));
}
