//! User groups of Slack as members of a policy's group: read, kept, and usable while Slack is away.

use countersign_tests::{Home, within};
use serde_json::json;
use slack_simulator::Faults;

use super::Office;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [\"@deployers\"] }
";

fn home() -> Home {
    let home = Home::new(ACTIONS);
    home.set_policy_set(&home.policy_set().replace("groups:\n", "groups:\n  deployers: [S0RELEASE]\n"));
    home
}

#[tokio::test]
async fn who_is_in_the_user_group_may_approve_even_after_a_restart_without_slack() {
    let office = Office::at(home()).await;
    let read = |slack: &slack_simulator::Simulator| {
        (slack.counts().with("usergroups.users.list", "ok") > 0).then_some(())
    };
    within("the user group to be read", office.slack.until(read)).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting for 1 approval").await;
    office.slack.person("U0ALICE").click(&message, "approve").await;
    office.told("U0ALICE", "not entitled").await;
    office.slack.person("U0RM3").click(&message, "approve").await;
    office.says(&request, "Approved").await;

    // Slack is away when the gateway starts again: what it said last still counts.
    let Office { slack, gateway } = office;
    slack.set_faults(Faults::down());
    let gateway = gateway.stop().await.start().await;
    let office = Office { slack, gateway };
    let request = office.open("deploy").await;
    office.click_ok(&countersign_tests::Click::approve("U0RM3", &request.id)).await;
    assert_eq!(office.look(&request.token).await["approvers"], json!(["U0RM3"]));
}
