//! Stands in for the rendering of messages until that is merged: the merge takes the other side of this file.

use slack_morphism::prelude::SlackBlock;

use crate::lifecycle::{Request, Timestamp};
use crate::policy::PolicyEntry;

/// A message as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What notifications show, escaped.
    pub text: String,
    /// What people see.
    pub blocks: Vec<SlackBlock>,
}

/// The message of a request as it stands at `now`.
#[must_use]
pub fn message(request: &Request, entry: &PolicyEntry, now: Timestamp) -> Message {
    let minutes = request.submission.expires_at.since(now).div_ceil(60_000);
    let left = if request.status().is_terminal() { String::new() } else { format!(", {minutes} min left") };
    let text = format!("{} v{} {}{left}", entry.action, request.version, request.status());
    Message { text, blocks: Vec::new() }
}

/// The least that can be shown and decided on, where Slack finds the whole too long or malformed.
#[must_use]
pub fn minimal(request: &Request, entry: &PolicyEntry, _now: Timestamp) -> Message {
    let text = format!("{} v{} {} (minimal)", entry.action, request.version, request.status());
    Message { text, blocks: Vec::new() }
}
