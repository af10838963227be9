//! Slack is full, slow, away, or says no: nothing is lost, nothing is doubled, and operators can see it.

use countersign_tests::{Call, Click, within};
use serde_json::{Value, json};
use slack_simulator::{ChannelProfile, Faults, Simulator};

use super::{Office, main_messages};

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
  elsewhere:
    description: In a channel that the bot is not in
    timeout: 10m
    channel: C0CLOSED
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn what_happens_while_slack_is_away_is_shown_when_it_is_back() {
    let office = Office::open(ACTIONS).await;
    let request = office.open("deploy").await;
    office.says(&request, "Waiting for 2 approvals").await;

    office.slack.set_faults(Faults::down());
    for user in ["U0ALICE", "U0BOB"] {
        office.click_ok(&Click::approve(user, &request.id)).await;
    }
    let unseen = office.open("deploy").await;
    within("calls to fail", office.slack.until(|slack| (slack.counts().outcome("down") > 3).then_some(())))
        .await;
    assert!(office.metrics().await.count("outbox_depth", &[]) >= 2);
    assert_eq!(office.look(&request.token).await["status"], "approved", "callers need no Slack");

    office.slack.set_faults(Faults::none());
    office.says(&request, "Approved").await;
    office.says(&unseen, "Waiting").await;
    drained(&office).await;
    assert_eq!(office.slack.messages().len(), 2);
}

#[tokio::test]
async fn a_post_that_was_not_answered_is_not_posted_twice() {
    let office = Office::open(ACTIONS).await;
    // Each is tossed: done and not answered, or not done.
    office.slack.set_faults(Faults { reset: 0.5, server_error: 0.2, ..Faults::none() });
    let mut requests = Vec::new();
    for _ in 0..20 {
        requests.push(office.open("deploy").await);
    }
    let unanswered = |slack: &Simulator| (slack.counts().unanswered_but_done() > 2).then_some(());
    within("calls to go wrong", office.slack.until(unanswered)).await;
    office.slack.set_faults(Faults::none());
    drained(&office).await;
    for request in &requests {
        assert_eq!(main_messages(&office.slack, &request.id).len(), 1, "{}", request.id);
    }
}

#[tokio::test]
async fn a_rate_limit_is_kept_to() {
    let office = Office::open(ACTIONS).await;
    office.slack.set_faults(Faults { rate_limited: 0.6, retry_after: 1, ..Faults::none() });
    let request = office.open("deploy").await;
    office.says(&request, "Waiting for 2 approvals").await;
    office.slack.set_faults(Faults::none());
    drained(&office).await;
    let limited = office.slack.counts().outcome("ratelimited");
    let counted = [("method", "chat.postMessage"), ("outcome", "rate_limited")];
    assert!(office.metrics().await.count("slack_api_calls_total", &counted) <= limited);
}

#[tokio::test]
async fn a_channel_that_says_no_is_told_of_and_harms_no_other() {
    let office = Office::open(ACTIONS).await;
    let closed = ChannelProfile { bot_is_member: false, ..ChannelProfile::new("C0CLOSED", "closed") };
    office.slack.set_channel(closed.clone());
    let hidden = office.open("elsewhere").await;
    let shown = office.open("deploy").await;
    office.says(&shown, "Waiting").await;
    let ready = within("the failure to be told of", async {
        loop {
            let ready = ready(&office).await;
            if ready["slack"].to_string().contains("C0CLOSED") {
                return ready;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(ready["slack"].to_string().contains("not_in_channel"), "{ready}");
    assert_eq!(ready["status"], "ready", "callers can still ask");
    assert!(main_messages(&office.slack, &hidden.id).is_empty());
    assert!(office.metrics().await.count("outbox_depth", &[]) >= 1, "it still waits to be shown");
}

#[tokio::test]
async fn a_message_that_somebody_deleted_is_posted_anew_while_it_matters() {
    let office = Office::open(ACTIONS).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Waiting for 2 approvals").await;
    office.slack.delete(&message);
    office.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let anew = office.says(&request, "Waiting for 1 more approval").await;
    assert_ne!(anew.ts, message.ts);
}

/// Waits until nothing is left to deliver.
pub(super) async fn drained(office: &Office) {
    within("the outbox to be empty", async {
        while office.metrics().await.count("outbox_depth", &[]) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn ready(office: &Office) -> Value {
    let reply = office.send(&Call::get("/readyz")).await;
    assert_eq!(reply.status(), 200, "{}", json!(reply.text()));
    reply.json()
}
