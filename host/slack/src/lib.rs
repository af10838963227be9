//! Slack: what people see there, what they do there, and whether it is Slack that says so.
//! What goes there is delivered from the outbox.

// What people see.
pub mod ephemeral_text;
pub mod message;
pub mod modal;
pub mod notice;

// What that is made of.
mod blocks;
mod buttons;
mod links;
mod parameters;
mod progress;
mod text;
mod time;

// What comes from Slack, and what becomes of it.
mod interaction;
mod signature;
mod socket;

// What goes to Slack.
mod client;
mod delivery;
mod usergroups;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(test)]
mod tests;

pub use client::metrics::{CallMetrics, CallOutcome};
pub use client::{
    BadApiUrl, BadClient, CallError, DEFAULT_API_URL, Found, Identity, Posted, Search, SlackClient, api_url,
};
pub use delivery::{
    ChannelFailure, Ephemerals, Health, HealthState, Outgoing, Parts, Rendering, Report, Worker,
};
pub use interaction::{
    ANSWER_BLOCK, DECIDE_BLOCK, Interaction, InteractionError, InteractionKind, REASON_BLOCK, Source,
    VALUE_ACTION, parse_form, parse_payload,
};
pub use message::{Message, message, minimal};
pub use notice::{Place, escalation};
pub use signature::{MAX_SKEW_MS, SignatureError, Signed, Verifier, sign};
pub use socket::{Connection, Handler, keep_open};
pub use usergroups::{Parts as UserGroupParts, UserGroups};
