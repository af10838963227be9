//! Slack: what comes from it, and whether it comes from it; and what people see there.
//! What goes there is delivered from the outbox.

// What people see.
pub mod message;
pub mod modal;
pub mod notice;
pub mod told;

// What they are made of.
mod blocks;
mod buttons;
mod links;
mod parameters;
mod progress;
mod text;
mod time;

// What comes from Slack.
mod interaction;
mod signature;

#[cfg(test)]
mod tests;

pub use interaction::{ANSWER_BLOCK, Interaction, REASON_BLOCK, Unreadable, VALUE_ACTION, What, parse};
use interaction::{DENY_MODAL, OVERRIDE_MODAL, REASON_CHARS};
pub use signature::{MAX_SKEW_MS, SignatureError, Signed, Verifier, sign};
