//! `GET /api/guard/wait-sse`: a caller hears of every change as it happens.
//!
//! An idle stream is one small future inside its connection's: it has no task and no buffer of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::connection::LongLived;
use super::error::{ApiError, Problem};
use super::params::Params;
use super::view::WaitView;
use crate::app::App;
use crate::telemetry::StreamSlot;
use countersign_core::lifecycle::{Request, RequestId};
use countersign_gateway::{GatewayError, Seen, Tokens, Watch};

/// How often a stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// How soon a client that lost its stream should come back, in milliseconds.
const RETRY_MS: u64 = 2000;

/// Over how many milliseconds the clients of a gateway that shuts down should spread their return.
const SPREAD_MS: u64 = 3000;

/// Streams a request's changes until it has ended.
#[utoipa::path(
    get,
    path = "/api/guard/wait-sse",
    params(
        ("token" = Option<String>, Query, description = "The wait token, unless it comes as `Authorization: Bearer`."),
        ("Last-Event-ID" = Option<String>, Header, description = "The version that was last seen: only newer ones are sent."),
    ),
    responses(
        (status = 200, description = "`event: state` at once and at every change, with the request's version as `id`; \
            `event: heartbeat` every 20 s; ends after a terminal state", body = WaitView, content_type = "text/event-stream"),
        (status = 204, description = "The request has ended, and the client has seen how: do not come back"),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`too_many_streams` or `store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let token = params.token(None)?;
    let id = Tokens::names(token).ok_or(GatewayError::NotFound)?;
    let slot = app.metrics.open_stream(app.most_streams).ok_or(ApiError::TooManyStreams)?;
    // Watch first and read after, so that no change falls between the two.
    let watch = app.gateway.watchers().watch(id);
    let request = app.gateway.opened_by(token).await?;
    watch.read(request.version);
    // What is no version of ours was not seen from us: the client gets the state once more.
    let seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let unseen = seen.is_none_or(|seen| seen < request.version);
    if request.status().is_terminal() && !unseen {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let feed = Feed {
        watch,
        id,
        seen: seen.unwrap_or_default().min(request.version),
        first: Some(unseen.then_some(request)),
        ended: false,
        heartbeat: Instant::now() + HEARTBEAT,
        _slot: slot,
        app,
    };
    let events = futures_util::stream::unfold(feed, Feed::next);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Proxies that buffer would hold the decision back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Extension(LongLived), Body::from_stream(events)).into_response())
}

/// One open stream.
struct Feed {
    watch: Watch,
    id: RequestId,
    /// The version that the client has seen.
    seen: u64,
    /// What to begin with; the state in it is left out where the client has seen it.
    first: Option<Option<Arc<Request>>>,
    ended: bool,
    heartbeat: Instant,
    /// Counts the stream as open, until it is dropped.
    _slot: StreamSlot,
    app: Arc<App>,
}

impl Feed {
    /// The next thing to send.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Feed)> {
        if self.ended {
            return None;
        }
        let text = match self.first.take() {
            Some(request) => {
                let state = request.map(|request| self.state(&request)).unwrap_or_default();
                format!("retry: {RETRY_MS}\n\n{state}")
            }
            None => self.wait().await,
        };
        Some((Ok(Bytes::from(text)), self))
    }

    async fn wait(&mut self) -> String {
        loop {
            tokio::select! {
                biased;
                seen = self.watch.next() => {
                    let newest = match seen {
                        Seen::Version(request) => Some(request),
                        Seen::Lagged => match self.app.gateway.store().request(self.id).await {
                            Ok(request) => request.map(Arc::new),
                            Err(error) => {
                                ApiError::from(error).log();
                                return self.end(RETRY_MS);
                            }
                        },
                    };
                    if let Some(request) = newest.filter(|request| request.version > self.seen) {
                        return self.state(&request);
                    }
                }
                () = self.app.shutdown.cancelled() => {
                    // Not all at once: whoever comes after us has to take them all.
                    let version = u64::from(self.id.shard());
                    return self.end(RETRY_MS + version % SPREAD_MS);
                }
                () = tokio::time::sleep_until(self.heartbeat) => {
                    self.heartbeat += HEARTBEAT;
                    let data = json!({"at": self.app.gateway.clock().now().to_string()});
                    return format!("event: heartbeat\ndata: {data}\n\n");
                }
            }
        }
    }

    fn state(&mut self, request: &Request) -> String {
        self.seen = request.version;
        self.ended = request.status().is_terminal();
        // JSON has no line breaks outside of strings, and none inside: one `data` line holds it.
        let data = serde_json::to_string(&WaitView::of(request)).unwrap_or_default();
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

    /// An idle stream has a budget of 12 KiB, its socket and its connection's task included.
    #[test]
    fn a_stream_is_small() {
        let (feed, next) = (size_of::<Feed>(), future_size(Feed::next));
        assert!(feed <= 200 && next <= 800, "{feed} {next}");
    }

    fn future_size<F>(_: impl Fn(Feed) -> F) -> usize {
        size_of::<F>()
    }
}
