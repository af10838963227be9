//! Delivery: what the outbox says is stale is shown in Slack, whatever Slack does meanwhile.
//!
//! The outbox holds no payloads. A step renders the newest state that is stored when it is taken, so bursts of
//! changes become one call, and a call that is made again is never wrong. Whether a message may exist is stored
//! before Slack is asked to post it, and Slack's name for it after, so that a process that dies between the two
//! finds it by its mark and does not post it twice.

mod circuit_breaker;
mod dice;
mod ephemeral;
mod failure;
mod health;
mod rate_limit;
mod sender;
mod step;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use ephemeral::Ephemerals;
pub use health::{ChannelFailure, Health, HealthState, Report};
pub use worker::{Parts, Worker};

use crate::{Message, Place, SlackClient, message, notice};
use countersign_core::clock::Clock;
use countersign_core::lifecycle::{Request, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_store::Store;
use tokio::sync::Notify;

/// How a request is put into words. A value, so that whether it is delivered can be tested apart from how it looks.
#[derive(Clone, Copy)]
pub struct Rendering {
    /// The message of a request.
    pub message: fn(&Request, &PolicyEntry, Timestamp) -> Message,
    /// The least of it that can be decided on.
    pub minimal: fn(&Request, &PolicyEntry, Timestamp) -> Message,
    /// The notice that it escalated.
    pub escalation: fn(&Request, &PolicyEntry, Timestamp, Place<'_>) -> Message,
}

impl Rendering {
    /// What people see.
    pub const WHOLE: Rendering =
        Rendering { message: message::message, minimal: message::minimal, escalation: notice::escalation };
}

/// All that goes to Slack, where there is a token for it.
pub struct Outgoing {
    /// For what cannot wait in the outbox: modals.
    pub client: Arc<SlackClient>,
    /// For what only one person is told.
    pub ephemerals: Ephemerals,
    /// How delivery stands.
    pub health: Arc<Health>,
    rate_factor: f64,
}

impl Outgoing {
    /// What goes through `client`, within Slack's rate limits times `rate_factor`.
    #[must_use]
    pub fn new(client: SlackClient, clock: &Arc<dyn Clock>, rate_factor: f64) -> Outgoing {
        let client = Arc::new(client);
        let ephemerals = Ephemerals::new(Arc::clone(&client), Arc::clone(clock), rate_factor);
        Outgoing { client, ephemerals, health: Arc::new(Health::new(clock.now())), rate_factor }
    }

    /// The worker that delivers what waits in the outbox of `store`; `stored` is notified of each new entry.
    /// There must be one.
    #[must_use]
    pub fn worker(&self, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>, stored: &Arc<Notify>) -> Worker {
        Worker::new(Parts {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            client: Arc::clone(&self.client),
            notify: Arc::clone(stored),
            health: Arc::clone(&self.health),
            rendering: Rendering::WHOLE,
            rate_factor: self.rate_factor,
        })
    }
}
