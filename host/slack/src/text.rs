//! Makes text from outside safe to show in Slack.
//!
//! A parameter, a justification, a branch or a persona's name may hold anything, and must neither notify people, nor
//! look like our own words, nor break the message. Five rules ensure that.
//!
//! - **Long or exact text is literal.** It goes into `rich_text`, in a quote or a preformatted box, which Slack does
//!   not parse, and which people can tell from our own words. `plain_text` is literal too, with emoji off.
//! - **Short text within our own sentences is inline code** ([`code`]): `&`, `<` and `>` are escaped, so that nothing
//!   can be a mention; within code no `*`, `_` or `:emoji:` has a meaning; a backtick, which would end the code, is
//!   replaced by a letter that looks like one, and that letter is escaped wherever it comes from outside.
//! - **Invisible characters are escaped.** Control characters, direction overrides, characters of zero width and spaces
//!   other than the common one are written as `\u{202e}`, so that two values that differ look different; so are more than
//!   two marks on a letter. The joiner within an emoji is part of it.
//! - **Letters that look like others are escaped**, as far as a simple rule knows them: those that Unicode takes for another
//!   way to write a letter (what is not in the normal form NFC), and in words with Latin letters those of scripts that look
//!   like Latin. Words of one script stay as they are, so that people can read their language.
//! - **Right-to-left letters are isolated.** Each run of them is between U+2068 and U+2069, and so is each run of Arabic
//!   digits: digits, punctuation and other words stay where they are in the text. Isolates of the text itself are escaped.
//!
//! **An escape begins after an even number of backslashes.** A backslash of the text that would begin one is itself written
//! as `\u{5c}`. In JSON backslashes come in pairs before `u{`, so JSON stays as it is.
//!
//! Everything is cut to a width. The width of a text is its length in the JSON that is sent, in UTF-16 units: never
//! less than what Slack counts, whichever way it counts.
//!
//! Nothing here knows of requests.

mod letters;

use letters::{Form, Letters, Run, is_invisible};

/// The longest id that is mentioned; Slack's own ids have about eleven characters.
const ID_CHARS: usize = 24;

/// The end of a text that was cut.
const ELLIPSIS: char = '…';

/// What stands for a backtick in inline code.
const BACKTICK: char = 'ˋ';

/// A text that is safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    /// The text; ends in an ellipsis if it was cut.
    pub(super) text: String,
    /// The number of characters that were left out.
    pub(super) cut: usize,
}

/// Whether line breaks, tabs and runs of spaces are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// No: they are escaped, and of a run of spaces all but the first one. Slack wraps lines, and what follows a long run
    /// would begin a line.
    One,
    /// Yes, up to this number of lines.
    Most(usize),
}

/// The text for elements that Slack does not parse.
pub(super) fn literal(text: &str, lines: Lines, most: usize) -> Fitted {
    fit(Letters::of(text, lines), most, |c, out| out.push(c))
}

/// The text for elements that Slack does not parse, on one line beside other text.
pub(super) fn inline(text: &str, most: usize) -> Fitted {
    literal(text, Lines::One, most)
}

/// Prose for elements that Slack does not parse: right-to-left words beside each other stay in the order of their language.
pub(super) fn prose(text: &str, lines: usize, most: usize) -> Fitted {
    let mut letters = Letters::of(text, Lines::Most(lines));
    letters.joins_words = true;
    fit(letters, most, |c, out| out.push(c))
}

/// All of the text in pieces, each for elements that Slack does not parse, and at most `most` wide.
pub(super) fn pieces(text: &str, most: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = Written::default();
    for (c, form) in Letters::of(text, Lines::Most(usize::MAX)) {
        let before = piece.end();
        piece.push(c, form, |c, out| out.push(c));
        if piece.width() > most && before.at > 0 {
            piece.cut(before);
            pieces.push(std::mem::take(&mut piece).text);
            piece.push(c, form, |c, out| out.push(c));
        }
    }
    piece.close();
    if !piece.text.is_empty() {
        pieces.push(piece.text);
    }
    pieces
}

/// The text as inline code for `mrkdwn`, at most `most` wide.
pub(super) fn code(text: &str, most: usize) -> String {
    code_and_cut(text, most).text
}

/// The same, and how much of the text was cut.
pub(super) fn code_and_cut(text: &str, most: usize) -> Fitted {
    if text.trim_matches([' ', '\n', '\t']).is_empty() {
        return Fitted { text: "_(blank)_".to_owned(), cut: 0 };
    }
    let fitted = fit(Letters::of(text, Lines::One), most.saturating_sub(2), |c, out| match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '`' => out.push(BACKTICK),
        c => out.push(c),
    });
    Fitted { text: format!("`{}`", fitted.text), ..fitted }
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
    let is_escaped = |(c, form)| form == Form::Escaped && c != '\\';
    text.trim() == text && !Letters::of(text, Lines::Most(usize::MAX)).any(is_escaped)
}

/// Whether each character of the text can be seen.
pub(super) fn is_visible(text: &str) -> bool {
    let mut before = None;
    text.chars().all(|c| !is_invisible(c, before.replace(c)))
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

/// The first characters that fit: visible ones written by `write`, invisible ones escaped.
fn fit(mut letters: Letters<'_>, most: usize, write: impl Fn(char, &mut String)) -> Fitted {
    let lines = letters.lines;
    let mut written = Written::default();
    // The end of the text if it has to be cut before an ellipsis.
    let mut kept = written.end();
    let (mut chars, mut kept_chars, mut line_count) = (0, 0, 1);
    while let Some((c, form)) = letters.next() {
        written.push(c, form, &write);
        chars += 1;
        line_count += usize::from(c == '\n');
        let over = matches!(lines, Lines::Most(limit) if line_count > limit);
        if over || written.width() > most {
            written.cut(kept);
            if most >= width_of(ELLIPSIS) {
                written.text.push(ELLIPSIS);
            }
            return Fitted { text: written.text, cut: chars + letters.rest.count() - kept_chars };
        }
        if written.width().saturating_add(width_of(ELLIPSIS)) <= most {
            (kept, kept_chars) = (written.end(), chars);
        }
    }
    written.close();
    Fitted { text: written.text, cut: 0 }
}

/// The marks around a run of right-to-left letters, each of the width 1.
const ISOLATE: char = '\u{2068}';
const END_OF_ISOLATE: char = '\u{2069}';

/// A text as it is shown, as far as it is written.
#[derive(Default)]
struct Written {
    text: String,
    /// The width of the text, without the end of the run that it ends in.
    used: usize,
    run: Option<Run>,
}

/// A place in a [`Written`] text at which it can be cut.
#[derive(Clone, Copy)]
struct End {
    at: usize,
    run: Option<Run>,
}

impl Written {
    /// Writes a character, by `write` if it is not escaped.
    fn push(&mut self, c: char, form: Form, write: impl Fn(char, &mut String)) {
        let start = self.text.len();
        let run = form.run();
        if self.run != run {
            self.text.extend(self.run.map(|_| END_OF_ISOLATE));
            self.text.extend(run.map(|_| ISOLATE));
            self.run = run;
        }
        match form {
            Form::AsItIs | Form::In(_) => write(c, &mut self.text),
            Form::Escaped => self.text.extend(c.escape_unicode()),
        }
        self.used += width(self.text.get(start..).unwrap_or_default());
    }

    fn width(&self) -> usize {
        self.used + usize::from(self.run.is_some())
    }

    fn end(&self) -> End {
        End { at: self.text.len(), run: self.run }
    }

    /// Leaves out what comes after `end`.
    fn cut(&mut self, end: End) {
        self.text.truncate(end.at);
        self.run = end.run;
        self.close();
    }

    fn close(&mut self) {
        self.text.extend(self.run.take().map(|_| END_OF_ISOLATE));
    }
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
            ("xˋy", "`x\\u{2cb}y`"),
            (":white_check_mark: Approved", "`:white_check_mark: Approved`"),
            ("a\nb\r\nc\td", "`a\\u{a}b\\u{d}\\u{a}c\\u{9}d`"),
            ("C:\\prod\\temp", "`C:\\prod\\temp`"),
            ("C:\\prod\temp", "`C:\\prod\\u{9}emp`"),
            ("main   dry_run: true", "`main \\u{20}\\u{20}dry_run: true`"),
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
            ("q\u{301}\u{302}\u{303}\u{304}", "q\u{301}\u{302}\\u{303}\\u{304}"),
            // Spaces that look like the common one.
            ("a\u{a0}b\u{2003}c\u{3000}d\u{1680}", "a\\u{a0}b\\u{2003}c\\u{3000}d\\u{1680}"),
            // Marks of any script.
            ("ก\u{e47}\u{e47}\u{e47}\u{e47}", "ก\u{e47}\u{e47}\\u{e47}\\u{e47}"),
            ("ཀ\u{f71}\u{f71}\u{f71}", "ཀ\u{f71}\u{f71}\\u{f71}"),
            ("a\u{20dd}\u{20dd}\u{20dd}", "a\u{20dd}\u{20dd}\\u{20dd}"),
            ("ที่นี่ น้ำ བོད་སྐད།", "ที่นี่ น้ำ བོད་སྐད།"),
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
    fn letters_that_look_like_others_are_escaped() {
        let rows = [
            ("h\u{43e}st", "h\\u{43e}st"),
            ("\u{440}\u{430}ypal \u{440}\u{430}", "\\u{440}\\u{430}ypal \u{440}\u{430}"),
            ("v1\u{391}", "v1\\u{391}"),
            ("\u{56e}a", "\\u{56e}a"),
            // Words of one script, and scripts that look like no other.
            ("Привет, größe x_хост ёлка Ελλάδα 5км", "Привет, größe x_хост ёлка Ελλάδα 5км"),
            ("データbase API를 日本go ไทยv2", "データbase API를 日本go ไทยv2"),
            // What is not in the normal form.
            ("\u{37e} \u{212a} \u{1fef} \u{2126}", "\\u{37e} \\u{212a} \\u{1fef} \\u{2126}"),
            ("\u{e9} e\u{301}", "\u{e9} e\\u{301}"),
            ("a\u{327}\u{301}", "a\u{327}\\u{301}"),
            ("\u{1100}\u{1161} \u{ac00}\u{11a8} 각", "\u{1100}\\u{1161} \u{ac00}\\u{11a8} 각"),
            // No mark stands on an escape.
            ("e\u{301}\u{302} \u{200b}\u{302}", "e\\u{301}\\u{302} \\u{200b}\\u{302}"),
            // In JSON the letters of escapes are in no word.
            (
                r#""\nпривет \u001fпривет \\nпривет""#,
                r#""\nпривет \u001fпривет \\n\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}""#,
            ),
            // A backslash before an escape.
            ("\\\u{440}a", "\\u{5c}\\u{440}a"),
        ];
        for (text, expected) in rows {
            for shown in [literal(text, Lines::Most(9), 1000).text, inline(text, 1000).text] {
                assert_eq!(shown, expected, "{text:?}");
            }
            assert_eq!(pieces(text, 9).concat(), expected, "{text:?}");
            assert_eq!(is_plain(text), text == expected, "{text:?}");
        }
    }

    #[test]
    fn right_to_left_letters_reorder_nothing() {
        let rows = [
            ("שלום", "[שלום]"),
            ("rm -rf /srv/א/1", "rm -rf /srv/[א]/1"),
            ("cp א ב", "cp [א] [ב]"),
            ("{\"א\":1,\"ב\":[2,3]}", "{\"[א]\":1,\"[ב]\":[2,3]}"),
            // With their marks, and joined marks of their own.
            ("שָׁלוֹם كِتَابٌ x", "[שָׁלוֹם] [كِتَابٌ] x"),
            ("م\u{660}\u{661}/\u{662} \u{663}", "[م][\u{660}\u{661}]/[\u{662}] [\u{663}]"),
            ("\u{6f1}-\u{6f2}", "\u{6f1}-\u{6f2}"),
            ("א\u{202e}ב", "[א]\\u{202e}[ב]"),
            ("א\nב", "[א]\n[ב]"),
        ];
        let shown = |text: &str| text.replace(ISOLATE, "[").replace(END_OF_ISOLATE, "]");
        for (text, expected) in rows {
            assert_eq!(shown(&literal(text, Lines::Most(9), 1000).text), expected, "{text:?}");
            let line = expected.replace('\n', "\\u{a}");
            assert_eq!(shown(&inline(text, 1000).text), line, "{text:?}");
            if !text.contains('`') {
                assert_eq!(shown(&code(text, 1000)), format!("`{line}`"), "{text:?}");
            }
        }
        assert_eq!(shown(&prose("א ב, ג  ד 1 ה\nו x", 9, 1000).text), "[א ב], [ג]  [ד] 1 [ה]\n[ו] x");
        // Whatever is cut, each run ends.
        for most in 0..20 {
            let text = "אבג/1דה";
            for cut in [inline(text, most).text, pieces(text, most).concat()] {
                assert_eq!(
                    cut.matches(ISOLATE).count(),
                    cut.matches(END_OF_ISOLATE).count(),
                    "{most} {cut:?}"
                );
            }
        }
        let cut = literal("אבג", Lines::One, 4);
        assert_eq!((shown(&cut.text).as_str(), cut.cut), ("[א]…", 2));
        assert!(is_plain("שלום 1"));
    }

    #[test]
    fn an_escape_is_told_from_what_looks_like_one() {
        let rows = [
            ("\\u{202e}", "\\u{5c}u{202e}"),
            ("\\\u{202e}", "\\u{5c}\\u{202e}"),
            // A pair of backslashes, as JSON writes one.
            ("\\\\u{202e}", "\\\\u{202e}"),
            ("\\\\\u{202e}", "\\\\\\u{202e}"),
            ("\\\\\\u{202e}", "\\\\\\u{5c}u{202e}"),
            ("\\u0041 \\U{1} \\x \\", "\\u0041 \\U{1} \\x \\"),
        ];
        for (text, expected) in rows {
            for lines in [Lines::One, Lines::Most(9)] {
                assert_eq!(literal(text, lines, 1000).text, expected, "{text:?}");
            }
            assert_eq!(pieces(text, 8).concat(), expected, "{text:?}");
        }
    }

    #[test]
    fn only_lines_of_their_own_keep_tabs_and_runs_of_spaces() {
        let text = "a  b\n   c\t d";
        assert_eq!(literal(text, Lines::Most(9), 100).text, text);
        let expected = "a \\u{20}b\\u{a} \\u{20}\\u{20}c\\u{9} d";
        assert_eq!(literal(text, Lines::One, 100).text, expected);
    }

    #[test]
    fn pieces_are_the_whole_text() {
        let text = "ab\u{202e}cd".repeat(5);
        let all = literal(&text, Lines::Most(9), 1000).text;
        for most in 0..30 {
            let pieces = pieces(&text, most);
            assert_eq!(pieces.concat(), all, "{most}");
            assert!(pieces.iter().all(|piece| width(piece) <= most.max(9)), "{most}: {pieces:?}");
        }
        assert!(pieces("", 9).is_empty());
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

    /// The text with the escapes undone, each after an even number of backslashes, and without isolates.
    fn unescaped(shown: &str) -> String {
        let shown = shown.replace([ISOLATE, END_OF_ISOLATE], "");
        let (mut text, mut rest) = (String::new(), shown.as_str());
        while let Some(c) = rest.chars().next() {
            let escape = rest.strip_prefix("\\u{").and_then(|escape| escape.split_once('}'));
            let (c, after) = match escape {
                Some((code, after)) => {
                    (u32::from_str_radix(code, 16).ok().and_then(char::from_u32).unwrap(), after)
                }
                None => (c, rest.split_at(c.len_utf8()).1),
            };
            text.push(c);
            // The second one of a pair begins no escape.
            let second = after.strip_prefix('\\').filter(|_| escape.is_none() && c == '\\');
            text.push_str(if second.is_some() { "\\" } else { "" });
            rest = second.unwrap_or(after);
        }
        text
    }

    proptest! {
        #[test]
        fn what_is_shown_stands_for_one_text(text in r#"([ \\nut{}20e9aאб\u{661}\n\t\u{202e}\u{301}"]|\PC|u\{9\}){0,12}"#) {
            for lines in [Lines::One, Lines::Most(usize::MAX)] {
                prop_assert_eq!(unescaped(&literal(&text, lines, usize::MAX).text), text.as_str());
            }
            prop_assert_eq!(unescaped(&pieces(&text, 10).concat()), text.as_str());
        }

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
            let fitted = inline(&text, most);
            prop_assert!(width(&fitted.text) <= most);
            prop_assert!(pieces(&text, most).iter().all(|piece| width(piece) <= most.max(13)));
            let code = code(&text, most);
            prop_assert!(width(&code) <= most.max(9), "{}", code);
            prop_assert!(!code.contains(['<', '>', '\n']));
            prop_assert!(text.trim().is_empty() || code.matches('`').count() == 2);
        }
    }
}
