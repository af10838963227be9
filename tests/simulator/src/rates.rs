//! How often an app may call: a bucket of tokens for each method, and for `chat.postMessage` for each channel.
//!
//! Slack publishes its limits a minute, and that it allows short bursts, but not how it counts. Here a bucket
//! holds a minute's worth; those of `chat.postMessage` hold three, and that of `apps.connections.open` ten, since an app
//! may open ten sockets at once. The limit over all channels of a workspace is not modelled.

use std::collections::HashMap;

/// What an app may do with a method.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    per_minute: f64,
    burst: f64,
    /// Whether each channel has a bucket of its own.
    per_channel: bool,
}

impl Limit {
    const fn tier(per_minute: f64) -> Limit {
        Limit { per_minute, burst: per_minute, per_channel: false }
    }

    fn of(method: &str) -> Limit {
        match method {
            "chat.postMessage" => Limit { per_minute: 60.0, burst: 3.0, per_channel: true },
            "apps.connections.open" => Limit { per_minute: 1.0, burst: 10.0, per_channel: false },
            "usergroups.users.list" => Limit::tier(20.0),
            "chat.update" | "conversations.history" | "conversations.replies" => Limit::tier(50.0),
            // Slack calls these two special: some hundreds a minute.
            "auth.test" | "chat.getPermalink" => Limit::tier(600.0),
            _ => Limit::tier(100.0),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    /// The time of `tokens`, in microseconds.
    at: u64,
}

/// The buckets of one app in one workspace.
#[derive(Debug)]
pub(crate) struct Rates {
    /// The factor of the limits. Infinity removes them.
    factor: f64,
    buckets: HashMap<(String, String), Bucket>,
}

impl Rates {
    pub(crate) fn new(factor: f64) -> Rates {
        Rates { factor, buckets: HashMap::new() }
    }

    /// Changes the factor, and fills every bucket.
    pub(crate) fn set_factor(&mut self, factor: f64) {
        *self = Rates::new(factor);
    }

    /// Admits a call, or returns how many seconds it must wait.
    pub(crate) fn take(&mut self, method: &str, channel: &str, now: u64) -> Result<(), u64> {
        if self.factor.is_infinite() {
            return Ok(());
        }
        let limit = Limit::of(method);
        let burst = (limit.burst * self.factor).max(1.0);
        let per_micro = limit.per_minute * self.factor / 60e6;
        let channel = if limit.per_channel { channel } else { "" };
        let bucket = self
            .buckets
            .entry((method.to_owned(), channel.to_owned()))
            .or_insert(Bucket { tokens: burst, at: now });
        bucket.tokens = (bucket.tokens + as_float(now.saturating_sub(bucket.at)) * per_micro).min(burst);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(whole_seconds((1.0 - bucket.tokens) / per_micro))
    }
}

#[expect(clippy::cast_precision_loss, reason = "the time between two calls is short")]
fn as_float(micros: u64) -> f64 {
    micros as f64
}

/// Slack says how long to wait in whole seconds, and at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is positive, and a cast saturates"
)]
fn whole_seconds(micros: f64) -> u64 {
    ((micros / 1e6).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// How many calls at once are admitted, and how long the next one must wait.
    fn check(method: &str, factor: f64, burst: usize, retry_after: u64) {
        let mut rates = Rates::new(factor);
        for call in 0..burst {
            assert_eq!(rates.take(method, "C0A", 0), Ok(()), "{method}: call {call}");
        }
        assert_eq!(rates.take(method, "C0A", 0), Err(retry_after), "{method}");
        assert_eq!(rates.take(method, "C0A", retry_after * SECOND), Ok(()), "{method}: after the wait");
    }

    #[test]
    fn each_method_has_its_limit() {
        let rows = [
            ("chat.postMessage", 1.0, 3, 1),
            ("chat.postMessage", 10.0, 30, 1),
            ("chat.update", 1.0, 50, 2),
            ("conversations.history", 1.0, 50, 2),
            ("conversations.replies", 2.0, 100, 1),
            ("usergroups.users.list", 1.0, 20, 3),
            ("views.open", 1.0, 100, 1),
            ("chat.postEphemeral", 1.0, 100, 1),
            ("users.info", 1.0, 100, 1),
            ("apps.connections.open", 1.0, 10, 60),
        ];
        for (method, factor, burst, retry_after) in rows {
            check(method, factor, burst, retry_after);
        }
    }

    #[test]
    fn channels_do_not_share_what_methods_do() {
        let mut rates = Rates::new(1.0);
        for _ in 0..3 {
            assert_eq!(rates.take("chat.postMessage", "C0A", 0), Ok(()));
        }
        assert!(rates.take("chat.postMessage", "C0A", 0).is_err());
        assert_eq!(rates.take("chat.postMessage", "C0B", 0), Ok(()));
        assert_eq!(rates.take("chat.update", "C0A", 0), Ok(()));
    }

    #[test]
    fn one_post_a_second_goes_on_for_ever() {
        let mut rates = Rates::new(1.0);
        for second in 0..100 {
            assert_eq!(rates.take("chat.postMessage", "C0A", second * SECOND), Ok(()), "{second}");
        }
    }

    #[test]
    fn limits_can_be_lifted() {
        let mut rates = Rates::new(f64::INFINITY);
        for _ in 0..10_000 {
            assert_eq!(rates.take("apps.connections.open", "", 0), Ok(()));
        }
        rates.set_factor(1.0);
        assert_eq!((0..20).filter(|_| rates.take("apps.connections.open", "", 0).is_ok()).count(), 10);
    }
}
