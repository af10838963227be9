//! Delivery: what the outbox says is stale is shown in Slack, whatever Slack does meanwhile.
//!
//! The outbox holds no payloads. A step renders the newest state that is stored when it is taken, so bursts of
//! changes become one call, and a call that is made again is never wrong. Whether a message may exist is stored
//! before Slack is asked to post it, and Slack's name for it after, so that a process that dies between the two
//! finds it by its mark and does not post it twice.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod budget;
mod courier;
mod dice;
mod ephemeral;
mod failure;
mod gate;
mod health;
mod step;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use ephemeral::Ephemerals;
pub use health::{ChannelFailure, Health, HealthState, Report};
pub use worker::{Parts, Worker};

use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::lifecycle::{Request, Timestamp};
use crate::policy::PolicyEntry;
use crate::slack::{Message, Place, SlackClient, message, notice};

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

    /// Who delivers what waits in the gateway's outbox. There is to be one.
    #[must_use]
    pub fn worker(&self, gateway: &Gateway) -> Worker {
        Worker::new(Parts {
            store: Arc::clone(gateway.store()),
            clock: Arc::clone(gateway.clock()),
            client: Arc::clone(&self.client),
            bell: Arc::clone(gateway.outbox_bell()),
            health: Arc::clone(&self.health),
            rendering: Rendering::WHOLE,
            rate_factor: self.rate_factor,
        })
    }
}
