//! Whoever presses a button that does not count for them reads why, and nobody else does.

use serde_json::json;

use super::Setup;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2, requester_may_approve: false }
";

#[tokio::test]
async fn each_person_reads_why_and_nobody_else() {
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    let first = setup.shows(&request, "Waiting").await;

    setup.slack.person("U0MALLORY").click(&first, "approve").await;
    let ephemeral = setup.ephemeral("U0MALLORY", "not entitled").await;
    assert!(ephemeral.contains("Waiting for 2 approvals"), "it shows the state of the request: {ephemeral}");
    setup.slack.person("U0MALLORY").click(&first, "deny").await;
    assert!(setup.slack.person("U0MALLORY").view().is_none(), "a dialog opened for nobody");

    setup.slack.person("U0ALICE").click(&first, "approve").await;
    setup.shows(&request, "Waiting for 1 more approval").await;
    setup.slack.person("U0ALICE").click(&first, "approve").await;
    setup.ephemeral("U0ALICE", "counts already").await;
    setup.slack.person("U0BOB").click(&first, "approve").await;
    setup.shows(&request, "Approved").await;

    // The button is gone from the message, but may still be on somebody's screen.
    setup.slack.person("U0BOB").click(&first, "deny").await;
    let ephemeral = setup.ephemeral("U0BOB", "has ended already").await;
    assert!(ephemeral.contains("Approved"), "it shows the state of the request: {ephemeral}");
    assert_eq!(setup.look(&request.token).await["approvers"], json!(["U0ALICE", "U0BOB"]));

    for user in ["U0CAROL", "U0DANA"] {
        assert!(setup.slack.person(user).ephemerals().is_empty(), "{user} reads refusals of others");
    }
    let metrics = setup.metrics().await;
    assert_eq!(metrics.count("security_events_total", &[("type", "unauthorized")]), 2);
}
