//! Delivery to Slack: what the outbox says is outdated is sent until Slack shows what is stored.
//!
//! The outbox holds no payloads. A step renders the newest stored state just before its call, so a burst of changes
//! becomes one call, and repeating a call is never wrong. Before Slack is asked to post a message, the store has that
//! the message may exist, and afterwards its `ts`. A process that dies between the two leaves a message that the next
//! one finds by its mark instead of posting it twice.

mod worker;

mod job;
mod schedule;
mod sender;
mod step;

mod after_failure;
mod failure;

mod circuit_breaker;
mod rate_limit;

mod ephemeral;
mod health;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use countersign_core::clock::{Clock, Monotonic};
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Replacement, Request, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_store::Store;
use countersign_trace::Tracer;
use tokio::sync::Notify;

pub use circuit_breaker::BreakerState;
pub use ephemeral::Ephemerals;
pub use health::{ChannelFailure, Health, HealthState, Report};
pub use rate_limit::{Budget, RateLimits};
pub use worker::{Parts, Worker};

use crate::{Message, Place, SlackClient, message, notice};

/// The functions that render messages. A value, so that tests of delivery need not depend on how messages look.
#[derive(Clone, Copy)]
pub struct Rendering {
    /// Renders the message of a request.
    pub message: fn(&Request, &PolicyEntry, &Directory, Timestamp) -> Message,
    /// Renders the shortest message of a request that can be decided on.
    pub minimal: fn(&Request, &PolicyEntry, Timestamp) -> Message,
    /// Renders the notice of an escalation.
    pub escalation: fn(&Request, &PolicyEntry, &Directory, Timestamp, Place, Option<&str>) -> Message,
    /// Renders the notice to those whose approvals an edit has replaced.
    pub replaced: fn(&Request, &Replacement<'_>, &Directory, Option<&str>, bool) -> Message,
    /// Adds the URL of the message of the request that was made in place of an ended one, or has superseded it.
    pub succeeded: fn(Message, &Request, &str) -> Message,
}

impl Rendering {
    /// What people see.
    pub const DEFAULT: Rendering = Rendering {
        message: message::message,
        minimal: message::minimal,
        escalation: notice::escalation,
        replaced: notice::replaced,
        succeeded: notice::succeeded,
    };
}

/// Everything that sends to Slack. Exists only with a bot token.
pub struct Outgoing {
    /// Opens modals, which cannot wait in the outbox.
    pub client: Arc<SlackClient>,
    /// Sends messages that only one person sees.
    pub ephemerals: Ephemerals,
    /// The state of delivery.
    pub health: Arc<Health>,
    rate_limits: Arc<RateLimits>,
    tracer: Tracer,
}

impl Outgoing {
    /// Sends through `client`, within Slack's rate limits times `rate_factor`.
    #[must_use]
    pub fn new(client: SlackClient, clock: &Arc<dyn Clock>, rate_factor: f64) -> Outgoing {
        let client = Arc::new(client);
        let ephemerals = Ephemerals::new(Arc::clone(&client), Arc::clone(clock), rate_factor);
        let rate_limits = Arc::new(RateLimits::new(rate_factor));
        let health = Arc::new(Health::new(clock.moment()));
        Outgoing { client, ephemerals, health, rate_limits, tracer: Tracer::default() }
    }

    /// The same, which says to `tracer` what it posts and updates.
    #[must_use]
    pub fn tracing(self, tracer: Tracer) -> Outgoing {
        Outgoing { tracer, ..self }
    }

    /// What is left of Slack's rate limits, as this instance counts them. Another one may deliver, and has its own count.
    #[must_use]
    pub fn budgets(&self, now: Monotonic) -> Vec<Budget> {
        let mut budgets = self.rate_limits.budgets(now);
        budgets.push(self.ephemerals.budget(now));
        budgets
    }

    /// The worker that delivers the outbox of `store`; `stored` is notified of each new entry. There must be only one.
    #[must_use]
    pub fn worker(
        &self,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        directory: &Arc<Directory>,
        stored: &Arc<Notify>,
    ) -> Worker {
        Worker::new(Parts {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            directory: Arc::clone(directory),
            client: Arc::clone(&self.client),
            notify: Arc::clone(stored),
            health: Arc::clone(&self.health),
            rendering: Rendering::DEFAULT,
            rate_limits: Arc::clone(&self.rate_limits),
            tracer: self.tracer.clone(),
        })
    }
}
