//! Slack: what comes from it, and whether it comes from it. What goes there is delivered from the outbox.

mod client;
mod delivery;
#[cfg(test)]
pub(crate) mod fake;
mod interaction;
mod message;
mod notice;
mod post;
mod signature;

pub use client::{
    BadApiUrl, BadClient, CallError, DEFAULT_API_URL, Found, Identity, Posted, Search, SlackClient, api_url,
};
pub use delivery::{ChannelFailure, Ephemerals, Health, HealthState, Outgoing, Parts, Report, Worker};
pub use interaction::{ANSWER_BLOCK, Interaction, REASON_BLOCK, Unreadable, VALUE_ACTION, What, parse};
pub use message::{Message, message, minimal};
pub use notice::{Place, escalation};
pub use post::{Mark, PostState, SlackPost, Slot};
pub use signature::{MAX_SKEW_MS, SignatureError, Signed, Verifier, sign};
