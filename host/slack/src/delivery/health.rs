//! How delivery to Slack stands, for those who operate it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::circuit_breaker::BreakerState;
use countersign_core::lifecycle::Timestamp;

/// How many channels to name.
const CHANNELS: usize = 20;

/// How long to name a channel after Slack last refused it, in milliseconds: longer than until it is tried again,
/// and not for ever, since a policy set can name another one.
const NAMED_MS: u64 = 30 * 60 * 1000;

/// How delivery stands. The worker writes it, `/readyz` reads it.
#[derive(Debug)]
pub struct Health(Mutex<Report>);

/// How delivery stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In a word.
    pub state: HealthState,
    /// Since when it is that.
    pub since: Timestamp,
    /// Slack's code, where it refuses all that we want.
    pub refused: Option<String>,
    /// Slack's code, where it does not let us look for a message whose posting was not answered:
    /// then such a message is posted again, and may be there twice.
    pub lookup_refused: Option<String>,
    /// The channels that nothing can be delivered to, as the policy set names them; at most 20.
    pub channels: BTreeMap<String, ChannelFailure>,
}

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Messages are delivered.
    Ok,
    /// Some are not, or may be twice.
    Degraded,
    /// Slack does not answer.
    Down,
    /// Slack refuses all that we want.
    Unauthorized,
}

/// Why nothing can be delivered to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFailure {
    /// Slack's code.
    pub code: String,
    /// When it was first said.
    pub since: Timestamp,
    /// When it was last said.
    pub last: Timestamp,
}

impl HealthState {
    /// As operators see it.
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
    /// All is well, since `now`.
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

    /// How delivery stands.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Slack stands so.
    pub(super) fn stands(&self, standing: &BreakerState, refused_for: Option<&str>, now: Timestamp) {
        let mut report = self.lock();
        report.channels.retain(|_, failure| now.since(failure.last) < NAMED_MS);
        report.refused = match standing {
            BreakerState::Unauthorized { .. } => refused_for.map(str::to_owned),
            BreakerState::Up | BreakerState::Down { .. } => None,
        };
        let (state, since) = match standing {
            BreakerState::Down { since, .. } => (HealthState::Down, *since),
            BreakerState::Unauthorized { since, .. } => (HealthState::Unauthorized, *since),
            BreakerState::Up if report.is_degraded() => (HealthState::Degraded, now),
            BreakerState::Up => (HealthState::Ok, now),
        };
        if report.state != state {
            match state {
                HealthState::Ok => tracing::info!("delivery to Slack goes well again"),
                HealthState::Degraded => tracing::warn!("delivery to Slack goes well in tracked"),
                HealthState::Down => tracing::error!("Slack does not answer; trying from time to time"),
                HealthState::Unauthorized => {
                    tracing::error!(
                        code = report.refused,
                        "Slack refuses everything; asking from time to time"
                    );
                }
            }
            (report.state, report.since) = (state, since);
        }
    }

    /// A channel does not let us.
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

    /// Whether Slack lets us look for our messages.
    pub(super) fn lookup(&self, refused: Option<&str>) {
        self.lock().lookup_refused = refused.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        // Each change is whole, whatever panics between two of them.
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
    fn trouble_shows_and_goes() {
        let health = Health::new(START);
        let state = |now: u64| {
            health.stands(&BreakerState::Up, None, START.plus(now));
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

        health.stands(
            &BreakerState::Down { since: START.plus(8), try_at: START, wait_ms: 1 },
            None,
            START.plus(9),
        );
        assert_eq!((health.report().state, health.report().since), (HealthState::Down, START.plus(8)));
        let refused = BreakerState::Unauthorized { since: START.plus(10), try_at: START, wait_ms: 1 };
        health.stands(&refused, Some("invalid_auth"), START.plus(11));
        let report = health.report();
        assert_eq!(
            (report.state, report.refused.as_deref()),
            (HealthState::Unauthorized, Some("invalid_auth"))
        );
        assert_eq!(state(12), (HealthState::Ok, 12));
        assert_eq!(health.report().refused, None);
    }

    #[test]
    fn few_channels_are_named_and_not_for_ever() {
        let health = Health::new(START);
        for number in 0..1000 {
            health.channel_failed(&format!("C{number}"), "is_archived", START);
        }
        assert_eq!(health.report().channels.len(), CHANNELS);
        health.stands(&BreakerState::Up, None, START.plus(NAMED_MS));
        assert_eq!(health.report().channels.len(), 0);
        assert_eq!(health.report().state, HealthState::Ok);
    }
}
