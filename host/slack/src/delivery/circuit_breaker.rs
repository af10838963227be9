//! Whether Slack is to be called at all: not while it does not answer, and not while it does not know us.

use super::dice::Dice;
use countersign_core::lifecycle::Timestamp;

/// After how many calls in a row without an answer Slack counts as down.
const MAX_CONSECUTIVE_FAILURES: u32 = 5;

/// The first and the longest time until it is tried again, in milliseconds.
const DOWN_MS: (u64, u64) = (2_000, 60_000);

/// The first and the longest time until it is asked again whether it knows us, in milliseconds.
const UNAUTHORIZED_MS: (u64, u64) = (30_000, 300_000);

/// The circuit breaker.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    standing: BreakerState,
    /// Calls in a row without an answer.
    consecutive_failures: u32,
    /// The code for which Slack last refused us, until a message is delivered: `auth.test` succeeds where only
    /// a scope is missing, and the same trouble is not news each time.
    refused_for: Option<String>,
}

/// How Slack stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BreakerState {
    /// It answers.
    Up,
    /// It does not.
    Down { since: Timestamp, try_at: Timestamp, wait_ms: u64 },
    /// It answers, and refuses all that we want.
    Unauthorized { since: Timestamp, try_at: Timestamp, wait_ms: u64 },
}

/// What may be called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Anything.
    All,
    /// One call, to see whether Slack answers.
    One,
    /// Only the question whether Slack knows us.
    Ask,
    /// Nothing before then.
    Nothing { until: Timestamp },
}

impl CircuitBreaker {
    pub(super) fn new() -> CircuitBreaker {
        CircuitBreaker { standing: BreakerState::Up, consecutive_failures: 0, refused_for: None }
    }

    pub(super) fn standing(&self) -> &BreakerState {
        &self.standing
    }

    pub(super) fn permit(&self, now: Timestamp) -> Allowed {
        match self.standing {
            BreakerState::Up => Allowed::All,
            BreakerState::Down { try_at, .. } if now >= try_at => Allowed::One,
            BreakerState::Unauthorized { try_at, .. } if now >= try_at => Allowed::Ask,
            BreakerState::Down { try_at, .. } | BreakerState::Unauthorized { try_at, .. } => {
                Allowed::Nothing { until: try_at }
            }
        }
    }

    /// Slack answered, whatever it said.
    pub(super) fn answered(&mut self) {
        self.consecutive_failures = 0;
        if matches!(self.standing, BreakerState::Down { .. }) {
            self.standing = BreakerState::Up;
        }
    }

    /// Slack delivered a message.
    pub(super) fn delivered(&mut self) {
        self.answered();
        self.refused_for = None;
    }

    /// Slack did not answer.
    pub(super) fn unanswered(&mut self, now: Timestamp, dice: &Dice) {
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.standing = match self.standing {
            BreakerState::Up if self.consecutive_failures < MAX_CONSECUTIVE_FAILURES => return,
            BreakerState::Up => BreakerState::Down {
                since: now,
                try_at: now.plus(dice.around(DOWN_MS.0)),
                wait_ms: DOWN_MS.0,
            },
            // The answers to calls that were made before it counted as down do not make it so for longer.
            BreakerState::Down { try_at, .. } if now < try_at => return,
            BreakerState::Down { since, wait_ms, .. } => {
                let wait_ms = (wait_ms * 2).min(DOWN_MS.1);
                BreakerState::Down { since, try_at: now.plus(dice.around(wait_ms)), wait_ms }
            }
            BreakerState::Unauthorized { since, wait_ms, .. } => {
                BreakerState::Unauthorized { since, try_at: now.plus(dice.around(wait_ms)), wait_ms }
            }
        };
    }

    /// Slack refuses all that we want. True where that is news.
    pub(super) fn unauthorized(&mut self, now: Timestamp, code: &str, dice: &Dice) -> bool {
        self.consecutive_failures = 0;
        let (since, wait_ms) = match self.standing {
            BreakerState::Unauthorized { since, try_at, wait_ms } if now < try_at => {
                self.standing = BreakerState::Unauthorized { since, try_at, wait_ms };
                return false;
            }
            BreakerState::Unauthorized { since, wait_ms, .. } => {
                (since, (wait_ms * 2).min(UNAUTHORIZED_MS.1))
            }
            BreakerState::Up | BreakerState::Down { .. } => (now, UNAUTHORIZED_MS.0),
        };
        self.standing = BreakerState::Unauthorized { since, try_at: now.plus(dice.around(wait_ms)), wait_ms };
        let news = self.refused_for.as_deref() != Some(code);
        self.refused_for = Some(code.to_owned());
        news
    }

    /// Slack knows us again.
    pub(super) fn authorized(&mut self) {
        self.consecutive_failures = 0;
        self.standing = BreakerState::Up;
    }

    /// The code for which Slack refuses us.
    pub(super) fn refused_for(&self) -> Option<&str> {
        self.refused_for.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    fn try_at(breaker: &CircuitBreaker) -> Timestamp {
        match breaker.standing {
            BreakerState::Down { try_at, .. } | BreakerState::Unauthorized { try_at, .. } => try_at,
            BreakerState::Up => panic!("{breaker:?}"),
        }
    }

    #[test]
    fn silence_shuts_the_gate_and_an_answer_opens_it() {
        let (mut breaker, dice) = (CircuitBreaker::new(), Dice::seeded(1));
        for _ in 1..MAX_CONSECUTIVE_FAILURES {
            breaker.unanswered(START, &dice);
            assert_eq!(breaker.permit(START), Allowed::All);
        }
        breaker.answered();
        for _ in 1..MAX_CONSECUTIVE_FAILURES {
            breaker.unanswered(START, &dice);
        }
        assert_eq!(breaker.permit(START), Allowed::All, "only what comes in a row counts");
        breaker.unanswered(START, &dice);
        let mut wait = 0;
        for _ in 0..10 {
            let until = try_at(&breaker);
            // What was under way when it was shut changes nothing.
            breaker.unanswered(until.minus(1), &dice);
            assert_eq!(breaker.permit(until.minus(1)), Allowed::Nothing { until });
            assert_eq!(breaker.permit(until), Allowed::One);
            breaker.unanswered(until, &dice);
            let next = try_at(&breaker).since(until);
            assert!(next <= DOWN_MS.1 * 3 / 2 && (next > wait || wait > DOWN_MS.1 / 2), "{wait} {next}");
            wait = next;
        }
        assert!(matches!(breaker.standing, BreakerState::Down { since: START, .. }));
        breaker.answered();
        assert_eq!(breaker.permit(START), Allowed::All);
    }

    #[test]
    fn a_refusal_is_news_once() {
        let (mut breaker, dice) = (CircuitBreaker::new(), Dice::seeded(2));
        assert!(breaker.unauthorized(START, "invalid_auth", &dice));
        assert!(!breaker.unauthorized(START, "invalid_auth", &dice), "another call that was under way");
        let until = try_at(&breaker);
        assert_eq!(breaker.permit(until.minus(1)), Allowed::Nothing { until });
        assert_eq!(breaker.permit(until), Allowed::Ask);
        breaker.unanswered(until, &dice);
        assert!(matches!(breaker.standing, BreakerState::Unauthorized { since: START, .. }));
        breaker.answered();
        assert!(matches!(breaker.standing, BreakerState::Unauthorized { .. }), "an answer is not enough");
        assert!(!breaker.unauthorized(try_at(&breaker), "invalid_auth", &dice));

        breaker.authorized();
        assert_eq!(breaker.permit(until), Allowed::All);
        assert!(!breaker.unauthorized(until, "invalid_auth", &dice), "nothing was delivered in between");
        breaker.authorized();
        assert!(breaker.unauthorized(until, "missing_scope", &dice));
        breaker.authorized();
        breaker.delivered();
        assert!(breaker.unauthorized(until, "missing_scope", &dice));
    }
}
