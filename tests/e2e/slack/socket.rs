//! Socket Mode: the same people, buttons and dialogs, and no port that Slack must reach.

use countersign_tests::{Home, Slack, within};
use serde_json::json;
use slack_simulator::{Disconnect, Outcome, Route};

use super::Setup;
use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: { show: [replicas] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas], max_keys: 1, max_chars: 2 }
";

/// With Socket Mode, and without a signing secret unless `both`.
async fn setup(both: bool) -> Setup {
    let slack = Slack::start().await;
    let mut home = Home::new(ACTIONS).with_slack(&slack).with_socket_mode(&slack);
    if !both {
        home = home.without("SLACK_SIGNING_SECRET");
    }
    let gateway = home.start().await;
    slack.set_gateway(&format!("http://{}", gateway.address()));
    let setup = Setup { slack, gateway };
    connected(&setup, 2).await;
    setup
}

async fn connected(setup: &Setup, count: usize) {
    within("sockets", setup.slack.until(|slack| (slack.sockets() == count).then_some(()))).await;
}

#[tokio::test]
async fn people_decide_over_a_socket_and_dialogs_are_answered_on_it() {
    let setup = setup(false).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    let (alice, bob) = (setup.slack.person("U0ALICE"), setup.slack.person("U0BOB"));

    alice.click(&message, "approve_edit").await;
    let submitted = alice.submit(&[("ov_replicas", "12345".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Errors(_)), "{submitted:?}");
    let submitted = alice.submit(&[("ov_replicas", "9".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");

    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    let clicked = bob.click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    setup.shows(&request, "Approved with edits").await;
}

#[tokio::test]
async fn a_connection_that_slack_closes_is_opened_again() {
    let setup = setup(false).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;

    setup.slack.disconnect_sockets(Disconnect::RefreshRequested);
    connected(&setup, 2).await;
    let clicked = setup.slack.person("U0ALICE").click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    setup.shows(&request, "Waiting for 1 more approval").await;

    setup.slack.restart();
    connected(&setup, 2).await;
    let clicked = setup.slack.person("U0BOB").click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    setup.shows(&request, "Approved").await;
}

#[tokio::test]
async fn an_interaction_that_comes_both_ways_counts_once() {
    let setup = setup(true).await;
    setup.slack.set_route(Route::Both);
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    let clicked = setup.slack.person("U0ALICE").click(&message, "approve").await;
    assert_eq!(clicked.deliveries.len(), 2, "{clicked:?}");
    setup.shows(&request, "Waiting for 1 more approval").await;

    assert_eq!(setup.look(&request.token).await["approvers"], json!(["U0ALICE"]));
    let ephemerals = setup.slack.person("U0ALICE").ephemerals();
    assert!(ephemerals.is_empty(), "the second delivery was taken for a second press: {ephemerals:?}");

    // A refusal is sent once, a dialog opens once, and it is submitted once.
    setup.slack.person("U0MALLORY").click(&message, "approve").await;
    setup.ephemeral("U0MALLORY", "not entitled").await;
    let bob = setup.slack.person("U0BOB");
    bob.click(&message, "deny").await;
    assert_eq!(bob.views().len(), 1, "one press opens one dialog");
    assert_eq!(setup.look(&request.token).await["status"], "ready_for_approval", "nothing is denied yet");
    let submitted = bob.submit(&[("reason", "not today".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");
    setup.shows(&request, "Denied").await;
    let home = setup.gateway.stop().await;
    let ledger = Ledger::of(&home);
    for event in ["approval_recorded", "unauthorized_attempt", "denied"] {
        assert_eq!(ledger.count_of(event), 1, "{event}");
    }
    for (user, count) in [("U0BOB", 0), ("U0MALLORY", 1)] {
        assert_eq!(setup.slack.person(user).ephemerals().len(), count, "{user}");
    }
}
