//! Metrics of TLS: reloads, and when what is in force ends.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::InForce;
use crate::telemetry::unix_seconds;

/// Metrics of TLS.
#[derive(Clone)]
pub(crate) struct TlsMetrics {
    reloads: IntCounterVec,
    certificate_until: IntGaugeVec,
    lists_until: IntGaugeVec,
}

impl TlsMetrics {
    /// Metrics of no listener yet.
    ///
    /// # Errors
    /// If they are registered already.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<TlsMetrics> {
        let reloads = Opts::new("tls_reloads_total", "Attempts to read the TLS files of a listener again.");
        let certificate_until = Opts::new(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener ends, in Unix time.",
        );
        let lists_until = Opts::new(
            "tls_revocation_list_expiry_timestamp_seconds",
            "When the first revocation list of a listener runs out, in Unix time.",
        );
        let metrics = TlsMetrics {
            reloads: IntCounterVec::new(reloads, &["listener", "outcome"])?,
            certificate_until: IntGaugeVec::new(certificate_until, &["listener"])?,
            lists_until: IntGaugeVec::new(lists_until, &["listener"])?,
        };
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.certificate_until.clone()))?;
        registry.register(Box::new(metrics.lists_until.clone()))?;
        Ok(metrics)
    }

    pub(super) fn in_force(&self, listener: &str, in_force: &InForce) {
        for outcome in ["ok", "failed"] {
            self.reloads.with_label_values(&[listener, outcome]);
        }
        self.certificate_until.with_label_values(&[listener]).set(unix_seconds(in_force.certificate_until()));
        match in_force.lists_until() {
            Some(until) => self.lists_until.with_label_values(&[listener]).set(unix_seconds(until)),
            // It fails if there was none before, either.
            None => drop(self.lists_until.remove_label_values(&[listener])),
        }
    }

    pub(super) fn reloaded(&self, listener: &str, is_ok: bool) {
        self.reloads.with_label_values(&[listener, if is_ok { "ok" } else { "failed" }]).inc();
    }
}
