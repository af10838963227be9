//! Personas: every one must be acknowledged by somebody who holds it before an approval counts.

use countersign_tests::{Click, Home};
use serde_json::json;

const ACTIONS: &str = "
  migrate:
    description: Migrate the database
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC], release: [\"@release-managers\"] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 1 }
";

#[tokio::test]
async fn approval_waits_for_every_persona() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;
    assert_eq!(request.body["status"], "awaiting_personas");
    assert_eq!(request.body["policy"]["requiredPersonas"], json!(["release", "security"]));
    let refused = gateway.click(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(refused["ok"], false, "approved before anybody acknowledged");
    assert!(refused["reasons"].to_string().contains("personas_pending"), "{refused}");

    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    let halfway = gateway.status(&request.id).await;
    assert_eq!(halfway["status"], "awaiting_personas");
    assert_eq!(halfway["personaState"], json!({"security": "acknowledged", "release": "pending"}));
    let metrics = gateway.metrics().await;
    let waiting =
        |persona| metrics.count("persona_pending_requests", &[("action", "migrate"), ("persona", persona)]);
    assert_eq!((waiting("release"), waiting("security")), (1, 0));
    let again = Click::acknowledge("security", "U0SEC", &request.id);
    assert_eq!(gateway.click_refused(&again).await, "duplicate_acknowledgement");
    let stranger = Click::acknowledge("release", "U0SEC", &request.id);
    assert_eq!(gateway.click_refused(&stranger).await, "unauthorized");
    let unknown = Click::acknowledge("finance", "U0SEC", &request.id);
    assert_eq!(gateway.click_refused(&unknown).await, "unauthorized");
    assert_eq!(gateway.click(&Click::approve("U0ALICE", &request.id)).await["ok"], false);
    assert_eq!(gateway.status(&request.id).await, halfway);

    gateway.click_ok(&Click::acknowledge("release", "U0RM1", &request.id)).await;
    let ready = gateway.status(&request.id).await;
    assert_eq!(ready["status"], "ready_for_approval");
    assert_eq!(ready["personaState"], json!({"security": "acknowledged", "release": "acknowledged"}));
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "approved");
    assert_eq!(after["approvers"], json!(["U0ALICE"]));
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("persona_ack_total", &[("action", "migrate"), ("persona", "security")]), 1);
    assert_eq!(metrics.count("persona_ack_total", &[("action", "migrate")]), 2);
}

#[tokio::test]
async fn a_denial_needs_no_acknowledgement() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;

    gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;

    assert_eq!(gateway.ended(&request.token).await["status"], "denied");
}
