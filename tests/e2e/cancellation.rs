//! The caller takes its request back.

use countersign_tests::{Click, Home};
use serde_json::json;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn a_cancelled_request_stays_cancelled() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let mut stream = gateway.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");

    gateway.cancel(&request.token, Some("the build broke")).await.expect("it is open");

    assert_eq!(stream.state().await.status(), "cancelled");
    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["reason"]), (&json!("cancelled"), &json!("the build broke")));
    assert_eq!(gateway.click_refused(&Click::approve("U0ALICE", &request.id)).await, "already_decided");
    let again = gateway.cancel(&request.token, None).await.expect_err("it is cancelled already");
    assert_eq!(again.is(), (409, "already_decided"));
    assert_eq!(gateway.look(&request.token).await, after);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("approvals_total", &[]) + metrics.count("denies_total", &[]), 0);
    assert_eq!(metrics.count("decision_latency_seconds_count", &[("outcome", "cancelled")]), 1);
}

#[tokio::test]
async fn an_approved_request_cannot_be_cancelled() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;

    let refused = gateway.cancel(&request.token, None).await.expect_err("it is decided");

    assert_eq!(refused.is(), (409, "already_decided"));
    assert_eq!(gateway.look(&request.token).await["status"], "approved");
}

#[tokio::test]
async fn only_the_token_cancels() {
    let gateway = Home::new(ACTIONS).start().await;
    let (one, other) = (gateway.open("deploy").await, gateway.open("deploy").await);
    let forged = format!("{}x", one.token);

    for token in [forged.as_str(), one.id.as_str()] {
        let refused = gateway.cancel(token, None).await.expect_err("it is not the token");
        assert_eq!(refused.is(), (404, "not_found"), "{token}");
    }
    gateway.cancel(&other.token, None).await.expect("it is open");

    assert_eq!(gateway.look(&one.token).await["status"], "ready_for_approval");
}
