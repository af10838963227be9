//! A stream sends every state, once, in order; it can be resumed, and it ends with the request.

use std::time::Duration;

use countersign_tests::{Click, Event, Home, Problem};

const ACTIONS: &str = "
  migrate:
    description: Migrate the database
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

#[tokio::test]
async fn every_state_comes_once_and_in_order() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;
    let mut stream = gateway.stream(&request.token).await;
    let mut seen = vec![stream.state().await];

    for click in [
        Click::acknowledge("security", "U0SEC", &request.id),
        Click::approve("U0ALICE", &request.id),
        Click::withdraw("U0ALICE", &request.id),
        Click::approve("U0BOB", &request.id),
        Click::approve("U0ALICE", &request.id),
    ] {
        gateway.click_ok(&click).await;
        seen.push(stream.state().await);
        // A look at any moment shows the state that the stream has just sent, since only stored states are sent.
        assert_eq!(gateway.look(&request.token).await, seen[seen.len() - 1].json());
    }

    assert!(stream.rest().await.is_empty(), "it goes on after the end");
    let statuses: Vec<String> = seen.iter().map(Event::status).collect();
    let ready = "ready_for_approval";
    assert_eq!(statuses, ["awaiting_personas", ready, ready, ready, ready, "approved"]);
    let ids: Vec<u64> = seen.iter().map(version).collect();
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
}

#[tokio::test]
async fn it_resumes_after_the_last_event_that_was_seen() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;
    let mut stream = gateway.stream(&request.token).await;
    let retry = stream.next().await.and_then(|event| event.retry);
    assert!(retry.is_some_and(|millis| (100..=60_000).contains(&millis)), "{retry:?}");
    let first = stream.state().await;
    drop(stream);

    // Seen already: the resumed stream sends nothing until something changes.
    let mut stream = gateway.stream_after(&request.token, first.id.as_deref()).await.expect("it is open");
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    let second = stream.state().await;
    assert_eq!(second.status(), "ready_for_approval");
    drop(stream);

    // Missed while disconnected: the resumed stream begins with it.
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let mut stream = gateway.stream_after(&request.token, second.id.as_deref()).await.expect("it is open");
    let third = stream.state().await;
    assert_eq!(third.json()["approvers"], serde_json::json!(["U0ALICE"]));
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
    let last = stream.state().await;
    assert_eq!(last.status(), "approved");
    assert_eq!(stream.next().await, None);

    // A client that has seen the end need not come back; another one gets it.
    let done = gateway.stream_after(&request.token, last.id.as_deref()).await.expect_err("it is over");
    assert_eq!((done.status(), done.text().as_str()), (204, ""));
    let mut stream =
        gateway.stream_after(&request.token, third.id.as_deref()).await.expect("the end was not seen yet");
    assert_eq!(stream.state().await, last);
    assert!(stream.rest().await.is_empty());
}

#[tokio::test]
async fn a_stream_that_is_opened_late_begins_with_the_end() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;
    gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;

    let mut stream = gateway.stream(&request.token).await;

    assert_eq!(stream.state().await.status(), "denied");
    assert!(stream.rest().await.is_empty());
}

#[tokio::test]
async fn there_is_a_cap_and_a_closed_stream_makes_room() {
    // One address may hold half of them.
    let gateway = Home::new(ACTIONS).with("SSE_MAX_CONNECTIONS", "4").start().await;
    let request = gateway.open("migrate").await;
    let (mut one, other) = (gateway.stream(&request.token).await, gateway.stream(&request.token).await);
    one.state().await;
    assert_eq!(gateway.metrics().await.count("sse_connections", &[]), 2);

    let refused = gateway.stream_after(&request.token, None).await.expect_err("two is the cap");
    let refused = Problem::read(&refused);
    assert_eq!(refused.is(), (503, "too_many_streams"));
    assert!(refused.retry_after.is_some());
    // Polling still works.
    assert_eq!(gateway.look(&request.token).await["status"], "awaiting_personas");

    drop(other);
    gateway.click_ok(&Click::deny("U0ALICE", &request.id)).await;
    assert_eq!(one.state().await.status(), "denied");
    assert!(one.rest().await.is_empty());
    let mut again = gateway.stream(&request.token).await;
    assert_eq!(again.state().await.status(), "denied");
}

#[tokio::test]
async fn a_quiet_stream_sends_heartbeats() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("migrate").await;
    let mut stream = gateway.stream(&request.token).await;
    let since = countersign_tests::Stopwatch::start();
    stream.state().await;

    // Documented as every 16 to 20 s, which is more than the usual patience.
    let heartbeat = tokio::time::timeout(Duration::from_secs(40), stream.receive()).await;

    let heartbeat =
        heartbeat.expect("there is a heartbeat").expect("the stream is open").expect("it goes on");
    assert_eq!(heartbeat.name, "heartbeat");
    assert_eq!(heartbeat.id, None, "a heartbeat must not move what is resumed after");
    let after = since.elapsed().as_secs();
    assert!((14..=26).contains(&after), "after {after} s");
}

fn version(event: &Event) -> u64 {
    let id = event.id.as_deref().and_then(|id| id.parse().ok());
    id.unwrap_or_else(|| panic!("no version: {event:?}"))
}
