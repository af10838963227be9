//! Stands in for the rendering of notices until that is merged: the merge takes the other side of this file.

use super::message::Message;
use crate::lifecycle::{Request, Timestamp};
use crate::policy::PolicyEntry;

/// Where a notice is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the thread of the request's message.
    Thread,
    /// In a channel of its own.
    Channel {
        /// Where the request's message is.
        permalink: Option<&'a str>,
    },
}

/// The notice that a request escalated.
#[must_use]
pub fn escalation(request: &Request, entry: &PolicyEntry, _now: Timestamp, place: Place<'_>) -> Message {
    let link = match place {
        Place::Channel { permalink: Some(link) } => format!(" {link}"),
        Place::Thread | Place::Channel { permalink: None } => String::new(),
    };
    Message { text: format!("{} escalated: {}{link}", entry.action, request.id), blocks: Vec::new() }
}
