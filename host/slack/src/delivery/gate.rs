//! Whether Slack is to be called at all: not while it does not answer, and not while it does not know us.

use super::dice::Dice;
use countersign_core::lifecycle::Timestamp;

/// After how many calls in a row without an answer Slack counts as down.
const SILENCES: u32 = 5;

/// The first and the longest time until it is tried again, in milliseconds.
const DOWN_MS: (u64, u64) = (2_000, 60_000);

/// The first and the longest time until it is asked again whether it knows us, in milliseconds.
const UNAUTHORIZED_MS: (u64, u64) = (30_000, 300_000);

/// The circuit breaker.
#[derive(Debug)]
pub(super) struct Gate {
    standing: Standing,
    /// Calls in a row without an answer.
    silences: u32,
    /// The code for which Slack last refused us, until a message is delivered: `auth.test` succeeds where only
    /// a scope is missing, and the same trouble is not news each time.
    refused_for: Option<String>,
}

/// How Slack stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers.
    Up,
    /// It does not.
    Down { since: Timestamp, try_at: Timestamp, wait_ms: u64 },
    /// It answers, and refuses all that we want.
    Unauthorized { since: Timestamp, try_at: Timestamp, wait_ms: u64 },
}

/// What may be called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Anything.
    All,
    /// One call, to see whether Slack answers.
    One,
    /// Only the question whether Slack knows us.
    Ask,
    /// Nothing before then.
    Nothing { until: Timestamp },
}

impl Gate {
    pub(super) fn new() -> Gate {
        Gate { standing: Standing::Up, silences: 0, refused_for: None }
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn permit(&self, now: Timestamp) -> Permit {
        match self.standing {
            Standing::Up => Permit::All,
            Standing::Down { try_at, .. } if now >= try_at => Permit::One,
            Standing::Unauthorized { try_at, .. } if now >= try_at => Permit::Ask,
            Standing::Down { try_at, .. } | Standing::Unauthorized { try_at, .. } => {
                Permit::Nothing { until: try_at }
            }
        }
    }

    /// Slack answered, whatever it said.
    pub(super) fn answered(&mut self) {
        self.silences = 0;
        if matches!(self.standing, Standing::Down { .. }) {
            self.standing = Standing::Up;
        }
    }

    /// Slack delivered a message.
    pub(super) fn delivered(&mut self) {
        self.answered();
        self.refused_for = None;
    }

    /// Slack did not answer.
    pub(super) fn unanswered(&mut self, now: Timestamp, dice: &Dice) {
        self.silences = self.silences.saturating_add(1);
        self.standing = match self.standing {
            Standing::Up if self.silences < SILENCES => return,
            Standing::Up => {
                Standing::Down { since: now, try_at: now.plus(dice.around(DOWN_MS.0)), wait_ms: DOWN_MS.0 }
            }
            // The answers to calls that were made before it counted as down do not make it so for longer.
            Standing::Down { try_at, .. } if now < try_at => return,
            Standing::Down { since, wait_ms, .. } => {
                let wait_ms = (wait_ms * 2).min(DOWN_MS.1);
                Standing::Down { since, try_at: now.plus(dice.around(wait_ms)), wait_ms }
            }
            Standing::Unauthorized { since, wait_ms, .. } => {
                Standing::Unauthorized { since, try_at: now.plus(dice.around(wait_ms)), wait_ms }
            }
        };
    }

    /// Slack refuses all that we want. True where that is news.
    pub(super) fn unauthorized(&mut self, now: Timestamp, code: &str, dice: &Dice) -> bool {
        self.silences = 0;
        let (since, wait_ms) = match self.standing {
            Standing::Unauthorized { since, try_at, wait_ms } if now < try_at => {
                self.standing = Standing::Unauthorized { since, try_at, wait_ms };
                return false;
            }
            Standing::Unauthorized { since, wait_ms, .. } => (since, (wait_ms * 2).min(UNAUTHORIZED_MS.1)),
            Standing::Up | Standing::Down { .. } => (now, UNAUTHORIZED_MS.0),
        };
        self.standing = Standing::Unauthorized { since, try_at: now.plus(dice.around(wait_ms)), wait_ms };
        let news = self.refused_for.as_deref() != Some(code);
        self.refused_for = Some(code.to_owned());
        news
    }

    /// Slack knows us again.
    pub(super) fn authorized(&mut self) {
        self.silences = 0;
        self.standing = Standing::Up;
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

    fn try_at(gate: &Gate) -> Timestamp {
        match gate.standing {
            Standing::Down { try_at, .. } | Standing::Unauthorized { try_at, .. } => try_at,
            Standing::Up => panic!("{gate:?}"),
        }
    }

    #[test]
    fn silence_shuts_the_gate_and_an_answer_opens_it() {
        let (mut gate, dice) = (Gate::new(), Dice::seeded(1));
        for _ in 1..SILENCES {
            gate.unanswered(START, &dice);
            assert_eq!(gate.permit(START), Permit::All);
        }
        gate.answered();
        for _ in 1..SILENCES {
            gate.unanswered(START, &dice);
        }
        assert_eq!(gate.permit(START), Permit::All, "only what comes in a row counts");
        gate.unanswered(START, &dice);
        let mut wait = 0;
        for _ in 0..10 {
            let until = try_at(&gate);
            // What was under way when it was shut changes nothing.
            gate.unanswered(until.minus(1), &dice);
            assert_eq!(gate.permit(until.minus(1)), Permit::Nothing { until });
            assert_eq!(gate.permit(until), Permit::One);
            gate.unanswered(until, &dice);
            let next = try_at(&gate).since(until);
            assert!(next <= DOWN_MS.1 * 3 / 2 && (next > wait || wait > DOWN_MS.1 / 2), "{wait} {next}");
            wait = next;
        }
        assert!(matches!(gate.standing, Standing::Down { since: START, .. }));
        gate.answered();
        assert_eq!(gate.permit(START), Permit::All);
    }

    #[test]
    fn a_refusal_is_news_once() {
        let (mut gate, dice) = (Gate::new(), Dice::seeded(2));
        assert!(gate.unauthorized(START, "invalid_auth", &dice));
        assert!(!gate.unauthorized(START, "invalid_auth", &dice), "another call that was under way");
        let until = try_at(&gate);
        assert_eq!(gate.permit(until.minus(1)), Permit::Nothing { until });
        assert_eq!(gate.permit(until), Permit::Ask);
        gate.unanswered(until, &dice);
        assert!(matches!(gate.standing, Standing::Unauthorized { since: START, .. }));
        gate.answered();
        assert!(matches!(gate.standing, Standing::Unauthorized { .. }), "an answer is not enough");
        assert!(!gate.unauthorized(try_at(&gate), "invalid_auth", &dice));

        gate.authorized();
        assert_eq!(gate.permit(until), Permit::All);
        assert!(!gate.unauthorized(until, "invalid_auth", &dice), "nothing was delivered in between");
        gate.authorized();
        assert!(gate.unauthorized(until, "missing_scope", &dice));
        gate.authorized();
        gate.delivered();
        assert!(gate.unauthorized(until, "missing_scope", &dice));
    }
}
