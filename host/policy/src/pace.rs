//! How long an action's judgements took of late, so that whoever asks for one can choose the thread for it.
//!
//! A judgement takes some microseconds as a rule, less than handing it to another thread and waking up for its result. One
//! that takes long must not hold up whatever else its thread has to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// From when on a judgement is slow, in microseconds.
const SLOW_US: u64 = 1_000;

/// For how many judgements a slow one counts, for each millisecond that it took: a thread that must not be held up spends at
/// most a hundredth of a millisecond on slow judgements for each quick one.
const COUNTS_FOR_EACH_MS: u64 = 100;

/// For how many judgements a slow one counts at most.
const COUNTS_FOR_AT_MOST: u64 = 10_000;

/// How long this thread has run.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long an action's judgements took of late.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many judgements there are still to come before the last slow one is forgotten.
    slow_for: AtomicU64,
    /// A moving average of slow judgements and those that follow them, in microseconds.
    average_us: AtomicU64,
}

impl Pace {
    /// Has something judged, and remembers how long that took.
    ///
    /// A judgement is slow by what it takes of its thread, and not because the machine is busy with something else; and
    /// nothing in a sandbox can wait. But to ask for the thread's time costs a tenth of a judgement. So as long as all are
    /// quick by the clock, nobody asks; one that is not has the next one measured by its thread's time.
    pub(super) fn of<T>(&self, judge: impl FnOnce() -> T) -> T {
        if self.slow_for.load(Ordering::Relaxed) > 0 {
            let before = thread_time();
            let judged = judge();
            self.took(thread_time().saturating_sub(before));
            return judged;
        }
        let started = now();
        let judged = judge();
        self.took_at_most(started.elapsed());
        judged
    }

    /// A judgement took so long by the clock, and no more than that of its thread.
    fn took_at_most(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if us < SLOW_US {
            return;
        }
        // The clock also counts what a busy or suspended machine took.
        self.average(SLOW_US);
        self.slow_for.fetch_max(1, Ordering::Relaxed);
    }

    /// A judgement took so long of its thread.
    fn took(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let slow_for = self.slow_for.load(Ordering::Relaxed);
        if us < SLOW_US && slow_for == 0 {
            return;
        }
        self.average(us);
        if us >= SLOW_US {
            let counts_for = (us / 1_000).saturating_mul(COUNTS_FOR_EACH_MS).min(COUNTS_FOR_AT_MOST);
            self.slow_for.fetch_max(counts_for, Ordering::Relaxed);
        } else {
            let _ =
                self.slow_for.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        }
    }

    fn average(&self, us: u64) {
        // Two that end at the same time may count as one: these are estimates.
        let average = self.average_us.load(Ordering::Relaxed);
        self.average_us.store(average.saturating_mul(3).saturating_add(us) / 4, Ordering::Relaxed);
    }

    /// How long the next judgement may take, if one of the last ones was slow; `None` if all were quick.
    pub(super) fn slow(&self) -> Option<Duration> {
        if self.slow_for.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(Duration::from_micros(self.average_us.load(Ordering::Relaxed)))
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long a judgement takes; decides nothing")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(6);

    #[test]
    fn one_slow_judgement_is_remembered_for_as_many_quick_ones_as_it_was_slow() {
        for (slow, remembered) in [
            (Duration::from_micros(999), 0),
            (Duration::from_millis(1), 100),
            (Duration::from_millis(50), 5_000),
            (Duration::from_secs(3600), 10_000),
        ] {
            let pace = Pace::default();
            pace.took(QUICK);
            assert_eq!(pace.slow(), None);
            pace.took(slow);
            let mut judged = 0;
            while pace.slow().is_some() {
                pace.took(QUICK);
                judged += 1;
            }
            assert_eq!(judged, remembered, "{slow:?}");
        }
    }

    #[test]
    fn a_judgement_that_is_slow_by_the_clock_has_the_next_one_measured() {
        let pace = Pace::default();
        pace.took_at_most(QUICK);
        assert_eq!(pace.slow(), None);
        pace.took_at_most(Duration::from_secs(3600));
        let slow = pace.slow().expect("it may have been slow");
        assert!(slow < Duration::from_millis(1), "{slow:?}");
        pace.took(QUICK);
        assert_eq!(pace.slow(), None, "the machine was busy");
        pace.took_at_most(Duration::from_millis(50));
        pace.took(Duration::from_millis(50));
        pace.took(QUICK);
        assert!(pace.slow().is_some(), "it was slow itself");
    }

    #[test]
    fn the_estimate_follows_what_was_measured() {
        let pace = Pace::default();
        (0..20).for_each(|_| pace.took(Duration::from_millis(50)));
        let slow = pace.slow().unwrap();
        assert!((Duration::from_millis(49)..=Duration::from_millis(50)).contains(&slow), "{slow:?}");
        (0..40).for_each(|_| pace.took(QUICK));
        let slow = pace.slow().unwrap();
        assert!(slow < Duration::from_millis(1), "{slow:?}");
    }
}
