//! Block Kit's rules: which blocks and views Slack accepts, and its errors for the others.
//!
//! It knows the kinds of blocks and elements that an app like this may use; any other is refused.
//! Unknown members are ignored, except those that Slack is known to refuse.

mod check;
pub(crate) mod element;
mod rich_text;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::check::{Node, Problems, Texts};
use self::element::Place;

/// The surface that shows blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Message,
    Modal,
}

/// The limit of a message, counted as [`cost`] does.
///
/// Slack does not say how it counts. It was seen to refuse a single `markdown` block from 13,298 characters of text on,
/// and 125 characters earlier if a divider came along (slackapi/bolt-js#2509); and other blocks with much less text
/// than that (#2867). This fits both: the length of their JSON, and a constant for each.
pub(crate) const MESSAGE_ROOM: usize = 13_433;
const PER_BLOCK: usize = 107;

/// The faults of the blocks of a message, each with a pointer.
pub(crate) fn check_message(blocks: &Value) -> Vec<String> {
    let mut problems = Problems::default();
    check_blocks(&Node::root(blocks, "/blocks"), Surface::Message, 50, &mut problems);
    problems.into_messages()
}

/// The faults of a view.
pub(crate) fn check_view(view: &Value) -> Vec<String> {
    let mut problems = Problems::default();
    let node = Node::root(view, "/view");
    if !view.is_object() {
        problems.add(&node, "must be an object");
        return problems.into_messages();
    }
    node.one_of("type", &["modal"], true, &mut problems);
    node.text("title", Texts::plain(24).required(), &mut problems);
    node.text("submit", Texts::plain(24), &mut problems);
    node.text("close", Texts::plain(24), &mut problems);
    node.string("private_metadata", 0, 3000, false, &mut problems);
    node.string("callback_id", 0, 255, false, &mut problems);
    node.string("external_id", 0, 255, false, &mut problems);
    node.boolean("clear_on_close", false, &mut problems);
    node.boolean("notify_on_close", false, &mut problems);
    match node.get("blocks") {
        Some(blocks) => check_blocks(&blocks, Surface::Modal, 100, &mut problems),
        None => problems.add(&node, "missing required field: blocks"),
    }
    let inputs = items(&view["blocks"]).any(|block| block["type"] == "input");
    if inputs && node.get("submit").is_none() {
        problems.add(&node, "missing required field: submit, which a view with input blocks needs");
    }
    problems.into_messages()
}

fn check_blocks(blocks: &Node<'_>, surface: Surface, most: usize, problems: &mut Problems) {
    let Some(found) = blocks.elements(0, most, problems) else { return };
    let mut ids = BTreeSet::new();
    for block in found {
        if !block.value.is_object() {
            problems.add(&block, "must be an object");
            continue;
        }
        check_block(&block, surface, problems);
        if let Some(id) = block.value["block_id"].as_str()
            && !ids.insert(id)
        {
            problems.add(&block, &format!("`block_id` must be unique: `{id}` is there twice"));
        }
    }
}

fn check_block(block: &Node<'_>, surface: Surface, problems: &mut Problems) {
    block.string("block_id", 1, 255, false, problems);
    let kind = block.value["type"].as_str().unwrap_or_default();
    match kind {
        "section" => section(block, problems),
        "header" => block.text("text", Texts::plain(150).required(), problems),
        "divider" => {}
        "context" => context(block, problems),
        "actions" => element::all(block, Place::Actions, 25, problems),
        "input" => input(block, problems),
        "image" => image(block, problems),
        "rich_text" => rich_text::check(block, problems),
        "markdown" if surface == Surface::Message => block.string("text", 1, 12_000, true, problems),
        "" => problems.add(block, "missing required field: type"),
        other => problems.add(block, &format!("unsupported type: {other}")),
    }
}

fn section(block: &Node<'_>, problems: &mut Problems) {
    if block.get("text").is_none() && block.get("fields").is_none() {
        problems.add(block, "missing required field: text or fields");
    }
    block.text("text", Texts::any(3000), problems);
    if let Some(fields) = block.get("fields") {
        for field in fields.elements(1, 10, problems).into_iter().flatten() {
            field.is_text(Texts::any(2000), problems);
        }
    }
    if let Some(accessory) = block.get("accessory") {
        element::check(&accessory, Place::Section, problems);
    }
    block.boolean("expand", false, problems);
}

fn context(block: &Node<'_>, problems: &mut Problems) {
    let Some(elements) = block.need("elements", problems) else { return };
    for node in elements.elements(1, 10, problems).into_iter().flatten() {
        match node.value["type"].as_str() {
            Some("image") => image(&node, problems),
            _ => node.is_text(Texts::any(3000), problems),
        }
    }
}

fn input(block: &Node<'_>, problems: &mut Problems) {
    block.text("label", Texts::plain(2000).required(), problems);
    block.text("hint", Texts::plain(2000), problems);
    block.boolean("optional", false, problems);
    block.boolean("dispatch_action", false, problems);
    if let Some(node) = block.need("element", problems) {
        element::check(&node, Place::Input, problems);
    }
}

fn image(node: &Node<'_>, problems: &mut Problems) {
    node.string("image_url", 1, 3000, true, problems);
    node.string("alt_text", 1, 2000, true, problems);
    node.text("title", Texts::plain(2000), problems);
}

/// The cost of blocks against a message's limit.
pub(crate) fn cost(blocks: &[Value]) -> usize {
    blocks.iter().map(|block| width(&block.to_string()) + PER_BLOCK).sum()
}

/// The length of a text as Slack counts it: in UTF-16 units.
pub(crate) fn width(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Gives every block and element an id that has none, as Slack does.
pub(crate) fn name_all(blocks: &mut Value, mut id: impl FnMut() -> String) {
    let mut name = |value: &mut Value, key: &str| {
        if let Some(members) = value.as_object_mut()
            && !members.contains_key(key)
        {
            members.insert(key.to_owned(), json!(id()));
        }
    };
    for block in blocks.as_array_mut().into_iter().flatten() {
        name(block, "block_id");
        let elements: Vec<&mut Value> = match block["type"].as_str() {
            Some("actions") => match block.get_mut("elements").and_then(Value::as_array_mut) {
                Some(elements) => elements.iter_mut().collect(),
                None => Vec::new(),
            },
            Some("input") => block.get_mut("element").into_iter().collect(),
            Some("section") => block.get_mut("accessory").into_iter().collect(),
            _ => Vec::new(),
        };
        for element in elements.into_iter().filter(|element| element["type"] != "image") {
            name(element, "action_id");
        }
    }
}

/// The interactive elements of blocks, each with the id of its block.
pub(crate) fn elements(blocks: &[Value]) -> impl Iterator<Item = (&str, &Value)> {
    blocks.iter().flat_map(|block| {
        let inside: Vec<&Value> = match block["type"].as_str() {
            Some("actions") => items(&block["elements"]).collect(),
            Some("input") => vec![&block["element"]],
            Some("section") => block.get("accessory").into_iter().collect(),
            _ => Vec::new(),
        };
        let id = block["block_id"].as_str().unwrap_or_default();
        inside
            .into_iter()
            .filter(|element| element["action_id"].is_string())
            .map(move |element| (id, element))
    })
}

/// The items of an array; none if it is not one.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;
