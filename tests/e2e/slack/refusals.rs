//! Whoever presses what does not count for them is told why, and nobody else.

use serde_json::json;

use super::Office;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2, requester_may_approve: false }
";

#[tokio::test]
async fn each_is_told_why_and_only_they() {
    let office = Office::open(ACTIONS).await;
    let request = office.open("deploy").await;
    let first = office.says(&request, "Waiting").await;

    office.slack.person("U0MALLORY").click(&first, "approve").await;
    let told = office.told("U0MALLORY", "not entitled").await;
    assert!(told.contains("Waiting for 2 approvals"), "it says how the request stands: {told}");
    office.slack.person("U0MALLORY").click(&first, "deny").await;
    assert!(office.slack.person("U0MALLORY").view().is_none(), "a dialog opened for nobody");

    office.slack.person("U0ALICE").click(&first, "approve").await;
    office.says(&request, "Waiting for 1 more approval").await;
    office.slack.person("U0ALICE").click(&first, "approve").await;
    office.told("U0ALICE", "counts already").await;
    office.slack.person("U0BOB").click(&first, "approve").await;
    office.says(&request, "Approved").await;

    // The button is long gone from the message, but not from everybody's screen.
    office.slack.person("U0BOB").click(&first, "deny").await;
    let told = office.told("U0BOB", "has ended already").await;
    assert!(told.contains("Approved"), "it says how the request stands: {told}");
    assert_eq!(office.look(&request.token).await["approvers"], json!(["U0ALICE", "U0BOB"]));

    for user in ["U0CAROL", "U0DANA"] {
        assert!(office.slack.person(user).ephemerals().is_empty(), "{user} was told of others");
    }
    let metrics = office.metrics().await;
    assert_eq!(metrics.count("security_events_total", &[("type", "unauthorized")]), 2);
}
