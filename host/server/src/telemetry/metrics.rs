//! Metrics of this process, which start at zero with it.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_core::clock::Monotonic;
use countersign_core::lifecycle::Timestamp;
use countersign_slack::{BreakerState, Budget, InteractionError};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Upper bounds of the buckets of `http_request_duration_seconds`, in seconds. A long-poll may wait for a minute.
const HTTP_BUCKETS: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0, 60.0];

/// Upper bounds of the buckets of `store_probe_seconds`, in seconds.
const PROBE_BUCKETS: [f64; 9] = [0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Why a gateway is degraded: the codes of `degraded` in `/readyz`.
const DEGRADED: [&str; 11] = [
    "store_unavailable",
    "audit",
    "slack_degraded",
    "slack_stalled",
    "slack_down",
    "slack_unauthorized",
    "policy_set_held_back",
    "access_file_held_back",
    "access_file_outdated",
    "presses_spooled",
    "request_archive",
];

/// A rejected call or act that may be an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityEvent {
    /// A call of Slack or of a CI system without a valid signature.
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
    /// A client that sent or read too slowly.
    SlowClient,
    /// A header of a trusted proxy that could not be read as far as it had to be.
    ProxyHeader,
    /// A TLS handshake failed, but not for the client's certificate.
    TlsHandshake,
    /// A client certificate that does not count, or none where one is required.
    ClientCertificate,
    /// A call came through a proxy, although nobody authenticates callers.
    Proxied,
}

impl SecurityEvent {
    const ALL: [SecurityEvent; 16] = [
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
        SecurityEvent::SlowClient,
        SecurityEvent::ProxyHeader,
        SecurityEvent::TlsHandshake,
        SecurityEvent::ClientCertificate,
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
            SecurityEvent::SlowClient => "slow_client",
            SecurityEvent::ProxyHeader => "proxy_header_unreadable",
            SecurityEvent::TlsHandshake => "tls_handshake_failed",
            SecurityEvent::ClientCertificate => "client_certificate_rejected",
            SecurityEvent::Proxied => "proxied",
        }
    }
}

/// Metrics of this process.
pub struct Metrics {
    registry: Registry,
    security: IntCounterVec,
    unreadable: IntCounterVec,
    calls: HistogramVec,
    probes: Histogram,
    degraded: IntGaugeVec,
    keys_until: IntGaugeVec,
    slack: SlackBudgets,
    shows_stored: IntGauge,
}

/// What is left of Slack's rate limits, and whether Slack may be called.
struct SlackBudgets {
    left: GaugeVec,
    blocked: GaugeVec,
    breaker: IntGaugeVec,
}

impl SlackBudgets {
    fn new(registry: &Registry) -> prometheus::Result<SlackBudgets> {
        let left = GaugeVec::new(
            Opts::new(
                "slack_rate_limit_calls_left",
                "Calls of a method that its rate limit allows at once; of posts, those to the channel with the fewest.",
            ),
            &["method"],
        )?;
        let blocked = GaugeVec::new(
            Opts::new(
                "slack_rate_limit_blocked_seconds",
                "How long Slack takes no call of a method, as it said; of posts, to the channel with the longest wait.",
            ),
            &["method"],
        )?;
        let breaker = IntGaugeVec::new(
            Opts::new(
                "slack_circuit_breaker",
                "1 for the state of the circuit breaker: open if Slack does not answer, unauthorized if it refuses the token.",
            ),
            &["state"],
        )?;
        registry.register(Box::new(left.clone()))?;
        registry.register(Box::new(blocked.clone()))?;
        registry.register(Box::new(breaker.clone()))?;
        Ok(SlackBudgets { left, blocked, breaker })
    }
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
        registry.register(Box::new(security.clone()))?;
        for event in SecurityEvent::ALL {
            security.with_label_values(&[event.as_str()]);
        }
        let unreadable = IntCounterVec::new(
            Opts::new(
                "slack_unreadable_interactions_total",
                "Interactions from Slack that cannot be read, or are of no request.",
            ),
            &["code"],
        )?;
        registry.register(Box::new(unreadable.clone()))?;
        for error in InteractionError::ALL {
            unreadable.with_label_values(&[error.code()]);
        }
        let calls = HistogramVec::new(
            HistogramOpts::new(
                "http_request_duration_seconds",
                "Time from a call's headers to those of its answer. `route` is the pattern of the path.",
            )
            .buckets(HTTP_BUCKETS.to_vec()),
            &["route", "method", "status"],
        )?;
        registry.register(Box::new(calls.clone()))?;
        let probes = Histogram::with_opts(
            HistogramOpts::new("store_probe_seconds", "Time of a trial write, which is made each second.")
                .buckets(PROBE_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(probes.clone()))?;
        let degraded = IntGaugeVec::new(
            Opts::new("gateway_degraded", "1 if the gateway is degraded for this reason, as `/readyz` says."),
            &["reason"],
        )?;
        registry.register(Box::new(degraded.clone()))?;
        let keys_until = IntGaugeVec::new(
            Opts::new(
                "access_key_expiry_timestamp_seconds",
                "When the first of the callers, or admins, has no API key any more that counts, in Unix time.",
            ),
            &["holder"],
        )?;
        registry.register(Box::new(keys_until.clone()))?;
        let slack = SlackBudgets::new(&registry)?;
        let shows_stored = IntGauge::new(
            "stored_metrics_shown",
            "1 if this instance shows what the store counts for all instances; one of them does at a time.",
        )?;
        registry.register(Box::new(shows_stored.clone()))?;
        let build = IntGaugeVec::new(
            Opts::new("countersign_build_info", "1. The version is that of the program."),
            &["version"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Metrics {
            registry,
            security,
            unreadable,
            calls,
            probes,
            degraded,
            keys_until,
            slack,
            shows_stored,
        })
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

    /// Counts an interaction from Slack that cannot be read.
    pub(crate) fn count_unreadable(&self, error: InteractionError) {
        self.unreadable.with_label_values(&[error.code()]).inc();
    }

    /// Measures an answer to a call. `route` is the pattern of its path.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let status = status.to_string();
        self.calls.with_label_values(&[route, method, &status]).observe(took.as_secs_f64());
    }

    /// Measures a trial of the store.
    pub(crate) fn probed(&self, took: Duration) {
        self.probes.observe(took.as_secs_f64());
    }

    /// Says why the gateway is degraded, by the codes of [`DEGRADED`].
    pub(crate) fn set_degraded(&self, reasons: &[&str]) {
        for reason in DEGRADED {
            self.degraded.with_label_values(&[reason]).set(reasons.contains(&reason).into());
        }
    }

    /// Says when the first of the callers has no API key any more that counts, and the first of the admins.
    pub(crate) fn set_keys_end(&self, callers: Option<Timestamp>, admins: Option<Timestamp>) {
        for (holder, until) in [("caller", callers), ("admin", admins)] {
            match until {
                Some(until) => self.keys_until.with_label_values(&[holder]).set(unix_seconds(until)),
                // It fails if there was none before, either.
                None => drop(self.keys_until.remove_label_values(&[holder])),
            }
        }
    }

    /// Says what is left of Slack's rate limits, and whether Slack may be called.
    pub(crate) fn set_slack(&self, breaker: &BreakerState, budgets: &[Budget], now: Monotonic) {
        let SlackBudgets { left, blocked, breaker: states } = &self.slack;
        for state in BreakerState::NAMES {
            states.with_label_values(&[state]).set((state == breaker.as_str()).into());
        }
        let mut methods: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for budget in budgets {
            let wait = budget.blocked_until.map_or(0, |until| until.since(now));
            let wait = Duration::from_millis(wait).as_secs_f64();
            let of_method = methods.entry(budget.method).or_insert((budget.left, wait));
            *of_method = (of_method.0.min(budget.left), of_method.1.max(wait));
        }
        for (method, (calls, wait)) in methods {
            left.with_label_values(&[method]).set(calls);
            blocked.with_label_values(&[method]).set(wait);
        }
    }

    /// Says whether this instance shows what the store counts.
    pub(crate) fn set_shows_stored(&self, does: bool) {
        self.shows_stored.set(does.into());
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

/// A time as Prometheus takes it.
pub(crate) fn unix_seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis() / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_security_event_starts_at_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.count(SecurityEvent::Replay);
        metrics.set_degraded(&["audit"]);
        let text = metrics.render(Vec::new());
        let shown = text.lines().filter(|line| {
            ["security_events", "slack_unreadable", "gateway_degraded"].iter().any(|name| line.contains(name))
        });
        insta::assert_snapshot!(shown.collect::<Vec<_>>().join("\n"), @r#"
        # HELP gateway_degraded 1 if the gateway is degraded for this reason, as `/readyz` says.
        # TYPE gateway_degraded gauge
        gateway_degraded{reason="access_file_held_back"} 0
        gateway_degraded{reason="access_file_outdated"} 0
        gateway_degraded{reason="audit"} 1
        gateway_degraded{reason="policy_set_held_back"} 0
        gateway_degraded{reason="presses_spooled"} 0
        gateway_degraded{reason="request_archive"} 0
        gateway_degraded{reason="slack_degraded"} 0
        gateway_degraded{reason="slack_down"} 0
        gateway_degraded{reason="slack_stalled"} 0
        gateway_degraded{reason="slack_unauthorized"} 0
        gateway_degraded{reason="store_unavailable"} 0
        # HELP security_events_total Calls and acts that were turned away for the sake of security.
        # TYPE security_events_total counter
        security_events_total{type="bad_signature"} 0
        security_events_total{type="caller_not_allowed"} 0
        security_events_total{type="client_certificate_rejected"} 0
        security_events_total{type="connection_refused"} 0
        security_events_total{type="foreign_workspace"} 0
        security_events_total{type="proxied"} 0
        security_events_total{type="proxy_header_unreadable"} 0
        security_events_total{type="rate_limited"} 0
        security_events_total{type="replay"} 1
        security_events_total{type="requester_mismatch"} 0
        security_events_total{type="role_missing"} 0
        security_events_total{type="slow_client"} 0
        security_events_total{type="stale_signature"} 0
        security_events_total{type="tls_handshake_failed"} 0
        security_events_total{type="unauthenticated"} 0
        security_events_total{type="unauthorized"} 0
        # HELP slack_unreadable_interactions_total Interactions from Slack that cannot be read, or are of no request.
        # TYPE slack_unreadable_interactions_total counter
        slack_unreadable_interactions_total{code="invalid_hash"} 0
        slack_unreadable_interactions_total{code="invalid_payload"} 0
        slack_unreadable_interactions_total{code="not_found"} 0
        slack_unreadable_interactions_total{code="unknown_interaction"} 0
        "#);
    }
}
