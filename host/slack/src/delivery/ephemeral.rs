//! Sends messages that only one person sees. They matter for some minutes, so they are kept in memory only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::backoff::Backoff;
use countersign_core::clock::{Clock, Monotonic};
use countersign_core::lifecycle::RequestId;

use super::failure::Failure;
use super::rate_limit::{Budget, TokenBucket};
use crate::{CallError, SlackClient};

/// How long after it was made an ephemeral message is still sent, in milliseconds.
const LIFETIME_MS: u64 = 5 * 60 * 1000;

/// How often sending is tried.
const TRIES: u32 = 5;

/// The most messages that may be waiting.
const MOST: usize = 1_000;

/// The most of them that may be for one person: whoever presses again and again must not use up the others' places, nor
/// the rate limit that all share.
const MOST_FOR_ONE: usize = 20;

/// The wait after a failed try; the longest is reached before the last try.
const BACKOFF: Backoff = Backoff::new(1_000, 8_000);

/// Sends ephemeral messages. Clones share one rate limit and one queue.
#[derive(Clone)]
pub struct Ephemerals {
    shared: Arc<Shared>,
}

struct Shared {
    client: Arc<SlackClient>,
    clock: Arc<dyn Clock>,
    bucket: Mutex<TokenBucket>,
    rng: Mutex<fastrand::Rng>,
    waiting: Mutex<Waiting>,
}

/// How many messages are waiting to be sent, in all and for each person.
#[derive(Default)]
struct Waiting {
    all: usize,
    by_user: HashMap<String, usize>,
}

impl Waiting {
    /// False if too many are waiting already.
    fn add(&mut self, user: &str) -> bool {
        if self.all >= MOST || self.by_user.get(user).is_some_and(|waiting| *waiting >= MOST_FOR_ONE) {
            return false;
        }
        self.all += 1;
        *self.by_user.entry(user.to_owned()).or_default() += 1;
        true
    }

    fn remove(&mut self, user: &str) {
        self.all = self.all.saturating_sub(1);
        if let Some(waiting) = self.by_user.get_mut(user) {
            *waiting = waiting.saturating_sub(1);
        }
        self.by_user.retain(|_, waiting| *waiting > 0);
    }
}

/// A message to send.
struct Ephemeral {
    /// The request that it is about, for the log.
    request: Option<RequestId>,
    channel: String,
    user: String,
    thread: Option<String>,
    text: String,
    expires_at: Monotonic,
}

impl Ephemerals {
    /// Sends through `client`, within Slack's rate limits times `rate_factor`.
    #[must_use]
    pub fn new(client: Arc<SlackClient>, clock: Arc<dyn Clock>, rate_factor: f64) -> Ephemerals {
        Ephemerals::with_rng(client, clock, rate_factor, fastrand::Rng::new())
    }

    /// The same; `rng` spreads the retries.
    pub(super) fn with_rng(
        client: Arc<SlackClient>,
        clock: Arc<dyn Clock>,
        rate_factor: f64,
        rng: fastrand::Rng,
    ) -> Ephemerals {
        let bucket = Mutex::new(TokenBucket::ephemeral(rate_factor));
        let (rng, waiting) = (Mutex::new(rng), Mutex::default());
        Ephemerals { shared: Arc::new(Shared { client, clock, bucket, rng, waiting }) }
    }

    /// Sends a text to a person in a channel, or in a thread of it; returns at once. `text` is escaped `mrkdwn`, and about this
    /// request.
    ///
    /// It is tried a few times within five minutes, and then dropped with a line in the log.
    pub fn send(
        &self,
        request: Option<RequestId>,
        channel: &str,
        user: &str,
        thread: Option<&str>,
        text: String,
    ) {
        let shared = Arc::clone(&self.shared);
        if !shared.waiting().add(user) {
            let request = request.map(tracing::field::display);
            tracing::warn!(request, "ephemeral message dropped: too many are waiting");
            return;
        }
        let (channel, user, thread) = (channel.to_owned(), user.to_owned(), thread.map(str::to_owned));
        let expires_at = shared.clock.monotonic().plus(LIFETIME_MS);
        let message = Ephemeral { request, channel, user, thread, text, expires_at };
        tokio::spawn(async move {
            shared.send(&message).await;
            shared.waiting().remove(&message.user);
        });
    }

    /// What is left of the rate limit.
    pub(super) fn budget(&self, now: Monotonic) -> Budget {
        let bucket = self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.budget("chat.postEphemeral", None, now)
    }

    /// How many messages are waiting to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting().all
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, message: &Ephemeral) {
        let request = message.request.map(tracing::field::display);
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner).fork();
        for attempt in 1..=TRIES {
            if !self.wait_for_token(message.expires_at).await {
                tracing::warn!(request = request.as_ref(), attempt, "ephemeral message expired");
                return;
            }
            let Ephemeral { channel, user, thread, text, .. } = message;
            let sent = self.client.post_ephemeral(channel, user, thread.as_deref(), text).await;
            let Err(error) = sent else { return };
            let wait_ms = match (Failure::of(&error), &error) {
                (Failure::RateLimited(limited_ms), _) => {
                    let until = self.clock.monotonic().plus(limited_ms);
                    self.bucket.lock().unwrap_or_else(PoisonError::into_inner).block(until);
                    0
                }
                (_, CallError::Rejected { code }) => {
                    tracing::warn!(
                        request = request.as_ref(),
                        code,
                        "ephemeral message dropped: Slack refuses it"
                    );
                    return;
                }
                // It may have been sent. A duplicate is better than none.
                _ => BACKOFF.around(attempt - 1, &mut rng),
            };
            if attempt < TRIES {
                self.clock.sleep(Duration::from_millis(wait_ms)).await;
            } else {
                tracing::warn!(request = request.as_ref(), %error, attempt, "ephemeral message dropped: too many failed attempts");
            }
        }
    }

    /// Waits until the rate limit allows a call, and takes a token. Returns false if that is later than `expires_at`.
    async fn wait_for_token(&self, expires_at: Monotonic) -> bool {
        loop {
            let now = self.clock.monotonic();
            let free_at = {
                let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
                let free_at = bucket.free_at(now);
                if free_at <= now && now < expires_at {
                    bucket.take(now);
                    return true;
                }
                free_at
            };
            if free_at >= expires_at || now >= expires_at {
                return false;
            }
            self.clock.sleep_until(free_at).await;
        }
    }
}
