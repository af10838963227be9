//! Rich text: literal text with styles, in which nothing is parsed.

use super::check::{Node, Problems};

const STYLES: [&str; 8] =
    ["bold", "italic", "strike", "code", "underline", "highlight", "client_highlight", "unlink"];

pub(super) fn check(block: &Node<'_>, problems: &mut Problems) {
    let Some(elements) = block.need("elements", problems) else { return };
    for node in elements.elements(1, usize::MAX, problems).into_iter().flatten() {
        match node.value["type"].as_str().unwrap_or_default() {
            "rich_text_section" | "rich_text_quote" => inline(&node, true, problems),
            "rich_text_preformatted" => inline(&node, false, problems),
            "rich_text_list" => list(&node, problems),
            "" => problems.add(&node, "missing required field: type"),
            other => problems.add(&node, &format!("unsupported type: {other}")),
        }
        node.integer("border", 0, 1, problems);
    }
}

fn list(node: &Node<'_>, problems: &mut Problems) {
    node.one_of("style", &["bullet", "ordered"], true, problems);
    node.integer("indent", 0, 8, problems);
    node.integer("offset", 0, u64::MAX, problems);
    let Some(elements) = node.need("elements", problems) else { return };
    for section in elements.elements(1, usize::MAX, problems).into_iter().flatten() {
        if section.value["type"] == "rich_text_section" {
            inline(&section, true, problems);
        } else {
            problems.add(&section, "must be one of: rich_text_section");
        }
    }
}

/// The content of a section, a quote or preformatted text, which allows less.
fn inline(node: &Node<'_>, everything: bool, problems: &mut Problems) {
    let Some(elements) = node.need("elements", problems) else { return };
    for piece in elements.elements(0, usize::MAX, problems).into_iter().flatten() {
        match piece.value["type"].as_str().unwrap_or_default() {
            "text" => piece.string("text", 1, usize::MAX, true, problems),
            "link" => {
                piece.string("url", 1, 3000, true, problems);
                piece.string("text", 1, usize::MAX, false, problems);
                piece.boolean("unsafe", false, problems);
            }
            "user" if everything => piece.string("user_id", 1, 255, true, problems),
            "usergroup" if everything => piece.string("usergroup_id", 1, 255, true, problems),
            "channel" if everything => piece.string("channel_id", 1, 255, true, problems),
            "team" if everything => piece.string("team_id", 1, 255, true, problems),
            "emoji" if everything => piece.string("name", 1, 255, true, problems),
            "color" if everything => piece.string("value", 1, 7, true, problems),
            "broadcast" if everything => {
                piece.one_of("range", &["here", "channel", "everyone"], true, problems);
            }
            "date" if everything => {
                piece.integer("timestamp", 0, u64::MAX, problems);
                piece.string("format", 1, 255, true, problems);
                piece.string("fallback", 1, 255, false, problems);
                piece.string("url", 1, 3000, false, problems);
            }
            "" => problems.add(&piece, "missing required field: type"),
            other => problems.add(&piece, &format!("unsupported type: {other}")),
        }
        style(&piece, problems);
    }
}

fn style(piece: &Node<'_>, problems: &mut Problems) {
    let Some(style) = piece.get("style") else { return };
    let Some(members) = style.value.as_object() else {
        return problems.add(&style, "must be an object");
    };
    for (name, value) in members {
        if !STYLES.contains(&name.as_str()) {
            problems.add(&style, &format!("invalid additional property: {name}"));
        } else if !value.is_boolean() {
            problems.add(&style, &format!("{name} must be a boolean"));
        }
    }
}
