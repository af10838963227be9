//! Without an access file the gateway answers this machine only: a call that came through a proxy, or under another name
//! than this machine's, comes from elsewhere and is refused. Slack's route has its own proof.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use countersign_core::loopback::is_loopback;

use super::error::ApiError;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// The route that Slack's signature guards.
const SLACK: &str = "/api/slack/interactions";

/// Refuses calls from elsewhere, if nobody authenticates callers.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_closed = app.access.is_none() && !app.insecure_anonymous;
    if is_closed && request.uri().path() != SLACK && comes_from_elsewhere(request.headers()) {
        app.metrics.count(SecurityEvent::Proxied);
        tracing::warn!("call rejected: it came through a proxy, and there is no access file");
        return ApiError::Proxied.into_response();
    }
    next.run(request).await
}

fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let forwarded = |name: &str| {
        matches!(name, "forwarded" | "via" | "x-real-ip" | "cf-connecting-ip")
            || name.starts_with("x-forwarded-")
    };
    if headers.keys().any(|name| forwarded(name.as_str())) {
        return true;
    }
    headers
        .get_all(header::HOST)
        .iter()
        .any(|host| !host.to_str().is_ok_and(|host| is_loopback(without_port(host))))
}

/// The host of `HOST[:PORT]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_comes_from_elsewhere_is_told_by_its_headers() {
        for (name, value, expected) in [
            ("host", "127.0.0.1:8080", false),
            ("host", "localhost", false),
            ("host", "LOCALHOST:80", false),
            ("host", "[::1]:8080", false),
            ("host", "[::1]", false),
            ("host", "gate.acme.example", true),
            ("host", "gate.acme.example:8080", true),
            ("host", "192.0.2.7", true),
            ("host", "localhost.evil.example", true),
            ("host", "127.0.0.1.evil.example", true),
            ("host", "", true),
            ("forwarded", "for=192.0.2.7", true),
            ("x-forwarded-for", "127.0.0.1", true),
            ("x-forwarded-host", "localhost", true),
            ("via", "1.1 proxy", true),
            ("user-agent", "curl", false),
        ] {
            let name = HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            assert_eq!(comes_from_elsewhere(&headers), expected, "{name}: {value}");
        }
        assert!(!comes_from_elsewhere(&HeaderMap::new()));
    }
}
