//! Slack: what people see there, what they do there, and delivery from the outbox.
//!
//! It decides nothing about requests: it renders what is stored, and parses what people did for the gateway to judge.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// What people see.
pub mod ephemeral_text;
pub mod message;
pub mod modal;
pub mod notice;
pub mod review;

// What that is made of.
mod blocks;
mod buttons;
mod content;
mod emoji;
mod links;
mod mentions;
mod parameters;
mod progress;
mod requester;
mod text;
mod time;

// What comes from Slack.
mod interaction;
mod signature;
mod socket;

// What goes to Slack.
mod changes;
mod client;
mod delivery;
mod freshness;
mod usergroups;
mod users;
mod workspace;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(test)]
mod tests;

pub use client::metrics::{CallMetrics, CallOutcome};
pub use client::{
    ApiUrlError, CallError, ClientError, DEFAULT_API_URL, Identity, Posted, Search, SearchResult,
    SlackClient, api_url,
};
pub use delivery::{
    BreakerState, Budget, ChannelFailure, Ephemerals, Health, HealthState, Outgoing, Parts, RateLimits,
    Rendering, Report, Worker,
};
pub use interaction::{
    ANSWER_BLOCK, DECIDE_BLOCK, Interaction, InteractionError, InteractionKind, Page, REASON_BLOCK, Seen,
    Source, Unreadable, VALUE_ACTION, Workspace, parse_form, parse_payload,
};
pub use message::{Message, is_whole, message, minimal};
pub use notice::{Place, escalation, replaced, succeeded};
pub use signature::{MAX_SKEW_MS, SignatureError, Signed, Verifier, sign};
pub use slack_morphism::prelude::{SlackModalView, SlackView};
pub use socket::{Connection, Handler, keep_open};
pub use usergroups::{Parts as UserGroupParts, UserGroups};
pub use users::{Parts as UserParts, Users};
pub use workspace::identify;
