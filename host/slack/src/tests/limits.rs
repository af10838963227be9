//! Slack's limits, checked on the JSON that is sent.

use serde_json::Value;

/// What Slack would refuse in a list of blocks, and what could notify somebody whom `allowed` does not accept.
pub(super) fn broken_blocks(
    blocks: &Value,
    most_blocks: usize,
    allowed: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let mut broken = Vec::new();
    let all = blocks.as_array().expect("a list of blocks");
    if all.is_empty() || all.len() > most_blocks {
        broken.push(format!("{} blocks", all.len()));
    }
    for block in all {
        if block["type"] == "actions" {
            at_most(&mut broken, block, "elements", 25);
        }
        if block["type"] == "context" {
            at_most(&mut broken, block, "elements", 10);
        }
        if block["type"] == "header" {
            chars(&mut broken, &block["text"], "text", 150);
            is_literal(&mut broken, &block["text"]);
        }
        if block["type"] == "input" {
            chars(&mut broken, &block["label"], "text", 2000);
            if !block["hint"].is_null() {
                chars(&mut broken, &block["hint"], "text", 2000);
            }
        }
    }
    let mut ids: Vec<&str> = all.iter().filter_map(|block| block["block_id"].as_str()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        broken.push("a block_id comes twice".into());
    }
    walk(&mut broken, blocks, allowed);
    broken
}

/// What Slack would refuse in a message.
pub(super) fn broken_message(message: &Value, allowed: &dyn Fn(&str) -> bool) -> Vec<String> {
    let blocks = &message["blocks"];
    let mut broken = broken_blocks(blocks, 50, allowed);
    let size = units(&blocks.to_string());
    if size > 13_000 {
        broken.push(format!("the message has {size} characters"));
    }
    chars(&mut broken, message, "text", 3000);
    mrkdwn(&mut broken, message["text"].as_str().expect("a text"), allowed);
    broken
}

/// What Slack would refuse in a modal.
pub(super) fn broken_view(view: &Value, allowed: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut broken = broken_blocks(&view["blocks"], 100, allowed);
    for key in ["title", "submit", "close"] {
        if !view[key].is_null() {
            chars(&mut broken, &view[key], "text", 24);
        }
    }
    let has_input =
        view["blocks"].as_array().is_some_and(|all| all.iter().any(|block| block["type"] == "input"));
    if has_input && view["submit"].is_null() {
        broken.push("inputs and no submit".into());
    }
    for (key, most) in [("private_metadata", 3000), ("callback_id", 255)] {
        if !view[key].is_null() {
            chars(&mut broken, view, key, most);
        }
    }
    let size = view.to_string().len();
    if size > 250_000 {
        broken.push(format!("the view has {size} bytes"));
    }
    broken
}

/// Every element, by its type.
fn walk(broken: &mut Vec<String>, value: &Value, allowed: &dyn Fn(&str) -> bool) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(broken, item, allowed)),
        Value::Object(members) => {
            element(broken, value, allowed);
            members.values().for_each(|member| walk(broken, member, allowed));
        }
        _ => {}
    }
}

fn element(broken: &mut Vec<String>, value: &Value, allowed: &dyn Fn(&str) -> bool) {
    for key in ["action_id", "block_id"] {
        if !value[key].is_null() {
            chars(broken, value, key, 255);
        }
    }
    match value["type"].as_str() {
        Some("mrkdwn") => {
            chars(broken, value, "text", 3000);
            let text = value["text"].as_str().unwrap_or_default();
            mrkdwn(broken, text, allowed);
            if value["verbatim"] != true {
                broken.push("mrkdwn in which Slack would make links".into());
            }
        }
        Some("plain_text") => {
            chars(broken, value, "text", 3000);
            is_literal(broken, value);
        }
        Some("text") => chars(broken, value, "text", 3000),
        Some("link") => {
            let url = value["url"].as_str().unwrap_or_default();
            if !url.starts_with("https://") && !url.starts_with("http://")
                || url.contains(['<', '>', '|', ' '])
            {
                broken.push(format!("a link to `{url}`"));
            }
            chars(broken, value, "url", 3000);
            chars(broken, value, "text", 3000);
        }
        Some("rich_text_section" | "rich_text_preformatted" | "rich_text_quote" | "rich_text") => {
            at_most(broken, value, "elements", 500);
        }
        Some("emoji") if ["warning", "lock"].iter().any(|name| value["name"] == *name) => {}
        Some("user") if value["user_id"].as_str().is_some_and(allowed) => {}
        Some(kind @ ("user" | "usergroup" | "broadcast" | "channel" | "emoji")) => {
            broken.push(format!("a `{kind}` in rich text"));
        }
        Some("button") => {
            chars(broken, &value["text"], "text", 75);
            chars(broken, value, "value", 2000);
            chars(broken, value, "action_id", 255);
        }
        Some("static_select") => {
            at_most(broken, value, "options", 100);
            let options = value["options"].as_array().cloned().unwrap_or_default();
            let initial = &value["initial_option"];
            if !initial.is_null() && !options.contains(initial) {
                broken.push("an initial option that is none of the options".into());
            }
            for option in options {
                chars(broken, &option["text"], "text", 75);
                chars(broken, &option, "value", 150);
            }
        }
        Some("plain_text_input") => {
            let most = value["max_length"].as_u64().unwrap_or(3000);
            if !(1..=3000).contains(&most) {
                broken.push(format!("a max_length of {most}"));
            }
            if !value["initial_value"].is_null() {
                chars(broken, value, "initial_value", usize::try_from(most).unwrap_or(3000));
            }
        }
        Some("number_input") => number_input(broken, value),
        _ => {}
    }
}

fn number_input(broken: &mut Vec<String>, value: &Value) {
    let number = |key: &str| {
        let text = value[key].as_str()?;
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte));
        let whole = value["is_decimal_allowed"] == true || !text.contains('.');
        Some((text.parse::<f64>().ok().filter(|_| plain && whole && text.len() <= 30), text.to_owned()))
    };
    let read = ["min_value", "initial_value", "max_value"].map(number);
    for (number, text) in read.iter().flatten() {
        if number.is_none() {
            broken.push(format!("`{text}` in a number input"));
        }
    }
    let order: Vec<f64> = read.into_iter().flatten().filter_map(|(number, _)| number).collect();
    if !order.is_sorted() {
        broken.push(format!("a number input of {order:?}"));
    }
}

/// Text with 1 to `most` characters, counted in UTF-16 units.
fn chars(broken: &mut Vec<String>, value: &Value, key: &str, most: usize) {
    match value[key].as_str() {
        Some(text) if (1..=most).contains(&units(text)) => {}
        Some(text) => broken.push(format!("`{key}` has {} of at most {most} characters", units(text))),
        None => broken.push(format!("`{key}` is missing from {value}")),
    }
}

fn at_most(broken: &mut Vec<String>, value: &Value, key: &str, most: usize) {
    match value[key].as_array() {
        Some(items) if (1..=most).contains(&items.len()) => {}
        Some(items) => broken.push(format!("`{key}` has {} of at most {most}", items.len())),
        None => broken.push(format!("`{key}` is missing from {value}")),
    }
}

fn is_literal(broken: &mut Vec<String>, text: &Value) {
    if text["type"] != "plain_text" || text["emoji"] != false {
        broken.push(format!("not literal: {text}"));
    }
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Everything in angle brackets must be ours: mentions of known people, dates, and the link to the message.
fn mrkdwn(broken: &mut Vec<String>, text: &str, allowed: &dyn Fn(&str) -> bool) {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((inside, after)) = after.split_once('>') else {
            broken.push(format!("an open bracket in `{text}`"));
            return;
        };
        let is_ours = match inside {
            inside if inside.starts_with("!date^") => true,
            inside if inside.starts_with("https://acme.slack.example/") => true,
            inside => {
                inside.strip_prefix('@').or_else(|| inside.strip_prefix("!subteam^")).is_some_and(allowed)
            }
        };
        if !is_ours {
            broken.push(format!("`<{inside}>`"));
        }
        rest = after;
    }
    // A code span must be closed on its line, or our own text after it would be code.
    if text.lines().any(|line| line.matches('`').count() % 2 != 0) {
        broken.push(format!("an open code span in `{text}`"));
    }
    // Outside of code there must be nothing but our own text.
    let ours = text.lines().flat_map(|line| line.split('`').step_by(2)).collect::<String>();
    if ours.contains("U0VICTIM") || ours.contains("evil") || ours.contains('\u{202e}') {
        broken.push(format!("text from outside that is not code in `{text}`"));
    }
}

#[test]
fn violations_of_limits_are_found() {
    use serde_json::json;
    let text = |text: &str| json!({"type": "mrkdwn", "text": text, "verbatim": true});
    let section = |words: &str| json!([{"type": "section", "text": text(words)}]);
    let rows = [
        (section("<@U0ANA> `x` <!date^1^{time}|x>"), ""),
        (section("<!channel>"), "`<!channel>`"),
        (section("<@U0VICTIM>"), "`<@U0VICTIM>`"),
        (section("`a"), "an open code span"),
        (section(&"x".repeat(3001)), "3001 of at most 3000"),
        (section(""), "0 of at most 3000"),
        (json!([{"type": "section", "text": {"type": "plain_text", "text": "x"}}]), "not literal"),
        (json!([{"type": "rich_text", "elements": [{"type": "user", "user_id": "U0ANA"}]}]), ""),
        (
            json!([{"type": "rich_text", "elements": [{"type": "user", "user_id": "U0VICTIM"}]}]),
            "in rich text",
        ),
        (
            json!([{"type": "number_input", "is_decimal_allowed": false, "min_value": "3", "initial_value": "1"}]),
            "of [3.0, 1.0]",
        ),
        (json!([{"type": "actions", "elements": []}]), "0 of at most 25"),
        (json!([]), "0 blocks"),
    ];
    for (blocks, expected) in rows {
        let broken = broken_blocks(&blocks, 50, &|id| id == "U0ANA").join("; ");
        assert!(broken.contains(expected) && broken.is_empty() == expected.is_empty(), "{blocks}: {broken}");
    }
}
