//! User groups of Slack as members of a policy's group: read, kept, and usable while Slack is down.

use countersign_tests::{Home, within};
use serde_json::json;
use slack_simulator::Faults;

use super::Setup;

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
async fn members_of_the_user_group_may_approve_even_after_a_restart_without_slack() {
    let setup = Setup::at(home()).await;
    let read = |slack: &slack_simulator::Simulator| {
        (slack.counts().with("usergroups.users.list", "ok") > 0).then_some(())
    };
    within("the user group to be read", setup.slack.until(read)).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting for 1 approval").await;
    setup.slack.person("U0ALICE").click(&message, "approve").await;
    setup.ephemeral("U0ALICE", "not entitled").await;
    setup.slack.person("U0RM3").click(&message, "approve").await;
    setup.shows(&request, "Approved").await;

    // Slack is down when the gateway starts again: the members that were read last still count.
    let Setup { slack, gateway } = setup;
    slack.set_faults(Faults::down());
    let gateway = gateway.stop().await.start().await;
    let setup = Setup { slack, gateway };
    let request = setup.open("deploy").await;
    setup.click_ok(&countersign_tests::Click::approve("U0RM3", &request.id)).await;
    assert_eq!(setup.look(&request.token).await["approvers"], json!(["U0RM3"]));
}
