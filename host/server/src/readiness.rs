//! Whether the store can be written to, as it was last tried: a probe is answered from memory, so that it takes no place
//! among the writes, and is answered at once while the disk is not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_store::{Store, StoreError, StoreFault};
use tokio::time::Instant;

use crate::telemetry::Metrics;

/// How often the store is tried.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// How old the last trial may be: one that takes longer is taken to have failed.
const STALE: Duration = Duration::from_secs(5);

/// How often what is wrong is logged while it stays the same.
const REMINDER: Duration = Duration::from_secs(60);

/// What came of the last trial.
#[derive(Debug)]
pub(crate) struct Readiness {
    last: Mutex<Trial>,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    fault: Option<StoreFault>,
    at: Instant,
    /// When the fault was last logged.
    logged: Instant,
}

impl Readiness {
    /// The store has just been opened.
    pub(crate) fn new() -> Readiness {
        let now = Instant::now();
        Readiness { last: Mutex::new(Trial { fault: None, at: now, logged: now }) }
    }

    /// Tries the store.
    pub(crate) async fn refresh(&self, store: &dyn Store, metrics: &Metrics) {
        let begun = Instant::now();
        let tried = store.ping().await;
        metrics.probed(begun.elapsed());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.followed_by(tried, Instant::now());
    }

    /// What is wrong with the store; `None` if it could be written to not long ago.
    pub(crate) fn store_fault(&self) -> Option<StoreFault> {
        let Trial { fault, at, .. } = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        fault.or((at.elapsed() >= STALE).then_some(StoreFault::Slow))
    }
}

impl Trial {
    /// The next trial. What is wrong is logged when it changes, and once a minute.
    fn followed_by(self, tried: Result<(), StoreError>, now: Instant) -> Trial {
        let fault = tried.as_ref().err().map(|error| error.fault().unwrap_or(StoreFault::Other));
        let is_news = fault != self.fault;
        let logged = if is_news || now.duration_since(self.logged) >= REMINDER { now } else { self.logged };
        match tried {
            Err(error) if logged == now => tracing::warn!(%error, "not ready: store unavailable"),
            Ok(()) if is_news => tracing::info!("ready: the store can be written to again"),
            _ => {}
        }
        Trial { fault, at: now, logged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_hangs_is_one_that_failed() {
        let readiness = Readiness::new();
        assert_eq!(readiness.store_fault(), None);
        tokio::time::advance(STALE).await;
        assert_eq!(readiness.store_fault(), Some(StoreFault::Slow));
    }

    /// A disk that stays full is one line a minute in the log, not one a second.
    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_logged_when_it_changes_and_once_a_minute() {
        let wrong = |fault| Err(StoreError::Unavailable { backend: "sqlite", fault, detail: "it".into() });
        let start = Instant::now();
        let mut trial = Trial { fault: None, at: start, logged: start };
        let mut logged = Vec::new();
        for second in 1..=130 {
            let now = start + INTERVAL * second;
            let tried = match second {
                1..=100 => wrong(StoreFault::Full),
                101..=120 => wrong(StoreFault::Io),
                _ => Ok(()),
            };
            trial = trial.followed_by(tried, now);
            if trial.logged == now {
                logged.push((second, trial.fault));
            }
        }
        let (full, io) = (Some(StoreFault::Full), Some(StoreFault::Io));
        assert_eq!(logged, [(1, full), (61, full), (101, io), (121, None)]);
    }
}
