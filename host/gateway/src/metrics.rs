//! What the gateway counts in this process. Whatever is stored is counted with it, in the store.

use prometheus::{IntCounter, IntGauge, Registry};

/// The gateway's metrics.
pub(crate) struct GatewayMetrics {
    /// Judgements that were refused because the policies of their action are slow and too much waits for them.
    pub(crate) overloads: IntCounter,
    /// Requests that the scheduler leaves alone, because something in the gateway breaks on them.
    pub(crate) quarantined: IntGauge,
}

impl Default for GatewayMetrics {
    fn default() -> GatewayMetrics {
        #[expect(clippy::expect_used, reason = "the names are constant and sound")]
        let (overloads, quarantined) = (
            IntCounter::new(
                "policy_overloads_total",
                "Calls that were refused because too much waits for the policies of their action.",
            )
            .expect("a metric"),
            IntGauge::new(
                "requests_quarantined",
                "Due requests that are left alone, because something in the gateway breaks on them.",
            )
            .expect("a metric"),
        );
        GatewayMetrics { overloads, quarantined }
    }
}

impl GatewayMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.overloads.clone()))?;
        registry.register(Box::new(self.quarantined.clone()))
    }
}
