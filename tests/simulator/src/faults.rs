//! Faults on demand: chosen for each call by a seeded random generator, so that a run can be repeated.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The faults, and their probabilities. The probabilities of one call must not add up to more than 1.
///
/// Whether a call that is answered with a 5xx, not at all or by a reset was carried out is random: so such an answer says
/// nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How often a call is answered with 429, without being carried out.
    pub rate_limited: f64,
    /// The seconds of `Retry-After` then; 0 means 1.
    pub retry_after: u64,
    /// How often a call is answered with 500 or 503.
    pub server_error: f64,
    /// How often a call is answered with 200 and `internal_error`, of which Slack says that it may have been done.
    pub internal_error: f64,
    /// How often a call is never answered.
    pub timeout: f64,
    /// How often the connection is reset instead of an answer.
    pub reset: f64,
    /// The shortest and the longest delay of a call, in milliseconds.
    pub delay_ms: [u64; 2],
    /// How often an interaction is delivered twice.
    pub duplicate_interaction: f64,
    /// Whether Slack is down: every call is reset, none carried out, and no socket stays open.
    pub down: bool,
    /// A message with this text in its blocks is refused with `invalid_blocks`.
    pub invalid_blocks_with: Option<String>,
    /// The methods that the faults apply to; all if empty.
    pub methods: Vec<String>,
    /// A new seed for the random generator.
    pub seed: Option<u64>,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Faults {
        Faults::default()
    }

    /// Slack is down.
    #[must_use]
    pub fn down() -> Faults {
        Faults { down: true, ..Faults::default() }
    }

    /// Why the faults are invalid, if they are.
    pub(crate) fn mistake(&self) -> Option<String> {
        let chances = [self.rate_limited, self.server_error, self.internal_error, self.timeout, self.reset];
        let all = chances.iter().chain([&self.duplicate_interaction]);
        if all.into_iter().any(|chance| !(0.0..=1.0).contains(chance)) {
            return Some("a probability is from 0 to 1".into());
        }
        if chances.iter().sum::<f64>() > 1.0 + 1e-9 {
            return Some("the probabilities of one call are over 1 together".into());
        }
        None
    }
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is answered without a fault.
    Answered,
    RateLimited {
        retry_after: u64,
    },
    ServerError {
        status: u16,
        carried_out: bool,
    },
    InternalError {
        carried_out: bool,
    },
    Unanswered {
        carried_out: bool,
    },
    Reset {
        carried_out: bool,
    },
    Down,
}

impl Fate {
    pub(crate) fn is_carried_out(self) -> bool {
        match self {
            Fate::Answered => true,
            Fate::RateLimited { .. } | Fate::Down => false,
            Fate::ServerError { carried_out, .. }
            | Fate::InternalError { carried_out }
            | Fate::Unanswered { carried_out }
            | Fate::Reset { carried_out } => carried_out,
        }
    }

    /// As a call with this fate is counted; `None` if that is up to the answer.
    pub(crate) fn code(self) -> Option<&'static str> {
        Some(match self {
            Fate::Answered => return None,
            Fate::RateLimited { .. } => "ratelimited",
            Fate::ServerError { status: 500, .. } => "http_500",
            Fate::ServerError { .. } => "http_503",
            Fate::InternalError { .. } => "internal_error",
            Fate::Unanswered { .. } => "timeout",
            Fate::Reset { .. } => "reset",
            Fate::Down => "down",
        })
    }
}

/// The faults in force, and the random generator that chooses.
#[derive(Debug)]
pub(crate) struct Chance {
    faults: Faults,
    random: Random,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance { faults: Faults::none(), random: Random::new(seed) }
    }

    pub(crate) fn set(&mut self, faults: Faults) {
        if let Some(seed) = faults.seed {
            self.random = Random::new(seed);
        }
        self.faults = faults;
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What happens to a call, and its delay.
    pub(crate) fn fate(&mut self, method: &str) -> (Duration, Fate) {
        let faults = &self.faults;
        if faults.down {
            return (Duration::ZERO, Fate::Down);
        }
        if !faults.methods.is_empty() && !faults.methods.iter().any(|named| named == method) {
            return (Duration::ZERO, Fate::Answered);
        }
        let [least, most] = faults.delay_ms;
        let delay = Duration::from_millis(self.random.between(least, most));
        let roll = self.random.fraction();
        let carried_out = self.random.coin();
        let mut below = 0.0;
        let mut falls = |chance: f64| {
            below += chance;
            roll < below
        };
        let fate = if falls(faults.rate_limited) {
            Fate::RateLimited { retry_after: faults.retry_after.max(1) }
        } else if falls(faults.server_error) {
            Fate::ServerError { status: if self.random.coin() { 500 } else { 503 }, carried_out }
        } else if falls(faults.internal_error) {
            Fate::InternalError { carried_out }
        } else if falls(faults.timeout) {
            Fate::Unanswered { carried_out }
        } else if falls(faults.reset) {
            Fate::Reset { carried_out }
        } else {
            Fate::Answered
        };
        (delay, fate)
    }

    /// Whether the next interaction is delivered twice.
    pub(crate) fn duplicates(&mut self) -> bool {
        self.random.fraction() < self.faults.duplicate_interaction
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, faults: Faults, calls: usize) -> Vec<Fate> {
        let mut chance = Chance::new(seed);
        chance.set(faults);
        (0..calls).map(|_| chance.fate("chat.update").1).collect()
    }

    fn storm() -> Faults {
        Faults { rate_limited: 0.3, server_error: 0.1, timeout: 0.05, reset: 0.05, ..Faults::none() }
    }

    #[test]
    fn the_same_seed_gives_the_same_storm() {
        assert_eq!(fates(7, storm(), 200), fates(7, storm(), 200));
        assert_ne!(fates(7, storm(), 200), fates(8, storm(), 200));
        let reseeded = Faults { seed: Some(7), ..storm() };
        assert_eq!(fates(8, reseeded, 200), fates(7, storm(), 200));
    }

    #[test]
    fn a_storm_is_as_strong_as_was_asked_for() {
        let fates = fates(1, storm(), 10_000);
        let share = |is: fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
        let rows: [(&str, usize, usize); 5] = [
            ("429", share(|fate| matches!(fate, Fate::RateLimited { retry_after: 1 })), 3000),
            ("5xx", share(|fate| matches!(fate, Fate::ServerError { .. })), 1000),
            ("timeout", share(|fate| matches!(fate, Fate::Unanswered { .. })), 500),
            ("reset", share(|fate| matches!(fate, Fate::Reset { .. })), 500),
            ("reset after all", share(|fate| matches!(fate, Fate::Reset { carried_out: true })), 250),
        ];
        for (what, found, wanted) in rows {
            assert!(found.abs_diff(wanted) < 50 + wanted / 20, "{what}: {found}, not about {wanted}");
        }
    }

    #[test]
    fn faults_can_be_for_some_methods_only() {
        let faults = Faults { rate_limited: 1.0, methods: vec!["chat.postMessage".into()], ..Faults::none() };
        assert_eq!(fates(1, faults.clone(), 50), [Fate::Answered; 50]);
        let mut chance = Chance::new(1);
        chance.set(faults);
        assert!(matches!(chance.fate("chat.postMessage").1, Fate::RateLimited { .. }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (faults, bad) in [
            (storm(), false),
            (Faults { timeout: 1.0, ..Faults::none() }, false),
            (Faults { timeout: 1.1, ..Faults::none() }, true),
            (Faults { reset: -0.1, ..Faults::none() }, true),
            (Faults { reset: 0.6, timeout: 0.6, ..Faults::none() }, true),
            (Faults { duplicate_interaction: f64::NAN, ..Faults::none() }, true),
        ] {
            assert_eq!(faults.mistake().is_some(), bad, "{faults:?}");
        }
    }
}
