//! What only one person is told. It is worth something for some minutes, so it is kept in memory and nowhere else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::dice::Dice;
use super::failure::Failure;
use super::rate_limit::TokenBucket;
use crate::{CallError, SlackClient};
use countersign_core::clock::Clock;
use countersign_core::lifecycle::Timestamp;

/// How long something is worth being told, in milliseconds.
const WORTH_MS: u64 = 5 * 60 * 1000;

/// How often it is tried.
const TRIES: u32 = 5;

/// How many may wait to be told.
const MOST: usize = 1_000;

/// How long to wait after the first try that failed, in milliseconds; twice as long after each one more.
const RETRY_MS: u64 = 1_000;

/// Tells people what only they see. Clones are one.
#[derive(Clone)]
pub struct Ephemerals {
    shared: Arc<Shared>,
}

struct Shared {
    client: Arc<SlackClient>,
    clock: Arc<dyn Clock>,
    budget: Mutex<TokenBucket>,
    dice: Dice,
    waiting: AtomicUsize,
}

/// Something to tell.
struct Note {
    channel: String,
    user: String,
    thread: Option<String>,
    text: String,
    until: Timestamp,
}

impl Ephemerals {
    /// Tells through `client`, within Slack's rate limits times `rate_factor`.
    #[must_use]
    pub fn new(client: Arc<SlackClient>, clock: Arc<dyn Clock>, rate_factor: f64) -> Ephemerals {
        let budget = Mutex::new(TokenBucket::ephemeral(rate_factor));
        let (dice, waiting) = (Dice::random(), AtomicUsize::new(0));
        Ephemerals { shared: Arc::new(Shared { client, clock, budget, dice, waiting }) }
    }

    /// Has a person told something in a channel, or in a thread of it; returns at once. `text` is escaped mrkdwn.
    ///
    /// It is tried a few times within five minutes. What cannot be told by then is dropped, with a line in the log.
    pub fn tell(&self, channel: &str, user: &str, thread: Option<&str>, text: String) {
        let shared = Arc::clone(&self.shared);
        if shared.waiting.fetch_add(1, Ordering::AcqRel) >= MOST {
            shared.waiting.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!("somebody was not told what only they should see: too many wait for that");
            return;
        }
        let (channel, user, thread) = (channel.to_owned(), user.to_owned(), thread.map(str::to_owned));
        let until = shared.clock.now().plus(WORTH_MS);
        let note = Note { channel, user, thread, text, until };
        tokio::spawn(async move {
            shared.tell(&note).await;
            shared.waiting.fetch_sub(1, Ordering::AcqRel);
        });
    }

    /// How many wait to be told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }
}

impl Shared {
    async fn tell(&self, note: &Note) {
        let mut wait_ms = RETRY_MS;
        for attempt in 1..=TRIES {
            if !self.admitted(note.until).await {
                tracing::warn!(attempt, "somebody was not told what only they should see: it came too late");
                return;
            }
            let Note { channel, user, thread, text, .. } = note;
            let told = self.client.post_ephemeral(channel, user, thread.as_deref(), text).await;
            let Err(error) = told else { return };
            let again_in = match (Failure::of(&error), &error) {
                (Failure::Limited(limited_ms), _) => {
                    let until = self.clock.now().plus(limited_ms);
                    self.budget.lock().unwrap_or_else(PoisonError::into_inner).shut(until);
                    0
                }
                (_, CallError::Rejected { code }) => {
                    tracing::warn!(code, "somebody was not told what only they should see: Slack refuses it");
                    return;
                }
                // Perhaps it was told. Better twice than never.
                _ => self.dice.around(wait_ms),
            };
            wait_ms = wait_ms.saturating_mul(2);
            if attempt < TRIES {
                self.clock.sleep_until(self.clock.now().plus(again_in)).await;
            } else {
                tracing::warn!(%error, attempt, "somebody was not told what only they should see");
            }
        }
    }

    /// Waits for a call to be free. False where that would be too late.
    async fn admitted(&self, until: Timestamp) -> bool {
        loop {
            let now = self.clock.now();
            let free_at = {
                let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
                let free_at = budget.free_at(now);
                if free_at <= now && now < until {
                    budget.take(now);
                    return true;
                }
                free_at
            };
            if free_at >= until || now >= until {
                return false;
            }
            self.clock.sleep_until(free_at).await;
        }
    }
}
