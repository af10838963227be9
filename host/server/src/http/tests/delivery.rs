//! The whole gateway on a listener, and a fake Slack that it delivers to.

use std::time::Duration;

use countersign_slack::fake::{FakeSlack, Fate, TOKEN};
use insta::assert_snapshot;
use tokio::net::TcpListener;

use super::*;

/// A gateway with a fake Slack.
pub(super) async fn with_slack(variables: &[(&str, &str)]) -> (TestServer, FakeSlack) {
    let clock: Arc<ManualClock> = Arc::new(ManualClock::at(START));
    let slack = FakeSlack::start(clock).await;
    let mut all = vec![("SLACK_BOT_TOKEN", TOKEN), ("SLACK_API_URL", slack.url.as_str())];
    all.extend(variables);
    (TestServer::with(&all).await, slack)
}

/// What people were told in ephemeral messages: whom and what.
pub(super) async fn ephemerals(server: &TestServer, slack: &FakeSlack) -> Vec<(String, String)> {
    let outgoing = server.app.outgoing.as_ref().expect("there is a token");
    until(server, || outgoing.ephemerals.waiting() == 0).await;
    let calls = slack.calls().into_iter().filter(|call| call.method == "chat.postEphemeral");
    let text = |body: &Value, key: &str| body[key].as_str().expect(key).to_owned();
    calls.map(|call| (text(&call.body, "user"), text(&call.body, "text"))).collect()
}

/// Advances the clock until `is_so`.
pub(super) async fn until(server: &TestServer, is_so: impl Fn() -> bool) {
    let passing = async {
        while !is_so() {
            server.clock.advance(1);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), passing).await.expect("it comes to pass");
}

#[tokio::test]
async fn changes_are_delivered_and_counted() {
    let (server, slack) = with_slack(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let serving = server.run(listener);
    let (id, _) = server.open("deploy").await;
    until(&server, || slack.messages().len() == 1).await;
    let [message] = slack.messages().try_into().expect("one message");
    assert_eq!((message.channel.as_str(), message.updates), ("C0X", 0));
    assert_eq!(message.metadata["event_payload"]["request_id"], id.as_str());

    server.press("U1", "approve", &id).await;
    server.press("U2", "approve", &id).await;
    until(&server, || slack.messages().iter().any(|message| message.text.contains("Approved"))).await;
    server.app.shutdown.cancel();
    serving.await.expect("it ends").expect("well");
    let calls = slack.methods();
    let updates = calls.iter().filter(|method| *method == "chat.update").count();
    assert!((1..=2).contains(&updates), "{calls:?}");
    let metrics = server.get("/metrics").await.text;
    for line in [
        "slack_api_calls_total{method=\"chat.postMessage\",outcome=\"ok\"} 1".to_owned(),
        format!("slack_api_calls_total{{method=\"chat.update\",outcome=\"ok\"}} {updates}"),
        "outbox_depth 0".to_owned(),
        "outbox_oldest_age_seconds 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn readiness_shows_the_state_of_delivery() {
    let (server, slack) = with_slack(&[]).await;
    assert_snapshot!(server.get("/readyz").await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "backend": "sqlite",
      "policy": "[policy]",
      "slack": {
        "configured": true,
        "since": "2026-05-28T20:26:40.000Z",
        "state": "ok"
      },
      "status": "ready",
      "store": "ok"
    }
    "#);
    slack.decide(|_, _| Fate::Refused("not_in_channel"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let serving = server.run(listener);
    server.open("deploy").await;
    let health = &server.app.outgoing.as_ref().expect("there is a token").health;
    let report = || health.report(server.app.gateway.clock().monotonic());
    until(&server, || !report().channels.is_empty()).await;
    until(&server, || report().state == countersign_slack::HealthState::Degraded).await;
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 200, "requests can be taken all the same");
    let seen = answer.json();
    assert_eq!((&seen["status"], &seen["degraded"]), (&json!("degraded"), &json!(["slack_degraded"])));
    let channels = &seen["slack"]["channels"];
    assert_eq!((&channels[0]["channel"], &channels[0]["error"]), (&json!("C0X"), &json!("not_in_channel")));
    slack.decide(|_, _| Fate::Refused("invalid_auth"));
    until(&server, || report().state == countersign_slack::HealthState::Unauthorized).await;
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["slack"]["refused"], "invalid_auth");
    assert_eq!(answer.json()["degraded"], json!(["slack_unauthorized"]));
    assert!(server.metric("slack_delivery_failures_total{code=\"not_in_channel\"} 1").await);
    server.app.shutdown.cancel();
    serving.await.expect("it ends").expect("well");
}
