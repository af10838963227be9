//! Personas: a checklist, a button for each that is pending, and no Approve before all are acknowledged.

use countersign_tests::Ask;
use serde_json::{Value, json};
use slack_simulator::Message;

use super::Setup;
use crate::ledger::Ledger;

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

const EDITABLE: &str = "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { show: [replicas] }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC, U0CAROL] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas] }
";

/// The message as an older version posted it: Slack made up the ids of the rows of persona buttons.
fn as_older_versions_did(mut message: Message) -> Message {
    for (n, block) in message.blocks.iter_mut().enumerate() {
        let has_personas =
            block["elements"][0]["action_id"].as_str().is_some_and(|id| id.contains("persona"));
        if has_personas {
            block["block_id"] = json!(format!("x{n}"));
        }
    }
    message
}

#[tokio::test]
async fn an_acknowledgement_is_of_the_parameters_that_were_shown() {
    let setup = Setup::open(EDITABLE).await;
    let request =
        setup.create(&Ask::new("scale").params(json!({"replicas": 3}))).await.expect("it is admitted");
    let first = setup.shows(&request, "Waiting for 1 acknowledgement").await;
    let older = as_older_versions_did(first.clone());
    assert_ne!(first.blocks, older.blocks);
    // Without an edit, both are of the parameters as they stand.
    let (security, carol) = (setup.slack.person("U0SEC"), setup.slack.person("U0CAROL"));
    security.click(&older, "persona_ack:security").await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;

    let alice = setup.slack.person("U0ALICE");
    alice.click(&message, "approve_edit").await;
    alice.submit(&[("ov_replicas", "50".into())]).await;
    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    security.click(&message, "withdraw").await;
    let message = setup.shows(&request, "Waiting for 1 acknowledgement").await;
    assert!(message.shown().contains("50"), "{}", message.shown());

    for outdated in [&first, &older] {
        carol.click(outdated, "persona_ack:security").await;
        setup.ephemeral("U0CAROL", "The parameters were changed").await;
        assert_eq!(setup.status(&request.id).await["personaState"], json!({"security": "pending"}));
    }

    carol.click(&message, "persona_ack:security").await;
    setup.shows(&request, "Waiting for 1 more approval").await;
    assert_eq!(setup.status(&request.id).await["personaState"], json!({"security": "acknowledged"}));

    let ledger = Ledger::of(&setup.gateway.kill());
    let refused = ledger.audit_entries(&request.id, "refused");
    let codes: Vec<&Value> = refused.iter().map(|entry| &entry["code"]).collect();
    assert_eq!(codes, ["parameters_changed"; 2], "{refused:?}");
    assert_eq!(ledger.audit_entries(&request.id, "persona_acknowledged").len(), 2);
}
