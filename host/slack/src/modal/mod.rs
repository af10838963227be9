//! The modals: new values for parameters, the reason of a denial, and a notice without inputs.
//!
//! The inputs follow the action's JSON Schema, which the authors of the policy set write; their initial values come
//! from the request. Titles, hints and options are `plain_text`, which Slack does not parse. A value that an input
//! could not show exactly is not shown at all: whoever submits the modal would change it without knowing.

mod inputs;
mod schema;
mod sections;

use std::collections::BTreeSet;

use countersign_core::lifecycle::{Digest, Request, State};
use countersign_core::record::PolicyEntry;
use serde_json::json;
use slack_morphism::prelude::*;

pub use schema::reads_as_text;

use crate::blocks::{plain, section};
use crate::interaction::{
    ANSWER_BLOCK, DENY_MODAL, OVERRIDE_MODAL, Page, REASON_BLOCK, REASON_CHARS, VALUE_ACTION,
};
use crate::text::{code, counted};

/// Slack's limit on a view's title and on its buttons.
const TITLE: usize = 24;

/// Slack's limit on a block id.
const BLOCK_ID: usize = 255;

/// The most inputs: with the notes around them there may be 100 blocks.
const MOST_INPUTS: usize = 95;

/// The most bytes of JSON that all inputs take together; Slack takes views of 250 kB. Beyond it, inputs are short:
/// without a description, options or an initial value.
const ROOM: usize = 80_000;

/// The widest label and the widest description of an input.
const LABEL: usize = 150;
const HINT: usize = 300;

/// The modal in which parameters are edited; `None` if nothing can be edited.
///
/// An input that is left as it is edits nothing. One that showed a value and is cleared removes the parameter; of the keys
/// in `removable` the dialog says so. Whether it may be removed is for the schema to say, as of any edit. `after` is the
/// page of the review that led to it, if one did.
#[must_use]
pub fn overrides(
    request: &Request,
    entry: &PolicyEntry,
    removable: &BTreeSet<String>,
    after: Option<Page>,
) -> Option<SlackModalView> {
    let keys = editable(request);
    let inputs = inputs(request, entry);
    if inputs.is_empty() {
        return None;
    }
    let mut intro = format!(
        "You approve {} with what you change here. What is left as it is stays as it is. \
         To clear a field is to remove the parameter, if the action's schema lets it go.",
        code(&request.submission.action, 150)
    );
    if !request.approvers().is_empty() {
        intro.push_str("\n:warning: Earlier approvals were of other parameters: yours takes their place.");
    }
    let clearable = shown(&inputs);
    let mut blocks = vec![section(intro)];
    blocks.extend(inputs.into_iter().map(|(key, input)| {
        let can_remove = input.shows_value() && removable.contains(key);
        input.block(can_remove).into()
    }));
    let State::Open(open) = &request.state else { return None };
    let mut notes = Vec::new();
    if keys.len() > MOST_INPUTS {
        notes.push(format!(
            "{} cannot be edited here for want of room",
            counted(keys.len() - MOST_INPUTS, "more parameter")
        ));
    }
    let unnamed = open.editable.iter().filter(|key| !fits_a_block(key)).count();
    if unnamed > 0 {
        notes.push(format!(
            "{} cannot be edited here, as the names are too long",
            counted(unnamed, "parameter")
        ));
    }
    if !notes.is_empty() {
        blocks.push(section(format!(":warning: {}.", notes.join("; "))));
    }
    let mut metadata = json!({
        "request_id": request.id,
        "payload_hash": request.payload_hash(),
        "clearable": digest(&clearable),
    });
    if let (Some(Page { number, of }), Some(metadata)) = (after, metadata.as_object_mut()) {
        metadata.insert("page".to_owned(), json!(number));
        metadata.insert("pages".to_owned(), json!(of));
    }
    Some(
        SlackModalView::new(plain("Approve with edits", TITLE).into(), blocks)
            .with_callback_id(OVERRIDE_MODAL.into())
            .with_private_metadata(metadata.to_string())
            .with_submit(plain("Approve", TITLE).into())
            .with_close(plain("Cancel", TITLE).into()),
    )
}

/// The parameters that are removed if their input in the modal comes back empty: those whose value it shows.
#[must_use]
pub fn clearable(request: &Request, entry: &PolicyEntry) -> BTreeSet<String> {
    shown(&inputs(request, entry))
}

/// Whether the modal that `told` comes from showed the values of these parameters and of no others. If not, an empty input
/// may be one that was always empty.
#[must_use]
pub fn is_as_told(clearable: &BTreeSet<String>, told: Digest) -> bool {
    digest(clearable) == told
}

fn digest(clearable: &BTreeSet<String>) -> Digest {
    Digest::of_json(&json!(clearable))
}

fn shown(inputs: &[(&str, inputs::Input)]) -> BTreeSet<String> {
    let shown = inputs.iter().filter(|(_, input)| input.shows_value());
    shown.map(|(key, _)| (*key).to_owned()).collect()
}

/// The inputs of the modal for edits, as many as it has room for.
fn inputs<'a>(request: &'a Request, entry: &PolicyEntry) -> Vec<(&'a str, inputs::Input)> {
    let schema = entry.schema.as_ref();
    let params = request.params();
    let mut room = ROOM;
    let input = |key: &'a str| {
        let current = params.get(key);
        // An input is made of strings and numbers: it always serialises. What it says of removal is in it, so that the same
        // inputs have room whether or not it does.
        let full = inputs::input(schema, key, current).block(true);
        let takes = serde_json::to_string(&full).unwrap_or_default().len();
        if takes <= room {
            room -= takes;
            (key, inputs::input(schema, key, current))
        } else {
            (key, inputs::short_input(key, current))
        }
    };
    editable(request).into_iter().take(MOST_INPUTS).map(input).collect()
}

/// Whether an approver can edit anything in the modal.
pub(super) fn can_edit(request: &Request) -> bool {
    !editable(request).is_empty()
}

/// The modal that asks for the reason of a denial.
#[must_use]
pub fn deny(request: &Request) -> SlackModalView {
    let most = u64::try_from(REASON_CHARS).unwrap_or(u64::MAX);
    let text = SlackBlockPlainTextInputElement::new()
        .with_action_id(VALUE_ACTION.into())
        .with_multiline(true)
        .with_max_length(most);
    let reason = SlackInputBlock::new(plain("Why?", LABEL).into(), text.into())
        .with_block_id(REASON_BLOCK.into())
        .with_hint(plain("Whoever made the request reads it, and it stays with the decision.", HINT).into())
        .with_optional(true);
    let intro = format!("You deny {}, which ends the request.", code(&request.submission.action, 150));
    let metadata = json!({"request_id": request.id});
    SlackModalView::new(plain("Deny the request", TITLE).into(), vec![section(intro), reason.into()])
        .with_callback_id(DENY_MODAL.into())
        .with_private_metadata(metadata.to_string())
        .with_submit(plain("Deny", TITLE).into())
        .with_close(plain("Cancel", TITLE).into())
}

/// A modal without inputs. `text` is `mrkdwn` in which names are escaped, as in [`crate::ephemeral_text`].
#[must_use]
pub fn notice(title: &str, text: &str) -> SlackModalView {
    let title = if title.trim().is_empty() { "Countersign" } else { title };
    let blocks = sections::split(text).into_iter().map(section).collect();
    SlackModalView::new(plain(title, TITLE).into(), blocks).with_close(plain("Close", TITLE).into())
}

/// The keys that can be edited in a modal.
fn editable(request: &Request) -> Vec<&str> {
    let State::Open(open) = &request.state else { return Vec::new() };
    let keys = open.editable.iter().filter(|key| !request.submission.redacted.contains(*key));
    keys.map(String::as_str).filter(|key| fits_a_block(key)).collect()
}

fn fits_a_block(key: &str) -> bool {
    !key.is_empty() && key.encode_utf16().count() + ANSWER_BLOCK.len() <= BLOCK_ID
}
