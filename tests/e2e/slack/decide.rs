//! A request appears in its channel, people press its buttons, and in the end the message says who decided.

use countersign_tests::{Ask, Click};
use serde_json::json;
use slack_simulator::Outcome;

use super::Office;

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
async fn two_of_three_approve_and_the_message_says_so() {
    let office = Office::open(ACTIONS).await;
    let params = json!({"ref": "v1.2.3", "replicas": 3, "password": "hunter2"});
    let request = office.create(&Ask::new("deploy").params(params)).await.expect("it is admitted");

    let message = office.says(&request, "Waiting for 2 approvals").await;
    assert_eq!((message.channel.as_str(), message.updates), ("C0PRIVATE", 0));
    for words in
        ["deploy", "<@U0REQ>", "acme/shop", "main", "4711", "Ship the fix", "v1.2.3", "password", "min left"]
    {
        assert!(message.shown().contains(words), "no `{words}`: {}", message.shown());
    }
    assert!(!message.shown().contains("hunter2"), "a redacted value is shown");
    assert_eq!(message.actions(), ["approve", "deny"]);

    let clicked = office.slack.person("U0ALICE").click(&message, "approve").await;
    assert_eq!(clicked.warning, None);
    let message = office.says(&request, "Waiting for 1 more approval").await;
    assert!(message.shown().contains("<@U0ALICE>"), "{}", message.shown());
    assert_eq!(message.actions(), ["approve", "deny", "withdraw"]);

    office.slack.person("U0BOB").click(&message, "approve").await;
    let message = office.says(&request, "Approved").await;
    assert!(message.shown().contains("by <@U0ALICE>, <@U0BOB>"), "{}", message.shown());
    assert_eq!(message.actions(), Vec::<String>::new(), "the buttons are gone");
    assert_eq!(office.look(&request.token).await["status"], "approved");
    // Everything happened in the one message.
    assert_eq!(office.slack.messages().len(), 1);
}

#[tokio::test]
async fn a_denial_asks_why_and_the_message_tells() {
    let office = Office::open(ACTIONS).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting").await;
    let bob = office.slack.person("U0BOB");

    bob.click(&message, "deny").await;
    let view = bob.view().expect("a dialog opens");
    assert_eq!(view.callback_id(), "deny_submit");
    assert_eq!(office.look(&request.token).await["status"], "ready_for_approval", "nothing is denied yet");
    let submitted = bob.submit(&[("reason", "not on a Friday".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");

    let message = office.says(&request, "Denied").await;
    assert!(message.shown().contains("by <@U0BOB>"), "{}", message.shown());
    assert!(message.shown().contains("not on a Friday"), "{}", message.shown());
    assert_eq!(message.actions(), Vec::<String>::new());
    let after = office.look(&request.token).await;
    assert_eq!((&after["status"], &after["reason"]), (&json!("denied"), &json!("not on a Friday")));
}

#[tokio::test]
async fn an_approval_can_be_withdrawn() {
    let office = Office::open(ACTIONS).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting").await;
    office.slack.person("U0ALICE").click(&message, "approve").await;
    let message = office.says(&request, "Waiting for 1 more approval").await;

    office.slack.person("U0ALICE").click(&message, "withdraw").await;
    let message = office.says(&request, "Waiting for 2 approvals").await;
    assert_eq!(message.actions(), ["approve", "deny"]);
    assert_eq!(office.look(&request.token).await["approvers"], json!([]));
}

#[tokio::test]
async fn what_the_caller_takes_back_and_what_expires_is_shown() {
    let office = Office::open(
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
    let brief = office.open("brief").await;
    let deploy = office.open("deploy").await;
    office.says(&deploy, "Waiting").await;
    office.cancel(&deploy.token, Some("superseded")).await.expect("it is open");
    let message = office.says(&deploy, "Cancelled").await;
    assert!(message.shown().contains("superseded"), "{}", message.shown());
    assert!(message.actions().is_empty());

    let message = office.says(&brief, "Expired").await;
    assert!(message.shown().contains("nobody decided in time"), "{}", message.shown());
    assert_eq!(message.actions(), ["re_request"]);
}

#[tokio::test]
async fn an_action_without_a_channel_shows_nothing_and_works() {
    let home = countersign_tests::Home::new(ACTIONS);
    home.set_policy_set(&home.policy_set().replace(", channel: C0PRIVATE", ""));
    let office = Office::at(home).await;
    let request = office.open("deploy").await;
    for user in ["U0ALICE", "U0BOB"] {
        office.click_ok(&Click::approve(user, &request.id)).await;
    }
    assert_eq!(office.look(&request.token).await["status"], "approved");
    let drained = async {
        while office.metrics().await.count("outbox_depth", &[]) > 0 {
            tokio::task::yield_now().await;
        }
    };
    countersign_tests::within("the outbox to be empty", drained).await;
    assert!(office.slack.messages().is_empty());
}
