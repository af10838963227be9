//! Which characters of a text from outside people cannot see as they are: for Slack, and for terminals.

use unicode_general_category::{GeneralCategory, get_general_category};

/// Whether this is a mark that stands over, under or around the letter before it: any number of them can be stacked.
#[must_use]
pub fn is_mark(c: char) -> bool {
    // Most text is ASCII.
    !c.is_ascii()
        && matches!(get_general_category(c), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
}

/// Whether this is invisible, looks like a space without being one, breaks a line, or changes how others look: two texts
/// that differ in it look the same, or like something else.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    match get_general_category(c) {
        GeneralCategory::Control
        | GeneralCategory::SpaceSeparator
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator
        // Fonts have one and the same box for each of these. Whatever Unicode has added since the version of this table is
        // among them, which errs on the safe side: few fonts have it.
        | GeneralCategory::PrivateUse
        | GeneralCategory::Unassigned => true,
        // All but the signs of numbers and verses, which are seen.
        GeneralCategory::Format => !matches!(
            c,
            '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{110bd}' | '\u{110cd}'
        ),
        // Fillers, blanks, joiners and selectors that count as letters, symbols or marks.
        _ => matches!(
            c,
            '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{13441}' | '\u{13442}'
                | '\u{16fe4}' | '\u{1d159}' | '\u{e0100}'..='\u{e01ef}'
        ),
    }
}

/// The same text on one line, without characters that would do something to a terminal or to the log of a pipeline, or that
/// nobody would see there: they are escaped as `\n` or `\u{202e}`. In a text with backslashes of its own all are escaped in
/// the second form, so that a tab in a path is not taken for a backslash and a `t`. What this returns it returns unchanged.
#[must_use]
pub fn plain(text: &str) -> String {
    let has_backslashes = text.contains('\\');
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_invisible(letter) && has_backslashes {
            plain.extend(letter.escape_unicode());
        } else if is_invisible(letter) {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// The same JSON, with such characters of its strings escaped as JSON does it; its line breaks stay.
#[must_use]
pub fn plain_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        // All but ASCII is within strings.
        if letter == '\n' || !is_invisible(letter) {
            text.push(letter);
        } else {
            text.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_told_from_what_is() {
        let seen = " a~Zoëשלוםعربيไทยབོད日本語한글🎉👩🏽⚠\u{301}\u{e47}\u{f71}\u{20e3}\u{600}";
        for c in seen.chars() {
            assert!(!is_invisible(c), "{c:?}");
        }
        let unseen = "\u{0}\t\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{a0}\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{1680}\u{17b4}\
            \u{180e}\u{180f}\u{2000}\u{2003}\u{200a}\u{200b}\u{200d}\u{200f}\u{2028}\u{2029}\u{202e}\u{202f}\u{205f}\
            \u{2060}\u{2066}\u{206f}\u{2800}\u{3000}\u{3164}\u{e000}\u{fe00}\u{fe0f}\u{feff}\u{ffa0}\u{fff0}\u{fff9}\
            \u{13441}\u{13442}\u{16fe4}\u{1bca0}\u{1d159}\u{1d173}\u{e0001}\u{e0020}\u{e0041}\u{e0100}\u{e01ef}\u{10ffff}";
        for c in unseen.chars() {
            assert!(is_invisible(c), "{c:?}");
        }
        // A letter of Unicode 17, which this table does not know yet: another table shows it, and what few fonts have with it.
        assert!(is_invisible('\u{323b0}'));
        // Whatever a later version of Unicode takes for a space.
        let spaces = ('\u{0}'..=char::MAX).filter(|c| c.is_whitespace() && *c != ' ');
        assert!(spaces.into_iter().all(is_invisible));
    }

    #[test]
    fn marks_of_every_script_are_marks() {
        let marks = "\u{300}\u{489}\u{5b0}\u{64e}\u{94d}\u{e47}\u{f71}\u{fb7}\u{1ab0}\u{1dc0}\u{20dd}\u{fe0f}\u{fe20}\u{1d167}";
        for c in marks.chars() {
            assert!(is_mark(c), "{c:?}");
        }
        for c in "a é̲".chars().filter(|c| c.is_alphabetic() || *c == ' ').chain("\u{93e}🎉\u{200d}".chars())
        {
            assert!(!is_mark(c), "{c:?}");
        }
    }

    #[test]
    fn a_plain_text_shows_what_it_hides() {
        let rows = [
            ("main 日本 שלום", "main 日本 שלום"),
            ("a\u{1b}[2J\nb", "a\\u{1b}[2J\\nb"),
            ("v1\u{202e}2\u{2028}\u{a0}", "v1\\u{202e}2\\u{2028}\\u{a0}"),
            ("C:\\prod\\temp", "C:\\prod\\temp"),
            ("C:\\prod\temp\n", "C:\\prod\\u{9}emp\\u{a}"),
        ];
        for (text, expected) in rows {
            assert_eq!(plain(text), expected);
            assert_eq!(plain(expected), expected);
        }
    }
}
