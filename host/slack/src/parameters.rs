//! The parameters of a request, and what approvers changed in them.
//!
//! People approve what they see here, so each parameter is shown exactly or with a note of how much was cut, and those
//! that do not fit are counted. Keys and values come from callers, so they are in boxes and inline code of rich text.

use std::collections::BTreeSet;

use countersign_core::json;
use countersign_core::lifecycle::{Edit, Request, Status};
use serde_json::Value;
use slack_morphism::prelude::*;

use super::blocks::{Part, heading, json_width, line, literal, preformatted, remark, rich, words};
use super::progress::changes;
use super::text::{self, Fitted, Lines, counted, grouped, is_user};

/// No longer text goes into one element.
const LONGEST: usize = 3000;

/// The most lines of a value, so that none pushes the buttons out of sight.
const VALUE_LINES: usize = 20;

/// What approvers changed: the values before and after, and who changed each last.
pub(super) fn edits(request: &Request, most: usize) -> Option<Part> {
    let editors = request.editors();
    let changes = changes(request);
    let changes: Vec<Change<'_>> = changes
        .into_iter()
        .map(|(key, before, after)| Change { key, before, after, by: editors.get(key).copied() })
        .collect();
    let title = match request.status() {
        Status::Approved => "Edits, approved",
        status if status.is_terminal() => "Edits, not approved",
        _ => "Edits so far",
    };
    changed(title, &changes, most)
}

/// What one approval with edits changed, at most `most` wide. Hidden parameters cannot be edited, and would not be shown.
pub(super) fn replaced_values(edits: &[Edit], hidden: &BTreeSet<String>, most: usize) -> Option<SlackBlock> {
    let shown = edits.iter().filter(|edit| !hidden.contains(&edit.key));
    let changes: Vec<Change<'_>> = shown
        .map(|Edit { key, before, after, .. }| Change {
            key,
            before: before.as_ref(),
            after: after.as_ref(),
            by: None,
        })
        .collect();
    changed("What was changed", &changes, most).map(|part| part.block)
}

/// A changed parameter.
struct Change<'a> {
    key: &'a str,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
    /// The id of who changed it, if that is to be shown.
    by: Option<&'a str>,
}

/// Changed parameters under a title, all values in the same share of the room.
fn changed(title: &str, changes: &[Change<'_>], most: usize) -> Option<Part> {
    // The block, its heading, and the note of how many edits are left out.
    const AROUND: usize = 450;
    // The elements of a line and their punctuation, without their text.
    const PER_LINE: usize = 420;
    const KEY: usize = 300;
    // The least of a value that identifies it.
    const LEAST: usize = 40;
    const BY: usize = 40;
    let mut room = most.checked_sub(AROUND)?;
    let mut elements = vec![line(vec![heading(title)])];
    let mut cut = 0;
    let keys: Vec<Fitted> = changes.iter().map(|change| text::inline(&key_text(change.key), KEY)).collect();
    let values: Vec<[Option<String>; 2]> = changes
        .iter()
        .map(|change| [change.before, change.after].map(|value| value.map(value_line)))
        .collect();
    let shown_width = |value: &String| text::width(&text::inline(value, LONGEST).text);
    let widths: Vec<usize> = values.iter().flatten().flatten().map(shown_width).collect();
    let editors: Vec<Vec<SlackRichTextInlineElement>> =
        changes.iter().map(|change| change.by.map_or(Vec::new(), |id| by(id, BY))).collect();
    let lines = keys.iter().map(|key| PER_LINE + text::width(&key.text)).sum::<usize>()
        + editors.iter().filter(|by| !by.is_empty()).map(json_width).sum::<usize>();
    let share = fair(&widths, room.saturating_sub(lines)).clamp(LEAST, LONGEST);
    for (n, ((key, [before, after]), by)) in keys.into_iter().zip(values).zip(editors).enumerate() {
        let mut line_cut = key.cut;
        let mut shown = |value: Option<String>, nothing: &str| {
            let Some(value) = value else { return vec![remark(nothing)] };
            let (shown, cut) = literal(&value, share);
            line_cut += cut;
            shown
        };
        let mut parts = vec![SlackRichTextText::new(key.text).code().into(), words(": ")];
        parts.extend(shown(before, "not there"));
        parts.push(words(" → "));
        parts.extend(shown(after, "removed"));
        parts.extend(by);
        let element = line(parts);
        let takes = json_width(&element);
        if takes > room {
            let rest = changes.len() - n;
            elements.push(line(vec![remark(format!("and {}", counted(rest, "more edit")))]));
            cut += rest;
            break;
        }
        room -= takes;
        cut += line_cut;
        elements.push(element);
    }
    (!changes.is_empty()).then(|| Part { block: rich(elements), whole: cut == 0 })
}

/// ` by somebody`: in rich text, a mention is an element of its own.
fn by(id: &str, most: usize) -> Vec<SlackRichTextInlineElement> {
    let mut parts = vec![words(" by ")];
    if is_user(id) {
        parts.push(SlackRichTextUser::new(SlackUserId(id.to_owned())).into());
    } else {
        parts.extend(literal(id, most).0);
    }
    parts
}

/// The parameters with their current values, and the names of the hidden ones.
///
/// Short ones share one box, a line each; none can imitate another one's line, since [`could_look_like_lines`] says which
/// have to be long ones. Each long one has its own box, with a note of how much is shown.
pub(super) fn parameters(request: &Request, shows_none: bool, most: usize) -> Option<Part> {
    const AROUND: usize = 600;
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
    let names = hidden_names(redacted, room / 3);
    room = room.saturating_sub(json_width(&names));

    let mut elements = vec![line(vec![heading("Parameters")])];
    if params.is_empty() {
        elements = vec![no_parameters()];
    }
    // Short ones come first, but leave half of the room to long ones.
    const PER_BOX: usize = 100;
    let mut room_for_short = if long.is_empty() { room } else { room / 2 };
    let mut rest = short.as_slice();
    while !rest.is_empty() {
        let (text, shown) = short_lines(rest, room_for_short.min(LONGEST));
        if shown == 0 {
            break;
        }
        let takes = text::width(&text) + PER_BOX;
        (room, room_for_short) = (room.saturating_sub(takes), room_for_short.saturating_sub(takes));
        rest = rest.get(shown..).unwrap_or_default();
        elements.push(preformatted(text));
    }
    let Boxes { boxes, cut } = long_boxes(&long, room);
    let left_out = rest.len() + long.len() - boxes.len();
    elements.extend(boxes.into_iter().flatten());
    let mut notes = Vec::new();
    if shows_none && !redacted.is_empty() {
        let why = " No parameters are shown to approvers, because the policy set shows none of this action.";
        notes.push(line(vec![emoji("lock"), heading(why)]));
    }
    let (names, hidden_cut) = names;
    if !names.is_empty() {
        notes.push(line(names));
    }
    if left_out > 0 {
        let count = counted(left_out, "more parameter");
        let verb = if left_out == 1 { "does" } else { "do" };
        notes.push(line(vec![emoji("warning"), heading(format!(" {count} {verb} not fit here"))]));
    }
    elements.extend(notes);
    Some(Part { block: rich(elements), whole: left_out + cut + hidden_cut == 0 })
}

/// The first parameters, a line each, cut where they are longer; and the names of the hidden ones. For requests that have
/// ended: nobody decides by it.
pub(super) fn first_parameters(request: &Request) -> Part {
    const LINES: usize = 5;
    const KEY: usize = 60;
    const VALUE: usize = 120;
    const NAMES: usize = 600;
    /// Nothing is left out for want of room.
    const ROOM: usize = LINES * (KEY + VALUE + 40);
    let redacted = &request.submission.redacted;
    let params = request.params();
    let shown = params.iter().filter(|(key, _)| !redacted.contains(*key));
    let mut cut = 0;
    let lines: Vec<_> = shown
        .clone()
        .take(LINES)
        .map(|(key, value)| {
            let (key, value) = (text::inline(&key_text(key), KEY), text::inline(&value_line(value), VALUE));
            cut += key.cut + value.cut;
            (key.text, value.text)
        })
        .collect();
    let rest = shown.count() - lines.len();
    let (names, names_cut) = hidden_names(redacted, NAMES);
    let mut elements = vec![line(vec![heading("Parameters")])];
    if params.is_empty() {
        elements = vec![no_parameters()];
    } else if !lines.is_empty() {
        elements.push(preformatted(short_lines(&lines, ROOM).0));
    }
    if rest > 0 {
        elements.push(line(vec![remark(format!("and {}", counted(rest, "more parameter")))]));
    }
    if !names.is_empty() {
        elements.push(line(names));
    }
    Part { block: rich(elements), whole: rest + cut + names_cut == 0 }
}

/// The key and the value of a parameter if they fit on one line uncut, and look like one.
pub(super) fn short_line(key: &str, value: &Value) -> Option<(String, String)> {
    const MOST: usize = 120;
    let (key, value) = (key_text(key), value_text(value));
    if value.contains(['\n', '\t']) || could_look_like_lines(&key) || could_look_like_lines(&value) {
        return None;
    }
    let (key, value) = (text::inline(&key, MOST), text::inline(&value, MOST));
    (key.cut + value.cut == 0).then_some((key.text, value.text))
}

/// Whether the end of a key or of a value could pass for another parameter, if it is on a line of its own: Slack wraps lines
/// that are too wide, and in a narrow window that may be any of them.
fn could_look_like_lines(text: &str) -> bool {
    const NARROW: usize = 40;
    text.contains(": ") || text.contains(' ') && text::width(text) > NARROW
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

/// The boxes of long parameters.
struct Boxes {
    /// A heading and a box for each that fits.
    boxes: Vec<[SlackRichTextElement; 2]>,
    /// How many characters of them are not shown.
    cut: usize,
}

fn long_boxes(long: &[(&String, String)], room: usize) -> Boxes {
    // The elements of a box and the note of how much is shown, without its key.
    const PER_BOX: usize = 380;
    const KEY: usize = 300;
    const LEAST: usize = 120;
    // Measured as shown: an escape is wider than its character.
    let shown = |value: &str, most| text::literal(value, Lines::Most(VALUE_LINES), most);
    let (mut left, mut fixed, mut fitting) = (room, 0, Vec::new());
    for (key, value) in long {
        let key = text::inline(&key_text(key), KEY);
        let takes = PER_BOX + text::width(&key.text);
        let Some(rest) = left.checked_sub(takes + LEAST) else { break };
        (left, fixed) = (rest, fixed + takes);
        fitting.push((key, value));
    }
    let widths: Vec<usize> =
        fitting.iter().map(|(_, value)| text::width(&shown(value, LONGEST).text)).collect();
    let most = fair(&widths, room - fixed).min(LONGEST);
    let mut cut = 0;
    let boxes = fitting.into_iter().map(|(key, value)| {
        let fitted = shown(value, most);
        cut += key.cut + fitted.cut;
        let mut heading = vec![SlackRichTextText::new(key.text).code().into()];
        if fitted.cut > 0 {
            let all = value.chars().count();
            let shown = grouped(all - fitted.cut);
            heading.push(remark(format!(" (the first {shown} of {})", counted(all, "character"))));
        }
        [line(heading), preformatted(fitted.text)]
    });
    let boxes = boxes.collect();
    Boxes { boxes, cut }
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

/// The names of the parameters that nobody is shown, and how much of them does not fit into `most`.
fn hidden_names(keys: &BTreeSet<String>, most: usize) -> (Vec<SlackRichTextInlineElement>, usize) {
    const NAME: usize = 300;
    const LEAST: usize = 200;
    let (mut names, mut used, mut rest, mut cut) = (Vec::new(), 0, 0, 0);
    for key in keys {
        let name = text::inline(&key_text(key), NAME);
        used += text::width(&name.text) + 2;
        if used > most.clamp(LEAST, LONGEST) {
            rest += 1;
        } else {
            cut += name.cut;
            names.push(name.text);
        }
    }
    if keys.is_empty() {
        return (Vec::new(), 0);
    }
    let mut parts = vec![emoji("lock"), words(" not shown to anybody: ")];
    if names.is_empty() {
        parts.push(remark(counted(rest, "parameter")));
    } else {
        parts.push(SlackRichTextText::new(names.join(", ")).code().into());
        if rest > 0 {
            parts.push(remark(format!(" and {} more", grouped(rest))));
        }
    }
    (parts, rest + cut)
}

fn no_parameters() -> SlackRichTextElement {
    line(vec![heading("Parameters"), words(": "), remark("none")])
}

fn emoji(name: &str) -> SlackRichTextInlineElement {
    SlackRichTextEmoji::new(SlackEmojiName(name.into())).into()
}

/// A value for people, in a box of its own: a string as it is, unless it could be taken for another value; everything else
/// as JSON.
pub(super) fn value_text(value: &Value) -> String {
    const WIDEST: usize = 80;
    match value {
        Value::Array(_) | Value::Object(_) => {
            let compact = value.to_string();
            if compact.len() <= WIDEST {
                return compact;
            }
            serde_json::to_string_pretty(value).unwrap_or(compact)
        }
        value => string_or_json(value, |text| text.contains('\t') && !text.contains('\n')),
    }
}

/// A value for people, on one line with others: as [`value_text`], but JSON without line breaks, and a string with line
/// breaks or tabs as JSON.
pub(super) fn value_line(value: &Value) -> String {
    string_or_json(value, |text| text.contains(['\n', '\t']))
}

/// A string as it is, unless it is `misleading` or could be taken for another value; everything else as JSON.
fn string_or_json(value: &Value, misleading: impl Fn(&str) -> bool) -> String {
    let is_plain = |text: &String| {
        text.trim() == text
            && !text.is_empty()
            // As an escape of an invisible character is written.
            && !text.contains("\\u{")
            && !json::is_json(text)
            && !misleading(text)
    };
    value.as_str().map(str::to_owned).filter(is_plain).unwrap_or_else(|| value.to_string())
}

/// A key for people: in quotes unless it is a plain name of ASCII letters, so that it cannot look like a key with its value,
/// and one in other letters not like a plain name.
pub(super) fn key_text(key: &str) -> String {
    let is_name = !key.is_empty()
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '$'));
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
            (json!("a\\u{202e}"), r#""a\\u{202e}""#),
            (json!({"a": [1, "x"]}), r#"{"a":[1,"x"]}"#),
            (json!("C:\\prod\\temp"), r"C:\prod\temp"),
            (json!("C:\\prod\temp"), r#""C:\\prod\temp""#),
            (json!({"target": "a\tb"}), r#"{"target":"a\tb"}"#),
            (json!("{\"target\":\"a\tb\"}"), r#""{\"target\":\"a\tb\"}""#),
        ];
        for (value, expected) in rows {
            assert_eq!(value_text(&value), expected, "{value}");
            assert_eq!(value_line(&value), expected, "{value}");
        }
        // A box shows them as they are.
        for (value, text, line) in [
            (json!("a\n\tb"), "a\n\tb", r#""a\n\tb""#),
            (json!("{\"target\":\"a\nb\"}"), "{\"target\":\"a\nb\"}", r#""{\"target\":\"a\nb\"}""#),
        ] {
            assert_eq!((value_text(&value).as_str(), value_line(&value).as_str()), (text, line));
        }
        let long = json!({"a": "x".repeat(80)});
        assert!(value_text(&long).contains('\n') && !value_line(&long).contains('\n'));
        let rows = [
            ("replicas", "replicas"),
            ("größe.x", r#""größe.x""#),
            ("h\u{43e}st", "\"h\u{43e}st\""),
            ("a: 1", r#""a: 1""#),
            ("", r#""""#),
            ("a\n", r#""a\n""#),
        ];
        for (key, expected) in rows {
            assert_eq!(key_text(key), expected);
        }
    }

    #[test]
    fn keys_that_look_alike_are_told_apart() {
        let keys =
            ["host", "h\u{43e}st", "gr\u{f6}\u{df}e", "gro\u{308}\u{df}e", "\u{445}\u{43e}\u{441}\u{442}"];
        let lines = keys.map(|key| short_line(key, &json!("x")).expect("it is short").0);
        let expected = [
            "host",
            "\"h\\u{43e}st\"",
            "\"gr\u{f6}\u{df}e\"",
            "\"gro\\u{308}\u{df}e\"",
            "\"\u{445}\u{43e}\u{441}\u{442}\"",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn no_parameter_can_imitate_the_line_of_another() {
        let spaces = " ".repeat(95);
        let words = "a".repeat(95);
        let rows = [
            ("note", "nightly run".to_owned(), true),
            ("url", format!("https://ci.example/{words}"), true),
            ("note", "nightly run  and more".to_owned(), true),
            ("note", format!("nightly run{spaces}dry_run: true"), false),
            ("note", format!("nightly run{spaces}dry_run\u{ff1a}true"), false),
            ("note", format!("{words} dry_run: true"), false),
            ("note", format!("{words} dry_run\u{ff1a} true"), false),
            ("note", "nightly\trun".to_owned(), true),
            ("note", "nightly\nrun".to_owned(), false),
            (&format!("note{spaces}dry_run: true"), "x".to_owned(), false),
            ("a: 1", "x".to_owned(), false),
        ];
        for (key, value, expected) in rows {
            let line = short_line(key, &json!(value));
            assert_eq!(line.is_some(), expected, "{key} {value:?} {line:?}");
            assert!(line.is_none_or(|(key, value)| !(key + &value).contains("  ")));
        }
        let object = json!({"note": format!("nightly run{spaces}dry_run: true")});
        assert!(short_line("note", &object).is_none());
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
