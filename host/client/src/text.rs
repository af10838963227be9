//! What is printed of what others wrote.

/// The same text on one line, without characters that would do something to a terminal or to the log of a pipeline.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// At most so many characters, with a mark if some are missing.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// JSON on several lines, without characters that would do something to a terminal: they are escaped.
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let is_harmless = |letter: char| letter == '\n' || !letter.is_control();
    let escaped = text.chars().map(|letter| match letter {
        letter if is_harmless(letter) => letter.to_string(),
        letter => format!("\\u{:04x}", u32::from(letter)),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let value = serde_json::json!({"who": "a\u{1b}[2J\u{9b}31m\u{7f}\nb"});
        let text = pretty(&value);
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
