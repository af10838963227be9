//! Clicks on buttons of messages.

use serde_json::json;
use slack_simulator::{Delivered, Faults};

use crate::app::{App, ok, post, slack};

#[tokio::test]
async fn a_click_brings_all_that_slack_sends() {
    let slack = slack().await;
    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    let parent = post(&slack, "C0APPROVALS").await;

    let clicked = slack.person("U0ALICE").click(&parent, "approve").await;

    assert_eq!(clicked.warning, None);
    assert_eq!(clicked.deliveries, [Delivered::Answered { status: 200, body: String::new() }]);
    let seen = app.seen();
    assert_eq!(seen, [clicked.payload]);
    let payload = &seen[0];
    assert_eq!(payload["type"], "block_actions");
    assert_eq!(
        payload["user"],
        json!({"id": "U0ALICE", "username": "alice", "name": "alice", "team_id": "T0ACME"})
    );
    assert_eq!(
        payload["container"],
        json!({"type": "message", "message_ts": parent.ts, "channel_id": "C0APPROVALS", "is_ephemeral": false})
    );
    assert_eq!(payload["channel"], json!({"id": "C0APPROVALS", "name": "approvals"}));
    assert_eq!(payload["message"]["blocks"], json!(parent.blocks));
    assert_eq!(payload["state"], json!({"values": {}}));
    let action = &payload["actions"][0];
    assert_eq!(
        (&action["type"], &action["action_id"], &action["block_id"], &action["value"]),
        (&json!("button"), &json!("approve"), &json!("decide"), &json!("req_1"))
    );
    assert!(action["action_ts"].is_string() && payload["trigger_id"].is_string(), "{payload}");

    // No two clicks are alike.
    let again = slack.person("U0ALICE").click(&parent, "approve").await;
    assert_ne!(again.payload["trigger_id"], payload["trigger_id"]);
}

#[tokio::test]
async fn a_button_can_be_clicked_on_that_is_gone() {
    let slack = slack().await;
    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    let before = post(&slack, "C0APPROVALS").await;
    ok(&slack, "chat.update", &json!({"channel": "C0APPROVALS", "ts": before.ts, "text": "decided"})).await;

    slack.person("U0BOB").click(&before, "deny").await;

    assert_eq!(app.seen()[0]["actions"][0]["action_id"], "deny");
    let now = slack.message("C0APPROVALS", &before.ts).expect("it is there");
    assert_eq!((now.actions(), now.updates), (Vec::<String>::new(), 1));
}

#[tokio::test]
async fn an_app_that_answers_badly_causes_a_warning() {
    let slack = slack().await;
    let message = post(&slack, "C0APPROVALS").await;
    let alice = slack.person("U0ALICE");
    let nowhere = alice.click(&message, "approve").await;
    assert_eq!(nowhere.warning.as_deref(), Some("This app is not responding. Try again in a moment."));

    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    app.answers(500, "oops");
    let failing = alice.click(&message, "approve").await;
    assert_eq!(failing.warning.as_deref(), Some("This app responded with Status Code 500."));
    assert_eq!(alice.warnings().len(), 1, "the warning about the click before is gone");
    assert!(slack.person("U0BOB").warnings().is_empty());

    app.answers(200, "this is ignored");
    assert_eq!(alice.click(&message, "approve").await.warning, None);
    assert!(alice.warnings().is_empty());

    // Three seconds are what Slack waits.
    app.never_answers();
    let late = alice.click(&message, "approve").await;
    assert_eq!(late.deliveries, [Delivered::Late]);
    assert!(late.warning.is_some());
}

#[tokio::test]
async fn a_click_can_be_delivered_twice() {
    let slack = slack().await;
    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    let message = post(&slack, "C0APPROVALS").await;
    slack.set_faults(Faults { duplicate_interaction: 1.0, ..Faults::none() });

    let clicked = slack.person("U0ALICE").click(&message, "approve").await;

    assert_eq!(clicked.deliveries.len(), 2);
    assert_eq!(app.seen(), [clicked.payload.clone(), clicked.payload]);
}
