//! Counts what targets are told.

use prometheus::{IntCounterVec, Opts, Registry};

/// The counters of dispatches. Clones share them.
#[derive(Clone, Debug)]
pub struct DispatchMetrics {
    attempts: IntCounterVec,
    dropped: IntCounterVec,
}

impl DispatchMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// If the registry already has a metric of one of the names.
    pub fn new(registry: &Registry) -> prometheus::Result<DispatchMetrics> {
        let attempts = IntCounterVec::new(
            Opts::new(
                "dispatch_attempts_total",
                "Attempts to tell a target outside of a request, by outcome.",
            ),
            &["target", "outcome"],
        )?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "dispatches_dropped_total",
                "What a target was not told, since there is no such target any more.",
            ),
            &["target"],
        )?;
        registry.register(Box::new(attempts.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(DispatchMetrics { attempts, dropped })
    }

    /// Begins the counters of a target at zero.
    pub fn know(&self, target: &str) {
        for outcome in Outcome::ALL {
            self.attempts.with_label_values(&[target, outcome.as_str()]);
        }
    }

    pub(crate) fn attempted(&self, target: &str, outcome: Outcome) {
        self.attempts.with_label_values(&[target, outcome.as_str()]).inc();
    }

    pub(crate) fn dropped(&self, target: &str, count: u64) {
        self.dropped.with_label_values(&[target]).inc_by(count);
    }
}

/// What came of an attempt: the values of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target has taken it.
    Told,
    /// It is tried again.
    Failed,
    /// It is a dead letter, after the last attempt or since the target never will take it.
    Dead,
}

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Told, Outcome::Failed, Outcome::Dead];

    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Told => "told",
            Outcome::Failed => "failed",
            Outcome::Dead => "dead",
        }
    }
}
