//! How long policies take, and how they fail.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::engine::Failure;
use countersign_core::lifecycle::FailureKind;

/// From 5 µs, which a small policy takes, to beyond the deadline.
const BUCKETS: [f64; 13] = [
    0.000_005, 0.000_01, 0.000_015, 0.000_02, 0.000_03, 0.000_06, 0.000_1, 0.000_25, 0.001, 0.005, 0.02,
    0.06, 0.1,
];

const KINDS: [FailureKind; 5] = [
    FailureKind::Trap,
    FailureKind::Fuel,
    FailureKind::Deadline,
    FailureKind::Memory,
    FailureKind::Malformed,
];

/// The engine's metrics.
pub(super) struct Metrics {
    seconds: HistogramVec,
    failures: IntCounterVec,
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Metrics> {
        let seconds = HistogramOpts::new("policy_evaluation_seconds", "Time in the sandbox.");
        let failures = Opts::new("policy_failures_total", "Policies that gave no usable answer.");
        Ok(Metrics {
            seconds: HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["policy", "call"])?,
            failures: IntCounterVec::new(failures, &["policy", "kind"])?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.seconds.clone()))?;
        registry.register(Box::new(self.failures.clone()))
    }

    /// What the policy that a set calls `policy` is measured with; found once, so that a call finds nothing.
    pub(super) fn meter(&self, policy: &str) -> Meter {
        let seconds = |call| self.seconds.with_label_values(&[policy, call]);
        // Shown from the start: a counter that appears with the first failure hides that failure from a rate.
        for kind in KINDS {
            self.failures.with_label_values(&[policy, &kind.to_string()]);
        }
        Meter {
            policy: policy.to_owned(),
            check_config: seconds("check_config"),
            admit: seconds("admit"),
            judge: seconds("judge"),
            failures: self.failures.clone(),
        }
    }
}

/// Measures one policy.
pub(super) struct Meter {
    policy: String,
    pub(super) check_config: Histogram,
    pub(super) admit: Histogram,
    pub(super) judge: Histogram,
    failures: IntCounterVec,
}

impl Meter {
    pub(super) fn policy(&self) -> &str {
        &self.policy
    }

    pub(super) fn failed(&self, failure: &Failure) {
        self.failures.with_label_values(&[self.policy.as_str(), &failure.kind.to_string()]).inc();
    }

    pub(super) fn took(histogram: &Histogram, time: Duration) {
        histogram.observe(time.as_secs_f64());
    }
}
