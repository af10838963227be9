//! Who is waited for: neither the requester, who may not approve, nor anybody who has left Slack.

use countersign_tests::{Ask, Click, Home, Receipt, Slack, within};
use serde_json::json;

use super::Setup;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0RM3, \"@release-managers\"] }
";

/// A gateway that has heard from Slack about everybody whom its policies name.
async fn setup(gone: &str) -> Setup {
    let slack = Slack::start().await;
    slack.deactivate(gone);
    let home = Home::new(ACTIONS);
    let gateway = slack.gateway(home).await;
    let asked =
        |slack: &slack_simulator::Simulator| (slack.counts().with("users.info", "ok") >= 5).then_some(());
    within("users to be asked about", slack.until(asked)).await;
    Setup { slack, gateway }
}

async fn asked_by(setup: &Setup, id: &str) -> Receipt {
    let mut body = Ask::new("deploy").body();
    body["meta"]["requester"] = json!({"id": id, "source": "slack"});
    Receipt::read(setup.gateway.send(&Ask::of(body).call()).await).expect("it is admitted")
}

#[tokio::test]
async fn people_who_cannot_approve_are_not_waited_for() {
    let setup = setup("U0BOB").await;
    let request = asked_by(&setup, "U0ALICE").await;
    let shown = setup.shows(&request, "waiting for").await.shown();
    let line = shown.lines().find(|line| line.contains("waiting for")).expect("who is waited for");
    assert!(line.contains("rm3") || line.contains("U0RM3"), "{line}");
    for nobody in ["alice", "U0ALICE", "bob", "U0BOB"] {
        assert!(!line.contains(nobody), "{nobody}: {line}");
    }
    // Of a member of a group it is said.
    let request = asked_by(&setup, "U0RM1").await;
    let shown = setup.shows(&request, "; except the requester)").await.shown();
    let line = shown.lines().find(|line| line.contains("waiting for")).expect("who is waited for");
    let (_, group) = line.split_once("@release-managers (").expect("the group and its members");
    assert!(group.contains("U0RM2") && !group.contains("U0RM1"), "{line}");
}

#[tokio::test]
async fn an_action_can_notify_everybody_who_can_act_once() {
    let slack = Slack::start().await;
    let home = Home::new(&ACTIONS.replace("    timeout", "    notify: true\n    timeout"));
    let text = home.policy_set().replace("groups:\n", "groups:\n  deployers: [S0RELEASE, U0ALICE]\n");
    home.set_policy_set(&text.replace("[U0ALICE, U0BOB, U0RM3, ", "[U0CAROL, \"@deployers\", "));
    let gateway = slack.gateway(home).await;
    let setup = Setup { slack, gateway };
    let read = |slack: &slack_simulator::Simulator| {
        (slack.counts().with("usergroups.users.list", "ok") > 0).then_some(())
    };
    within("the user group to be read", setup.slack.until(read)).await;
    // The first message stays as it was posted until the fault is over.
    let faults = slack_simulator::Faults::none();
    let methods = vec!["chat.update".to_owned()];
    setup.slack.set_faults(slack_simulator::Faults { internal_error: 1.0, methods, ..faults.clone() });
    let request = asked_by(&setup, "U0RM1").await;
    let shown = setup.shows(&request, ":bell:").await.shown();
    let call = shown.lines().find(|line| line.contains(":bell:")).expect("a call");
    for mention in ["<@U0ALICE>", "<@U0CAROL>", "<!subteam^S0RELEASE>"] {
        assert_eq!(shown.matches(mention).count(), 1, "{mention}: {shown}");
        assert!(call.contains(mention), "{call}");
    }
    assert!(!shown.contains("<@U0RM1>") && shown.contains("`U0CAROL`"), "{shown}");
    setup.slack.set_faults(faults);
    setup.click_ok(&Click::approve("U0CAROL", &request.id)).await;
    let shown = setup.shows(&request, "Approved* by <@U0CAROL>").await.shown();
    assert!(!shown.contains(":bell:") && shown.contains("<@U0RM1>"), "{shown}");
}
