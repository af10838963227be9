//! Without an access file the gateway answers this machine only: a call that came through a proxy, or under another name
//! than this machine's, comes from elsewhere and is refused. Slack's route has its own proof.

use axum::extract::Request;
use axum::http::{HeaderMap, Uri, header};
use countersign_core::loopback::is_loopback;

use super::error::ApiError;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// The route that Slack's signature guards.
const SLACK: &str = "/api/slack/interactions";

/// Refuses calls from elsewhere, if nobody authenticates callers.
pub(super) fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let is_closed = app.access.is_none() && !app.insecure_anonymous;
    if is_closed && request.uri().path() != SLACK && comes_from_elsewhere(request.uri(), request.headers()) {
        app.metrics.count(SecurityEvent::Proxied);
        tracing::warn!("call rejected: it came through a proxy, and there is no access file");
        return Err(ApiError::Proxied);
    }
    Ok(())
}

fn comes_from_elsewhere(target: &Uri, headers: &HeaderMap) -> bool {
    let forwarded = |name: &str| {
        matches!(name, "forwarded" | "via" | "x-real-ip" | "cf-connecting-ip")
            || name.starts_with("x-forwarded-")
    };
    if headers.keys().any(|name| forwarded(name.as_str())) {
        return true;
    }
    // A target with a host, as in `GET http://gate.example/ HTTP/1.1`, overrides the header.
    if target.host().is_some_and(|host| !is_loopback(host)) {
        return true;
    }
    // Of two hosts a proxy may have looked at the other one.
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = hosts.next();
    hosts.next().is_some()
        || first.is_some_and(|host| !host.to_str().is_ok_and(|host| is_loopback(without_port(host))))
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
    use std::sync::LazyLock;

    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    static PATH: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("/api/guard/status"));

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
            assert_eq!(comes_from_elsewhere(&PATH, &headers), expected, "{name}: {value}");
        }
        assert!(!comes_from_elsewhere(&PATH, &HeaderMap::new()));
    }

    #[test]
    fn a_call_names_one_host() {
        let hosts = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::HOST, HeaderValue::from_static(value));
            }
            headers
        };
        for (values, expected) in [
            (&["localhost"][..], false),
            (&["localhost", "localhost"], true),
            (&["localhost", "gate.acme.example"], true),
            (&["gate.acme.example", "localhost"], true),
            (&["", "localhost"], true),
        ] {
            assert_eq!(comes_from_elsewhere(&PATH, &hosts(values)), expected, "{values:?}");
        }
        for (target, expected) in [
            ("http://localhost/healthz", false),
            ("http://127.0.0.1:8080/healthz", false),
            ("http://[::1]:8080/healthz", false),
            ("http://gate.acme.example/healthz", true),
            ("http://localhost.gate.acme.example/healthz", true),
            ("http://localhost@gate.acme.example/healthz", true),
            ("http://localhost:80@gate.acme.example/healthz", true),
            ("//gate.acme.example/healthz", false),
        ] {
            let uri: Uri = target.parse().unwrap();
            assert_eq!(comes_from_elsewhere(&uri, &hosts(&["localhost"])), expected, "{target}");
        }
        let local: Uri = "http://localhost/healthz".parse().unwrap();
        assert!(comes_from_elsewhere(&local, &hosts(&["gate.acme.example"])));
    }
}
