//! What commands print of texts that others wrote: of policy sets, modules, scenarios and recorded requests. None of them
//! may do something to a terminal, or look like what the command itself says.

use anyhow::Result;
use serde::Serialize;

use countersign_core::text::is_invisible;
pub(crate) use countersign_core::text::plain;

/// A report of lines that the command itself has ended: whatever else cannot be seen as it is, is escaped. A text that
/// others wrote and that shall stay on its line goes through [`plain`] before.
pub(crate) fn lines(report: &str) -> String {
    report.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// A JSON document, with what cannot be seen as it is escaped as JSON does it: it is read as the same.
pub(crate) fn json(document: &impl Serialize) -> Result<String> {
    let mut text = String::new();
    for letter in serde_json::to_string_pretty(document)?.chars() {
        // All but ASCII is within the strings of the JSON.
        if letter == '\n' || !is_invisible(letter) {
            text.push(letter);
        } else {
            text.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unseen_is_printed() {
        let text = "a\u{1b}[2J\u{9b}31m\r\t\u{202e}b\u{2028}\nc\u{e0041}";
        let lines = lines(text);
        let json = json(&text).unwrap();
        for shown in [&lines, &json] {
            assert!(shown.chars().all(|letter| letter == '\n' || !is_invisible(letter)), "{shown:?}");
        }
        assert_eq!(lines.lines().count(), 2, "{lines:?}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
