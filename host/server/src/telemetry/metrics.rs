//! Metrics of this process, which start at zero with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// A rejected call or act that may be an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityEvent {
    /// A Slack interaction without a valid signature.
    BadSignature,
    /// A Slack interaction that was signed too long ago, or in the future.
    StaleSignature,
    /// A Slack interaction that was received before.
    Replay,
    /// A client address over its rate limit.
    RateLimited,
    /// Somebody acted without being entitled to.
    Unauthorized,
    /// Somebody of another Slack workspace acted.
    ForeignWorkspace,
    /// A call without credentials of a caller, or with wrong ones.
    Unauthenticated,
    /// A caller asked for an action that it may not ask for.
    CallerNotAllowed,
    /// An admin called without the role that the call needs.
    RoleMissing,
    /// A caller named another requester than its token does.
    RequesterMismatch,
    /// A connection over the limit.
    ConnectionRefused,
    /// A call came through a proxy, although nobody authenticates callers.
    Proxied,
}

impl SecurityEvent {
    const ALL: [SecurityEvent; 12] = [
        SecurityEvent::BadSignature,
        SecurityEvent::StaleSignature,
        SecurityEvent::Replay,
        SecurityEvent::RateLimited,
        SecurityEvent::Unauthorized,
        SecurityEvent::ForeignWorkspace,
        SecurityEvent::Unauthenticated,
        SecurityEvent::CallerNotAllowed,
        SecurityEvent::RoleMissing,
        SecurityEvent::RequesterMismatch,
        SecurityEvent::ConnectionRefused,
        SecurityEvent::Proxied,
    ];

    /// The value of the metric label `type`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            SecurityEvent::BadSignature => "bad_signature",
            SecurityEvent::StaleSignature => "stale_signature",
            SecurityEvent::Replay => "replay",
            SecurityEvent::RateLimited => "rate_limited",
            SecurityEvent::Unauthorized => "unauthorized",
            SecurityEvent::ForeignWorkspace => "foreign_workspace",
            SecurityEvent::Unauthenticated => "unauthenticated",
            SecurityEvent::CallerNotAllowed => "caller_not_allowed",
            SecurityEvent::RoleMissing => "role_missing",
            SecurityEvent::RequesterMismatch => "requester_mismatch",
            SecurityEvent::ConnectionRefused => "connection_refused",
            SecurityEvent::Proxied => "proxied",
        }
    }
}

/// Metrics of this process.
pub struct Metrics {
    registry: Registry,
    security: IntCounterVec,
    streams: Arc<Streams>,
}

struct Streams {
    open: AtomicUsize,
    shown: IntGauge,
}

impl Metrics {
    /// Metrics, all at zero.
    ///
    /// # Errors
    /// If two have the same name.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let security = IntCounterVec::new(
            Opts::new(
                "security_events_total",
                "Calls and acts that were turned away for the sake of security.",
            ),
            &["type"],
        )?;
        let shown = IntGauge::new("sse_connections", "Open event streams.")?;
        registry.register(Box::new(security.clone()))?;
        registry.register(Box::new(shown.clone()))?;
        for event in SecurityEvent::ALL {
            security.with_label_values(&[event.as_str()]);
        }
        Ok(Metrics { registry, security, streams: Arc::new(Streams { open: AtomicUsize::new(0), shown }) })
    }

    /// The registry, to which other crates add their metrics.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a security event.
    pub fn count(&self, event: SecurityEvent) {
        self.security.with_label_values(&[event.as_str()]).inc();
    }

    /// Takes one of `max` slots for an event stream; dropping it releases it. `None` if all are taken.
    #[must_use]
    pub fn open_stream(&self, max: usize) -> Option<StreamSlot> {
        let one_more = |open: usize| Some(open + 1).filter(|open| *open <= max);
        self.streams.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        self.streams.shown.inc();
        Some(StreamSlot(Arc::clone(&self.streams)))
    }

    /// These metrics and `stored`, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self, stored: Vec<MetricFamily>) -> String {
        let mut families = self.registry.gather();
        families.extend(stored);
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = String::new();
        for family in families {
            if family.get_metric().is_empty() {
                // The encoder fails if a metric has no values yet.
                let kind = format!("{:?}", family.get_field_type()).to_lowercase();
                text.push_str(&format!("# HELP {0} {1}\n# TYPE {0} {kind}\n", family.name(), family.help()));
            } else if let Err(error) = TextEncoder::new().encode_utf8(&[family], &mut text) {
                tracing::error!(%error, "cannot encode metric");
            }
        }
        text
    }
}

/// The slot of an open event stream.
pub struct StreamSlot(Arc<Streams>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.shown.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_and_capped() {
        let metrics = Metrics::new().unwrap();
        let first = metrics.open_stream(2).unwrap();
        let second = metrics.open_stream(2).unwrap();
        assert!(metrics.open_stream(2).is_none());
        assert!(metrics.render(Vec::new()).contains("sse_connections 2\n"));
        drop(first);
        let third = metrics.open_stream(2).unwrap();
        drop((second, third));
        assert!(metrics.render(Vec::new()).contains("sse_connections 0\n"));
        assert!(metrics.open_stream(0).is_none());
    }

    #[test]
    fn every_security_event_starts_at_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.count(SecurityEvent::Replay);
        insta::assert_snapshot!(metrics.render(Vec::new()), @r#"
        # HELP security_events_total Calls and acts that were turned away for the sake of security.
        # TYPE security_events_total counter
        security_events_total{type="bad_signature"} 0
        security_events_total{type="caller_not_allowed"} 0
        security_events_total{type="connection_refused"} 0
        security_events_total{type="foreign_workspace"} 0
        security_events_total{type="proxied"} 0
        security_events_total{type="rate_limited"} 0
        security_events_total{type="replay"} 1
        security_events_total{type="requester_mismatch"} 0
        security_events_total{type="role_missing"} 0
        security_events_total{type="stale_signature"} 0
        security_events_total{type="unauthenticated"} 0
        security_events_total{type="unauthorized"} 0
        # HELP sse_connections Open event streams.
        # TYPE sse_connections gauge
        sse_connections 0
        "#);
    }
}
