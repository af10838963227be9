//! A policy that waits for a time is asked again at that time.

use countersign_tests::{Click, Home, millis};

const ACTIONS: &str = "
  cool_off:
    description: Approved by somebody, but not before a while has passed
    timeout: 10m
    policies:
      - use: misbehaving
        with: { do: wake, wake_after_ms: 1500 }
      - use: quorum
        with: { approvers: [U0ALICE] }
  by_itself:
    description: Approved after a while, by nobody
    timeout: 10m
    unattended: true
    policies:
      - use: misbehaving
        with: { do: wake, wake_after_ms: 1500 }
";

#[tokio::test]
async fn approval_counts_once_the_time_has_come() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("cool_off").await;
    assert_eq!(request.body["status"], "pending");

    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;

    assert_eq!(gateway.look(&request.token).await["status"], "pending");
    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "approved");
    check_time(&gateway.status(&request.id).await);
}

#[tokio::test]
async fn an_unattended_action_is_approved_by_time_alone() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("by_itself").await;
    assert_eq!(request.body["status"], "pending");

    let after = gateway.ended(&request.token).await;

    assert_eq!(after["status"], "approved");
    assert_eq!(after["approvers"], serde_json::json!([]));
    check_time(&gateway.status(&request.id).await);
}

fn check_time(status: &serde_json::Value) {
    let took = millis(&status["decidedAt"]) - millis(&status["createdAt"]);
    assert!((1500..2500).contains(&took), "it was approved {took} ms after it was made");
}
