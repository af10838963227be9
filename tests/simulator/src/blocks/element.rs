//! Interactive elements: buttons, selects and inputs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{Node, Problems, Texts};

/// The place of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Section,
    Actions,
    Input,
}

/// Checks the elements of a block, and that no two have the same id.
pub(super) fn all(block: &Node<'_>, place: Place, most: usize, problems: &mut Problems) {
    let Some(elements) = block.need("elements", problems) else { return };
    let mut ids = BTreeSet::new();
    for node in elements.elements(1, most, problems).into_iter().flatten() {
        check(&node, place, problems);
        if let Some(id) = node.value["action_id"].as_str()
            && !ids.insert(id)
        {
            problems.add(&node, &format!("`action_id` must be unique in its block: `{id}` is there twice"));
        }
    }
}

pub(super) fn check(node: &Node<'_>, place: Place, problems: &mut Problems) {
    if !node.value.is_object() {
        return problems.add(node, "must be an object");
    }
    node.string("action_id", 1, 255, false, problems);
    node.boolean("focus_on_load", false, problems);
    if let Some(confirm) = node.get("confirm") {
        check_confirm(&confirm, problems);
    }
    let clickable = place != Place::Input;
    match node.value["type"].as_str().unwrap_or_default() {
        "button" if clickable => button(node, problems),
        "image" if place == Place::Section => super::image(node, problems),
        "static_select" => select(node, problems),
        "radio_buttons" => choices(node, "initial_option", problems),
        "checkboxes" => choices(node, "initial_options", problems),
        "plain_text_input" if place == Place::Input => plain_text_input(node, problems),
        "number_input" if place == Place::Input => number_input(node, problems),
        "" => problems.add(node, "missing required field: type"),
        other => problems.add(node, &format!("unsupported type: {other}")),
    }
}

fn button(node: &Node<'_>, problems: &mut Problems) {
    node.text("text", Texts::plain(75).required(), problems);
    node.string("value", 0, 2000, false, problems);
    node.string("url", 1, 3000, false, problems);
    node.string("accessibility_label", 1, 75, false, problems);
    node.one_of("style", &["primary", "danger"], false, problems);
}

fn check_confirm(node: &Node<'_>, problems: &mut Problems) {
    node.text("title", Texts::plain(100).required(), problems);
    node.text("text", Texts::any(300).required(), problems);
    node.text("confirm", Texts::plain(30).required(), problems);
    node.text("deny", Texts::plain(30).required(), problems);
    node.one_of("style", &["primary", "danger"], false, problems);
}

fn select(node: &Node<'_>, problems: &mut Problems) {
    node.text("placeholder", Texts::plain(150), problems);
    match (node.get("options"), node.get("option_groups")) {
        (Some(options), None) => options_of(&options, 100, Texts::plain(75), problems),
        (None, Some(groups)) => {
            for group in groups.elements(1, 100, problems).into_iter().flatten() {
                group.text("label", Texts::plain(75).required(), problems);
                if let Some(options) = group.need("options", problems) {
                    options_of(&options, 100, Texts::plain(75), problems);
                }
            }
        }
        _ => problems.add(node, "must have options or option_groups, and not both"),
    }
    if let Some(initial) = node.get("initial_option") {
        initially(node, &initial, problems);
    }
}

/// Radio buttons and checkboxes.
fn choices(node: &Node<'_>, initial: &str, problems: &mut Problems) {
    if let Some(options) = node.need("options", problems) {
        options_of(&options, 10, Texts::any(75), problems);
    }
    let Some(initial) = node.get(initial) else { return };
    if initial.value.is_array() {
        for one in initial.elements(1, 10, problems).into_iter().flatten() {
            initially(node, &one, problems);
        }
    } else {
        initially(node, &initial, problems);
    }
}

fn options_of(options: &Node<'_>, most: usize, texts: Texts, problems: &mut Problems) {
    for option in options.elements(1, most, problems).into_iter().flatten() {
        option.text("text", texts.required(), problems);
        option.string("value", 1, 150, true, problems);
        option.text("description", Texts::plain(75), problems);
    }
}

fn initially(node: &Node<'_>, initial: &Node<'_>, problems: &mut Problems) {
    if !options(node.value).any(|option| option == initial.value) {
        problems.add(initial, "must be exactly one of the options");
    }
}

/// The options of a select, of radio buttons or of checkboxes, those of its groups too.
pub(crate) fn options(element: &Value) -> impl Iterator<Item = &Value> {
    let grouped = super::items(&element["option_groups"]).flat_map(|group| super::items(&group["options"]));
    super::items(&element["options"]).chain(grouped)
}

fn plain_text_input(node: &Node<'_>, problems: &mut Problems) {
    node.text("placeholder", Texts::plain(150), problems);
    node.boolean("multiline", false, problems);
    node.integer("min_length", 0, 3000, problems);
    node.integer("max_length", 1, 3000, problems);
    let most = node.value["max_length"].as_u64().and_then(|most| usize::try_from(most).ok());
    let most = most.unwrap_or(3000).min(3000);
    node.string("initial_value", 0, most, false, problems);
    if node.value["min_length"].as_u64() > node.value["max_length"].as_u64().or(Some(3000)) {
        problems.add(node, "min_length must not be greater than max_length");
    }
}

fn number_input(node: &Node<'_>, problems: &mut Problems) {
    node.boolean("is_decimal_allowed", true, problems);
    node.text("placeholder", Texts::plain(150), problems);
    let decimal = node.value["is_decimal_allowed"] == true;
    let mut number = |key: &str| {
        let found = node.get(key)?;
        let parsed = found.value.as_str().and_then(|text| parse_number(text, decimal));
        if parsed.is_none() {
            problems.add(&found, "must be a string that is a number of the kind that is allowed");
        }
        parsed
    };
    let (least, most, initial) = (number("min_value"), number("max_value"), number("initial_value"));
    if least.zip(most).is_some_and(|(least, most)| least > most) {
        problems.add(node, "min_value must not be greater than max_value");
    }
    let outside = initial.is_some_and(|initial| {
        least.is_some_and(|least| initial < least) || most.is_some_and(|most| initial > most)
    });
    if outside {
        problems.add(node, "initial_value must be from min_value to max_value");
    }
}

/// A number as it may be typed into a number input.
pub(crate) fn parse_number(text: &str, decimal: bool) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let allowed = |letter: char| letter.is_ascii_digit() || decimal && letter == '.';
    if digits.is_empty() || !digits.chars().all(allowed) || digits.starts_with('.') || digits.ends_with('.') {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
