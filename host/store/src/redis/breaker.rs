//! A circuit breaker: if several calls in a row were not answered, further ones fail at once for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After how many calls without an answer.
const FAILURES: u32 = 5;

/// For how long. After that one call is let through, and decides for the next such time.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    closed_until: Option<Instant>,
}

impl Breaker {
    /// Whether a call may be tried.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.closed_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.closed_until = Some(now + PAUSE);
                true
            }
            None => true,
        }
    }

    pub(super) fn answered(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.closed_until = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_and_lets_one_through() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert!(breaker.admits(Instant::now()));
            breaker.failed(Instant::now());
        }
        assert!(!breaker.admits(Instant::now()));
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits(Instant::now()), "one is let through");
        assert!(!breaker.admits(Instant::now()), "and no other");
        breaker.failed(Instant::now());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits(Instant::now()));
        breaker.answered();
        assert!(breaker.admits(Instant::now()) && breaker.admits(Instant::now()));
    }
}
