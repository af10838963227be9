//! The state of delivery to Slack, for operators.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_core::clock::{Moment, Monotonic};
use countersign_core::lifecycle::Timestamp;

use super::circuit_breaker::BreakerState;

/// The most channels in a report.
const CHANNELS: usize = 20;

/// How long a channel stays in the report after Slack last refused it, in milliseconds: longer than the longest wait
/// before it is tried again, but not for ever, since a policy set may no longer use it.
const REPORTED_MS: u64 = 30 * 60 * 1000;

/// How long delivery may stand still although something is due, in milliseconds: much longer than the worker sleeps, and
/// longer than any pause between two messages that Slack's documented rate limits make.
const STALLED_MS: u64 = 60 * 1000;

/// The state of delivery. The worker writes it, `/readyz` reads it.
#[derive(Debug)]
pub struct Health(Mutex<Known>);

#[derive(Debug)]
struct Known {
    report: Report,
    /// When the worker last looked at what is due.
    looked: Moment,
    /// Since when something has been due and nothing has moved on; `None` if nothing is due.
    due_since: Option<Monotonic>,
}

/// The state of delivery at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The state.
    pub state: HealthState,
    /// Since when.
    pub since: Timestamp,
    /// Whether Slack may be called.
    pub breaker: BreakerState,
    /// Slack's code, if it refuses the token or its scopes.
    pub refused: Option<String>,
    /// Slack's code, if it does not allow searching for a message whose post was not answered: such a message is posted
    /// again, and may be there twice.
    pub lookup_refused: Option<String>,
    /// The channels that Slack refuses, by their names in the policy set; at most 20.
    pub channels: BTreeMap<String, ChannelFailure>,
}

/// The state of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Messages are delivered.
    Ok,
    /// Some messages are not delivered, or may be there twice.
    Degraded,
    /// Nothing has been delivered for a minute although something is due.
    Stalled,
    /// Slack does not answer.
    Down,
    /// Slack refuses the token or its scopes.
    Unauthorized,
    /// Another instance delivers.
    Standby,
}

/// Why Slack refuses a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFailure {
    /// Slack's code.
    pub code: String,
    /// When Slack first refused it.
    pub since: Timestamp,
    /// When Slack last refused it.
    pub last: Monotonic,
}

impl HealthState {
    /// The name in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            HealthState::Ok => "ok",
            HealthState::Degraded => "degraded",
            HealthState::Stalled => "stalled",
            HealthState::Down => "down",
            HealthState::Unauthorized => "unauthorized",
            HealthState::Standby => "standby",
        }
    }
}

impl Health {
    /// [`HealthState::Ok`] since `now`.
    #[must_use]
    pub fn new(now: Moment) -> Health {
        Health(Mutex::new(Known::new(HealthState::Ok, now)))
    }

    /// The state at `now`.
    #[must_use]
    pub fn report(&self, now: Monotonic) -> Report {
        let known = self.lock();
        let report = known.report.clone();
        // A worker that hangs cannot say so itself.
        if report.state != HealthState::Standby && now.since(known.looked.monotonic) >= STALLED_MS {
            return Report { state: HealthState::Stalled, since: known.looked.wall, ..report };
        }
        report
    }

    /// Slack's code, if it refuses everything or this channel, named as in the policy set.
    #[must_use]
    pub fn refusal_of(&self, channel: &str) -> Option<String> {
        let known = self.lock();
        let of_channel = || known.report.channels.get(channel).map(|failure| failure.code.clone());
        known.report.refused.clone().or_else(of_channel)
    }

    /// Takes over the state of the circuit breaker, and whether something is due.
    pub(super) fn update(
        &self,
        breaker: &BreakerState,
        refused_for: Option<&str>,
        is_due: bool,
        now: Moment,
    ) {
        let mut known = self.lock();
        known.looked = now;
        // While the circuit breaker is open nothing is sent, and that is said.
        let may_stall = is_due && *breaker == BreakerState::Closed;
        known.due_since = may_stall.then(|| known.due_since.unwrap_or(now.monotonic));
        let is_stalled = known.due_since.is_some_and(|since| now.monotonic.since(since) >= STALLED_MS);
        let report = &mut known.report;
        report.breaker = breaker.clone();
        report.channels.retain(|_, failure| now.monotonic.since(failure.last) < REPORTED_MS);
        report.refused = match breaker {
            BreakerState::Unauthorized { .. } => refused_for.map(str::to_owned),
            BreakerState::Closed | BreakerState::Open { .. } => None,
        };
        let (state, since) = match breaker {
            BreakerState::Open { since, .. } => (HealthState::Down, *since),
            BreakerState::Unauthorized { since, .. } => (HealthState::Unauthorized, *since),
            BreakerState::Closed if is_stalled => (HealthState::Stalled, now.wall),
            BreakerState::Closed if report.is_degraded() => (HealthState::Degraded, now.wall),
            BreakerState::Closed => (HealthState::Ok, now.wall),
        };
        if report.state != state {
            match state {
                HealthState::Ok if report.state == HealthState::Standby => {}
                HealthState::Ok => tracing::info!("delivery to Slack has recovered"),
                HealthState::Degraded => tracing::warn!("delivery to Slack is degraded"),
                HealthState::Stalled => {
                    tracing::error!("delivery to Slack stands still although messages are due");
                }
                HealthState::Down => tracing::error!("Slack does not answer; retrying"),
                HealthState::Unauthorized => {
                    tracing::error!(code = report.refused, "Slack refuses the token; retrying");
                }
                HealthState::Standby => {}
            }
            (report.state, report.since) = (state, since);
        }
    }

    /// Another instance delivers, and knows how that goes.
    pub fn stand_by(&self, now: Moment) {
        let mut known = self.lock();
        if known.report.state != HealthState::Standby {
            *known = Known::new(HealthState::Standby, now);
        }
    }

    /// Something that was due has moved on.
    pub(super) fn moved(&self) {
        self.lock().due_since = None;
    }

    /// Slack refused a channel.
    pub(super) fn channel_failed(&self, channel: &str, code: &str, now: Moment) {
        let report = &mut self.lock().report;
        if let Some(failure) = report.channels.get_mut(channel) {
            code.clone_into(&mut failure.code);
            failure.last = now.monotonic;
        } else if report.channels.len() < CHANNELS {
            let failure = ChannelFailure { code: code.to_owned(), since: now.wall, last: now.monotonic };
            report.channels.insert(channel.to_owned(), failure);
        }
    }

    /// A message was delivered to a channel.
    pub(super) fn channel_delivered(&self, channel: &str) {
        self.lock().report.channels.remove(channel);
    }

    /// Slack allowed a search for a message, or refused it with this code.
    pub(super) fn lookup(&self, refused: Option<&str>) {
        self.lock().report.lookup_refused = refused.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No change leaves the report inconsistent, so a panic while it was locked does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(state: HealthState, now: Moment) -> Known {
        let (refused, lookup_refused, channels) = (None, None, BTreeMap::new());
        let breaker = BreakerState::Closed;
        let report = Report { state, since: now.wall, breaker, refused, lookup_refused, channels };
        Known { report, looked: now, due_since: None }
    }
}

impl Report {
    fn is_degraded(&self) -> bool {
        !self.channels.is_empty() || self.lookup_refused.is_some()
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

    fn report(health: &Health, millis: u64) -> Report {
        health.report(at(millis).monotonic)
    }

    #[test]
    fn problems_are_reported_until_they_are_solved() {
        let health = Health::new(at(0));
        let state = |now: u64| {
            health.update(&BreakerState::Closed, None, false, at(now));
            let report = report(&health, now);
            (report.state, report.since.since(START))
        };
        assert_eq!(state(1), (HealthState::Ok, 0));
        health.channel_failed("C1", "not_in_channel", at(2));
        health.channel_failed("C1", "is_archived", at(3));
        assert_eq!(state(4), (HealthState::Degraded, 4));
        let failure =
            ChannelFailure { code: "is_archived".into(), since: START.plus(2), last: at(3).monotonic };
        assert_eq!(report(&health, 4).channels, BTreeMap::from([("C1".to_owned(), failure)]));
        health.channel_delivered("C1");
        assert_eq!(state(5), (HealthState::Ok, 5));
        health.lookup(Some("missing_scope"));
        assert_eq!(state(6), (HealthState::Degraded, 6));
        health.lookup(None);
        assert_eq!(state(7), (HealthState::Ok, 7));

        let retry_at = Monotonic::START;
        let open = BreakerState::Open { since: START.plus(8), retry_at, retries: 0 };
        health.update(&open, None, true, at(9));
        let down = report(&health, 9);
        assert_eq!((down.state, down.since), (HealthState::Down, START.plus(8)));
        assert_eq!(down.breaker, open);
        let refused = BreakerState::Unauthorized { since: START.plus(10), retry_at, retries: 0 };
        health.update(&refused, Some("invalid_auth"), true, at(11));
        let refused = report(&health, 11);
        assert_eq!(
            (refused.state, refused.refused.as_deref()),
            (HealthState::Unauthorized, Some("invalid_auth"))
        );
        assert_eq!(state(12), (HealthState::Ok, 12));
        assert_eq!(report(&health, 12).refused, None);
    }

    #[test]
    fn few_channels_are_reported_and_not_for_ever() {
        let health = Health::new(at(0));
        for number in 0..1000 {
            health.channel_failed(&format!("C{number}"), "is_archived", at(0));
        }
        assert_eq!(report(&health, 0).channels.len(), CHANNELS);
        // The channels are forgotten after a time, whatever the wall clock says.
        let set_back = Moment { wall: START.minus(3_600_000), ..at(REPORTED_MS) };
        health.update(&BreakerState::Closed, None, false, set_back);
        assert_eq!(report(&health, REPORTED_MS).channels.len(), 0);
        assert_eq!(report(&health, REPORTED_MS).state, HealthState::Ok);
    }

    #[test]
    fn delivery_that_stands_still_is_not_ok() {
        let health = Health::new(at(0));
        let state = |now: u64, is_due: bool| {
            health.update(&BreakerState::Closed, None, is_due, at(now));
            report(&health, now).state
        };
        assert_eq!(state(10, true), HealthState::Ok);
        assert_eq!(state(9 + STALLED_MS, true), HealthState::Ok);
        assert_eq!(state(10 + STALLED_MS, true), HealthState::Stalled);
        health.moved();
        let answered = 20 + STALLED_MS;
        assert_eq!(state(answered, true), HealthState::Ok, "Slack has taken something");
        assert_eq!(state(answered + STALLED_MS - 1, false), HealthState::Ok, "nothing is due");
        assert_eq!(state(answered + STALLED_MS, true), HealthState::Ok);
        // While Slack does not answer that is said, and not that nothing moves.
        let open = BreakerState::Open { since: START, retry_at: Monotonic::START, retries: 0 };
        health.update(&open, None, true, at(answered + 2 * STALLED_MS));
        assert_eq!(report(&health, answered + 2 * STALLED_MS).state, HealthState::Down);
        assert_eq!(state(answered + 2 * STALLED_MS, true), HealthState::Ok);

        // A worker that does not even look: nothing is known to be due.
        let last = answered + 2 * STALLED_MS;
        assert_eq!(report(&health, last + STALLED_MS - 1).state, HealthState::Ok);
        let hangs = report(&health, last + STALLED_MS);
        assert_eq!((hangs.state, hangs.since), (HealthState::Stalled, START.plus(last)));
    }
}
