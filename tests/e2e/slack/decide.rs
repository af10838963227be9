//! A request appears in its channel, people press its buttons, and the message shows who decided.

use countersign_tests::{Ask, Click};
use serde_json::json;
use slack_simulator::Outcome;

use super::Setup;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: { show: [ref, replicas] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0CAROL], approvals: 2 }
";

#[tokio::test]
async fn two_of_three_approve_and_the_message_shows_it() {
    let setup = Setup::open(ACTIONS).await;
    let params = json!({"ref": "v1.2.3", "replicas": 3, "password": "hunter2"});
    let request = setup.create(&Ask::new("deploy").params(params)).await.expect("it is admitted");

    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    assert_eq!(message.channel, "C0PRIVATE");
    // A new message mentions nobody; an update does.
    let message = setup.shows(&request, "waiting for <@U0ALICE>, <@U0BOB>").await;
    for words in
        ["deploy", "<@U0REQ>", "acme/shop", "main", "4711", "Ship the fix", "v1.2.3", "password", "min left"]
    {
        assert!(message.shown().contains(words), "no `{words}`: {}", message.shown());
    }
    assert!(!message.shown().contains("hunter2"), "a redacted value is shown");
    assert_eq!(message.actions(), ["approve", "deny"]);

    let clicked = setup.slack.person("U0ALICE").click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    assert!(message.shown().contains("<@U0ALICE>"), "{}", message.shown());
    assert_eq!(message.actions(), ["approve", "deny", "withdraw"]);

    setup.slack.person("U0BOB").click(&message, "approve").await;
    let message = setup.shows(&request, "Approved").await;
    assert!(message.shown().contains("by <@U0ALICE>, <@U0BOB>"), "{}", message.shown());
    assert_eq!(message.actions(), ["show_all"], "the buttons that decide are gone");
    assert_eq!(setup.look(&request.token).await["status"], "approved");
    // Everything happened in the one message.
    assert_eq!(setup.slack.messages().len(), 1);
}

#[tokio::test]
async fn a_denial_asks_for_a_reason_and_the_message_shows_it() {
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting").await;
    let bob = setup.slack.person("U0BOB");

    bob.click(&message, "deny").await;
    let view = setup.slack.asked("U0BOB").await;
    assert_eq!(view.callback_id(), "deny_submit");
    assert_eq!(setup.look(&request.token).await["status"], "ready_for_approval", "nothing is denied yet");
    let submitted = bob.submit(&[("reason", "not on a Friday".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");

    let message = setup.shows(&request, "Denied").await;
    assert!(message.shown().contains("by <@U0BOB>"), "{}", message.shown());
    assert!(message.shown().contains("not on a Friday"), "{}", message.shown());
    assert_eq!(message.actions(), ["show_all"]);
    let after = setup.look(&request.token).await;
    assert_eq!((&after["status"], &after["reason"]), (&json!("denied"), &json!("not on a Friday")));
}

#[tokio::test]
async fn an_approval_can_be_withdrawn() {
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting").await;
    setup.slack.person("U0ALICE").click(&message, "approve").await;
    let message = setup.shows(&request, "Waiting for 1 more approval").await;

    setup.slack.person("U0ALICE").click(&message, "withdraw").await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    assert_eq!(message.actions(), ["approve", "deny"]);
    assert_eq!(setup.look(&request.token).await["approvers"], json!([]));
}

#[tokio::test]
async fn cancelled_and_expired_requests_are_shown() {
    let setup = Setup::open(
        "
  deploy:
    description: Deploy
    timeout: 10m
    policies: [{ use: quorum, with: { approvers: [U0ALICE] } }]
  brief:
    description: Over soon
    timeout: 1s
    rerequest: { cooldown: 1s, limit: 5, window: 24h }
    policies: [{ use: quorum, with: { approvers: [U0ALICE] } }]
",
    )
    .await;
    let brief = setup.open("brief").await;
    let deploy = setup.open("deploy").await;
    setup.shows(&deploy, "Waiting").await;
    setup.cancel(&deploy.token, Some("superseded")).await.expect("it is open");
    let message = setup.shows(&deploy, "Cancelled").await;
    assert!(message.shown().contains("superseded"), "{}", message.shown());
    assert_eq!(message.actions(), ["show_all"]);

    let message = setup.shows(&brief, "Expired").await;
    assert!(message.shown().contains("nobody decided in time"), "{}", message.shown());
    assert_eq!(message.actions(), ["show_all", "re_request"]);
}

#[tokio::test]
async fn an_action_without_a_channel_shows_nothing_and_works() {
    let home = countersign_tests::Home::new(ACTIONS);
    home.set_policy_set(&home.policy_set().replace(", channel: C0PRIVATE", ""));
    let setup = Setup::at(home).await;
    let request = setup.open("deploy").await;
    for user in ["U0ALICE", "U0BOB"] {
        setup.click_ok(&Click::approve(user, &request.id)).await;
    }
    assert_eq!(setup.look(&request.token).await["status"], "approved");
    setup.delivered().await;
    assert!(setup.slack.messages().is_empty());
}
