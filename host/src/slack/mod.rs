//! Slack: what comes from it, and whether it comes from it. What goes there is delivered from the outbox.

mod interaction;
mod signature;

pub use interaction::{ANSWER_BLOCK, Interaction, REASON_BLOCK, Unreadable, VALUE_ACTION, What, parse};
pub use signature::{MAX_SKEW_MS, SignatureError, Signed, Verifier, sign};
