//! Slack's rate limits: a token bucket for each method, and for posting one for each channel.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_core::clock::Monotonic;

/// Calls a minute in Slack's tier 3: `chat.update`, and the methods that read a channel.
const TIER_3: f64 = 50.0;

/// Calls a minute in Slack's tier 4: `chat.postEphemeral`.
const TIER_4: f64 = 100.0;

/// The share of a minute's calls that may come in a burst. The others are spread evenly, so that no minute has more
/// than its limit.
const BURST: f64 = 0.1;

/// The most channels with a bucket of their own; full buckets are evicted, since they are as good as new.
const CHANNELS: usize = 1024;

/// A method with a rate limit of its own.
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

impl Method {
    /// Whether all channels share its rate limit.
    pub(super) const fn is_shared(&self) -> bool {
        match self {
            Method::Post(_) => false,
            Method::Update | Method::History | Method::Replies => true,
        }
    }
}

/// The token buckets of all methods. The worker uses them, and operators read them.
#[derive(Debug)]
pub struct RateLimits(Mutex<Buckets>);

#[derive(Debug)]
struct Buckets {
    factor: f64,
    update: TokenBucket,
    history: TokenBucket,
    replies: TokenBucket,
    posts: HashMap<String, TokenBucket>,
}

/// What is left of a rate limit at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Slack's name of the method.
    pub method: &'static str,
    /// The channel, if each has a limit of its own.
    pub channel: Option<String>,
    /// How many calls can be made at once. Less than 1 says how much of the next one is there, and less than 0 how many
    /// calls were made ahead of it.
    pub left: f64,
    /// The most calls that can be made at once.
    pub most: f64,
    /// Until when Slack said that it takes no call; `None` if it did not, or that is over.
    pub blocked_until: Option<Monotonic>,
}

impl RateLimits {
    /// Slack's documented limits, times `factor`.
    #[must_use]
    pub fn new(factor: f64) -> RateLimits {
        let tier = || TokenBucket::per_minute(TIER_3 * factor);
        let (update, history, replies) = (tier(), tier(), tier());
        RateLimits(Mutex::new(Buckets { factor, update, history, replies, posts: HashMap::new() }))
    }

    /// What is left of each limit that is in use, those of channels last and by their names.
    #[must_use]
    pub fn budgets(&self, now: Monotonic) -> Vec<Budget> {
        let buckets = self.lock();
        let Buckets { update, history, replies, posts, .. } = &*buckets;
        let of_all =
            [("chat.update", update), ("conversations.history", history), ("conversations.replies", replies)];
        let mut budgets: Vec<_> = of_all.map(|(method, bucket)| bucket.budget(method, None, now)).into();
        let posts: BTreeMap<_, _> = posts.iter().collect();
        budgets.extend(
            posts.into_iter().map(|(channel, bucket)| bucket.budget("chat.postMessage", Some(channel), now)),
        );
        budgets
    }

    /// The earliest time for a call.
    pub(super) fn free_at(&self, method: &Method, now: Monotonic) -> Monotonic {
        self.lock().bucket(method).free_at(now)
    }

    /// Whether there is a token for a low-priority update, with one more left for what people do meanwhile.
    pub(super) fn has_spare_update(&self, now: Monotonic) -> bool {
        self.lock().update.has_spare(now)
    }

    /// Takes a token for a call that is about to be made.
    pub(super) fn take(&self, method: &Method, now: Monotonic) {
        self.lock().bucket(method).take(now);
    }

    /// Gives back the token of a call that was not made.
    pub(super) fn give_back(&self, method: &Method) {
        self.lock().bucket(method).give_back();
    }

    /// Allows no call of the method before `until`, as Slack said.
    pub(super) fn block(&self, method: &Method, until: Monotonic) {
        self.lock().bucket(method).block(until);
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        // No change leaves a bucket inconsistent, so a panic while they were locked does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
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
                self.posts.entry(channel.clone()).or_insert_with(|| TokenBucket::per_second(factor))
            }
        }
    }
}

/// A token bucket.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    capacity: f64,
    per_ms: f64,
    tokens: f64,
    /// When `tokens` was right.
    at: Monotonic,
    blocked_until: Monotonic,
}

impl TokenBucket {
    /// For the calls of a method: a small burst, and never more than `calls` within any minute.
    fn per_minute(calls: f64) -> TokenBucket {
        let capacity = (calls * BURST).max(1.0);
        TokenBucket::full(capacity, (calls - capacity).max(calls / 2.0) / 60_000.0)
    }

    /// For posting to one channel: no bursts.
    fn per_second(calls: f64) -> TokenBucket {
        TokenBucket::full(1.0, calls / 1000.0)
    }

    /// For ephemeral messages: Slack's limit, times `factor`.
    pub(super) fn ephemeral(factor: f64) -> TokenBucket {
        TokenBucket::per_minute(TIER_4 * factor)
    }

    fn full(capacity: f64, per_ms: f64) -> TokenBucket {
        TokenBucket {
            capacity,
            per_ms,
            tokens: capacity,
            at: Monotonic::START,
            blocked_until: Monotonic::START,
        }
    }

    /// The earliest time for a call.
    pub(super) fn free_at(&mut self, now: Monotonic) -> Monotonic {
        self.refill(now);
        let wait = if self.tokens >= 1.0 { 0 } else { millis((1.0 - self.tokens) / self.per_ms) };
        now.plus(wait).max(self.blocked_until)
    }

    fn has_spare(&mut self, now: Monotonic) -> bool {
        self.refill(now);
        now >= self.blocked_until && self.tokens >= self.capacity.min(2.0)
    }

    /// Takes a token.
    pub(super) fn take(&mut self, now: Monotonic) {
        self.refill(now);
        self.tokens -= 1.0;
    }

    fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.capacity);
    }

    /// Allows no call before `until`.
    pub(super) fn block(&mut self, until: Monotonic) {
        self.blocked_until = self.blocked_until.max(until);
        // No burst right after the block.
        self.tokens = self.tokens.min(1.0);
    }

    /// What is left of it.
    pub(super) fn budget(&self, method: &'static str, channel: Option<&String>, now: Monotonic) -> Budget {
        Budget {
            method,
            channel: channel.cloned(),
            left: self.tokens_at(now),
            most: self.capacity,
            blocked_until: Some(self.blocked_until).filter(|until| *until > now),
        }
    }

    fn is_full(&self) -> bool {
        self.tokens >= self.capacity
    }

    fn refill(&mut self, now: Monotonic) {
        self.tokens = self.tokens_at(now);
        self.at = now;
    }

    fn tokens_at(&self, now: Monotonic) -> f64 {
        (self.tokens + number(now.since(self.at)) * self.per_ms).min(self.capacity)
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact for 200,000 years of idleness")]
fn number(millis: u64) -> f64 {
    millis as f64
}

/// Rounded up, so that the token is there at that time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn millis(time: f64) -> u64 {
    time.ceil().clamp(1.0, 86_400_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Monotonic = Monotonic::from_millis(1_780_000_000_000);

    /// How many calls a caller that calls whenever it can makes within `span` milliseconds.
    fn calls_within(rate_limits: &RateLimits, method: &Method, from: Monotonic, span: u64) -> usize {
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
    fn no_minute_has_more_than_its_limit() {
        for (factor, most) in [(1.0, 50), (0.1, 5), (20.0, 1000)] {
            for method in [Method::Update, Method::History, Method::Replies] {
                let rate_limits = RateLimits::new(factor);
                let first = calls_within(&rate_limits, &method, START, 60_000);
                assert!(first <= most && first + 1 >= most * 9 / 10, "{factor} {method:?}: {first}");
                let later = calls_within(&rate_limits, &method, START.plus(60_000), 60_000);
                assert!(later <= first && later + 1 >= most * 8 / 10, "{factor} {method:?}: {later}");
            }
        }
    }

    #[test]
    fn each_channel_has_one_post_a_second() {
        let rate_limits = RateLimits::new(1.0);
        let [one, other] = ["C1", "C2"].map(|channel| Method::Post(channel.to_owned()));
        assert_eq!(calls_within(&rate_limits, &one, START, 10_000), 10);
        assert_eq!(calls_within(&rate_limits, &other, START, 10_000), 10);
        assert_eq!(calls_within(&RateLimits::new(5.0), &one, START, 10_000), 50);
    }

    #[test]
    fn a_blocked_method_is_free_when_slack_said() {
        let rate_limits = RateLimits::new(1.0);
        let [one, other] = ["C1", "C2"].map(|channel| Method::Post(channel.to_owned()));
        rate_limits.block(&one, START.plus(30_000));
        assert_eq!(rate_limits.free_at(&one, START), START.plus(30_000));
        assert_eq!(rate_limits.free_at(&other, START), START, "another channel is not concerned");
        rate_limits.block(&one, START.plus(10_000));
        assert_eq!(rate_limits.free_at(&one, START), START.plus(30_000), "the longest wait counts");

        rate_limits.block(&Method::Update, START.plus(7_000));
        assert!(!rate_limits.has_spare_update(START.plus(6_999)));
        assert_eq!(rate_limits.free_at(&Method::Update, START), START.plus(7_000));
        let after = calls_within(&rate_limits, &Method::Update, START.plus(7_000), 1_000);
        assert!(after <= 5, "{after} in a burst right after the block");
    }

    #[test]
    fn a_token_can_be_given_back() {
        let rate_limits = RateLimits::new(1.0);
        let post = Method::Post("C1".to_owned());
        rate_limits.take(&post, START);
        assert_eq!(rate_limits.free_at(&post, START), START.plus(1_000));
        rate_limits.give_back(&post);
        rate_limits.give_back(&post);
        assert_eq!(calls_within(&rate_limits, &post, START, 1_000), 1);
    }

    #[test]
    fn full_buckets_are_evicted() {
        let rate_limits = RateLimits::new(1.0);
        for number in 0..5_000 {
            let method = Method::Post(format!("C{number}"));
            let _ = rate_limits.free_at(&method, START);
        }
        let kept = rate_limits.lock().posts.len();
        assert!(kept <= CHANNELS, "{kept}");
    }
    #[test]
    fn operators_see_what_is_left() {
        let rate_limits = RateLimits::new(1.0);
        let [one, other] = ["C1", "C2"].map(|channel| Method::Post(channel.to_owned()));
        for method in [&Method::Update, &other, &one] {
            assert_eq!(rate_limits.free_at(method, START), START);
            rate_limits.take(method, START);
        }
        rate_limits.block(&one, START.plus(7_000));
        let seen = |now: Monotonic| {
            let budgets = rate_limits.budgets(now).into_iter();
            budgets
                .map(|Budget { method, channel, left, most, blocked_until }| {
                    let blocked = blocked_until.map_or(0, |until| until.since(now));
                    format!("{method} {} {left} of {most}, {blocked}", channel.unwrap_or_default())
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            seen(START),
            [
                "chat.update  4 of 5, 0",
                "conversations.history  5 of 5, 0",
                "conversations.replies  5 of 5, 0",
                "chat.postMessage C1 0 of 1, 7000",
                "chat.postMessage C2 0 of 1, 0",
            ]
        );
        assert_eq!(
            seen(START.plus(500))[3..],
            ["chat.postMessage C1 0.5 of 1, 6500", "chat.postMessage C2 0.5 of 1, 0"]
        );
        assert_eq!(seen(START.plus(7_000))[3], "chat.postMessage C1 1 of 1, 0");
    }
}
