//! Faults on demand.

use serde_json::json;
use slack_simulator::{Faults, Options, Simulator};

use crate::app::{call, ok, post, slack, within};

#[tokio::test]
async fn calls_fail_as_configured() {
    let slack = slack().await;
    let body = json!({"channel": "C0APPROVALS", "text": "x"});
    let always = |name: &str| serde_json::from_value::<Faults>(json!({name: 1.0})).unwrap();

    slack.set_faults(Faults { retry_after: 7, ..always("rate_limited") });
    let reply = within(call(&slack, "chat.postMessage", &body)).await.expect("an answer");
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("7")));
    assert_eq!(reply.json(), json!({"ok": false, "error": "ratelimited"}));

    slack.set_faults(always("server_error"));
    let reply = within(call(&slack, "chat.postMessage", &body)).await.expect("an answer");
    assert!(matches!(reply.status, 500 | 503), "{reply:?}");

    slack.set_faults(always("internal_error"));
    let reply = within(call(&slack, "chat.postMessage", &body)).await.expect("an answer");
    assert_eq!((reply.status, &reply.json()["error"]), (200, &json!("internal_error")));

    slack.set_faults(always("reset"));
    let error = within(call(&slack, "chat.postMessage", &body)).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    slack.set_faults(Faults::down());
    within(call(&slack, "chat.postMessage", &body)).await.expect_err("nobody there");

    slack.set_faults(Faults::none());
    ok(&slack, "chat.postMessage", &body).await;
    let counts = slack.counts();
    assert_eq!(counts.of("chat.postMessage"), 6);
    for outcome in ["ratelimited", "internal_error", "reset", "down", "ok"] {
        assert_eq!(counts.with("chat.postMessage", outcome), 1, "{outcome}: {counts:?}");
    }
    // Whether a call was carried out that was not answered with `ok` is up to chance, but it is known here.
    assert_eq!(slack.messages().len() as u64, 1 + counts.unanswered_but_done());
}

#[tokio::test]
async fn half_of_what_is_not_answered_was_done() {
    let slack = slack().await;
    slack.set_faults(Faults { timeout: 1.0, ..Faults::none() });
    let body = json!({"channel": "C0APPROVALS", "text": "x"});
    let mut calls = tokio::task::JoinSet::new();
    let slack = std::sync::Arc::new(slack);
    for _ in 0..40 {
        let (slack, body) = (slack.clone(), body.clone());
        calls.spawn(async move { call(&slack, "chat.postMessage", &body).await });
    }
    let of = |slack: &Simulator| slack.counts().with("chat.postMessage", "timeout");
    within(slack.until(|slack| (of(slack) == 40).then_some(()))).await;
    let done = slack.messages().len();
    assert!((5..35).contains(&done), "{done} of 40");

    // None of them is answered until the connection is lost.
    assert!(calls.try_join_next().is_none());
    slack.restart();
    while let Some(ended) = within(calls.join_next()).await {
        ended.expect("it does not panic").expect_err("it is lost");
    }
    assert_eq!(slack.messages().len(), done, "messages are not lost");
}

#[tokio::test]
async fn limits_are_in_a_header() {
    let slack = Simulator::start(Options::default()).await.expect("there is a free port");
    for _ in 0..3 {
        post(&slack, "C0APPROVALS").await;
    }
    let refused = call(&slack, "chat.postMessage", &json!({"channel": "C0APPROVALS", "text": "x"})).await;
    let refused = refused.expect("an answer");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    post(&slack, "C0ONCALL").await;
}
