//! Makes text from outside safe to show in Slack.
//!
//! A parameter, a justification, a branch or a persona's name may hold anything, and must neither notify people, nor
//! look like our own words, nor break the message. Three rules ensure that.
//!
//! - **Long or exact text is literal.** It goes into `rich_text`, in a quote or a preformatted box, which Slack does
//!   not parse, and which people can tell from our own words. `plain_text` is literal too, with emoji off.
//! - **Short text within our own sentences is inline code** ([`code`]): `&`, `<` and `>` are escaped, so that nothing
//!   can be a mention; within code no `*`, `_` or `:emoji:` has a meaning; a backtick, which would end the code, is
//!   replaced by a letter that looks like one.
//! - **Invisible characters are escaped.** Control characters, direction overrides, characters of zero width and spaces
//!   other than the common one are written as `\u{202e}`, so that two values that differ look different; so are more than
//!   two marks on a letter. The joiner within an emoji is part of it. Right-to-left text is isolated, so that it cannot
//!   reorder what is beside it.
//!
//! Everything is cut to a width. The width of a text is its length in the JSON that is sent, in UTF-16 units: never
//! less than what Slack counts, whichever way it counts.
//!
//! Nothing here knows of requests.

use countersign_core::text::{self, is_mark};

use super::emoji;

/// The longest id that is mentioned; Slack's own ids have about eleven characters.
const ID_CHARS: usize = 24;

/// The end of a text that was cut.
const ELLIPSIS: char = '…';

/// The most combining marks on one letter.
const MOST_MARKS: u8 = 2;

/// A text that is safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    /// The text; ends in an ellipsis if it was cut.
    pub(super) text: String,
    /// The number of characters that were left out.
    pub(super) cut: usize,
}

/// Whether line breaks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// No: each is escaped as `\n`.
    One,
    /// Yes, up to this number of lines.
    Most(usize),
}

/// The text for elements that Slack does not parse.
pub(super) fn literal(text: &str, lines: Lines, most: usize) -> Fitted {
    fit(text, lines, most, |c, out| out.push(c))
}

/// The text for elements that Slack does not parse, on one line beside other text.
pub(super) fn inline(text: &str, most: usize) -> Fitted {
    isolated(most, is_right_to_left(text), |most| literal(text, Lines::One, most))
}

/// All of the text in pieces, each for elements that Slack does not parse, and at most `most` wide.
pub(super) fn pieces(text: &str, most: usize) -> Vec<String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let mut fitted = literal(rest, Lines::Most(usize::MAX), most);
        if fitted.cut == 0 {
            pieces.push(fitted.text);
            break;
        }
        fitted.text.pop();
        // One character at least, so that it ends.
        let kept = (rest.chars().count() - fitted.cut).max(1);
        rest = rest.char_indices().nth(kept).map_or("", |(at, _)| rest.get(at..).unwrap_or_default());
        pieces.push(fitted.text);
    }
    pieces
}

/// The text as inline code for `mrkdwn`, at most `most` wide.
pub(super) fn code(text: &str, most: usize) -> String {
    if text.trim_matches([' ', '\n', '\t']).is_empty() {
        return "_(blank)_".to_owned();
    }
    let fitted = isolated(most.saturating_sub(2), is_right_to_left(text), |most| {
        fit(text, Lines::One, most, |c, out| match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '`' => out.push('ˋ'),
            c => out.push(c),
        })
    });
    format!("`{}`", fitted.text)
}

/// A person: a mention if the id looks like a Slack id, else inline code.
pub(super) fn person(id: &str, most: usize) -> String {
    if is_user(id) { format!("<@{id}>") } else { code(id, most) }
}

/// The name of a group of the policy set: never a mention.
pub(super) fn group(name: &str, most: usize) -> String {
    const EVERYBODY: [&str; 4] = ["channel", "here", "everyone", "group"];
    let plain = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter))
        && name.len() < most
        && !EVERYBODY.iter().any(|word| name.eq_ignore_ascii_case(word));
    if plain { format!("@{name}") } else { code(&format!("@{name}"), most) }
}

/// Whether this looks like the id of a Slack user.
pub(super) fn is_user(id: &str) -> bool {
    id.starts_with(['U', 'W']) && is_id(id)
}

/// Whether this looks like the id of a Slack user group.
pub(super) fn is_user_group(id: &str) -> bool {
    id.starts_with('S') && is_id(id)
}

fn is_id(id: &str) -> bool {
    (3..=ID_CHARS).contains(&id.len())
        && id.bytes().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit())
}

/// Whether the text can be shown exactly: without escapes, and without whitespace at its ends that would be lost.
pub(super) fn is_plain(text: &str) -> bool {
    text.trim() == text && literal(text, Lines::Most(usize::MAX), usize::MAX).text == text
}

/// The width of the text.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        c if c.is_control() => 6,
        c => c.len_utf16(),
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and a noun: `1 approval`, `2 approvals`.
pub(super) fn counted(number: usize, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Isolates right-to-left text, so that it does not reorder what is beside it.
fn isolated(most: usize, isolate: bool, fit: impl FnOnce(usize) -> Fitted) -> Fitted {
    if !isolate {
        return fit(most);
    }
    let mut fitted = fit(most.saturating_sub(2));
    fitted.text = format!("\u{2068}{}\u{2069}", fitted.text);
    fitted
}

/// The first characters of `text` that fit: visible ones written by `write`, invisible ones escaped.
fn fit(text: &str, lines: Lines, most: usize, write: impl Fn(char, &mut String)) -> Fitted {
    let mut fitted = Fitted { text: String::new(), cut: 0 };
    // The end of the text if it has to be cut before an ellipsis.
    let (mut used, mut kept, mut kept_chars) = (0, 0, 0);
    let (mut line_count, mut marks, mut before) = (1, 0, None);
    // The emoji that a skin tone, a selector or a joiner belongs to.
    let mut emoji = None;
    let mut over = false;
    let mut letters = text.chars().enumerate().peekable();
    while let Some((n, c)) = letters.next() {
        let next = letters.peek().map(|(_, next)| *next);
        let start = fitted.text.len();
        match (c, lines) {
            ('\n', Lines::Most(limit)) => {
                line_count += 1;
                over = line_count > limit;
                fitted.text.push('\n');
            }
            ('\t', Lines::Most(_)) => fitted.text.push('\t'),
            ('\n', Lines::One) => fitted.text.push_str("\\n"),
            ('\t', Lines::One) => fitted.text.push_str("\\t"),
            _ => {
                marks = if is_mark(c) { marks + 1 } else { 0 };
                let joined = c == emoji::JOINER
                    && emoji.zip(next).is_some_and(|(emoji, next)| emoji::joins(emoji, next));
                if is_invisible(c, before) && !joined || marks > MOST_MARKS {
                    marks = marks.min(MOST_MARKS);
                    fitted.text.extend(c.escape_unicode());
                } else {
                    write(c, &mut fitted.text);
                }
            }
        }
        before = Some(c);
        if !emoji::is_modifier(c) {
            emoji = Some(c);
        }
        let added = fitted.text.get(start..).unwrap_or_default();
        used += width(added);
        if over || used > most {
            fitted.text.truncate(kept);
            fitted.cut = text.chars().count() - kept_chars;
            if most >= width_of(ELLIPSIS) {
                fitted.text.push(ELLIPSIS);
            }
            return fitted;
        }
        if used.saturating_add(width_of(ELLIPSIS)) <= most {
            (kept, kept_chars) = (fitted.text.len(), n + 1);
        }
    }
    fitted
}

/// Characters that are invisible, or that change how others look.
fn is_invisible(c: char, before: Option<char>) -> bool {
    match c {
        // The variation selector for emoji: common after a symbol, suspicious after anything else.
        '\u{fe0f}' => before.is_none_or(|before| {
            before.is_ascii() || before.is_alphanumeric() || is_mark(before) || text::is_invisible(before)
        }),
        c => text::is_invisible(c),
    }
}

/// Whether the text holds right-to-left characters.
fn is_right_to_left(text: &str) -> bool {
    text.chars().any(|c| {
        matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}'
            | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slack_does_not_parse_inline_code() {
        let rows = [
            ("main", "`main`"),
            ("<!channel>", "`&lt;!channel&gt;`"),
            ("<@U0ALICE>", "`&lt;@U0ALICE&gt;`"),
            ("a && b", "`a &amp;&amp; b`"),
            ("x` *Approved* `y", "`xˋ *Approved* ˋy`"),
            (":white_check_mark: Approved", "`:white_check_mark: Approved`"),
            ("a\nb\r\nc\td", "`a\\nb\\u{d}\\nc\\td`"),
            ("v1\u{202e}2\u{200b}", "`v1\\u{202e}2\\u{200b}`"),
            ("שלום", "`\u{2068}שלום\u{2069}`"),
            (" \n", "_(blank)_"),
            ("\u{a0}", "`\\u{a0}`"),
            ("", "_(blank)_"),
        ];
        for (text, expected) in rows {
            assert_eq!(code(text, 100), expected, "{text:?}");
        }
    }

    #[test]
    fn invisible_characters_are_escaped() {
        let rows = [
            ("plain, Zoë, 日本, 🎉, ⚠️", "plain, Zoë, 日本, 🎉, ⚠️"),
            ("a\u{0}b\u{1b}[31m", "a\\u{0}b\\u{1b}[31m"),
            ("a\rb\r\nc", "a\\u{d}b\\u{d}\nc"),
            (
                "👩\u{200d}💻 👩🏽\u{200d}💻 🏳\u{fe0f}\u{200d}🌈",
                "👩\u{200d}💻 👩🏽\u{200d}💻 🏳\u{fe0f}\u{200d}🌈",
            ),
            (
                "🎉\u{200d}🎉 a\u{200d}b 👩\u{200d}\u{200d}💻",
                "🎉\\u{200d}🎉 a\\u{200d}b 👩\\u{200d}\\u{200d}💻",
            ),
            ("1\u{fe0f}", "1\\u{fe0f}"),
            ("\u{2028}\u{feff}\u{ad}\u{e0041}", "\\u{2028}\\u{feff}\\u{ad}\\u{e0041}"),
            ("e\u{301}\u{302}\u{303}\u{304}", "e\u{301}\u{302}\\u{303}\\u{304}"),
            // Spaces that look like the common one.
            ("a\u{a0}b\u{2003}c\u{3000}d\u{1680}", "a\\u{a0}b\\u{2003}c\\u{3000}d\\u{1680}"),
            // Marks of any script.
            ("ก\u{e47}\u{e47}\u{e47}\u{e47}", "ก\u{e47}\u{e47}\\u{e47}\\u{e47}"),
            ("ཀ\u{f71}\u{f71}\u{f71}", "ཀ\u{f71}\u{f71}\\u{f71}"),
            ("a\u{20dd}\u{20dd}\u{20dd}", "a\u{20dd}\u{20dd}\\u{20dd}"),
            ("ที่นี่ น้ำ བོད་སྐད། שָׁלוֹם كِتَابٌ", "ที่นี่ น้ำ བོད་སྐད། שָׁלוֹם كِتَابٌ"),
        ];
        for (text, expected) in rows {
            assert_eq!(
                literal(text, Lines::Most(9), 1000),
                Fitted { text: expected.into(), cut: 0 },
                "{text:?}"
            );
            assert_eq!(is_plain(text), text == expected, "{text:?}");
        }
        assert!(!is_plain(" a") && !is_plain("a\n") && is_plain("a\n\tb") && is_plain(""));
    }

    #[test]
    fn a_cut_is_between_characters_and_counted() {
        let rows: [(&str, usize, &str, usize); 12] = [
            ("abcdef", 6, "abcdef", 0),
            ("abcdef", 5, "abcd…", 2),
            ("äöüß", 3, "äö…", 2),
            ("🎉🎉🎉", 6, "🎉🎉🎉", 0),
            ("🎉🎉🎉", 5, "🎉🎉…", 1),
            ("🎉🎉🎉", 4, "🎉…", 2),
            ("\"\"\"", 6, "\"\"\"", 0),
            ("\"\"\"", 5, "\"\"…", 1),
            // An escape is shown completely or not at all.
            ("ab\u{202e}", 10, "ab…", 1),
            ("ab\u{202e}", 11, "ab\\u{202e}", 0),
            ("abc", 1, "…", 3),
            ("abc", 0, "", 3),
        ];
        for (text, most, expected, cut) in rows {
            assert_eq!(
                literal(text, Lines::One, most),
                Fitted { text: expected.into(), cut },
                "{text:?} {most}"
            );
        }
        assert_eq!(code("<<<<", 12), "`&lt;&lt;…`");
        assert_eq!(literal("a\nb\nc\nd", Lines::Most(2), 100), Fitted { text: "a\nb…".into(), cut: 4 });
    }

    #[test]
    fn only_slack_ids_are_mentioned() {
        let rows = [
            ("U0ALICE", "<@U0ALICE>"),
            ("W012", "<@W012>"),
            ("U1", "`U1`"),
            ("u0alice", "`u0alice`"),
            ("U0ALICE>", "`U0ALICE&gt;`"),
            ("S0GROUP", "`S0GROUP`"),
            ("UABCDEFGHIJKLMNOPQRSTUVWX", "`UABCDEFGHIJKLMNOPQRSTUVWX`"),
        ];
        for (id, expected) in rows {
            assert_eq!(person(id, 60), expected);
        }
        assert!(is_user_group("S0GROUP") && !is_user_group("U0GROUP") && !is_user_group("S0group"));
        let rows = [
            ("release-managers", "@release-managers"),
            ("channel", "`@channel`"),
            ("Everyone", "`@Everyone`"),
            ("a:tada:", "`@a:tada:`"),
            ("<!here>", "`@&lt;!here&gt;`"),
        ];
        for (name, expected) in rows {
            assert_eq!(group(name, 60), expected);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        let rows = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (number, expected) in rows {
            assert_eq!(grouped(number), expected);
        }
        assert_eq!(
            (counted(1, "approval"), counted(2, "approval")),
            ("1 approval".into(), "2 approvals".into())
        );
    }

    proptest! {
        #[test]
        fn no_text_is_wider_than_its_limit(text in any::<String>(), most in 0usize..80) {
            for lines in [Lines::One, Lines::Most(3)] {
                let fitted = literal(&text, lines, most);
                prop_assert!(width(&fitted.text) <= most);
                let quoted = serde_json::to_string(&fitted.text).unwrap_or_default();
                prop_assert_eq!(width(&fitted.text), quoted.encode_utf16().count() - 2);
                prop_assert!(fitted.cut <= text.chars().count());
                prop_assert_eq!(fitted.cut > 0, literal(&text, lines, usize::MAX).text != fitted.text);
            }
            prop_assert!(width(&inline(&text, most).text) <= most.max(2));
            let code = code(&text, most);
            prop_assert!(width(&code) <= most.max(9), "{}", code);
            prop_assert!(!code.contains(['<', '>', '\n']));
            prop_assert!(text.trim().is_empty() || code.matches('`').count() == 2);
        }
    }
}
