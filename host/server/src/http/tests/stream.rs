//! Event streams.

use std::time::Duration;

use axum::http::Response;
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
    assert_eq!(header("cache-control"), "no-cache");
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
        let heartbeat = stream.next().await.unwrap();
        assert_eq!(heartbeat, "event: heartbeat\ndata: {\"at\":\"2026-05-28T20:26:40.000Z\"}\n\n");
    }
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
