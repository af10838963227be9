//! The machine's clock in simulated time. Somebody can set it, in both directions.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::clock::{Clock, Monotonic};
use countersign_core::lifecycle::Timestamp;
use tokio::time::Instant;

/// What the clock says when a schedule begins.
pub(super) const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

/// The clock of one process.
#[derive(Debug)]
pub(super) struct SimulatedClock {
    started: Instant,
    /// How much time passed before the process started, in milliseconds.
    before_ms: u64,
    /// How far the clock is from where it would be if nobody had set it, in milliseconds.
    skew_ms: AtomicI64,
}

impl SimulatedClock {
    /// The clock of a process that starts now.
    pub(super) fn new(before_ms: u64, skew_ms: i64) -> SimulatedClock {
        SimulatedClock { started: Instant::now(), before_ms, skew_ms: AtomicI64::new(skew_ms) }
    }

    /// How much time has passed in this schedule, in milliseconds, whatever the clock says.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.before_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }

    /// Somebody sets the clock.
    pub(super) fn jump(&self, by_ms: i64) {
        self.skew_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let steady = START.as_millis() + self.elapsed_ms();
        Timestamp::from_millis(steady.saturating_add_signed(self.skew_ms()))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_millis(self.elapsed_ms())
    }

    async fn sleep_until(&self, at: Monotonic) {
        let wait = at.since(self.monotonic());
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}
