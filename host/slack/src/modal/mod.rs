//! The dialogs that people fill in: new values for parameters, a reason for a denial; and one that only tells.
//!
//! What is asked for comes from the action's JSON Schema, which the policy set's authors write, and what is there
//! already from the request. Titles, hints and options are `plain_text`, which Slack does not parse. A value that could
//! not be shown exactly as it is, is not shown: whoever sends the dialog would change it without knowing.

use serde_json::{Value, json};
use slack_morphism::prelude::*;

use super::blocks::{plain, section};
use super::interaction::{
    ANSWER_BLOCK, DENY_MODAL, OVERRIDE_MODAL, REASON_BLOCK, REASON_CHARS, VALUE_ACTION,
};
use super::text::{self, Lines, code, counted};
use countersign_core::lifecycle::{Request, State};
use countersign_core::record::PolicyEntry;

/// Slack's limits on views.
const TITLE: usize = 24;
const BLOCK_ID: usize = 255;
const INPUT: usize = 3000;
const OPTIONS: usize = 100;
const OPTION_TEXT: usize = 75;
const OPTION_VALUE: usize = 150;
const PARAGRAPH: usize = 3000;

/// How many inputs there are at most: with what is said around them there may be 100 blocks.
const MOST_INPUTS: usize = 95;

/// How much all inputs may take together, in bytes of JSON; Slack takes views of 250 kB. What would be more is asked
/// for in short: without a description, options or the value so far.
const ROOM: usize = 80_000;

/// How wide titles and descriptions may be.
const LABEL: usize = 150;
const HINT: usize = 300;

/// From here on a text gets an input of several lines.
const ONE_LINE: usize = 80;

/// The largest whole number that every reader of JSON takes for the same one.
const MAX_WHOLE: f64 = 9_007_199_254_740_991.0;

/// How long a number may be written.
const MOST_DIGITS: usize = 24;

/// The dialog in which parameters are edited; `None` where nothing can be edited.
///
/// An input that is left empty, or as it was, changes nothing.
#[must_use]
pub fn overrides(request: &Request, entry: &PolicyEntry) -> Option<SlackModalView> {
    let keys = editable(request);
    if keys.is_empty() {
        return None;
    }
    let schema = entry.schema.as_ref();
    let params = request.params();
    let mut said = format!(
        "You approve {} with what you change here. What is left as it is, or empty, stays as it is.",
        code(&request.submission.action, 150)
    );
    if !request.approvers().is_empty() {
        said.push_str("\n:warning: Earlier approvals were of other parameters: yours takes their place.");
    }
    let mut room = ROOM;
    let mut blocks = vec![section(said)];
    for key in keys.iter().take(MOST_INPUTS) {
        let current = params.get(*key);
        let full = input(schema, key, current);
        // An input is made of strings and numbers: it always serialises.
        let takes = serde_json::to_string(&full).unwrap_or_default().len();
        if takes <= room {
            room -= takes;
            blocks.push(full.into());
        } else {
            blocks.push(short_input(key, current).into());
        }
    }
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
    let about = json!({"request_id": request.id, "payload_hash": request.payload_hash()});
    Some(
        SlackModalView::new(plain("Approve with edits", TITLE).into(), blocks)
            .with_callback_id(OVERRIDE_MODAL.into())
            .with_private_metadata(about.to_string())
            .with_submit(plain("Approve", TITLE).into())
            .with_close(plain("Cancel", TITLE).into()),
    )
}

/// Whether there is anything that an approver can edit in a dialog.
pub(super) fn can_edit(request: &Request) -> bool {
    !editable(request).is_empty()
}

/// The dialog that asks why somebody denies.
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
    let said = format!("You deny {}, which ends the request.", code(&request.submission.action, 150));
    let about = json!({"request_id": request.id});
    SlackModalView::new(plain("Deny the request", TITLE).into(), vec![section(said), reason.into()])
        .with_callback_id(DENY_MODAL.into())
        .with_private_metadata(about.to_string())
        .with_submit(plain("Deny", TITLE).into())
        .with_close(plain("Cancel", TITLE).into())
}

/// A dialog that only tells. `text` is `mrkdwn` in which names are escaped, as in [`super::told`].
#[must_use]
pub fn notice(title: &str, text: &str) -> SlackModalView {
    let title = if title.trim().is_empty() { "Countersign" } else { title };
    let blocks = paragraphs(text).into_iter().map(section).collect();
    SlackModalView::new(plain(title, TITLE).into(), blocks).with_close(plain("Close", TITLE).into())
}

/// Whether what is typed for a parameter is the text itself; else it is read as JSON, where it is some.
///
/// This is what the dialog's inputs count on, so whoever reads the answers must ask it too.
#[must_use]
pub fn reads_as_text(schema: Option<&Value>, key: &str, current: Option<&Value>) -> bool {
    let Some(property) = schema.and_then(|schema| property(schema, key)) else {
        return current.is_some_and(Value::is_string);
    };
    let types = types(property);
    if types.contains(&"string") {
        // Where it may also be something else, it is what it was so far.
        return types.iter().all(|kind| matches!(*kind, "string" | "null"))
            || current.is_some_and(Value::is_string);
    }
    match choices(property) {
        _ if !types.is_empty() => false,
        Some(values) => values.iter().all(Value::is_string),
        None => current.is_some_and(Value::is_string),
    }
}

/// The keys that can be edited in a dialog.
fn editable(request: &Request) -> Vec<&str> {
    let State::Open(open) = &request.state else { return Vec::new() };
    let keys = open.editable.iter().filter(|key| !request.submission.redacted.contains(*key));
    keys.map(String::as_str).filter(|key| fits_a_block(key)).collect()
}

fn fits_a_block(key: &str) -> bool {
    !key.is_empty() && key.encode_utf16().count() + ANSWER_BLOCK.len() <= BLOCK_ID
}

/// What kind of input a parameter gets.
enum Kind<'a> {
    Choice(&'a [Value]),
    Truth,
    Number { whole: bool },
    Text,
    Json,
}

fn kind<'a>(property: Option<&'a Value>, current: Option<&Value>, is_text: bool) -> Kind<'a> {
    if let Some(values) = property.and_then(choices) {
        return Kind::Choice(values);
    }
    if is_text {
        return Kind::Text;
    }
    let mut types = property.map(types).unwrap_or_default();
    types.retain(|kind| *kind != "null");
    match types.as_slice() {
        ["integer"] => Kind::Number { whole: true },
        ["number"] | ["integer", "number"] | ["number", "integer"] => Kind::Number { whole: false },
        ["boolean"] => Kind::Truth,
        [] => match current {
            Some(Value::Number(_)) => Kind::Number { whole: false },
            Some(Value::Bool(_)) => Kind::Truth,
            _ => Kind::Json,
        },
        _ => Kind::Json,
    }
}

fn input(schema: Option<&Value>, key: &str, current: Option<&Value>) -> SlackInputBlock {
    let property = schema.and_then(|schema| property(schema, key));
    let is_text = reads_as_text(schema, key, current);
    match kind(property, current, is_text) {
        Kind::Choice(values) => match options(values, is_text) {
            Some(options) => select(property, key, options, current, is_text),
            None if is_text => text_input(property, key, current),
            None => json_input(property, key, current),
        },
        Kind::Truth => {
            let options = [true, false].map(|truth| option(&truth.to_string(), truth.to_string()));
            select(property, key, options.into(), current, false)
        }
        Kind::Number { whole } => number_input(property, key, current, whole),
        Kind::Text => text_input(property, key, current),
        Kind::Json => json_input(property, key, current),
    }
}

/// An input that takes little room.
fn short_input(key: &str, current: Option<&Value>) -> SlackInputBlock {
    let element =
        SlackBlockPlainTextInputElement::new().with_action_id(VALUE_ACTION.into()).with_multiline(true);
    labelled(None, key, element.into(), current.map(|_| NOT_SHOWN))
}

const NOT_SHOWN: &str = "The value so far cannot be shown here; leave this empty to keep it.";

fn labelled(
    property: Option<&Value>,
    key: &str,
    element: SlackInputBlockElement,
    note: Option<&str>,
) -> SlackInputBlock {
    let said = |keyword| {
        let text = property.and_then(|property| property.get(keyword)?.as_str());
        text.map(str::trim).filter(|text| !text.is_empty())
    };
    let label = match said("title") {
        Some(title) => plain(title, LABEL),
        None if key.trim().is_empty() => plain(&format!("“{key}”"), LABEL),
        None => plain(key, LABEL),
    };
    let description = said("description").map(|text| text::literal(text, Lines::One, HINT).text);
    let hint: Vec<&str> = description.as_deref().into_iter().chain(note).collect();
    let block = SlackInputBlock::new(label.into(), element)
        .with_block_id(format!("{ANSWER_BLOCK}{key}").into())
        .with_optional(true);
    if hint.is_empty() { block } else { block.with_hint(plain(&hint.join(" "), 2 * HINT).into()) }
}

fn text_input(property: Option<&Value>, key: &str, current: Option<&Value>) -> SlackInputBlock {
    let initial = current.and_then(Value::as_str).filter(|text| can_be_shown(text));
    // What is not a text so far is not shown in an input for texts.
    let hidden = initial.is_none()
        && current.is_some_and(|value| !matches!(value, Value::Null) && *value != json!(""));
    let most = property.and_then(|property| property.get("maxLength")?.as_u64());
    // Slack refuses a dialog whose input begins with more than it may have.
    let most = most.filter(|most| {
        let length = initial.map_or(0, |text| text.encode_utf16().count());
        (1..=3000).contains(most) && u64::try_from(length).is_ok_and(|length| length <= *most)
    });
    let long = initial.is_some_and(|text| text.contains(['\n', '\t']) || text.chars().count() > ONE_LINE);
    let mut element = SlackBlockPlainTextInputElement::new().with_action_id(VALUE_ACTION.into());
    element.initial_value = initial.map(str::to_owned);
    element.multiline = (long || hidden).then_some(true);
    element.max_length = most;
    labelled(property, key, element.into(), hidden.then_some(NOT_SHOWN))
}

fn json_input(property: Option<&Value>, key: &str, current: Option<&Value>) -> SlackInputBlock {
    let written = current.and_then(|value| {
        let pretty = serde_json::to_string_pretty(value).ok().filter(|text| can_be_shown(text));
        pretty.or_else(|| Some(value.to_string()).filter(|text| can_be_shown(text)))
    });
    let note = if current.is_some() && written.is_none() { NOT_SHOWN } else { "Written as JSON." };
    let mut element =
        SlackBlockPlainTextInputElement::new().with_action_id(VALUE_ACTION.into()).with_multiline(true);
    element.initial_value = written;
    labelled(property, key, element.into(), Some(note))
}

fn number_input(
    property: Option<&Value>,
    key: &str,
    current: Option<&Value>,
    whole: bool,
) -> SlackInputBlock {
    let current_number = current.and_then(Value::as_f64);
    // An input of whole numbers cannot show a fraction.
    let initial = current_number.filter(|number| {
        number.abs() <= MAX_WHOLE
            && (!whole || number.fract() == 0.0)
            && decimal(*number).len() <= MOST_DIGITS
    });
    let (least, most) = bounds(property, whole);
    // Slack refuses a dialog whose input begins outside of its own bounds, or whose bounds leave nothing.
    let least = least.filter(|least| initial.is_none_or(|number| number >= *least));
    let most = most.filter(|most| initial.is_none_or(|number| number <= *most));
    let (least, most) = match (least, most) {
        (Some(least), Some(most)) if least > most => (None, None),
        bounds => bounds,
    };
    let mut element = SlackBlockNumberInputElement::new(!whole).with_action_id(VALUE_ACTION.into());
    element.initial_value = initial.map(decimal);
    element.min_value = least.map(decimal);
    element.max_value = most.map(decimal);
    let hidden = initial.is_none() && current.is_some_and(|value| !value.is_null());
    labelled(property, key, element.into(), hidden.then_some(NOT_SHOWN))
}

/// The least and the greatest number that the schema allows, as far as an input can say so.
fn bounds(property: Option<&Value>, whole: bool) -> (Option<f64>, Option<f64>) {
    let number = |keyword| property.and_then(|property| property.get(keyword)?.as_f64());
    let usable = |number: &f64| number.abs() <= MAX_WHOLE && decimal(*number).len() <= MOST_DIGITS;
    let least = number("minimum");
    let most = number("maximum");
    if !whole {
        return (least.filter(usable), most.filter(usable));
    }
    // The next whole number beyond an exclusive bound; `floor` and `ceil` alone would allow the bound itself.
    let above = number("exclusiveMinimum").map(|bound| bound.floor() + 1.0);
    let below = number("exclusiveMaximum").map(|bound| bound.ceil() - 1.0);
    let least = [least.map(f64::ceil), above].into_iter().flatten().reduce(f64::max);
    let most = [most.map(f64::floor), below].into_iter().flatten().reduce(f64::min);
    (least.filter(usable), most.filter(usable))
}

/// A number without an exponent, which the input would not take.
fn decimal(number: f64) -> String {
    // `-0` is 0.
    if number == 0.0 { "0".to_owned() } else { number.to_string() }
}

type SelectOption = SlackBlockChoiceItem<SlackBlockPlainTextOnly>;

fn select(
    property: Option<&Value>,
    key: &str,
    options: Vec<SelectOption>,
    current: Option<&Value>,
    is_text: bool,
) -> SlackInputBlock {
    let value = current.and_then(|value| option_value(value, is_text));
    let initial = value.and_then(|value| options.iter().find(|option| option.value == value)).cloned();
    let note = (initial.is_none() && current.is_some()).then_some(NOT_SHOWN);
    let mut element =
        SlackBlockStaticSelectElement::new().with_action_id(VALUE_ACTION.into()).with_options(options);
    element.initial_option = initial;
    labelled(property, key, element.into(), note)
}

/// An option for each of the values; `None` where some cannot be one.
fn options(values: &[Value], is_text: bool) -> Option<Vec<SelectOption>> {
    let mut options: Vec<SelectOption> = Vec::new();
    for value in values {
        let written = option_value(value, is_text)?;
        let fits = written.encode_utf16().count() <= OPTION_VALUE
            && text::width(&written) <= OPTION_TEXT
            && text::is_plain(&written);
        if !fits {
            return None;
        }
        if options.iter().all(|option| option.value != written) {
            let shown = value.as_str().filter(|text| !text.is_empty()).unwrap_or(&written).to_owned();
            options.push(option(&shown, written));
        }
    }
    (1..=OPTIONS).contains(&options.len()).then_some(options)
}

/// The text that is read back as this value; `None` where there is none.
fn option_value(value: &Value, is_text: bool) -> Option<String> {
    match value {
        // An answer without any text means that nothing was chosen.
        Value::String(text) if is_text => Some(text.clone()).filter(|text| !text.is_empty()),
        _ if is_text => None,
        // As it is where that is no JSON; else it would be read as what it looks like.
        Value::String(text)
            if !text.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() =>
        {
            Some(text.clone())
        }
        value => Some(value.to_string()),
    }
}

fn option(shown: &str, value: String) -> SelectOption {
    SlackBlockChoiceItem::new(plain(shown, OPTION_TEXT).into(), value)
}

/// Whether an input that shows the text gives it back unchanged.
fn can_be_shown(text: &str) -> bool {
    !text.is_empty() && text.encode_utf16().count() <= INPUT && text::is_plain(text)
}

/// What the schema says of a parameter, where it says it under `properties`.
fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    /// Longer chains of references are not followed.
    const MOST_HOPS: usize = 8;
    let mut property = schema.get("properties")?.get(key)?;
    for _ in 0..MOST_HOPS {
        let Some(target) = property.get("$ref").and_then(Value::as_str) else { break };
        property = schema.pointer(target.strip_prefix('#')?)?;
    }
    Some(property)
}

/// The values that the schema lists, where it lists them.
fn choices(property: &Value) -> Option<&[Value]> {
    match (property.get("enum"), property.get("const")) {
        (Some(Value::Array(values)), _) => Some(values),
        (_, Some(value)) => Some(std::slice::from_ref(value)),
        _ => None,
    }
}

/// The types that the schema allows; none where it says nothing of them.
fn types(property: &Value) -> Vec<&str> {
    match property.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The text in paragraphs that Slack takes, broken between lines, and within one only where it is too long.
fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    for line in text.lines().flat_map(pieces) {
        match paragraphs.last_mut() {
            Some(last) if text::width(last) + text::width(line) + 2 <= PARAGRAPH => {
                last.push('\n');
                last.push_str(line);
            }
            _ => paragraphs.push(line.to_owned()),
        }
    }
    paragraphs.truncate(MOST_INPUTS);
    paragraphs.retain(|paragraph| !paragraph.trim().is_empty());
    if paragraphs.is_empty() {
        paragraphs.push("There is nothing to tell.".to_owned());
    }
    paragraphs
}

/// A line in pieces that are not too long, none of which breaks a mention or an escaped character.
fn pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while text::width(rest) > PARAGRAPH {
        let mut width = 0;
        let fits = rest.char_indices().find(|(_, c)| {
            width += text::width(c.encode_utf8(&mut [0; 4]));
            width > PARAGRAPH
        });
        let end = fits.map_or(rest.len(), |(at, _)| at);
        let head = rest.get(..end).unwrap_or(rest);
        // Neither a mention nor an escaped character holds a space, but for dates, which are short.
        let outside = |at: &usize| {
            let before = head.get(..*at).unwrap_or_default();
            before.matches('<').count() == before.matches('>').count()
        };
        let space = head.rmatch_indices(' ').map(|(at, _)| at).find(outside).filter(|at| *at > 0);
        let (piece, after) = rest.split_at(space.unwrap_or(end));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}
