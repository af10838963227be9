//! Counts the calls of the Web API.

use prometheus::{IntCounterVec, Opts, Registry};

/// The counter `slack_api_calls_total`, by `method` and `outcome`. Clones share it.
#[derive(Clone, Debug)]
pub struct CallMetrics(IntCounterVec);

/// The `outcome` label of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// `ok`: Slack carried it out.
    Ok,
    /// `rate_limited`: Slack's rate limit, HTTP 429.
    RateLimited,
    /// `error`: Slack refused it, or gave no usable answer.
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
    /// Registers the counter.
    ///
    /// # Errors
    /// If the registry already has a metric of this name.
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

    /// How many calls of a method had this outcome.
    #[must_use]
    pub fn counted(&self, method: &str, outcome: CallOutcome) -> u64 {
        self.0.with_label_values(&[method, outcome.as_str()]).get()
    }
}
