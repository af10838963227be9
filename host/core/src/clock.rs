//! The port to time. This is the only file that reads a clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::lifecycle::Timestamp;

/// Where the time comes from.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Returns once `at` has come; at once if it already has.
    async fn sleep_until(&self, at: Timestamp);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is handed")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Timestamp) {
        let wait = at.since(self.now());
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}

/// A clock that only moves when it is told to.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<Timestamp>,
    moved: Notify,
    sleeping: AtomicUsize,
}

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> ManualClock {
        ManualClock { now: Mutex::new(now), moved: Notify::new(), sleeping: AtomicUsize::new(0) }
    }

    /// How many wait for it to move.
    #[must_use]
    pub fn sleeping(&self) -> usize {
        self.sleeping.load(Ordering::Acquire)
    }

    /// Moves the clock on by `millis` and wakes whoever waited for that.
    pub fn advance(&self, millis: u64) {
        if let Ok(mut now) = self.now.lock() {
            *now = now.plus(millis);
        }
        self.moved.notify_waiters();
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
        self.now.lock().map_or(Timestamp::EPOCH, |now| *now)
    }

    async fn sleep_until(&self, at: Timestamp) {
        loop {
            // Register before looking, so that a move between the two is not missed.
            let moved = self.moved.notified();
            if self.now() >= at {
                return;
            }
            let sleeper = Sleeper::of(&self.sleeping);
            moved.await;
            drop(sleeper);
        }
    }
}
