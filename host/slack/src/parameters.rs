//! The parameters of a request, and what approvers changed in them.
//!
//! People approve what they see here, so each parameter is shown exactly or with a note of how much was cut, and those
//! that do not fit are counted. Keys and values come from callers, so they are in boxes and inline code of rich text.

use countersign_core::json;
use countersign_core::lifecycle::Request;
use serde_json::Value;
use slack_morphism::prelude::*;

use super::blocks::{heading, json_width, line, literal, preformatted, remark, rich, words};
use super::progress::changes;
use super::text::{self, Lines, counted, grouped};

/// The most lines of a value, so that none pushes the buttons out of sight.
const VALUE_LINES: usize = 20;

/// What approvers changed: the values before and after.
pub(super) fn edits(request: &Request, most: usize) -> Option<SlackBlock> {
    // The block, its heading, and the note of how many edits are left out.
    const AROUND: usize = 450;
    // The elements of a line and their punctuation, without their text.
    const PER_LINE: usize = 420;
    const KEY: usize = 60;
    let changes = changes(request);
    let is_open = !request.status().is_terminal();
    let title = if is_open { "Edits so far" } else { "Edits" };
    let mut room = most.checked_sub(AROUND)?;
    let mut elements = vec![line(vec![heading(title)])];
    for (n, (key, before, after)) in changes.iter().enumerate() {
        let rest = changes.len() - n;
        // A few edits share all of the room; of many, each gets the least that identifies it.
        let value = ((room / rest).saturating_sub(PER_LINE + KEY) / 2).clamp(40, 500);
        let shown = |value: &Option<&Value>, nothing: &str, most| {
            value.map_or_else(|| vec![remark(nothing)], |value| literal(&value_text(value), most))
        };
        let mut parts =
            vec![SlackRichTextText::new(text::inline(&key_text(key), KEY).text).code().into(), words(": ")];
        parts.extend(shown(before, "not there", value));
        parts.push(words(" → "));
        parts.extend(shown(after, "removed", value));
        let element = line(parts);
        let takes = json_width(&element);
        if takes > room {
            elements.push(line(vec![remark(format!("and {}", counted(rest, "more edit")))]));
            break;
        }
        room -= takes;
        elements.push(element);
    }
    (!changes.is_empty()).then(|| rich(elements))
}

/// The parameters with their current values, and the names of the redacted ones.
///
/// Short ones share one box, a line each; none can imitate another one's line, since a value with a line break is a
/// long one, and in a key line breaks are escaped. Each long one has its own box, with a note of how much is shown.
pub(super) fn parameters(request: &Request, most: usize) -> Option<SlackBlock> {
    const AROUND: usize = 600;
    const REDACTED: usize = 400;
    let redacted = &request.submission.redacted;
    let params = request.params();
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for (key, value) in params.iter().filter(|(key, _)| !redacted.contains(*key)) {
        match short_line(key, value) {
            Some(line) => short.push(line),
            None => long.push((key, value_text(value))),
        }
    }
    let mut room = most.checked_sub(AROUND)?;
    let hidden = redacted_names(redacted.iter().map(String::as_str), REDACTED);
    room = room.saturating_sub(hidden.as_ref().map_or(0, |_| REDACTED + 200));

    let mut elements = vec![line(vec![heading("Parameters")])];
    if params.is_empty() {
        elements = vec![line(vec![heading("Parameters"), words(": "), remark("none")])];
    }
    // Short ones come first, but leave half of the room to long ones.
    let room_for_short = if long.is_empty() { room } else { room / 2 };
    let (text, shown) = short_lines(&short, room_for_short);
    room = room.saturating_sub(text::width(&text));
    if !text.is_empty() {
        elements.push(preformatted(text));
    }
    let boxes = long_boxes(&long, room);
    let left_out = short.len() - shown + long.len() - boxes.len();
    elements.extend(boxes.into_iter().flatten());
    let mut notes = Vec::new();
    notes.extend(hidden.map(line));
    if left_out > 0 {
        let count = counted(left_out, "more parameter");
        let verb = if left_out == 1 { "does" } else { "do" };
        let warning = SlackRichTextEmoji::new(SlackEmojiName("warning".into()));
        notes.push(line(vec![warning.into(), heading(format!(" {count} {verb} not fit here"))]));
    }
    elements.extend(notes);
    Some(rich(elements))
}

/// The key and the value of a parameter if they fit on one line uncut.
fn short_line(key: &str, value: &Value) -> Option<(String, String)> {
    const MOST: usize = 120;
    let key = text::inline(&key_text(key), MOST);
    let value = value_text(value);
    if key.cut > 0 || value.contains('\n') {
        return None;
    }
    let value = text::inline(&value, MOST);
    (value.cut == 0).then_some((key.text, value.text))
}

/// As many lines as fit, keys and values aligned, and their number.
fn short_lines(lines: &[(String, String)], room: usize) -> (String, usize) {
    const WIDEST: usize = 24;
    let widest = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or_default().min(WIDEST) + 1;
    let (mut text, mut used) = (String::new(), 0);
    for (n, (key, value)) in lines.iter().enumerate() {
        let line = format!("{:<widest$} {value}", format!("{key}:"));
        used += text::width(&line) + 2;
        if used > room {
            return (text, n);
        }
        text.push_str(if n == 0 { "" } else { "\n" });
        text.push_str(&line);
    }
    (text, lines.len())
}

/// A heading and a box for each long parameter that fits.
fn long_boxes(long: &[(&String, String)], room: usize) -> Vec<[SlackRichTextElement; 2]> {
    // The elements of a box, its key and the note of how much is shown.
    const PER_BOX: usize = 480;
    const KEY: usize = 100;
    const LEAST: usize = 120;
    /// No longer text goes into one element.
    const LONGEST: usize = 3000;
    let count = long.len().min(room / (PER_BOX + LEAST));
    // Measured as shown: an escape is wider than its character.
    let shown = |value: &str, most| text::literal(value, Lines::Most(VALUE_LINES), most);
    let widths: Vec<usize> =
        long.iter().take(count).map(|(_, value)| text::width(&shown(value, LONGEST).text)).collect();
    let most = fair(&widths, room - count * PER_BOX).min(LONGEST);
    let boxes = long.iter().take(count).map(|(key, value)| {
        let fitted = shown(value, most);
        let key = SlackRichTextText::new(text::inline(&key_text(key), KEY).text).code();
        let mut heading = vec![key.into()];
        if fitted.cut > 0 {
            let all = value.chars().count();
            let shown = grouped(all - fitted.cut);
            heading.push(remark(format!(" (the first {shown} of {})", counted(all, "character"))));
        }
        [line(heading), preformatted(fitted.text)]
    });
    boxes.collect()
}

/// The most that each may take, so that all together fit into `room`, and what narrow ones leave goes to wide ones.
fn fair(widths: &[usize], room: usize) -> usize {
    let mut sorted = widths.to_vec();
    sorted.sort_unstable();
    let mut left = room;
    for (n, width) in sorted.iter().enumerate() {
        let share = left / (sorted.len() - n);
        if *width > share {
            return share;
        }
        left -= width;
    }
    room
}

/// The keys whose values are redacted.
fn redacted_names<'a>(
    keys: impl Iterator<Item = &'a str>,
    most: usize,
) -> Option<Vec<SlackRichTextInlineElement>> {
    let mut names = Vec::new();
    let (mut used, mut rest) = (0, 0);
    for key in keys {
        let name = text::inline(&key_text(key), 80).text;
        used += text::width(&name) + 2;
        if used > most { rest += 1 } else { names.push(name) }
    }
    let lock = SlackRichTextEmoji::new(SlackEmojiName("lock".into()));
    let mut parts = vec![lock.into(), words(" redacted: ")];
    match (names.as_slice(), rest) {
        ([], 0) => return None,
        ([], rest) => parts.push(remark(counted(rest, "parameter"))),
        (names, rest) => {
            parts.push(SlackRichTextText::new(names.join(", ")).code().into());
            if rest > 0 {
                parts.push(remark(format!(" and {} more", grouped(rest))));
            }
        }
    }
    Some(parts)
}

/// A value for people: a string as it is, unless it could be taken for another value; everything else as JSON.
pub(super) fn value_text(value: &Value) -> String {
    const WIDEST: usize = 80;
    match value {
        Value::String(text) => {
            let misleading = text.trim() != text || text.is_empty() || json::is_json(text);
            if misleading { value.to_string() } else { text.clone() }
        }
        Value::Array(_) | Value::Object(_) => {
            let compact = value.to_string();
            if compact.len() <= WIDEST {
                return compact;
            }
            serde_json::to_string_pretty(value).unwrap_or(compact)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A key for people: in quotes unless it is a plain name, so that it cannot look like a key with its value.
fn key_text(key: &str) -> String {
    let is_name = !key.is_empty()
        && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '$'));
    if is_name { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_cannot_be_taken_for_another() {
        let rows = [
            (json!("v1.2"), "v1.2"),
            (json!(""), r#""""#),
            (json!("5"), r#""5""#),
            (json!(5), "5"),
            (json!("null"), r#""null""#),
            (json!(null), "null"),
            (json!(" x"), r#"" x""#),
            (json!(r#""x""#), r#""\"x\"""#),
            (json!("{"), "{"),
            (json!({"a": [1, "x"]}), r#"{"a":[1,"x"]}"#),
        ];
        for (value, expected) in rows {
            assert_eq!(value_text(&value), expected, "{value}");
        }
        let rows = [
            ("replicas", "replicas"),
            ("größe.x", "größe.x"),
            ("a: 1", r#""a: 1""#),
            ("", r#""""#),
            ("a\n", r#""a\n""#),
        ];
        for (key, expected) in rows {
            assert_eq!(key_text(key), expected);
        }
    }

    #[test]
    fn room_is_shared_fairly() {
        let rows: [(&[usize], usize, usize); 6] = [
            (&[], 100, 100),
            (&[10, 20], 100, 100),
            (&[200, 300], 100, 50),
            (&[10, 300], 100, 90),
            (&[10, 300, 40, 300], 150, 50),
            (&[1, 1], 0, 0),
        ];
        for (widths, room, expected) in rows {
            assert_eq!(fair(widths, room), expected, "{widths:?} {room}");
        }
    }
}
