//! Socket Mode: the same people, buttons and dialogs, and no port that Slack must reach.

use countersign_tests::{Home, Slack, within};
use serde_json::json;
use slack_simulator::{Disconnect, Outcome, Route};

use super::Office;

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
async fn office(both: bool) -> Office {
    let slack = Slack::start().await;
    let mut home = Home::new(ACTIONS).with_slack(&slack).with_socket_mode(&slack);
    if !both {
        home = home.without("SLACK_SIGNING_SECRET");
    }
    let gateway = home.start().await;
    slack.set_gateway(&format!("http://{}", gateway.address()));
    let office = Office { slack, gateway };
    connected(&office, 2).await;
    office
}

async fn connected(office: &Office, count: usize) {
    within("sockets", office.slack.until(|slack| (slack.sockets() == count).then_some(()))).await;
}

#[tokio::test]
async fn people_decide_over_a_socket_and_dialogs_are_answered_on_it() {
    let office = office(false).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting for 2 approvals").await;
    let (alice, bob) = (office.slack.person("U0ALICE"), office.slack.person("U0BOB"));

    alice.click(&message, "approve_edit").await;
    let submitted = alice.submit(&[("ov_replicas", "12345".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Errors(_)), "{submitted:?}");
    let submitted = alice.submit(&[("ov_replicas", "9".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");

    let message = office.says(&request, "Waiting for 1 more approval").await;
    let clicked = bob.click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    office.says(&request, "Approved with edits").await;
}

#[tokio::test]
async fn a_connection_that_slack_closes_is_opened_again() {
    let office = office(false).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting for 2 approvals").await;

    office.slack.disconnect_sockets(Disconnect::RefreshRequested);
    connected(&office, 2).await;
    let clicked = office.slack.person("U0ALICE").click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    office.says(&request, "Waiting for 1 more approval").await;

    office.slack.restart();
    connected(&office, 2).await;
    let clicked = office.slack.person("U0BOB").click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    office.says(&request, "Approved").await;
}

#[tokio::test]
async fn what_comes_by_both_ways_counts_once() {
    let office = office(true).await;
    office.slack.set_route(Route::Both);
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting for 2 approvals").await;
    let clicked = office.slack.person("U0ALICE").click(&message, "approve").await;
    assert_eq!(clicked.deliveries.len(), 2, "{clicked:?}");
    office.says(&request, "Waiting for 1 more approval").await;

    assert_eq!(office.look(&request.token).await["approvers"], json!(["U0ALICE"]));
    let told = office.slack.person("U0ALICE").ephemerals();
    assert!(told.is_empty(), "the second delivery was taken for a second press: {told:?}");
}
