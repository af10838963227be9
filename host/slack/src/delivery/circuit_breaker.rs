//! The circuit breaker: whether Slack may be called at all.
//!
//! Closed, it allows every call. After several calls in a row without an answer it opens, and allows none. Once its
//! wait is over it is half-open: one call probes whether Slack answers, which closes it or opens it for longer.
//! It opens in the same way if Slack refuses the token; then the probe is `auth.test`.

use countersign_core::backoff::Backoff;
use countersign_core::clock::{Moment, Monotonic};
use countersign_core::lifecycle::Timestamp;

/// After so many calls in a row without an answer the circuit breaker opens.
const FAILURE_THRESHOLD: u32 = 5;

/// How long it is open before it probes whether Slack answers.
const UNANSWERED_BACKOFF: Backoff = Backoff::new(2_000, 60_000);

/// How long it is open before it probes whether Slack accepts the token.
const UNAUTHORIZED_BACKOFF: Backoff = Backoff::new(30_000, 300_000);

/// The circuit breaker of all calls.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    state: BreakerState,
    /// Calls in a row without an answer.
    consecutive_failures: u32,
    /// The code with which Slack last refused the token, until a message is delivered. `auth.test` succeeds if only a
    /// scope is missing; without this, each failed delivery after it would be reported as a new problem.
    refused_for: Option<String>,
}

/// The state of the circuit breaker. Open and unauthorized are half-open from `retry_at` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Slack answers.
    Closed,
    /// Slack does not answer.
    Open {
        /// Since when.
        since: Timestamp,
        /// When a call probes whether it answers.
        retry_at: Monotonic,
        /// How many probes have failed.
        retries: u32,
    },
    /// Slack answers, and refuses the token.
    Unauthorized {
        /// Since when.
        since: Timestamp,
        /// When a call probes whether it accepts the token.
        retry_at: Monotonic,
        /// How often it has refused the token since the first time.
        retries: u32,
    },
}

impl BreakerState {
    /// The names of all states.
    pub const NAMES: [&str; 3] = ["closed", "open", "unauthorized"];

    /// Its name in metrics and for admins.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::Unauthorized { .. } => "unauthorized",
        }
    }

    /// When Slack is called again; `None` if it may be called now.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Monotonic> {
        match self {
            BreakerState::Closed => None,
            BreakerState::Open { retry_at, .. } | BreakerState::Unauthorized { retry_at, .. } => {
                Some(*retry_at)
            }
        }
    }
}

/// The calls that are allowed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Every call.
    All,
    /// One call, to probe whether Slack answers.
    Probe,
    /// `auth.test` only, to probe whether Slack accepts the token.
    AuthTest,
    /// No call before then.
    Nothing { until: Monotonic },
}

impl CircuitBreaker {
    pub(super) fn new() -> CircuitBreaker {
        CircuitBreaker { state: BreakerState::Closed, consecutive_failures: 0, refused_for: None }
    }

    pub(super) fn state(&self) -> &BreakerState {
        &self.state
    }

    /// The code with which Slack refuses the token.
    pub(super) fn refused_for(&self) -> Option<&str> {
        self.refused_for.as_deref()
    }

    pub(super) fn allowed(&self, now: Monotonic) -> Allowed {
        match self.state {
            BreakerState::Closed => Allowed::All,
            BreakerState::Open { retry_at, .. } if now >= retry_at => Allowed::Probe,
            BreakerState::Unauthorized { retry_at, .. } if now >= retry_at => Allowed::AuthTest,
            BreakerState::Open { retry_at, .. } | BreakerState::Unauthorized { retry_at, .. } => {
                Allowed::Nothing { until: retry_at }
            }
        }
    }

    /// Slack answered a call, with a success or an error.
    pub(super) fn answered(&mut self) {
        self.consecutive_failures = 0;
        if matches!(self.state, BreakerState::Open { .. }) {
            self.state = BreakerState::Closed;
        }
    }

    /// Slack posted or updated a message.
    pub(super) fn delivered(&mut self) {
        self.answered();
        self.refused_for = None;
    }

    /// Slack did not answer a call.
    pub(super) fn unanswered(&mut self, now: Moment, rng: &mut fastrand::Rng) {
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        let mut wait = |backoff: Backoff, retries| now.monotonic.plus(backoff.around(retries, rng));
        self.state = match self.state {
            BreakerState::Closed if self.consecutive_failures < FAILURE_THRESHOLD => return,
            BreakerState::Closed => {
                BreakerState::Open { since: now.wall, retry_at: wait(UNANSWERED_BACKOFF, 0), retries: 0 }
            }
            // A call that was made before the circuit breaker opened does not keep it open for longer.
            BreakerState::Open { retry_at, .. } if now.monotonic < retry_at => return,
            BreakerState::Open { since, retries, .. } => {
                let retries = retries.saturating_add(1);
                BreakerState::Open { since, retry_at: wait(UNANSWERED_BACKOFF, retries), retries }
            }
            BreakerState::Unauthorized { since, retries, .. } => {
                BreakerState::Unauthorized { since, retry_at: wait(UNAUTHORIZED_BACKOFF, retries), retries }
            }
        };
    }

    /// Slack refused the token. Returns whether that is to be reported, which it is once for each code.
    pub(super) fn unauthorized(&mut self, now: Moment, code: &str, rng: &mut fastrand::Rng) -> bool {
        self.consecutive_failures = 0;
        let (since, retries) = match self.state {
            // A call that was made before the circuit breaker opened.
            BreakerState::Unauthorized { retry_at, .. } if now.monotonic < retry_at => return false,
            BreakerState::Unauthorized { since, retries, .. } => (since, retries.saturating_add(1)),
            BreakerState::Closed | BreakerState::Open { .. } => (now.wall, 0),
        };
        let retry_at = now.monotonic.plus(UNAUTHORIZED_BACKOFF.around(retries, rng));
        self.state = BreakerState::Unauthorized { since, retry_at, retries };
        let is_new = self.refused_for.as_deref() != Some(code);
        self.refused_for = Some(code.to_owned());
        is_new
    }

    /// Slack accepted the token.
    pub(super) fn authorized(&mut self) {
        self.consecutive_failures = 0;
        self.state = BreakerState::Closed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    /// The clocks after this many milliseconds.
    fn at(millis: u64) -> Moment {
        Moment { wall: START.plus(millis), monotonic: Monotonic::from_millis(millis) }
    }

    /// In how many milliseconds after the start it is half-open.
    fn retry_at(breaker: &CircuitBreaker) -> u64 {
        match breaker.state {
            BreakerState::Open { retry_at, .. } | BreakerState::Unauthorized { retry_at, .. } => {
                retry_at.since(Monotonic::START)
            }
            BreakerState::Closed => panic!("{breaker:?}"),
        }
    }

    fn allowed(breaker: &CircuitBreaker, millis: u64) -> Allowed {
        breaker.allowed(at(millis).monotonic)
    }

    #[test]
    fn consecutive_failures_open_it_and_an_answer_closes_it() {
        let (mut breaker, mut rng) = (CircuitBreaker::new(), fastrand::Rng::with_seed(1));
        for _ in 1..FAILURE_THRESHOLD {
            breaker.unanswered(at(0), &mut rng);
            assert_eq!(allowed(&breaker, 0), Allowed::All);
        }
        breaker.answered();
        for _ in 1..FAILURE_THRESHOLD {
            breaker.unanswered(at(0), &mut rng);
        }
        assert_eq!(allowed(&breaker, 0), Allowed::All, "only failures in a row count");
        breaker.unanswered(at(0), &mut rng);
        let longest = UNANSWERED_BACKOFF.longest_ms();
        let mut wait = 0;
        for _ in 0..10 {
            let until = retry_at(&breaker);
            // A call that was under way when it opened changes nothing.
            breaker.unanswered(at(until - 1), &mut rng);
            assert_eq!(allowed(&breaker, until - 1), Allowed::Nothing { until: at(until).monotonic });
            assert_eq!(allowed(&breaker, until), Allowed::Probe);
            breaker.unanswered(at(until), &mut rng);
            let next = retry_at(&breaker) - until;
            assert!(next <= longest * 3 / 2 && (next > wait || wait > longest / 2), "{wait} {next}");
            wait = next;
        }
        assert!(matches!(breaker.state, BreakerState::Open { since: START, .. }));
        breaker.answered();
        assert_eq!(allowed(&breaker, 0), Allowed::All);
    }

    #[test]
    fn a_refused_token_is_reported_once() {
        let (mut breaker, mut rng) = (CircuitBreaker::new(), fastrand::Rng::with_seed(2));
        assert!(breaker.unauthorized(at(0), "invalid_auth", &mut rng));
        assert!(!breaker.unauthorized(at(0), "invalid_auth", &mut rng), "another call that was under way");
        let until = retry_at(&breaker);
        assert_eq!(allowed(&breaker, until - 1), Allowed::Nothing { until: at(until).monotonic });
        assert_eq!(allowed(&breaker, until), Allowed::AuthTest);
        breaker.unanswered(at(until), &mut rng);
        assert!(matches!(breaker.state, BreakerState::Unauthorized { since: START, .. }));
        breaker.answered();
        assert!(matches!(breaker.state, BreakerState::Unauthorized { .. }), "an answer is not enough");
        assert!(!breaker.unauthorized(at(retry_at(&breaker)), "invalid_auth", &mut rng));

        breaker.authorized();
        assert_eq!(allowed(&breaker, until), Allowed::All);
        assert!(
            !breaker.unauthorized(at(until), "invalid_auth", &mut rng),
            "nothing was delivered in between"
        );
        breaker.authorized();
        assert!(breaker.unauthorized(at(until), "missing_scope", &mut rng));
        breaker.authorized();
        breaker.delivered();
        assert!(breaker.unauthorized(at(until), "missing_scope", &mut rng));
    }
}
