//! Whether the store can be written to, as it was last tried: a probe is answered from memory, so that it takes no place
//! among the writes, and is answered at once while the disk is not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_store::Store;
use tokio::time::Instant;

/// How often the store is tried.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// How old the last trial may be: one that takes longer is taken to have failed.
const STALE: Duration = Duration::from_secs(5);

/// What came of the last trial.
#[derive(Debug)]
pub(crate) struct Readiness {
    last: Mutex<(bool, Instant)>,
}

impl Readiness {
    /// The store has just been opened.
    pub(crate) fn new() -> Readiness {
        Readiness { last: Mutex::new((true, Instant::now())) }
    }

    /// Tries the store.
    pub(crate) async fn refresh(&self, store: &dyn Store) {
        let tried = store.ping().await;
        if let Err(error) = &tried {
            tracing::warn!(%error, "not ready: store unavailable");
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (tried.is_ok(), Instant::now());
    }

    /// Whether the store could be written to, not long ago.
    pub(crate) fn store_is_ok(&self) -> bool {
        let (ok, at) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        ok && at.elapsed() < STALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_hangs_is_one_that_failed() {
        let readiness = Readiness::new();
        assert!(readiness.store_is_ok());
        tokio::time::advance(STALE).await;
        assert!(!readiness.store_is_ok());
    }
}
