//! Words from outside, made fit for Slack.
//!
//! A parameter, a justification, a branch or a persona's name may hold anything, and must neither ping people, nor
//! pass for our own words, nor break the message. Three rules see to that.
//!
//! - **Long or exact words are literal.** They go into `rich_text`, in a quote or a preformatted box: what stands
//!   there is not parsed by Slack, and can be seen not to be ours. `plain_text` is literal too, with emoji off.
//! - **Short words amid our own sentences are inline code** ([`code`]): `&`, `<` and `>` are escaped, so that nothing
//!   can be a mention; within code no `*`, `_` or `:emoji:` means anything; a backtick, which would end it, becomes
//!   the letter that looks like one.
//! - **What cannot be seen is spelt out.** Control characters, those that turn the direction of writing and those of
//!   no width are written as `\u{202e}`, so that two values that differ look different. Words in a right-to-left
//!   script are isolated, so that they cannot turn around what stands beside them.
//!
//! Everything is cut to a width before it is put anywhere. A width is what the text takes in the JSON that is sent,
//! in UTF-16 units: never less than what Slack counts, whichever way it counts.
//!
//! Nothing here knows of requests.

/// How long a mention's id may be; Slack's own have about eleven characters.
const ID_CHARS: usize = 24;

/// What ends a text that was cut.
const ELLIPSIS: char = '…';

/// How many marks may be stacked on one letter.
const MOST_MARKS: u8 = 2;

/// A text as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    /// The text; ends in an ellipsis where it was cut.
    pub(super) text: String,
    /// How many characters were left out.
    pub(super) cut: usize,
}

/// Whether line breaks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// No: each is written as `\n`.
    One,
    /// Yes, but no more lines than this.
    Most(usize),
}

/// The text for where Slack parses nothing.
pub(super) fn literal(text: &str, lines: Lines, most: usize) -> Fitted {
    fit(text, lines, most, |c, out| out.push(c))
}

/// The text on one line for where Slack parses nothing, amid other words.
pub(super) fn inline(text: &str, most: usize) -> Fitted {
    isolated(most, is_right_to_left(text), |most| literal(text, Lines::One, most))
}

/// The text as inline code for where Slack parses `mrkdwn`, at most `most` wide.
pub(super) fn code(text: &str, most: usize) -> String {
    if text.trim().is_empty() {
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

/// A person: mentioned where the id looks like one of Slack's, else as inline code.
pub(super) fn person(id: &str, most: usize) -> String {
    if is_user(id) { format!("<@{id}>") } else { code(id, most) }
}

/// A group of the policy set, by its name: never a mention.
pub(super) fn group(name: &str, most: usize) -> String {
    const EVERYBODY: [&str; 4] = ["channel", "here", "everyone", "group"];
    let plain = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter))
        && name.len() < most
        && !EVERYBODY.iter().any(|word| name.eq_ignore_ascii_case(word));
    if plain { format!("@{name}") } else { code(&format!("@{name}"), most) }
}

/// Whether this looks like the id of one of Slack's users.
pub(super) fn is_user(id: &str) -> bool {
    id.starts_with(['U', 'W']) && is_id(id)
}

/// Whether this looks like the id of one of Slack's user groups.
pub(super) fn is_user_group(id: &str) -> bool {
    id.starts_with('S') && is_id(id)
}

fn is_id(id: &str) -> bool {
    (3..=ID_CHARS).contains(&id.len())
        && id.bytes().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit())
}

/// Whether the text can be shown as it is: nothing in it would have to be spelt out, and nothing around it be lost.
pub(super) fn is_plain(text: &str) -> bool {
    text.trim() == text && literal(text, Lines::Most(usize::MAX), usize::MAX).text == text
}

/// How much room the text takes.
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

/// `one` or `many` of them: `1 approval`, `2 approvals`.
pub(super) fn counted(number: usize, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Keeps a text that may hold right-to-left writing from turning around what stands beside it.
fn isolated(most: usize, isolate: bool, fit: impl FnOnce(usize) -> Fitted) -> Fitted {
    if !isolate {
        return fit(most);
    }
    let mut fitted = fit(most.saturating_sub(2));
    fitted.text = format!("\u{2068}{}\u{2069}", fitted.text);
    fitted
}

/// The first characters of `text` that fit, each spelt by `spell` where it can be seen and spelt out where it cannot.
fn fit(text: &str, lines: Lines, most: usize, spell: impl Fn(char, &mut String)) -> Fitted {
    let mut fitted = Fitted { text: String::new(), cut: 0 };
    // Where the text ends should an ellipsis have to follow.
    let (mut used, mut kept, mut kept_chars) = (0, 0, 0);
    let (mut line_count, mut marks, mut before) = (1, 0, None);
    let mut over = false;
    let mut letters = text.chars().enumerate().peekable();
    while let Some((n, c)) = letters.next() {
        let next = letters.peek().map(|(_, next)| *next);
        let start = fitted.text.len();
        match (c, lines) {
            // One line break, however it is written.
            ('\r', _) if next == Some('\n') => {}
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
                if is_unseen(c, before) || marks > MOST_MARKS {
                    marks = marks.min(MOST_MARKS);
                    fitted.text.extend(c.escape_unicode());
                } else {
                    spell(c, &mut fitted.text);
                }
            }
        }
        before = Some(c);
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

/// Marks that stand over or under the letter before them.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Characters that nobody sees, or that change how others are seen.
fn is_unseen(c: char, before: Option<char>) -> bool {
    match c {
        // Asks for the colourful form of the sign before it, of which there are many in honest texts.
        '\u{fe0f}' => before.is_none_or(|before| before.is_ascii() || before.is_alphanumeric()),
        c if c.is_control() => true,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' => true,
        '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0e}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// Whether anything in the text is written from right to left.
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
    fn what_is_in_code_is_not_parsed() {
        let rows = [
            ("main", "`main`"),
            ("<!channel>", "`&lt;!channel&gt;`"),
            ("<@U0ALICE>", "`&lt;@U0ALICE&gt;`"),
            ("a && b", "`a &amp;&amp; b`"),
            ("x` *Approved* `y", "`xˋ *Approved* ˋy`"),
            (":white_check_mark: Approved", "`:white_check_mark: Approved`"),
            ("a\nb\r\nc\td", "`a\\nb\\nc\\td`"),
            ("v1\u{202e}2\u{200b}", "`v1\\u{202e}2\\u{200b}`"),
            ("שלום", "`\u{2068}שלום\u{2069}`"),
            (" \n", "_(blank)_"),
            ("", "_(blank)_"),
        ];
        for (text, expected) in rows {
            assert_eq!(code(text, 100), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_spelt_out() {
        let rows = [
            ("plain, Zoë, 日本, 🎉, ⚠️", "plain, Zoë, 日本, 🎉, ⚠️"),
            ("a\u{0}b\u{1b}[31m", "a\\u{0}b\\u{1b}[31m"),
            ("a\rb\r\nc", "a\\u{d}b\nc"),
            ("1\u{fe0f}", "1\\u{fe0f}"),
            ("\u{2028}\u{feff}\u{ad}\u{e0041}", "\\u{2028}\\u{feff}\\u{ad}\\u{e0041}"),
            ("e\u{301}\u{302}\u{303}\u{304}", "e\u{301}\u{302}\\u{303}\\u{304}"),
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
    fn texts_are_cut_between_characters_and_say_how_much_is_gone() {
        let rows: [(&str, usize, &str, usize); 12] = [
            ("abcdef", 6, "abcdef", 0),
            ("abcdef", 5, "abcd…", 2),
            ("äöüß", 3, "äö…", 2),
            ("🎉🎉🎉", 6, "🎉🎉🎉", 0),
            ("🎉🎉🎉", 5, "🎉🎉…", 1),
            ("🎉🎉🎉", 4, "🎉…", 2),
            ("\"\"\"", 6, "\"\"\"", 0),
            ("\"\"\"", 5, "\"\"…", 1),
            // What is spelt out is shown whole or not at all.
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
    fn only_ids_of_slack_are_mentioned() {
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
    fn numbers_are_read_easily() {
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
        fn no_text_is_wider_than_it_may_be(text in any::<String>(), most in 0usize..80) {
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
