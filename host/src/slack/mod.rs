//! Slack: what comes from it, and whether it comes from it. What goes there is delivered from the outbox.

mod client;
mod ephemeral;
mod interaction;
mod message;
mod modal;
mod notice;
mod post;
mod respond;
mod signature;
mod socket;
mod told;
mod usergroups;

pub use client::{
    BadApiUrl, BadClient, CallError, DEFAULT_API_URL, Found, Identity, Posted, Search, SlackClient, api_url,
};
pub use ephemeral::Ephemerals;
pub use interaction::{
    ANSWER_BLOCK, DECIDE_BLOCK, DENY_MODAL, Interaction, OVERRIDE_MODAL, REASON_BLOCK, Source, Unreadable,
    VALUE_ACTION, What, parse, read,
};
pub use message::{Message, message, minimal};
pub use notice::{Place, escalation};
pub use post::{Mark, PostState, SlackPost, Slot};
pub(crate) use respond::take;
pub use signature::{MAX_SKEW_MS, SignatureError, Signed, Verifier, sign};
pub(crate) use socket::keep_open;
pub use usergroups::UserGroups;
