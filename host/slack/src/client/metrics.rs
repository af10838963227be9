//! How often Slack was called, and what it said.

use prometheus::{IntCounterVec, Opts, Registry};

/// `slack_api_calls_total`. Clones are one.
#[derive(Clone, Debug)]
pub struct CallMetrics(IntCounterVec);

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// Slack did it.
    Ok,
    /// Slack will not now: 429.
    RateLimited,
    /// Slack said no, or nothing that can be read.
    Error,
}

impl CallOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            CallOutcome::Ok => "ok",
            CallOutcome::RateLimited => "rate_limited",
            CallOutcome::Error => "error",
        }
    }
}

impl CallMetrics {
    /// The metric, at zero.
    ///
    /// # Errors
    /// Where the registry has one of this name.
    pub fn new(registry: &Registry) -> prometheus::Result<CallMetrics> {
        let calls = IntCounterVec::new(
            Opts::new("slack_api_calls_total", "Calls of Slack's Web API, by outcome."),
            &["method", "outcome"],
        )?;
        registry.register(Box::new(calls.clone()))?;
        Ok(CallMetrics(calls))
    }

    /// Counts a call.
    pub fn count(&self, method: &str, outcome: CallOutcome) {
        self.0.with_label_values(&[method, outcome.as_str()]).inc();
    }

    /// How many calls of a method ended so.
    #[must_use]
    pub fn counted(&self, method: &str, outcome: CallOutcome) -> u64 {
        self.0.with_label_values(&[method, outcome.as_str()]).get()
    }
}
