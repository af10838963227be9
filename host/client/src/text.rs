//! What is printed of what others wrote.

pub(crate) use countersign_core::text::plain;
use countersign_core::text::plain_json;

/// At most so many characters, with a mark if some are missing.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// JSON on several lines, without characters that would do something to a terminal, or that nobody would see there: they
/// are escaped as JSON does it.
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    plain_json(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// The same on one line.
pub(crate) fn json_line(value: &serde_json::Value) -> String {
    plain_json(&value.to_string())
}

#[cfg(test)]
mod tests {
    use countersign_core::text::is_invisible;

    use super::*;

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let value =
            serde_json::json!({"wh\u{202e}o": "a\u{1b}[2J\u{9b}31m\u{7f}\nb\u{2028}c\u{a0}d\u{e0041}e"});
        for text in [pretty(&value), json_line(&value)] {
            assert!(text.chars().all(|letter| letter == '\n' || !is_invisible(letter)), "{text:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
        assert!(!json_line(&value).contains('\n'));
    }
}
