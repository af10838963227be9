//! Personas: a checklist, a button for each that is pending, and no Approve before all are acknowledged.

use serde_json::json;

use super::Setup;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC], release: [\"@release-managers\"] } }
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn each_persona_is_acknowledged_before_anybody_approves() {
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting for 2 acknowledgements").await;
    assert_eq!(message.actions(), ["persona_ack:release", "persona_ack:security", "deny"]);

    // Mallory does not hold the persona: the press is refused, and nothing changes.
    setup.slack.person("U0MALLORY").click(&message, "persona_ack:security").await;
    setup.ephemeral("U0MALLORY", "not entitled").await;

    setup.slack.person("U0SEC").click(&message, "persona_ack:security").await;
    let message = setup.shows(&request, "Waiting for 1 acknowledgement").await;
    assert!(message.shown().contains("<@U0SEC>"), "{}", message.shown());
    assert_eq!(message.actions(), ["persona_ack:release", "deny", "withdraw"]);
    assert_eq!(
        setup.status(&request.id).await["personaState"],
        json!({"release": "pending", "security": "acknowledged"})
    );

    setup.slack.person("U0RM1").click(&message, "persona_ack:release").await;
    let message = setup.shows(&request, "Waiting for 1 approval").await;
    assert_eq!(message.actions(), ["approve", "deny", "withdraw"]);
    setup.slack.person("U0ALICE").click(&message, "approve").await;
    setup.shows(&request, "Approved").await;
    assert_eq!(setup.look(&request.token).await["status"], "approved");
}
