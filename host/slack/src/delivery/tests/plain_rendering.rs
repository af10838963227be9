//! A rendering of the version and the status only, so that a test can see which version was sent.

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Request, Timestamp};
use countersign_core::record::PolicyEntry;

use crate::delivery::Rendering;
use crate::{Message, Place};

pub(super) const PLAIN: Rendering = Rendering { message, minimal, escalation };

fn message(request: &Request, entry: &PolicyEntry, _: &Directory, now: Timestamp) -> Message {
    let minutes = request.submission.expires_at.since(now).div_ceil(60_000);
    let left = if request.status().is_terminal() { String::new() } else { format!(", {minutes} min left") };
    let text = format!("{} v{} {}{left}", entry.action, request.version, request.status());
    Message { text, blocks: Vec::new() }
}

fn minimal(request: &Request, entry: &PolicyEntry, _now: Timestamp) -> Message {
    let text = format!("{} v{} {} (minimal)", entry.action, request.version, request.status());
    Message { text, blocks: Vec::new() }
}

fn escalation(
    request: &Request,
    entry: &PolicyEntry,
    _: &Directory,
    _now: Timestamp,
    place: Place<'_>,
) -> Message {
    let link = match place {
        Place::Channel { permalink: Some(link) } => format!(" {link}"),
        Place::Thread | Place::Channel { permalink: None } => String::new(),
    };
    Message { text: format!("{} escalated: {}{link}", entry.action, request.id), blocks: Vec::new() }
}
