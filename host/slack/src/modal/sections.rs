//! Splits a long `mrkdwn` text into sections that Slack accepts.

use super::MOST_INPUTS;
use crate::text;

/// Slack's limit on the text of a section.
const SECTION: usize = 3000;

/// The text in sections: split between lines, and within a line only if that is too long by itself.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut sections: Vec<String> = Vec::new();
    for line in text.lines().flat_map(pieces) {
        match sections.last_mut() {
            Some(last) if text::width(last) + text::width(line) + 2 <= SECTION => {
                last.push('\n');
                last.push_str(line);
            }
            _ => sections.push(line.to_owned()),
        }
    }
    sections.truncate(MOST_INPUTS);
    sections.retain(|section| !section.trim().is_empty());
    if sections.is_empty() {
        sections.push("There is nothing to tell.".to_owned());
    }
    sections
}

/// A line in pieces that are not too long, split outside of mentions and escaped characters.
fn pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while text::width(rest) > SECTION {
        let mut width = 0;
        let too_wide = rest.char_indices().find(|(_, c)| {
            width += text::width(c.encode_utf8(&mut [0; 4]));
            width > SECTION
        });
        let end = too_wide.map_or(rest.len(), |(at, _)| at);
        let head = rest.get(..end).unwrap_or(rest);
        // Neither a mention nor an escaped character holds a space, except dates, which are short.
        let outside = |at: &usize| {
            let before = head.get(..*at).unwrap_or_default();
            before.matches('<').count() == before.matches('>').count()
        };
        let space = head.rmatch_indices(' ').map(|(at, _)| at).find(outside).filter(|at| *at > 0);
        let (piece, after) = rest.split_at(space.unwrap_or(end));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}
