//! Somebody who approved or acknowledged takes it back.

use countersign_tests::{Click, Home};
use serde_json::json;

const ACTIONS: &str = "
  migrate:
    description: Migrate the database
    timeout: 10m
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC, U0ALICE] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

#[tokio::test]
async fn a_withdrawn_approval_no_longer_counts() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;

    gateway.click_ok(&Click::withdraw("U0ALICE", &request.id)).await;

    assert_eq!(gateway.status(&request.id).await["approvers"], json!([]));
    assert_eq!(gateway.click_refused(&Click::withdraw("U0ALICE", &request.id)).await, "nothing_to_withdraw");
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("approved"), &json!(["U0BOB", "U0ALICE"])));
}

#[tokio::test]
async fn a_withdrawn_acknowledgement_makes_the_persona_pending_again() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    assert_eq!(gateway.status(&request.id).await["status"], "ready_for_approval");

    gateway.click_ok(&Click::withdraw("U0SEC", &request.id)).await;

    assert_eq!(gateway.status(&request.id).await["status"], "awaiting_personas");
    assert_eq!(gateway.click_refused(&Click::approve("U0BOB", &request.id)).await, "refused");
    gateway.click_ok(&Click::acknowledge("security", "U0ALICE", &request.id)).await;
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
    assert_eq!(gateway.status(&request.id).await["approvalsCount"], 1);
}
