//! The review of a request: a dialog in pages, which together show every character of what people agree to.
//!
//! A message has room for some 13,000 characters, and a request may have ten times as many. Each page leads on to the next
//! one, and only the last one approves, or acknowledges. A page says which one it is of how many, and of which payload, in its metadata,
//! which Slack keeps: nobody can submit the last page who was not led there by the ones before it.
//!
//! The parameters are canonical JSON, so that the boxes of all pages, joined, are exactly what the payload hash is made of.
//! Invisible characters are escaped and right-to-left letters isolated as everywhere (`text.rs`); `\u{…}` is no escape of
//! JSON, so the two cannot be mixed up.

use std::collections::BTreeSet;

use countersign_core::lifecycle::{Link, Request, State, Status, canonical};
use countersign_core::record::PolicyEntry;
use serde_json::{Map, Value, json};
use slack_morphism::prelude::*;

use super::blocks::{
    button, cost, heading, line, plain, preformatted, remark, rich, row, section, small_print, words,
};
use super::buttons::acknowledge;
use super::interaction::{READING_MODAL, REVIEW_MODAL};
use super::links;
use super::modal;
use super::parameters::key_text;
use super::progress::{self, changes};
use super::requester::{bytes_in_full, in_full, lineage, requester_name};
use super::text::{self, code, person};

/// The most pages that somebody is asked to read. What needs more is too large to be agreed to.
pub const MOST_PAGES: usize = 12;

/// The blocks and the characters of a page. Slack takes more, but was seen to fail without an error well below its limits.
const PAGE_BLOCKS: usize = 20;
const PAGE_ROOM: usize = 20_000;

/// The blocks and the characters of each page that say what it is.
const FRAME_BLOCKS: usize = 5;
const FRAME_ROOM: usize = 4_500;

/// The room for the buttons of the personas that have not acknowledged it, on the last page.
const PERSONA_BUTTONS: usize = 2_600;

/// The width of the text in one box.
const BOX: usize = 2_800;

/// The prefix of the block ids of boxes with parameters; their number follows it.
const PARAMETERS_BLOCK: &str = "parameters:";

/// The width of a name, of a title and of a button.
const NAME: usize = 150;
const TITLE: usize = 24;

/// Whether people can be shown all that they agree to, or the policy set takes responsibility for what they are not.
#[must_use]
pub fn is_possible(request: &Request, entry: &PolicyEntry) -> bool {
    !entry.consent.is_whole() || fits(request)
}

/// Whether the review of a request has no more pages than somebody is asked to read.
#[must_use]
pub fn fits(request: &Request) -> bool {
    is_small(request) || !is_large(request) && count(request) <= MOST_PAGES
}

/// The number of pages.
#[must_use]
pub fn count(request: &Request) -> usize {
    pages(request).len()
}

/// A page of the review, counted from 1; `None` if there is none of this number, or there are too many.
#[must_use]
pub fn page(request: &Request, number: usize) -> Option<SlackModalView> {
    let Framed { count, head, content } = framed(request, number)?;
    if count > MOST_PAGES {
        return None;
    }
    let is_last = number == count;
    let what_next = match (&request.state, is_last) {
        (_, false) => "It can be approved on the last page.",
        (State::Open(_), true) if request.status() == Status::AwaitingPersonas => {
            "You have reached the end. It can be approved once every persona has acknowledged it."
        }
        (State::Open(_), true) => {
            "You have reached the end. *Approve* approves exactly what these pages show."
        }
        (_, true) => "The request has ended.",
    };
    let mut blocks = vec![section(head)];
    blocks.extend(content);
    if is_last {
        blocks.extend(acknowledge(request, PERSONA_BUTTONS));
        if can_be_approved(request) && modal::can_edit(request) {
            let edit = button("approve_edit".to_owned(), "Approve with edits", &request.id.to_string());
            blocks.push(row(vec![edit]));
        }
    }
    blocks.push(small_print(format!("Page {number} of {count} · {what_next}")));
    let about = json!({
        "request_id": request.id,
        "payload_hash": request.payload_hash(),
        "page": number,
        "pages": count,
    });
    let view = SlackModalView::new(plain(&format!("Review: {number} of {count}"), TITLE).into(), blocks)
        .with_callback_id(REVIEW_MODAL.into())
        .with_private_metadata(about.to_string())
        .with_close(plain("Cancel", TITLE).into());
    Some(match is_last {
        false => view.with_submit(plain("Next page", TITLE).into()),
        true if can_be_approved(request) => view.with_submit(plain("Approve", TITLE).into()),
        true => view,
    })
}

/// A page that shows the same as the review, to be read alone: nothing can be approved from it. There may be more pages
/// than a review may have. `None` if there is none of this number.
#[must_use]
pub fn reading_page(request: &Request, number: usize) -> Option<SlackModalView> {
    let Framed { count, head, content } = framed(request, number)?;
    let (emoji, word) = progress::status_label(request);
    let ended_by = progress::ended_by(request);
    let mut blocks = vec![section(format!("{emoji} *{word}*{ended_by}\n{head}"))];
    blocks.extend(content);
    blocks.push(small_print(format!("Page {number} of {count} · `{}`", request.id)));
    let about = json!({ "request_id": request.id, "page": number, "pages": count });
    let view = SlackModalView::new(plain(&format!("Request: {number} of {count}"), TITLE).into(), blocks)
        .with_callback_id(READING_MODAL.into())
        .with_private_metadata(about.to_string())
        .with_close(plain("Close", TITLE).into());
    Some(if number == count { view } else { view.with_submit(plain("Next page", TITLE).into()) })
}

/// What a page shows, and around it.
struct Framed {
    count: usize,
    head: String,
    content: Vec<SlackBlock>,
}

fn framed(request: &Request, number: usize) -> Option<Framed> {
    let mut pages = pages(request);
    let count = pages.len();
    if number == 0 || number > count {
        return None;
    }
    let content = pages.swap_remove(number - 1);
    let submission = &request.submission;
    let (action, who) = (code(&submission.action, NAME), requester_name(submission));
    let repo = code(&submission.origin.repo, NAME);
    Some(Framed { count, head: format!("{action} for {repo}, requested by {who}"), content })
}

fn can_be_approved(request: &Request) -> bool {
    !request.status().is_terminal() && request.status() != Status::AwaitingPersonas
}

/// The blocks of each page.
fn pages(request: &Request) -> Vec<Vec<SlackBlock>> {
    let mut pages: Vec<Vec<SlackBlock>> = Vec::new();
    let mut room = 0;
    for block in blocks(request) {
        let takes = cost(&block);
        match pages.last_mut() {
            Some(page) if takes <= room && page.len() < PAGE_BLOCKS - FRAME_BLOCKS => {
                room -= takes;
                page.push(block);
            }
            _ => {
                room = (PAGE_ROOM - FRAME_ROOM).saturating_sub(takes);
                pages.push(vec![block]);
            }
        }
    }
    pages
}

/// Everything that people agree to, and with which reason it ended if it has, in blocks that each fit on a page.
fn blocks(request: &Request) -> Vec<SlackBlock> {
    let submission = &request.submission;
    // First what each page has in its heading, where it may be cut.
    let mut blocks =
        boxes("Action, origin and requester, as canonical JSON", &canonical(&in_full(submission)));
    blocks.extend(lineage(submission).map(section));
    blocks.extend(progress::reason(request).map_or_else(Vec::new, |reason| boxes("Reason", reason)));
    blocks.extend(boxes("Why", &submission.justification));
    for (n, link) in submission.links.iter().enumerate() {
        blocks.extend(link_blocks(n + 1, link));
    }
    let editors = request.editors();
    for (key, before, after) in changes(request) {
        let by = editors.get(key).map_or(String::new(), |id| format!(" by {}", person(id, NAME)));
        blocks.push(section(format!(":pencil2: *Edited*{by}:")));
        blocks.extend(boxes("Parameter", key));
        for (title, value, nothing) in [("Before", before, "not there"), ("After", after, "removed")] {
            match value {
                Some(value) => blocks.extend(boxes(title, &canonical(value))),
                None => blocks.push(rich(vec![line(vec![heading(title), words(": "), remark(nothing)])])),
            }
        }
    }
    let parameters = boxes("Parameters, as canonical JSON", &canonical(&shown(request)));
    for (n, block) in parameters.into_iter().enumerate() {
        blocks.push(match block {
            SlackBlock::RichText(block) => {
                block.with_block_id(format!("{PARAMETERS_BLOCK}{n}").into()).into()
            }
            other => other,
        });
    }
    if !submission.redacted.is_empty() {
        let names: Vec<String> = submission.redacted.iter().map(|key| key_text(key)).collect();
        blocks.extend(boxes("Parameters that are not shown to anybody", &names.join("\n")));
    }
    blocks
}

/// The parameters as they stand, without the hidden ones.
fn shown(request: &Request) -> Value {
    let redacted = &request.submission.redacted;
    let shown = request.params().into_iter().filter(|(key, _)| !redacted.contains(key));
    Value::Object(shown.collect::<Map<_, _>>())
}

fn link_blocks(number: usize, link: &Link) -> Vec<SlackBlock> {
    let target = match links::target(&link.url) {
        Some(target) => {
            vec![SlackRichTextLink::new(SlackRelaxedUrl(target.clone())).with_text(target).into()]
        }
        None => vec![remark("not a web address")],
    };
    let leads_to = std::iter::once(words("Leads to: ")).chain(target).collect();
    let mut blocks = boxes(&format!("Link {number}"), &link.label);
    blocks.extend(boxes("Its address", &link.url));
    blocks.push(rich(vec![line(leads_to)]));
    blocks
}

/// A text from outside in boxes, all of it, the first one under a title.
fn boxes(title: &str, text: &str) -> Vec<SlackBlock> {
    let pieces = text::pieces(text, BOX);
    if pieces.is_empty() {
        return vec![rich(vec![line(vec![heading(title), words(": "), remark("empty")])])];
    }
    let mut title = Some(line(vec![heading(title)]));
    let boxes =
        pieces.into_iter().map(|piece| rich(title.take().into_iter().chain([preformatted(piece)]).collect()));
    boxes.collect()
}

/// Whether a request is so small that its review surely fits, which most are: then no page has to be made to know.
fn is_small(request: &Request) -> bool {
    const MOST_BYTES: usize = 8_000;
    const MOST_PARTS: usize = 40;
    let submission = &request.submission;
    let changes = changes(request);
    let links: usize = submission.links.iter().map(|link| link.label.len() + link.url.len()).sum();
    let hidden: usize = submission.redacted.iter().map(String::len).sum();
    let edited: usize = changes
        .iter()
        .map(|(key, before, after)| key.len() + before.map_or(0, bytes) + after.map_or(0, bytes))
        .sum();
    // An edit stays in the parameters, too.
    let params: usize = submission.params.iter().map(|(key, value)| key.len() + bytes(value)).sum();
    let head = bytes_in_full(submission);
    head + submission.justification.len() + links + hidden + 2 * edited + params <= MOST_BYTES
        && submission.links.len() + changes.len() <= MOST_PARTS
}

/// Whether a request is so large that its review surely does not fit: each character takes its own room at least.
fn is_large(request: &Request) -> bool {
    let submission = &request.submission;
    let chars = |text: &str| text.chars().count();
    let links: usize = submission.links.iter().map(|link| chars(&link.label) + chars(&link.url)).sum();
    // What an edit makes of a parameter is left out.
    let edited: BTreeSet<&str> = changes(request).into_iter().map(|(key, ..)| key).collect();
    let shown = submission
        .params
        .iter()
        .filter(|(key, _)| !submission.redacted.contains(*key) && !edited.contains(key.as_str()));
    let params: usize = shown.map(|(key, value)| chars(key) + value_chars(value)).sum();
    chars(&submission.justification) + links + params > MOST_PAGES * (PAGE_ROOM - FRAME_ROOM)
}

/// The characters of all texts in a value.
fn value_chars(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.iter().map(value_chars).sum(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| key.chars().count() + value_chars(value)).sum()
        }
    }
}

/// About as many bytes as a value takes as JSON.
pub(super) fn bytes(value: &Value) -> usize {
    const AROUND: usize = 8;
    const SCALAR: usize = 32;
    AROUND
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(bytes).sum(),
            Value::Object(members) => members.iter().map(|(key, value)| key.len() + bytes(value)).sum(),
        }
}
