//! The port to time. This is the only file that reads a clock.
//!
//! There are two notions of time. The wall clock ([`Clock::now`]) is what people, callers and other parties see and sign;
//! it jumps when somebody or NTP sets it. The monotonic clock ([`Clock::monotonic`]) is what everything inside the process
//! waits and paces by; it never jumps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lifecycle::Timestamp;

/// Where the time comes from.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: the time that is shown, stored with events, and compared with what others signed.
    ///
    /// It may jump in both directions, so nothing waits for it.
    fn now(&self) -> Timestamp;

    /// The monotonic clock, by which everything in this process waits and paces.
    fn monotonic(&self) -> Monotonic;

    /// Returns once the monotonic clock has reached `at`; at once if it already has.
    async fn sleep_until(&self, at: Monotonic);

    /// Returns after `wait`, whatever happens to the wall clock meanwhile.
    async fn sleep(&self, wait: Duration) {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.sleep_until(self.monotonic().plus(wait)).await;
    }

    /// Both clocks at once.
    fn moment(&self) -> Moment {
        Moment { wall: self.now(), monotonic: self.monotonic() }
    }
}

/// A reading of the monotonic clock: milliseconds since an arbitrary start. It means nothing in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The earliest reading.
    pub const START: Monotonic = Monotonic(0);

    /// The reading `millis` after [`Monotonic::START`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Monotonic {
        Monotonic(millis)
    }

    /// This reading, `millis` later; saturates at the end of time.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Monotonic {
        Monotonic(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to here, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Monotonic) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks at one moment, for the age of what must not count for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: Timestamp,
    /// The monotonic clock.
    pub monotonic: Monotonic,
}

impl Moment {
    /// Milliseconds since `earlier`, by the clock that says more.
    ///
    /// The monotonic clock does not see a suspended machine, and the wall clock shows too little if it was set back. So the
    /// greater age is the safe one: what is taken to be too old is only loaded again.
    #[must_use]
    pub fn since(self, earlier: Moment) -> u64 {
        self.wall.since(earlier.wall).max(self.monotonic.since(earlier.monotonic))
    }
}

/// The machine's clocks.
///
/// The wall clock is `CLOCK_REALTIME`: steps of NTP and of people show at once, also backwards. The monotonic clock is
/// `CLOCK_MONOTONIC`: it is not stepped, NTP slews its rate by 500 ppm at most, and it stands still while the machine is
/// suspended. So a wait that spans a suspension goes on after it with what was left, and whoever compares wall-clock times
/// (the scheduler with expiries) looks again within its longest wait after the machine has resumed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// What the readings of [`SystemClock`]'s monotonic clock count from.
static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is handed")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(u64::try_from(PROCESS_START.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Monotonic) {
        // The reading was rounded down, so that the wait is never too short.
        let wait = at.since(self.monotonic());
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}

/// Clocks that only move when they are told to.
#[derive(Debug)]
pub struct ManualClock {
    moment: Mutex<Moment>,
    moved: Notify,
    sleeping: AtomicUsize,
}

impl ManualClock {
    /// A wall clock that stands at `now`, and a monotonic clock that stands somewhere.
    #[must_use]
    pub fn at(now: Timestamp) -> ManualClock {
        // Not at its start, so that nobody depends on that.
        let moment = Moment { wall: now, monotonic: Monotonic::from_millis(1_000_000) };
        ManualClock { moment: Mutex::new(moment), moved: Notify::new(), sleeping: AtomicUsize::new(0) }
    }

    /// How many wait for it to move.
    #[must_use]
    pub fn sleeping(&self) -> usize {
        self.sleeping.load(Ordering::Acquire)
    }

    /// Lets `millis` pass: moves both clocks on, and wakes whoever waited for that.
    pub fn advance(&self, millis: u64) {
        let mut moment = self.lock();
        *moment = Moment { wall: moment.wall.plus(millis), monotonic: moment.monotonic.plus(millis) };
        drop(moment);
        self.moved.notify_waiters();
    }

    /// Sets the wall clock ahead by `millis`, or back if that is negative. No time passes, so nobody wakes.
    pub fn jump(&self, millis: i64) {
        let mut moment = self.lock();
        let by = millis.unsigned_abs();
        moment.wall = if millis < 0 { moment.wall.minus(by) } else { moment.wall.plus(by) };
    }

    fn lock(&self) -> MutexGuard<'_, Moment> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits, until dropped.
struct Sleeper<'a>(&'a AtomicUsize);

impl Sleeper<'_> {
    fn of(sleeping: &AtomicUsize) -> Sleeper<'_> {
        sleeping.fetch_add(1, Ordering::AcqRel);
        Sleeper(sleeping)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().wall
    }

    fn monotonic(&self) -> Monotonic {
        self.lock().monotonic
    }

    async fn sleep_until(&self, at: Monotonic) {
        loop {
            // Register before looking, so that a move between the two is not missed.
            let moved = self.moved.notified();
            if self.monotonic() >= at {
                return;
            }
            let sleeper = Sleeper::of(&self.sleeping);
            moved.await;
            drop(sleeper);
        }
    }

    fn moment(&self) -> Moment {
        *self.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    #[tokio::test]
    async fn a_jump_moves_the_wall_clock_alone_and_wakes_nobody() {
        for jump in [-3_600_000, -20_000, 20_000, 3_600_000] {
            let clock = ManualClock::at(START);
            let began = clock.moment();
            let mut waiting = Box::pin(clock.sleep(Duration::from_secs(5)));
            assert!(poll_once(&mut waiting).await.is_none(), "{jump}");
            clock.jump(jump);
            assert!(poll_once(&mut waiting).await.is_none(), "{jump}");
            assert_eq!(clock.monotonic(), began.monotonic, "{jump}");
            assert_eq!(i128::from(clock.now().as_millis()), i128::from(START.as_millis()) + i128::from(jump));
            clock.advance(4_999);
            assert!(poll_once(&mut waiting).await.is_none(), "{jump}");
            clock.advance(1);
            assert!(poll_once(&mut waiting).await.is_some(), "{jump}");
            assert_eq!(clock.monotonic().since(began.monotonic), 5_000, "{jump}");
        }
    }

    /// What a future has come to if it is polled now.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }

    #[test]
    fn an_age_is_the_greater_of_both_clocks() {
        let clock = ManualClock::at(START);
        let began = clock.moment();
        clock.advance(1_000);
        assert_eq!(clock.moment().since(began), 1_000);
        clock.jump(-3_600_000);
        assert_eq!(clock.moment().since(began), 1_000, "set back, nothing gets younger");
        clock.jump(2 * 3_600_000);
        assert_eq!(clock.moment().since(began), 3_601_000, "the machine may have been suspended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_of_the_machine_is_not_too_short() {
        let began = SystemClock.monotonic();
        tokio::time::advance(Duration::from_micros(700)).await;
        SystemClock.sleep_until(began.plus(3)).await;
        assert!(SystemClock.monotonic() >= began.plus(3));
        SystemClock.sleep_until(began).await;
    }
}
