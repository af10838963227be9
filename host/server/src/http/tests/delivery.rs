//! The whole gateway, served, and a Slack that it shows its requests in.

use std::time::Duration;

use insta::assert_snapshot;
use tokio::net::TcpListener;

use super::*;
use countersign_slack::fake::{FakeSlack, Fate, TOKEN};

/// A gateway that knows a Slack.
async fn house() -> (House, FakeSlack) {
    let clock: Arc<ManualClock> = Arc::new(ManualClock::at(START));
    let slack = FakeSlack::start(clock).await;
    let house = House::with(&[("SLACK_BOT_TOKEN", TOKEN), ("SLACK_API_URL", &slack.url)]).await;
    (house, slack)
}

/// Lets time pass until it is so.
async fn until(house: &House, is_so: impl Fn() -> bool) {
    let passing = async {
        while !is_so() {
            house.clock.advance(1);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), passing).await.expect("it comes to pass");
}

#[tokio::test]
async fn what_happens_is_shown_and_counted() {
    let (house, slack) = house().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let serving = tokio::spawn(Arc::clone(&house.app).serve(listener));
    let (id, _) = house.open("deploy").await;
    until(&house, || slack.messages().len() == 1).await;
    let [message] = slack.messages().try_into().expect("one message");
    assert_eq!((message.channel.as_str(), message.updates), ("C0X", 0));
    assert_eq!(message.metadata["event_payload"]["request_id"], id.as_str());

    house.press("U1", "approve", &id).await;
    house.press("U2", "approve", &id).await;
    until(&house, || slack.messages().iter().any(|message| message.text.contains("Approved"))).await;
    house.app.shutdown().cancel();
    serving.await.expect("it ends").expect("well");
    let calls = slack.methods();
    let updates = calls.iter().filter(|method| *method == "chat.update").count();
    assert!((1..=2).contains(&updates), "{calls:?}");
    let metrics = house.get("/metrics").await.text;
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
async fn readiness_tells_how_delivery_stands() {
    let (house, slack) = house().await;
    assert_snapshot!(house.get("/readyz").await.shown(), @r#"
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
    let serving = tokio::spawn(Arc::clone(&house.app).serve(listener));
    house.open("deploy").await;
    let health = &house.app.outgoing.as_ref().expect("there is a token").health;
    until(&house, || !health.report().channels.is_empty()).await;
    until(&house, || health.report().state == countersign_slack::HealthState::Degraded).await;
    let answer = house.get("/readyz").await;
    assert_eq!(answer.status, 200, "requests can be taken all the same");
    let channels = &answer.json()["slack"]["channels"];
    assert_eq!((&channels[0]["channel"], &channels[0]["error"]), (&json!("C0X"), &json!("not_in_channel")));
    slack.decide(|_, _| Fate::Refused("invalid_auth"));
    until(&house, || health.report().state == countersign_slack::HealthState::Unauthorized).await;
    let answer = house.get("/readyz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["slack"]["refused"], "invalid_auth");
    assert!(house.metric("slack_delivery_failures_total{code=\"not_in_channel\"} 1").await);
    house.app.shutdown().cancel();
    serving.await.expect("it ends").expect("well");
}
