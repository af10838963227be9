//! Slack: what comes from it, and whether it comes from it. What goes there is delivered from the outbox.

mod interaction;
mod signature;

pub use interaction::{ANSWER_BLOCK, Interaction, Press, REASON_BLOCK, Submitted, Unreadable, VALUE_ACTION, parse};
pub use signature::{MAX_SKEW_MS, Signed, SignatureError, Verifier, sign};
