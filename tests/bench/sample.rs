//! Latencies, and their percentiles.

use std::fmt;
use std::time::Duration;

/// Measured durations; the percentiles sort them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn add_all(&mut self, other: Sample) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of all are not above.
    pub(crate) fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// p50, p95 and p99.
    pub(crate) fn percentiles(&mut self) -> Percentiles {
        Percentiles(self.percentile(50), self.percentile(95), self.percentile(99))
    }
}

/// The percentiles of the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Percentiles(Duration, Duration, Duration);

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percentiles(p50, p95, p99) = self;
        write!(f, "p50 {}, p95 {}, p99 {}", millis(*p50), millis(*p95), millis(*p99))
    }
}

/// `3.14 ms`.
pub(crate) fn millis(took: Duration) -> String {
    format!("{:.2} ms", took.as_secs_f64() * 1000.0)
}

impl FromIterator<Duration> for Sample {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Sample {
        Sample(times.into_iter().collect())
    }
}
