//! Slack is busy, slow, down, or refuses calls: nothing is lost, nothing is doubled, and operators can see it.

use countersign_tests::{ADMIN_TOKEN, Call, Click, Home, Slack, deploy, millis, unix_seconds, within};
use serde_json::{Value, json};
use slack_simulator::{ChannelProfile, Faults, Simulator};

use super::{Setup, main_messages};

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
async fn changes_while_slack_is_down_are_shown_when_it_is_back() {
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    setup.shows(&request, "Waiting for 2 approvals").await;

    setup.slack.set_faults(Faults::down());
    for user in ["U0ALICE", "U0BOB"] {
        setup.click_ok(&Click::approve(user, &request.id)).await;
    }
    let unseen = setup.open("deploy").await;
    within("calls to fail", setup.slack.until(|slack| (slack.counts().outcome("down") > 3).then_some(())))
        .await;
    assert!(setup.metrics().await.count("outbox_depth", &[]) >= 2);
    assert_eq!(setup.look(&request.token).await["status"], "approved", "callers need no Slack");

    setup.slack.set_faults(Faults::none());
    setup.shows(&request, "Approved").await;
    setup.shows(&unseen, "Waiting").await;
    drained(&setup).await;
    assert_eq!(setup.slack.messages().len(), 2);
}

#[tokio::test]
async fn a_post_that_was_not_answered_is_not_posted_twice() {
    let setup = Setup::open(ACTIONS).await;
    // Each is either carried out and not answered, or not carried out, by chance.
    setup.slack.set_faults(Faults { reset: 0.5, server_error: 0.2, ..Faults::none() });
    let mut requests = Vec::new();
    for _ in 0..20 {
        requests.push(setup.open("deploy").await);
    }
    let unanswered = |slack: &Simulator| (slack.counts().unanswered_but_done() > 2).then_some(());
    within("calls to go wrong", setup.slack.until(unanswered)).await;
    setup.slack.set_faults(Faults::none());
    drained(&setup).await;
    for request in &requests {
        assert_eq!(main_messages(&setup.slack, &request.id).len(), 1, "{}", request.id);
    }
}

#[tokio::test]
async fn a_rate_limit_is_kept_to() {
    let setup = Setup::open(ACTIONS).await;
    setup.slack.set_faults(Faults { rate_limited: 0.6, retry_after: 1, ..Faults::none() });
    let request = setup.open("deploy").await;
    setup.shows(&request, "Waiting for 2 approvals").await;
    setup.slack.set_faults(Faults::none());
    drained(&setup).await;
    let limited = setup.slack.counts().outcome("ratelimited");
    let counted = [("method", "chat.postMessage"), ("outcome", "rate_limited")];
    assert!(setup.metrics().await.count("slack_api_calls_total", &counted) <= limited);
}

#[tokio::test]
async fn a_channel_that_refuses_posts_is_reported_and_harms_no_other() {
    let setup = Setup::open(ACTIONS).await;
    let closed = ChannelProfile { bot_is_member: false, ..ChannelProfile::new("C0CLOSED", "closed") };
    setup.slack.set_channel(closed.clone());
    let hidden = setup.open("elsewhere").await;
    let shown = setup.open("deploy").await;
    setup.shows(&shown, "Waiting").await;
    let ready = within("the failure to be reported", async {
        loop {
            let ready = ready(&setup).await;
            if ready["slack"]["state"] == "degraded" && ready["slack"].to_string().contains("C0CLOSED") {
                return ready;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(ready["slack"].to_string().contains("not_in_channel"), "{ready}");
    assert_eq!(ready["status"], "degraded", "callers can still ask");
    assert!(main_messages(&setup.slack, &hidden.id).is_empty());
    assert!(setup.metrics().await.count("outbox_depth", &[]) >= 1, "it still waits to be shown");
}

#[tokio::test]
async fn a_message_that_somebody_deleted_is_posted_anew_while_it_matters() {
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    setup.slack.delete(&message);
    setup.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let anew = setup.shows(&request, "Waiting for 1 more approval").await;
    assert_ne!(anew.ts, message.ts);
}

/// Without the admin, the gateway would look again after a minute at the earliest.
#[tokio::test]
async fn what_slack_refused_is_sent_again_at_once_if_an_admin_says_so() {
    let setup = Setup::at(Home::new(ACTIONS).administered()).await;
    let closed = ChannelProfile { bot_is_member: false, ..ChannelProfile::new("C0CLOSED", "closed") };
    setup.slack.set_channel(closed);
    let request = setup.open("elsewhere").await;
    let path = format!("/api/admin/requests/{}", request.id);
    within("the failure to be known", async {
        while admin(&setup, Call::get(&path)).await["messages"][0]["failed"] != "not_in_channel" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    setup.slack.set_channel(ChannelProfile::new("C0CLOSED", "closed"));
    let resend = Call::post(&format!("{path}/resend"), &json!({}));
    admin(&setup, resend.clone()).await;
    let message = setup.shows(&request, "Waiting").await;

    // One that is there stays the only one, and one that somebody deleted comes back.
    admin(&setup, resend.clone()).await;
    drained(&setup).await;
    assert_eq!(main_messages(&setup.slack, &request.id).len(), 1);
    setup.slack.delete(&message);
    admin(&setup, resend).await;
    let anew = setup.shows(&request, "Waiting").await;
    assert_ne!(anew.ts, message.ts);
    drained(&setup).await;
    assert_eq!(main_messages(&setup.slack, &request.id).len(), 1);
    let shown = admin(&setup, Call::get(&path)).await;
    assert_eq!(
        (&shown["messages"][0]["state"], &shown["messages"][0]["isCurrent"]),
        (&json!("posted"), &json!(true))
    );

    setup.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let late = setup.send(&Call::post(&format!("{path}/resend"), &json!({})).bearer(ADMIN_TOKEN)).await;
    assert_eq!(late.status(), 409, "{}", late.text());
}

#[tokio::test]
async fn the_message_says_which_admin_ended_the_request_and_why() {
    let setup = Setup::at(Home::new(ACTIONS).administered()).await;
    for (act, title) in [("cancel", "Cancelled"), ("expire", "Expired")] {
        let request = setup.open("deploy").await;
        setup.shows(&request, "Waiting for 2 approvals").await;
        let path = format!("/api/admin/requests/{}/{act}", request.id);
        admin(&setup, Call::post(&path, &json!({"reason": "the runner is gone"}))).await;
        let message = setup.shows(&request, title).await.shown();
        assert!(message.contains("by the admin") && message.contains("the runner is gone"), "{message}");
    }
}

async fn admin(setup: &Setup, call: Call) -> Value {
    let reply = setup.send(&call.bearer(ADMIN_TOKEN)).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    reply.json()
}

/// Waits until nothing is left to deliver.
pub(super) async fn drained(setup: &Setup) {
    within("the outbox to be empty", async {
        while setup.metrics().await.count("outbox_depth", &[]) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn ready(setup: &Setup) -> Value {
    let reply = setup.send(&Call::get("/readyz")).await;
    assert_eq!(reply.status(), 200, "{}", json!(reply.text()));
    reply.json()
}

/// What Slack still takes is shown to admins, and in the metrics.
#[tokio::test]
async fn operators_see_the_budgets() {
    let slack = Slack::start().await;
    let home = Home::new(&deploy(1)).administered();
    let gateway = slack.gateway(home).await;
    let mut requests = Vec::new();
    for _ in 0..6 {
        requests.push(gateway.open("deploy").await);
    }
    for request in &requests {
        slack.shown(&request.id).await;
    }
    let budgets = gateway.seen("state").await["slackBudgets"].clone();
    assert_eq!(budgets["circuitBreaker"], "closed", "{budgets}");
    assert!(budgets.get("retryAt").is_none(), "{budgets}");
    let limits = budgets["rateLimits"].as_array().expect("rate limits").clone();
    let names: Vec<_> = limits
        .iter()
        .map(|limit| (limit["method"].as_str().unwrap_or_default(), &limit["channel"]))
        .collect();
    let of_all = Value::Null;
    let posts = json!("C0PRIVATE");
    assert_eq!(
        names,
        [
            ("chat.update", &of_all),
            ("conversations.history", &of_all),
            ("conversations.replies", &of_all),
            ("chat.postMessage", &posts),
            ("chat.postEphemeral", &of_all),
        ]
    );
    for limit in &limits {
        let (left, most) =
            (limit["left"].as_f64().expect("a number"), limit["most"].as_f64().expect("a number"));
        assert!(left <= most && most >= 1.0 && limit.get("blockedUntil").is_none(), "{limit}");
    }

    // Slack says that it takes no post for a minute.
    let posts = vec!["chat.postMessage".to_owned()];
    slack.set_faults(Faults { rate_limited: 1.0, retry_after: 60, methods: posts, ..Faults::none() });
    gateway.open("deploy").await;
    let blocked = async {
        loop {
            let state = gateway.seen("state").await;
            let limits = state["slackBudgets"]["rateLimits"].as_array().expect("rate limits").clone();
            if let Some(limit) = limits.into_iter().find(|limit| limit["blockedUntil"].is_string()) {
                return limit;
            }
            tokio::task::yield_now().await;
        }
    };
    let blocked = within("a limit", blocked).await;
    assert_eq!((&blocked["method"], &blocked["channel"]), (&json!("chat.postMessage"), &json!("C0PRIVATE")));
    let seconds = millis(&blocked["blockedUntil"]) / 1000 - i64::try_from(unix_seconds()).expect("a time");
    assert!((1..=61).contains(&seconds), "{seconds}");
    let metrics = gateway.metrics().await;
    let of = |method| [("method", method)];
    let wait = metrics.count("slack_rate_limit_blocked_seconds", &of("chat.postMessage"));
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(metrics.count("slack_rate_limit_blocked_seconds", &of("chat.update")), 0);
    assert!(metrics.count("slack_rate_limit_calls_left", &of("chat.update")) >= 1);
    assert_eq!(metrics.count("slack_circuit_breaker", &[("state", "closed")]), 1);

    // It answers nothing any more.
    slack.set_faults(Faults::down());
    for request in &requests {
        gateway.click_ok(&Click::deny("U0ALICE", &request.id)).await;
    }
    let open = async {
        loop {
            let state = gateway.seen("state").await;
            if state["slackBudgets"]["circuitBreaker"] == "open" {
                return state["slackBudgets"]["retryAt"].clone();
            }
            tokio::task::yield_now().await;
        }
    };
    assert!(within("the circuit breaker to open", open).await.is_string());
    let shown = async {
        while gateway.metrics().await.count("slack_circuit_breaker", &[("state", "open")]) != 1 {
            tokio::task::yield_now().await;
        }
    };
    within("the metric to show it", shown).await;
}
