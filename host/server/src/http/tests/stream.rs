//! Event streams.

use std::time::Duration;

use axum::http::Response;
use countersign_store::Change;
use countersign_store::faulty::Fault;
use futures_util::FutureExt as _;

use super::*;

/// An open event stream.
struct Stream {
    body: Body,
}

impl TestServer {
    async fn stream(&self, token: &str, last_event_id: Option<u64>) -> Response<Body> {
        let mut request = Request::get(format!("/api/guard/wait-sse?token={token}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn listen(&self, token: &str, last_event_id: Option<u64>) -> Stream {
        let response = self.stream(token, last_event_id).await;
        assert_eq!(response.status(), 200);
        Stream { body: response.into_body() }
    }
}

impl Stream {
    /// The next chunk as text; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    /// The id and the status of the next state.
    async fn state(&mut self) -> (u64, String) {
        let text = self.next().await.expect("a state");
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        assert_eq!(field("event: "), "state");
        let data: Value = serde_json::from_str(field("data: ")).unwrap();
        (field("id: ").parse().unwrap(), data["status"].as_str().unwrap().to_owned())
    }

    async fn is_silent(&mut self) -> bool {
        self.next().now_or_never().is_none()
    }
}

#[tokio::test]
async fn every_state_is_sent_once_and_then_the_stream_ends() {
    let server = TestServer::new().await;
    let (id, token) = server.open("guarded").await;
    let response = server.stream(&token, None).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap();
    assert_eq!(header("content-type"), "text/event-stream");
    assert_eq!(header("cache-control"), "no-cache, no-transform");
    assert_eq!(header("countersign-heartbeat-sec"), "20");
    assert_eq!(header("x-accel-buffering"), "no");
    let mut stream = Stream { body: response.into_body() };

    let first = stream.next().await.unwrap();
    assert!(
        first.starts_with("retry: 2000\n\nevent: state\nid: 1\ndata: {\"status\":\"awaiting_personas\","),
        "{first}"
    );
    assert!(stream.is_silent().await);
    server.press("U7", "persona_ack:security", &id).await;
    assert_eq!(stream.state().await, (2, "ready_for_approval".into()));
    // A refused act is not a change.
    server.press("U7", "persona_ack:security", &id).await;
    assert!(stream.is_silent().await);
    server.press("U1", "approve", &id).await;
    assert_eq!(stream.state().await, (3, "approved".into()));
    assert_eq!(stream.next().await, None);
    assert_eq!(server.app.gateway.watchers().watched(), 0, "nothing is left over");
}

#[tokio::test]
async fn a_stream_resumes_where_it_broke() {
    let server = TestServer::new().await;
    let (id, token) = server.open("guarded").await;
    server.press("U7", "persona_ack:security", &id).await;

    // Behind: it gets the newest state.
    let mut behind = server.listen(&token, Some(1)).await;
    assert_eq!(behind.state().await.0, 2);
    // Up to date: it gets later changes only.
    let mut up_to_date = server.listen(&token, Some(2)).await;
    assert_eq!(up_to_date.next().await.unwrap(), "retry: 2000\n\n");
    assert!(up_to_date.is_silent().await);
    // An impossible version: it does not wait for one that will not come.
    let mut ahead = server.listen(&token, Some(99)).await;
    assert_eq!(ahead.next().await.unwrap(), "retry: 2000\n\n");

    server.press("U1", "approve", &id).await;
    for stream in [&mut behind, &mut up_to_date, &mut ahead] {
        assert_eq!(stream.state().await, (3, "approved".into()));
        assert_eq!(stream.next().await, None);
    }
    // Ended: a client that has not seen the last state gets it; one that has gets 204.
    let mut late = server.listen(&token, Some(2)).await;
    assert_eq!(late.state().await, (3, "approved".into()));
    assert_eq!(late.next().await, None);
    assert_eq!(server.stream(&token, Some(3)).await.status(), 204);
    let mut new = server.listen(&token, None).await;
    assert_eq!(new.state().await.0, 3);
}

#[tokio::test]
async fn a_stream_that_lags_behind_catches_up() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let mut stream = server.listen(&token, None).await;
    assert_eq!(stream.state().await.0, 1);
    for _ in 0..10 {
        server.press("U1", "approve", &id).await;
        server.press("U1", "withdraw", &id).await;
    }
    // More changes than are buffered for a slow reader: it gets only the newest, and only once.
    assert_eq!(stream.state().await.0, 21);
    assert!(stream.is_silent().await);
    server.press("U1", "deny", &id).await;
    assert_eq!(stream.state().await, (22, "denied".into()));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn an_idle_stream_sends_heartbeats() {
    let server = TestServer::new().await;
    let (_, token) = server.open("deploy").await;
    let mut stream = server.listen(&token, None).await;
    stream.state().await;
    // From here on the test controls the time.
    tokio::time::pause();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(stream.is_silent().await);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(stream.next().await.unwrap(), HEARTBEAT);
    }
}

#[tokio::test]
async fn how_often_heartbeats_come_is_a_setting() {
    let server = TestServer::with(&[("SSE_HEARTBEAT_SEC", "5")]).await;
    let (_, token) = server.open("deploy").await;
    let response = server.stream(&token, None).await;
    assert_eq!(response.headers()["countersign-heartbeat-sec"], "5");
    let mut stream = Stream { body: response.into_body() };
    stream.state().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(3_900)).await;
    assert!(stream.is_silent().await);
    tokio::time::advance(Duration::from_millis(1_100)).await;
    assert_eq!(stream.next().await.unwrap(), HEARTBEAT);
}

const HEARTBEAT: &str = "event: heartbeat\ndata: {\"at\":\"2026-05-28T20:26:40.000Z\"}\n\n";

/// The store answers with an error, and has stored the change or not: nobody tells the streams of it, so they look.
#[tokio::test]
async fn a_stream_reads_at_its_heartbeat_what_nobody_told_it_of() {
    let server = TestServer::new().await;
    // A press that was kept would have the next one of the same person wait behind it.
    server.lose_spool();
    let (id, token) = server.open("deploy").await;
    let mut stream = server.listen(&token, None).await;
    assert_eq!(stream.state().await.0, 1);
    let act = async |fault: Fault, user: &str| {
        server.faults.set(fault);
        let answer = server.press(user, "approve", &id).await;
        server.faults.set(Fault::None);
        answer
    };
    let second = async |stream: &mut Stream| {
        tokio::time::pause();
        assert!(stream.is_silent().await);
        tokio::time::advance(Duration::from_secs(20)).await;
        let text = stream.next().await.unwrap();
        tokio::time::resume();
        text
    };
    act(Fault::NotStored, "U1").await;
    assert_eq!(second(&mut stream).await, HEARTBEAT, "nothing is told of what is not stored");
    act(Fault::Stored, "U1").await;
    let state = second(&mut stream).await;
    assert!(state.starts_with("event: state\nid: 2\n") && state.contains(r#""approvers":["U1"]"#), "{state}");
    assert_eq!(second(&mut stream).await, HEARTBEAT, "it is sent once");
    // Later versions come as ever, and the last one is found, too.
    assert_eq!(server.press("U1", "withdraw", &id).await["ok"], true);
    assert_eq!(stream.state().await.0, 3);
    act(Fault::None, "U2").await;
    assert_eq!(stream.state().await.0, 4);
    act(Fault::Stored, "U3").await;
    assert!(second(&mut stream).await.contains(r#""status":"approved""#));
    assert_eq!(stream.next().await, None);
}

/// Whoever misses something reads the store; if that is away, it is read later.
#[tokio::test]
async fn a_stream_stays_up_while_the_store_cannot_be_read() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let mut stream = server.listen(&token, None).await;
    assert_eq!(stream.state().await.0, 1);
    server.faults.set_unreadable(true);
    server.app.gateway.hear(&Change::Missed);
    tokio::time::pause();
    assert!(stream.is_silent().await);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(stream.next().await.unwrap(), HEARTBEAT, "it looks again before its time");
    tokio::time::resume();
    server.faults.set_unreadable(false);
    assert_eq!(server.press("U1", "approve", &id).await["ok"], true);
    assert_eq!(stream.state().await.0, 2);
}

/// The same for a long-poll, which looks before it answers.
#[tokio::test]
async fn a_long_poll_answers_with_what_nobody_told_it_of() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let path = format!("/api/guard/wait?token={token}&timeoutSec=30");
    let mut polled = std::pin::pin!(server.get(&path));
    // It reads the store first, on another thread.
    while server.app.gateway.watchers().watched() == 0 {
        assert!(polled.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    server.faults.set(Fault::Stored);
    server.press("U1", "approve", &id).await;
    assert!(polled.as_mut().now_or_never().is_none());
    tokio::time::pause();
    let answer = polled.await;
    assert_eq!((answer.status.as_u16(), &answer.json()["approvers"]), (200, &json!(["U1"])));
}

/// Each heartbeat reads the store, so those of streams that were opened at once must not come at once.
#[tokio::test]
async fn heartbeats_of_many_streams_are_spread() {
    let server = TestServer::new().await;
    let (_, token) = server.open("deploy").await;
    tokio::time::pause();
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = server.listen(&token, None).await;
        stream.next().await.unwrap();
        streams.push(stream);
    }
    tokio::time::advance(Duration::from_secs(18)).await;
    let mut beaten = 0;
    for stream in &mut streams {
        // Time passes only once the store was read, which happens on another thread.
        beaten += usize::from(tokio::time::timeout(Duration::from_millis(1), stream.next()).await.is_ok());
    }
    // That all or none of them come in the first half of the 4 s has a probability of 2 in 2^40.
    assert!((1..40).contains(&beaten), "{beaten}");
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_says_when_to_reconnect() {
    let server = TestServer::new().await;
    let (_, token) = server.open("deploy").await;
    let mut stream = server.listen(&token, None).await;
    stream.state().await;
    server.app.shutdown.cancel();
    let last = stream.next().await.unwrap();
    let retry: u64 =
        last.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap().parse().unwrap();
    assert!((2000..5000).contains(&retry), "{retry}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn streams_are_capped_and_counted() {
    // One address may hold half of them.
    let server = TestServer::with(&[("SSE_MAX_CONNECTIONS", "4")]).await;
    let (_, token) = server.open("deploy").await;
    let first = server.listen(&token, None).await;
    let _second = server.listen(&token, None).await;
    assert!(server.metric("sse_connections 2").await);
    let refused = server.get(&format!("/api/guard/wait-sse?token={token}")).await;
    insta::assert_snapshot!(refused.shown(), @r#"
    503 Service Unavailable
    content-type: application/problem+json
    retry-after: 10
    {
      "detail": "too many streams are open; poll `/api/guard/wait` instead",
      "error": "too_many_streams",
      "status": 503,
      "title": "Service Unavailable",
      "type": "urn:countersign:problem:too_many_streams"
    }
    "#);
    drop(first);
    assert!(server.metric("sse_connections 1").await);
    let _third = server.listen(&token, None).await;
    // A refused stream takes no slot.
    assert_eq!(server.get("/api/guard/wait-sse?token=x").await.status, 404);
    assert!(server.metric("sse_connections 2").await);
}
