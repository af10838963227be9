//! The state of delivery to Slack, for operators.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_core::lifecycle::Timestamp;

use super::circuit_breaker::BreakerState;

/// The most channels in a report.
const CHANNELS: usize = 20;

/// How long a channel stays in the report after Slack last refused it, in milliseconds: longer than the longest wait
/// before it is tried again, but not for ever, since a policy set may no longer use it.
const REPORTED_MS: u64 = 30 * 60 * 1000;

/// The state of delivery. The worker writes it, `/readyz` reads it.
#[derive(Debug)]
pub struct Health(Mutex<Report>);

/// The state of delivery at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The state.
    pub state: HealthState,
    /// Since when.
    pub since: Timestamp,
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
    /// Slack does not answer.
    Down,
    /// Slack refuses the token or its scopes.
    Unauthorized,
}

/// Why Slack refuses a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFailure {
    /// Slack's code.
    pub code: String,
    /// When Slack first refused it.
    pub since: Timestamp,
    /// When Slack last refused it.
    pub last: Timestamp,
}

impl HealthState {
    /// The name in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            HealthState::Ok => "ok",
            HealthState::Degraded => "degraded",
            HealthState::Down => "down",
            HealthState::Unauthorized => "unauthorized",
        }
    }
}

impl Health {
    /// [`HealthState::Ok`] since `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Health {
        Health(Mutex::new(Report {
            state: HealthState::Ok,
            since: now,
            refused: None,
            lookup_refused: None,
            channels: BTreeMap::new(),
        }))
    }

    /// The current state.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Takes over the state of the circuit breaker.
    pub(super) fn update(&self, breaker: &BreakerState, refused_for: Option<&str>, now: Timestamp) {
        let mut report = self.lock();
        report.channels.retain(|_, failure| now.since(failure.last) < REPORTED_MS);
        report.refused = match breaker {
            BreakerState::Unauthorized { .. } => refused_for.map(str::to_owned),
            BreakerState::Closed | BreakerState::Open { .. } => None,
        };
        let (state, since) = match breaker {
            BreakerState::Open { since, .. } => (HealthState::Down, *since),
            BreakerState::Unauthorized { since, .. } => (HealthState::Unauthorized, *since),
            BreakerState::Closed if report.is_degraded() => (HealthState::Degraded, now),
            BreakerState::Closed => (HealthState::Ok, now),
        };
        if report.state != state {
            match state {
                HealthState::Ok => tracing::info!("delivery to Slack has recovered"),
                HealthState::Degraded => tracing::warn!("delivery to Slack is degraded"),
                HealthState::Down => tracing::error!("Slack does not answer; retrying"),
                HealthState::Unauthorized => {
                    tracing::error!(code = report.refused, "Slack refuses the token; retrying");
                }
            }
            (report.state, report.since) = (state, since);
        }
    }

    /// Slack refused a channel.
    pub(super) fn channel_failed(&self, channel: &str, code: &str, now: Timestamp) {
        let mut report = self.lock();
        if let Some(failure) = report.channels.get_mut(channel) {
            code.clone_into(&mut failure.code);
            failure.last = now;
        } else if report.channels.len() < CHANNELS {
            let failure = ChannelFailure { code: code.to_owned(), since: now, last: now };
            report.channels.insert(channel.to_owned(), failure);
        }
    }

    /// A message was delivered to a channel.
    pub(super) fn channel_delivered(&self, channel: &str) {
        self.lock().channels.remove(channel);
    }

    /// Slack allowed a search for a message, or refused it with this code.
    pub(super) fn lookup(&self, refused: Option<&str>) {
        self.lock().lookup_refused = refused.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        // No change leaves the report inconsistent, so a panic while it was locked does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn problems_are_reported_until_they_are_solved() {
        let health = Health::new(START);
        let state = |now: u64| {
            health.update(&BreakerState::Closed, None, START.plus(now));
            let report = health.report();
            (report.state, report.since.since(START))
        };
        assert_eq!(state(1), (HealthState::Ok, 0));
        health.channel_failed("C1", "not_in_channel", START.plus(2));
        health.channel_failed("C1", "is_archived", START.plus(3));
        assert_eq!(state(4), (HealthState::Degraded, 4));
        let failure =
            ChannelFailure { code: "is_archived".into(), since: START.plus(2), last: START.plus(3) };
        assert_eq!(health.report().channels, BTreeMap::from([("C1".to_owned(), failure)]));
        health.channel_delivered("C1");
        assert_eq!(state(5), (HealthState::Ok, 5));
        health.lookup(Some("missing_scope"));
        assert_eq!(state(6), (HealthState::Degraded, 6));
        health.lookup(None);
        assert_eq!(state(7), (HealthState::Ok, 7));

        health.update(
            &BreakerState::Open { since: START.plus(8), retry_at: START, retries: 0 },
            None,
            START.plus(9),
        );
        assert_eq!((health.report().state, health.report().since), (HealthState::Down, START.plus(8)));
        let refused = BreakerState::Unauthorized { since: START.plus(10), retry_at: START, retries: 0 };
        health.update(&refused, Some("invalid_auth"), START.plus(11));
        let report = health.report();
        assert_eq!(
            (report.state, report.refused.as_deref()),
            (HealthState::Unauthorized, Some("invalid_auth"))
        );
        assert_eq!(state(12), (HealthState::Ok, 12));
        assert_eq!(health.report().refused, None);
    }

    #[test]
    fn few_channels_are_reported_and_not_for_ever() {
        let health = Health::new(START);
        for number in 0..1000 {
            health.channel_failed(&format!("C{number}"), "is_archived", START);
        }
        assert_eq!(health.report().channels.len(), CHANNELS);
        health.update(&BreakerState::Closed, None, START.plus(REPORTED_MS));
        assert_eq!(health.report().channels.len(), 0);
        assert_eq!(health.report().state, HealthState::Ok);
    }
}
