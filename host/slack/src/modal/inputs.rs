//! The input of a parameter in the modal for edits.

use countersign_core::json::is_json;
use serde_json::{Value, json};
use slack_morphism::prelude::*;

use super::schema::{choices, property, reads_as_text, types};
use super::{HINT, LABEL};
use crate::blocks::plain;
use crate::interaction::{ANSWER_BLOCK, VALUE_ACTION};
use crate::text::{self, Lines};

/// Slack's limits on inputs.
const INPUT: usize = 3000;
const OPTIONS: usize = 100;
const OPTION_TEXT: usize = 75;
const OPTION_VALUE: usize = 150;

/// A text of more characters gets an input of several lines.
const ONE_LINE: usize = 80;

/// The largest integer that every JSON parser reads as the same number.
const MAX_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The most digits of a number.
const MOST_DIGITS: usize = 24;

const NOT_SHOWN: &str = "The value so far cannot be shown here; leave this empty to keep it.";

/// What is said of a parameter that goes if its input is cleared.
const REMOVED: &str = "If you clear this, the parameter is removed.";

/// The input of a parameter.
pub(super) struct Input {
    block: SlackInputBlock,
    hint: Vec<String>,
}

impl Input {
    /// Whether it shows the current value, so that to leave it empty is to clear it.
    pub(super) fn shows_value(&self) -> bool {
        match &self.block.element {
            SlackInputBlockElement::PlainTextInput(element) => element.initial_value.is_some(),
            SlackInputBlockElement::NumberInput(element) => element.initial_value.is_some(),
            SlackInputBlockElement::StaticSelect(element) => element.initial_option.is_some(),
            _ => false,
        }
    }

    /// The block. If the parameter can be removed here, it says so.
    pub(super) fn block(self, can_remove: bool) -> SlackInputBlock {
        let mut hint = self.hint;
        hint.extend(can_remove.then(|| REMOVED.to_owned()));
        if hint.is_empty() {
            return self.block;
        }
        self.block.with_hint(plain(&sentences(&hint), 2 * HINT).into())
    }
}

/// One sentence after the other. The author of a schema may have left out the full stop.
fn sentences(parts: &[String]) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() {
            text.push_str(if text.ends_with(['.', '!', '?', ':', '…']) { " " } else { ". " });
        }
        text.push_str(part);
    }
    text
}

/// The type of input that a parameter gets.
enum InputType<'a> {
    Choice(&'a [Value]),
    Boolean,
    Number { is_integer: bool },
    Text,
    Json,
}

/// The input of the parameter `key`, with its current value if the input can show that exactly.
pub(super) fn input(schema: Option<&Value>, key: &str, current: Option<&Value>) -> Input {
    let property = schema.and_then(|schema| property(schema, key));
    let is_text = reads_as_text(schema, key, current);
    match input_type(property, current, is_text) {
        InputType::Choice(values) => match options(values, is_text) {
            Some(options) => select(property, key, options, current, is_text),
            None if is_text => text_input(property, key, current),
            None => json_input(property, key, current),
        },
        InputType::Boolean => {
            let options = [true, false].map(|value| option(&value.to_string(), value.to_string()));
            select(property, key, options.into(), current, false)
        }
        InputType::Number { is_integer } => number_input(property, key, current, is_integer),
        InputType::Text => text_input(property, key, current),
        InputType::Json => json_input(property, key, current),
    }
}

/// An input that takes little room.
pub(super) fn short_input(key: &str, current: Option<&Value>) -> Input {
    let element =
        SlackBlockPlainTextInputElement::new().with_action_id(VALUE_ACTION.into()).with_multiline(true);
    labelled(None, key, element.into(), current.map(|_| NOT_SHOWN))
}

fn input_type<'a>(property: Option<&'a Value>, current: Option<&Value>, is_text: bool) -> InputType<'a> {
    if let Some(values) = property.and_then(choices) {
        return InputType::Choice(values);
    }
    if is_text {
        return InputType::Text;
    }
    let mut types = property.map(types).unwrap_or_default();
    types.retain(|kind| *kind != "null");
    match types.as_slice() {
        ["integer"] => InputType::Number { is_integer: true },
        ["number"] | ["integer", "number"] | ["number", "integer"] => InputType::Number { is_integer: false },
        ["boolean"] => InputType::Boolean,
        [] => match current {
            Some(Value::Number(_)) => InputType::Number { is_integer: false },
            Some(Value::Bool(_)) => InputType::Boolean,
            _ => InputType::Json,
        },
        _ => InputType::Json,
    }
}

fn labelled(
    property: Option<&Value>,
    key: &str,
    element: SlackInputBlockElement,
    note: Option<&str>,
) -> Input {
    let keyword = |keyword| {
        let text = property.and_then(|property| property.get(keyword)?.as_str());
        text.map(str::trim).filter(|text| !text.is_empty())
    };
    let label = match keyword("title") {
        Some(title) => plain(title, LABEL),
        None if key.trim().is_empty() => plain(&format!("“{key}”"), LABEL),
        None => plain(key, LABEL),
    };
    let description = keyword("description").map(|text| text::literal(text, Lines::One, HINT).text);
    let hint = description.into_iter().chain(note.map(str::to_owned)).collect();
    let block = SlackInputBlock::new(label.into(), element)
        .with_block_id(format!("{ANSWER_BLOCK}{key}").into())
        .with_optional(true);
    Input { block, hint }
}

fn text_input(property: Option<&Value>, key: &str, current: Option<&Value>) -> Input {
    let initial = current.and_then(Value::as_str).filter(|text| can_be_shown(text));
    // A current value that is not a text is not shown in an input for texts.
    let is_hidden = initial.is_none()
        && current.is_some_and(|value| !matches!(value, Value::Null) && *value != json!(""));
    let most = property.and_then(|property| property.get("maxLength")?.as_u64());
    // Slack refuses a modal with an initial value that is longer than `max_length`.
    let most = most.filter(|most| {
        let length = initial.map_or(0, |text| text.encode_utf16().count());
        (1..=3000).contains(most) && u64::try_from(length).is_ok_and(|length| length <= *most)
    });
    let is_long = initial.is_some_and(|text| text.contains(['\n', '\t']) || text.chars().count() > ONE_LINE);
    let mut element = SlackBlockPlainTextInputElement::new().with_action_id(VALUE_ACTION.into());
    element.initial_value = initial.map(str::to_owned);
    element.multiline = (is_long || is_hidden).then_some(true);
    element.max_length = most;
    labelled(property, key, element.into(), is_hidden.then_some(NOT_SHOWN))
}

fn json_input(property: Option<&Value>, key: &str, current: Option<&Value>) -> Input {
    let initial = current.and_then(|value| {
        let pretty = serde_json::to_string_pretty(value).ok().filter(|text| can_be_shown(text));
        pretty.or_else(|| Some(value.to_string()).filter(|text| can_be_shown(text)))
    });
    let note = if current.is_some() && initial.is_none() { NOT_SHOWN } else { "Written as JSON." };
    let mut element =
        SlackBlockPlainTextInputElement::new().with_action_id(VALUE_ACTION.into()).with_multiline(true);
    element.initial_value = initial;
    labelled(property, key, element.into(), Some(note))
}

fn number_input(property: Option<&Value>, key: &str, current: Option<&Value>, is_integer: bool) -> Input {
    // An input for integers cannot show a fraction.
    let initial = current.and_then(Value::as_f64).filter(|number| {
        number.abs() <= MAX_INTEGER
            && (!is_integer || number.fract() == 0.0)
            && decimal(*number).len() <= MOST_DIGITS
    });
    let (least, most) = bounds(property, is_integer);
    // Slack refuses a modal with an initial value outside of the bounds, or with bounds that exclude everything.
    let least = least.filter(|least| initial.is_none_or(|number| number >= *least));
    let most = most.filter(|most| initial.is_none_or(|number| number <= *most));
    let (least, most) = match (least, most) {
        (Some(least), Some(most)) if least > most => (None, None),
        bounds => bounds,
    };
    let mut element = SlackBlockNumberInputElement::new(!is_integer).with_action_id(VALUE_ACTION.into());
    element.initial_value = initial.map(decimal);
    element.min_value = least.map(decimal);
    element.max_value = most.map(decimal);
    let is_hidden = initial.is_none() && current.is_some_and(|value| !value.is_null());
    labelled(property, key, element.into(), is_hidden.then_some(NOT_SHOWN))
}

/// The least and the greatest number that the schema allows, if an input can express them.
fn bounds(property: Option<&Value>, is_integer: bool) -> (Option<f64>, Option<f64>) {
    let number = |keyword| property.and_then(|property| property.get(keyword)?.as_f64());
    let is_usable = |number: &f64| number.abs() <= MAX_INTEGER && decimal(*number).len() <= MOST_DIGITS;
    let least = number("minimum");
    let most = number("maximum");
    if !is_integer {
        return (least.filter(is_usable), most.filter(is_usable));
    }
    // The next integer beyond an exclusive bound; `floor` and `ceil` alone would allow the bound itself.
    let above = number("exclusiveMinimum").map(|bound| bound.floor() + 1.0);
    let below = number("exclusiveMaximum").map(|bound| bound.ceil() - 1.0);
    let least = [least.map(f64::ceil), above].into_iter().flatten().reduce(f64::max);
    let most = [most.map(f64::floor), below].into_iter().flatten().reduce(f64::min);
    (least.filter(is_usable), most.filter(is_usable))
}

/// A number without an exponent, which the input would not accept.
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
) -> Input {
    let value = current.and_then(|value| option_value(value, is_text));
    let initial = value.and_then(|value| options.iter().find(|option| option.value == value)).cloned();
    let note = (initial.is_none() && current.is_some()).then_some(NOT_SHOWN);
    let mut element =
        SlackBlockStaticSelectElement::new().with_action_id(VALUE_ACTION.into()).with_options(options);
    element.initial_option = initial;
    labelled(property, key, element.into(), note)
}

/// An option for each of the values; `None` if one of them cannot be an option.
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

/// The text that is read back as this value; `None` if there is none.
fn option_value(value: &Value, is_text: bool) -> Option<String> {
    match value {
        // An empty answer means that nothing was chosen.
        Value::String(text) if is_text => Some(text.clone()).filter(|text| !text.is_empty()),
        _ if is_text => None,
        // The text itself if that is not JSON; otherwise it would be read back as the JSON value that it looks like.
        Value::String(text) if !text.is_empty() && !is_json(text) => Some(text.clone()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_sentences() {
        for (parts, expected) in [
            (&["How many"][..], "How many"),
            (&["How many", REMOVED], "How many. If you clear this, the parameter is removed."),
            (&["How many?", REMOVED], "How many? If you clear this, the parameter is removed."),
        ] {
            let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(sentences(&parts), expected);
        }
    }
}
