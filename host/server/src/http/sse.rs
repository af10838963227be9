//! `GET /api/guard/wait-sse`: an event stream with every change of a request.
//!
//! An idle stream is one small future within that of its connection: it has no task and no buffer of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use countersign_core::lifecycle::{Request, RequestId};
use countersign_gateway::{Seen, Watch};
use serde_json::json;
use tokio::time::Instant;

use super::caller::{Calling, Found, salt_for};
use super::end::End;
use super::error::ApiError;
use super::params::Params;
use super::takeover::LongLived;
use super::view::WaitView;
use super::wait::wanted;
use crate::state::App;
use crate::streams::StreamSlot;
use crate::telemetry::log_failure;

/// The header that says how long a stream is silent at most, in seconds, so that clients know when it was cut.
const HEARTBEAT_SEC: HeaderName = HeaderName::from_static("countersign-heartbeat-sec");

/// How soon a client should reconnect, in milliseconds.
const RETRY_MS: u64 = 2000;

/// Over how many milliseconds reconnections are spread after a shutdown.
const SPREAD_MS: u64 = 3000;

/// Streams the changes of a request until it has ended.
#[utoipa::path(
    get,
    path = "/api/guard/wait-sse",
    params(
        ("token" = Option<String>, Query, description = "The wait token, unless it comes as `Authorization: Bearer`."),
        ("requestId" = Option<RequestId>, Query, description = "The request, for its caller; not needed with a wait token."),
        ("Last-Event-ID" = Option<String>, Header, description = "The last version seen: only newer ones are sent."),
    ),
    responses(
        (status = 200, description = "`event: state` at once and at every change, with the request's version as `id`; \
            `event: heartbeat` at least every `Countersign-Heartbeat-Sec` seconds while nothing changes; ends after a terminal state", body = WaitView, content_type = "text/event-stream"),
        (status = 204, description = "The request has ended, and the client has seen its last state: do not reconnect"),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `proxied`; 404 `not_found`; 429 `rate_limited`"),
        (status = "5XX", description = "500 `internal`; \
            503 `too_many_streams` or `store_unavailable`, `store_full`, `store_timeout`, with `Retry-After`"),
    )
)]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    calling: Calling,
    params: Params,
) -> Result<Response, ApiError> {
    let Found { request, with_token } = calling.request(&app, &params, wanted(&params, None)?).await?;
    let id = request.id;
    let slot = calling.open_stream(&app, &request).ok_or(ApiError::TooManyStreams)?;
    // Watch before reading, so that no change is missed between the two.
    let watch = app.gateway.watchers().watch(id);
    let request = app.gateway.request(id).await?;
    watch.read(request.version);
    // An id that is no version of a request counts as nothing seen.
    let seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let unseen = seen.is_none_or(|seen| seen < request.version);
    if request.status().is_terminal() && !unseen {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let heartbeat_sec = HeaderValue::from(app.streams.heartbeat_sec());
    let feed = Feed {
        watch,
        id,
        seen: seen.unwrap_or_default().min(request.version),
        first: Some(unseen.then_some(request)),
        ended: false,
        with_token,
        heartbeat: next_heartbeat(&app),
        _slot: slot,
        app,
    };
    let events = futures_util::stream::unfold(feed, Feed::next);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // Whatever compresses an answer gathers it first.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        // A proxy must not buffer the decision.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        (HEARTBEAT_SEC, heartbeat_sec),
    ];
    Ok((headers, Extension(LongLived), Body::from_stream(events)).into_response())
}

/// How soon a heartbeat looks again for what could not be read. Not all streams at once.
fn again() -> Duration {
    Duration::from_millis(RETRY_MS + fastrand::u64(..SPREAD_MS))
}

/// When a stream reads its request again, and sends a heartbeat if there is nothing new. A random time in the last fifth,
/// since many streams open at the same moment after a restart, and each heartbeat reads the store.
fn next_heartbeat(app: &App) -> Instant {
    let most = u64::from(app.streams.heartbeat_sec()) * 1000;
    Instant::now() + Duration::from_millis(fastrand::u64(most * 4 / 5..=most))
}

/// One open stream.
struct Feed {
    watch: Watch,
    id: RequestId,
    /// The version that the client has seen.
    seen: u64,
    /// The first thing to send; the inner `None` if the client has seen the current state.
    first: Option<Option<Arc<Request>>>,
    ended: bool,
    /// Whether the client holds the wait token. The salt itself would make each stream larger.
    with_token: bool,
    heartbeat: Instant,
    /// Counts the stream as open until it is dropped.
    _slot: StreamSlot,
    app: Arc<App>,
}

/// What a stream hears of.
enum News {
    /// A version of its request that the client has not seen.
    Version(Arc<Request>),
    /// Anything else, as it is sent.
    Text(String),
}

impl Feed {
    /// The next thing to send.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Feed)> {
        if self.ended {
            return None;
        }
        let (mut text, request) = match self.first.take() {
            Some(request) => (format!("retry: {RETRY_MS}\n\n"), request),
            None => match self.wait().await {
                News::Version(request) => (String::new(), Some(request)),
                News::Text(text) => (text, None),
            },
        };
        if let Some(request) = request {
            // Boxed, since it is needed once, and the stream would be larger all the time.
            let end = Box::pin(End::of(&self.app, &request, self.with_token)).await;
            text.push_str(&self.state(&request, end));
        }
        Some((Ok(Bytes::from(text)), self))
    }

    async fn wait(&mut self) -> News {
        loop {
            let is_heartbeat = tokio::select! {
                biased;
                seen = self.watch.next() => match seen {
                    Seen::Version(request) if request.version > self.seen => return News::Version(request),
                    Seen::Version(_) => continue,
                    Seen::Lagged => false,
                },
                () = self.app.shutdown.cancelled() => {
                    // Not all at once: the next instance has to accept them all.
                    let shard = u64::from(self.id.shard());
                    return News::Text(self.end(RETRY_MS + shard % SPREAD_MS));
                }
                () = tokio::time::sleep_until(self.heartbeat) => {
                    self.heartbeat = next_heartbeat(&self.app);
                    true
                }
            };
            // Nobody tells this stream of what another process stored, nor of a write that was stored although the store
            // answered with an error.
            match self.app.gateway.store().request(self.id).await {
                Ok(Some(request)) if request.version > self.seen => return News::Version(Arc::new(request)),
                // The stream stays up while the store is away: it has said nothing that is false.
                Err(error) if !is_heartbeat => {
                    log_failure(&error.into(), Some(self.id));
                    self.heartbeat = self.heartbeat.min(Instant::now() + again());
                }
                // What cannot be read now is read at the next heartbeat.
                Ok(_) | Err(_) if is_heartbeat => {
                    let data = json!({"at": self.app.gateway.clock().now().to_string()});
                    return News::Text(format!("event: heartbeat\ndata: {data}\n\n"));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn state(&mut self, request: &Request, end: End) -> String {
        self.seen = request.version;
        self.ended = request.status().is_terminal();
        // Compact JSON has no line breaks, so one `data` line is enough.
        let salt = salt_for(&self.app, request, self.with_token);
        let view = WaitView::of(request, salt, self.app.gateway.clock().now()).with_end(end);
        let data = serde_json::to_string(&view).unwrap_or_default();
        format!("event: state\nid: {}\ndata: {data}\n\n", request.version)
    }

    fn end(&mut self, retry_ms: u64) -> String {
        self.ended = true;
        format!("retry: {retry_ms}\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory budget of an idle stream is 12 KiB, including its socket and the task of its connection.
    #[test]
    fn a_stream_is_small() {
        let (feed, next) = (size_of::<Feed>(), future_size(Feed::next));
        assert!(feed <= 200 && next <= 800, "{feed} {next}");
    }

    fn future_size<F>(_: impl Fn(Feed) -> F) -> usize {
        size_of::<F>()
    }
}
