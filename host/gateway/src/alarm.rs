//! The alarm that the scheduler sleeps by.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use countersign_core::lifecycle::Timestamp;

/// Tells the scheduler that something nearer than it knows of was stored.
pub struct Alarm {
    nearest_ms: AtomicU64,
    nearer: Notify,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm { nearest_ms: AtomicU64::new(u64::MAX), nearer: Notify::new() }
    }
}

impl Alarm {
    /// Something is due at `at`.
    pub fn set(&self, at: Option<Timestamp>) {
        let Some(at) = at.map(Timestamp::as_millis) else { return };
        if at < self.nearest_ms.fetch_min(at, Ordering::AcqRel) {
            self.nearer.notify_one();
        }
    }

    /// Something is due at `at`, and the scheduler is the one who says so: nobody has to be told.
    pub fn known(&self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.nearest_ms.fetch_min(at.as_millis(), Ordering::AcqRel);
        }
    }

    /// Forgets what is nearest; call it before asking the store, so that what is stored meanwhile counts.
    pub fn reset(&self) {
        self.nearest_ms.store(u64::MAX, Ordering::Release);
    }

    /// What is nearest, of all that was set since the last reset.
    #[must_use]
    pub fn nearest(&self) -> Option<Timestamp> {
        Some(self.nearest_ms.load(Ordering::Acquire)).filter(|at| *at != u64::MAX).map(Timestamp::from_millis)
    }

    /// Waits until something nearer is set.
    pub async fn nearer(&self) {
        self.nearer.notified().await;
    }
}
