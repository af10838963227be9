//! Who is waited for: neither the requester, who may not approve, nor anybody who has left Slack.

use countersign_tests::{Ask, Home, Receipt, Slack, within};
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
    setup.shows(&request, "@release-managers (except the requester)").await;
}
