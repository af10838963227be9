//! How often Slack may be called: one bucket for each method, and for posting one for each channel.

use std::collections::HashMap;

use countersign_core::lifecycle::Timestamp;

/// How many calls a minute Slack takes of `chat.update` and the methods that read a channel (tier 3).
const TIER_3: f64 = 50.0;

/// How many of the methods that answer people (tier 4).
const TIER_4: f64 = 100.0;

/// How many of a minute's calls may come at once. The others come evenly, so that no minute has more than its share.
const AT_ONCE: f64 = 0.1;

/// How many channels to remember; those that have been quiet are forgotten first.
const CHANNELS: usize = 1024;

/// A kind of call that has a budget of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Method {
    /// `chat.postMessage` to this channel.
    Post(String),
    /// `chat.update`.
    Update,
    /// `conversations.history`.
    History,
    /// `conversations.replies`.
    Replies,
}

/// What is left of every budget.
#[derive(Debug)]
pub(super) struct RateLimits {
    factor: f64,
    update: TokenBucket,
    history: TokenBucket,
    replies: TokenBucket,
    posts: HashMap<String, TokenBucket>,
}

impl RateLimits {
    /// RateLimits as Slack documents them, times `factor`.
    pub(super) fn new(factor: f64) -> RateLimits {
        let tier = || TokenBucket::a_minute(TIER_3 * factor);
        RateLimits { factor, update: tier(), history: tier(), replies: tier(), posts: HashMap::new() }
    }

    /// When a call can be made.
    pub(super) fn free_at(&mut self, method: &Method, now: Timestamp) -> Timestamp {
        self.bucket(method).free_at(now)
    }

    /// Whether an update can be made that nobody waits for: one more must be left for what people do meanwhile.
    pub(super) fn has_spare_update(&mut self, now: Timestamp) -> bool {
        self.update.has_spare(now)
    }

    /// A call is about to be made.
    pub(super) fn take(&mut self, method: &Method, now: Timestamp) {
        self.bucket(method).take(now);
    }

    /// It was not made after all.
    pub(super) fn give_back(&mut self, method: &Method) {
        self.bucket(method).give_back();
    }

    /// Slack takes no more of these calls until then.
    pub(super) fn shut(&mut self, method: &Method, until: Timestamp) {
        self.bucket(method).shut(until);
    }

    fn bucket(&mut self, method: &Method) -> &mut TokenBucket {
        match method {
            Method::Update => &mut self.update,
            Method::History => &mut self.history,
            Method::Replies => &mut self.replies,
            Method::Post(channel) => {
                if self.posts.len() >= CHANNELS && !self.posts.contains_key(channel) {
                    self.posts.retain(|_, bucket| !bucket.is_full());
                }
                let factor = self.factor;
                self.posts.entry(channel.clone()).or_insert_with(|| TokenBucket::a_second(factor))
            }
        }
    }
}

/// A token bucket.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    most: f64,
    per_ms: f64,
    left: f64,
    at: Timestamp,
    shut_until: Timestamp,
}

impl TokenBucket {
    /// For the calls of a method: a few at once, and never more than `calls` within any minute.
    pub(super) fn a_minute(calls: f64) -> TokenBucket {
        let most = (calls * AT_ONCE).max(1.0);
        TokenBucket::full(most, (calls - most).max(calls / 2.0) / 60_000.0)
    }

    /// For posting to one channel: one at a time.
    fn a_second(calls: f64) -> TokenBucket {
        TokenBucket::full(1.0, calls / 1000.0)
    }

    /// For telling people what only they see.
    pub(super) fn ephemeral(factor: f64) -> TokenBucket {
        TokenBucket::a_minute(TIER_4 * factor)
    }

    fn full(most: f64, per_ms: f64) -> TokenBucket {
        TokenBucket { most, per_ms, left: most, at: Timestamp::EPOCH, shut_until: Timestamp::EPOCH }
    }

    pub(super) fn free_at(&mut self, now: Timestamp) -> Timestamp {
        self.refill(now);
        let wait = if self.left >= 1.0 { 0 } else { millis((1.0 - self.left) / self.per_ms) };
        now.plus(wait).max(self.shut_until)
    }

    fn has_spare(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        now >= self.shut_until && self.left >= self.most.min(2.0)
    }

    pub(super) fn take(&mut self, now: Timestamp) {
        self.refill(now);
        self.left -= 1.0;
    }

    fn give_back(&mut self) {
        self.left = (self.left + 1.0).min(self.most);
    }

    pub(super) fn shut(&mut self, until: Timestamp) {
        self.shut_until = self.shut_until.max(until);
        // Once it is open again, calls come evenly.
        self.left = self.left.min(1.0);
    }

    fn is_full(&self) -> bool {
        self.left >= self.most
    }

    fn refill(&mut self, now: Timestamp) {
        // A clock that was set back gives nothing, and takes nothing.
        self.left = (self.left + number(now.since(self.at)) * self.per_ms).min(self.most);
        self.at = now;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a bucket that is idle for 200,000 years may be filled inexactly"
)]
fn number(millis: u64) -> f64 {
    millis as f64
}

/// Up to the next millisecond, so that the token is there when the time has come.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn millis(time: f64) -> u64 {
    time.ceil().clamp(1.0, 86_400_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    /// How many calls can be made within so many milliseconds, by whoever calls whenever it can.
    fn calls_within(rate_limits: &mut RateLimits, method: &Method, from: Timestamp, span: u64) -> usize {
        let mut now = from;
        let mut calls = 0;
        loop {
            now = rate_limits.free_at(method, now);
            if now >= from.plus(span) {
                return calls;
            }
            rate_limits.take(method, now);
            calls += 1;
        }
    }

    #[test]
    fn no_minute_has_more_than_its_share() {
        for (factor, most) in [(1.0, 50), (0.1, 5), (20.0, 1000)] {
            for method in [Method::Update, Method::History, Method::Replies] {
                let mut rate_limits = RateLimits::new(factor);
                let first = calls_within(&mut rate_limits, &method, START, 60_000);
                assert!(first <= most && first + 1 >= most * 9 / 10, "{factor} {method:?}: {first}");
                let later = calls_within(&mut rate_limits, &method, START.plus(60_000), 60_000);
                assert!(later <= first && later + 1 >= most * 8 / 10, "{factor} {method:?}: {later}");
            }
        }
    }

    #[test]
    fn each_channel_has_one_post_a_second() {
        let mut rate_limits = RateLimits::new(1.0);
        let [one, other] = ["C1", "C2"].map(|channel| Method::Post(channel.to_owned()));
        assert_eq!(calls_within(&mut rate_limits, &one, START, 10_000), 10);
        assert_eq!(calls_within(&mut rate_limits, &other, START, 10_000), 10);
        assert_eq!(calls_within(&mut RateLimits::new(5.0), &one, START, 10_000), 50);
    }

    #[test]
    fn a_budget_that_was_shut_opens_when_slack_said() {
        let mut rate_limits = RateLimits::new(1.0);
        let [one, other] = ["C1", "C2"].map(|channel| Method::Post(channel.to_owned()));
        rate_limits.shut(&one, START.plus(30_000));
        assert_eq!(rate_limits.free_at(&one, START), START.plus(30_000));
        assert_eq!(rate_limits.free_at(&other, START), START, "another channel is not concerned");
        rate_limits.shut(&one, START.plus(10_000));
        assert_eq!(rate_limits.free_at(&one, START), START.plus(30_000), "the longest wait counts");

        rate_limits.shut(&Method::Update, START.plus(7_000));
        assert!(!rate_limits.has_spare_update(START.plus(6_999)));
        assert_eq!(rate_limits.free_at(&Method::Update, START), START.plus(7_000));
        let after = calls_within(&mut rate_limits, &Method::Update, START.plus(7_000), 1_000);
        assert!(after <= 5, "{after} at once, which is what it was shut for");
    }

    #[test]
    fn what_was_not_called_is_given_back() {
        let mut rate_limits = RateLimits::new(1.0);
        let post = Method::Post("C1".to_owned());
        rate_limits.take(&post, START);
        assert_eq!(rate_limits.free_at(&post, START), START.plus(1_000));
        rate_limits.give_back(&post);
        rate_limits.give_back(&post);
        assert_eq!(calls_within(&mut rate_limits, &post, START, 1_000), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let mut rate_limits = RateLimits::new(1.0);
        let post = Method::Post("C1".to_owned());
        rate_limits.take(&post, START);
        let earlier = START.minus(86_400_000);
        let free = rate_limits.free_at(&post, earlier);
        assert!(free <= earlier.plus(1_000), "{free}");
    }

    #[test]
    fn quiet_channels_are_forgotten() {
        let mut rate_limits = RateLimits::new(1.0);
        for number in 0..5_000 {
            let method = Method::Post(format!("C{number}"));
            let _ = rate_limits.free_at(&method, START);
        }
        assert!(rate_limits.posts.len() <= CHANNELS, "{}", rate_limits.posts.len());
    }
}
