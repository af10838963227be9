//! A rendering of the version and the status only, so that a test can see which version was sent.

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Replacement, Request, Timestamp};
use countersign_core::record::PolicyEntry;

use crate::delivery::Rendering;
use crate::{Message, Place};

pub(super) const PLAIN: Rendering = Rendering { message, minimal, escalation, replaced, succeeded };

fn message(request: &Request, entry: &PolicyEntry, _: &Directory, now: Timestamp) -> Message {
    let minutes = request.submission.expires_at.since(now).div_ceil(60_000);
    let left = if request.status().is_terminal() { String::new() } else { format!(", {minutes} min left") };
    let used = request.usage(now).filter(|_| !request.submission.terms.is_default());
    let used = used.map_or_else(String::new, |used| format!(", {}", used.as_str()));
    let text = format!("{} v{} {}{left}{used}", entry.action, request.version, request.status());
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
    place: Place,
    permalink: Option<&str>,
) -> Message {
    let link = permalink.filter(|_| place == Place::Channel).map_or(String::new(), |link| format!(" {link}"));
    let ended = if request.status().is_terminal() { ", ended" } else { "" };
    Message { text: format!("{} escalated{ended}: {}{link}", entry.action, request.id), blocks: Vec::new() }
}

fn replaced(
    request: &Request,
    replacement: &Replacement<'_>,
    _: &Directory,
    _permalink: Option<&str>,
    mentions: bool,
) -> Message {
    let mut replaced: Vec<&str> = replacement.replaced.iter().map(|actor| actor.id.as_str()).collect();
    if !mentions {
        replaced.clear();
    }
    let by = &replacement.by.id;
    Message {
        text: format!("{}: {by} replaced {}", request.status(), replaced.join(", ")),
        blocks: Vec::new(),
    }
}

fn succeeded(message: Message, request: &Request, permalink: &str) -> Message {
    let how = if request.superseded_by().is_some() { "newer" } else { "again" };
    Message { text: format!("{} {how}: {permalink}", message.text), ..message }
}
