//! How each character of a text is written: as it is, within a run of right-to-left letters, or escaped.

use std::str::Chars;

use countersign_core::text::{self, is_mark};
use icu_normalizer::properties::{CanonicalComposition, CanonicalCompositionBorrowed};
use icu_normalizer::{ComposingNormalizer, ComposingNormalizerBorrowed};
use icu_properties::CodePointMapData;
use icu_properties::props::{BidiClass, Script};

use super::{BACKTICK, Lines};
use crate::emoji;

/// The most combining marks on one letter.
const MOST_MARKS: u8 = 2;

/// Characters that are written right to left, or in an order of their own among those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Letters,
    /// Arabic ones, which are written left to right, and several numbers right to left.
    Digits,
}

/// How a character is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    AsItIs,
    /// As it is, in a run that is isolated.
    In(Run),
    Escaped,
}

impl Form {
    pub(super) fn run(self) -> Option<Run> {
        match self {
            Form::In(run) => Some(run),
            Form::AsItIs | Form::Escaped => None,
        }
    }
}

/// The characters of a text, and how each is written.
#[derive(Clone)]
pub(super) struct Letters<'a> {
    pub(super) rest: Chars<'a>,
    pub(super) lines: Lines,
    before: Option<char>,
    /// The emoji that a skin tone, a selector or a joiner belongs to.
    emoji: Option<char>,
    marks: u8,
    /// Whether an odd number of backslashes stands before the rest.
    after_backslash: bool,
    /// The run that the character before is in.
    run: Option<Run>,
    /// The letter that marks would be joined to, and whether the character before it was escaped.
    base: Option<char>,
    after_escape: bool,
    word: Word,
    /// Whether a run goes on after a space.
    pub(super) joins_words: bool,
}

impl Letters<'_> {
    pub(super) fn of(text: &str, lines: Lines) -> Letters<'_> {
        let rest = text.chars();
        Letters {
            rest,
            lines,
            before: None,
            emoji: None,
            marks: 0,
            after_backslash: false,
            run: None,
            base: None,
            after_escape: false,
            word: Word::default(),
            joins_words: false,
        }
    }

    /// Whether the backslash that was just read would look like the beginning of an escape.
    fn starts_escape(&self) -> bool {
        let next = || self.clone().next().is_some_and(|(c, form)| c != '\\' && form == Form::Escaped);
        self.after_backslash && (self.rest.as_str().starts_with("u{") || next())
    }

    /// The run that a character is in: marks are in that of their letter.
    fn run_of(&self, c: char) -> Option<Run> {
        if c.is_ascii() {
            let joins = self.joins_words && c == ' ' && self.run == Some(Run::Letters);
            let next = || self.rest.clone().next().and_then(run_of);
            return self.run.filter(|_| joins && next() == self.run);
        }
        if is_mark(c) { self.run } else { run_of(c) }
    }

    /// Whether a character is escaped for itself; `marks` is the number of marks on the letter before, with this one.
    fn is_escaped(&self, c: char, marks: u8) -> bool {
        match (c, self.lines) {
            ('\n' | '\t', Lines::Most(_)) => return false,
            (' ', Lines::One) => return self.before == Some(' '),
            _ => {}
        }
        let joined = c == emoji::JOINER
            && self
                .emoji
                .zip(self.rest.clone().next())
                .is_some_and(|(emoji, next)| emoji::joins(emoji, next));
        is_invisible(c, self.before) && !joined
            || marks > MOST_MARKS
            || c == BACKTICK
            || !c.is_ascii() && (self.is_joined(c) || self.word.is_mixed && is_like_latin(c))
    }

    /// Whether the normal form NFC would have another character for this, or for this with the letter before; or the mark
    /// would stand on an escape.
    fn is_joined(&self, c: char) -> bool {
        const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfc();
        const COMPOSITION: CanonicalCompositionBorrowed<'static> = CanonicalComposition::new();
        let joins = |base| COMPOSITION.compose(base, c).is_some();
        self.base.is_some_and(joins)
            || is_mark(c) && self.after_escape
            || !NFC.is_normalized(c.encode_utf8(&mut [0; 4]))
    }

    /// Goes on to the character that was just read, in the same word or another one.
    fn follow_word(&mut self, c: char) {
        const HEXADECIMAL: usize = 4;
        if let Some(left) = self.word.left.checked_sub(1) {
            self.word.left = left;
            return;
        }
        let rest = || self.rest.clone();
        // In JSON the letter of an escape is in no word.
        let escape = match c {
            _ if !self.after_backslash => 0,
            'b' | 'f' | 'n' | 'r' | 't' => 1,
            'u' if rest().take(HEXADECIMAL).filter(char::is_ascii_hexdigit).count() == HEXADECIMAL => 5,
            _ => 0,
        };
        if escape > 0 || !is_in_word(c) {
            self.word = Word { left: escape.max(1) - 1, is_mixed: false };
            return;
        }
        let (mut left, mut has_latin, mut has_like) = (0, is_latin(c), is_like_latin(c));
        for c in rest().take_while(|c| is_in_word(*c)) {
            left += 1;
            has_latin |= is_latin(c);
            has_like |= is_like_latin(c);
        }
        self.word = Word { left, is_mixed: has_latin && has_like };
    }
}

/// The word that a character is in.
#[derive(Clone, Copy, Default)]
struct Word {
    /// How many characters of it are after this one.
    left: usize,
    /// Whether it has Latin letters, and letters that look like them.
    is_mixed: bool,
}

impl Iterator for Letters<'_> {
    type Item = (char, Form);

    fn next(&mut self) -> Option<(char, Form)> {
        let c = self.rest.next()?;
        self.marks = if is_mark(c) { self.marks + 1 } else { 0 };
        self.follow_word(c);
        let is_escaped = self.is_escaped(c, self.marks);
        self.marks = self.marks.min(MOST_MARKS);
        self.before = Some(c);
        if !emoji::is_modifier(c) {
            self.emoji = Some(c);
        }
        self.after_backslash = c == '\\' && !self.after_backslash;
        let form = match is_escaped || self.starts_escape() {
            true => Form::Escaped,
            false => self.run_of(c).map_or(Form::AsItIs, Form::In),
        };
        self.run = form.run();
        self.after_escape = form == Form::Escaped;
        if !is_mark(c) {
            self.base = Some(c).filter(|_| !self.after_escape);
        }
        Some((c, form))
    }
}

/// Characters that are invisible, or that change how others look.
pub(super) fn is_invisible(c: char, before: Option<char>) -> bool {
    match c {
        // The variation selector for emoji: common after a symbol, suspicious after anything else.
        '\u{fe0f}' => before.is_none_or(|before| {
            before.is_ascii() || before.is_alphanumeric() || is_mark(before) || text::is_invisible(before)
        }),
        c => text::is_invisible(c),
    }
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || is_mark(c)
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || !c.is_ascii() && script(c) == Script::Latin
}

/// Whether this is of a script with letters that look like Latin ones.
fn is_like_latin(c: char) -> bool {
    const LIKE_LATIN: [Script; 6] =
        [Script::Armenian, Script::Cherokee, Script::Coptic, Script::Cyrillic, Script::Greek, Script::Lisu];
    !c.is_ascii() && LIKE_LATIN.contains(&script(c))
}

fn script(c: char) -> Script {
    CodePointMapData::<Script>::new().get(c)
}

/// The run that a character begins, by its bidirectional class.
fn run_of(c: char) -> Option<Run> {
    match CodePointMapData::<BidiClass>::new().get(c) {
        BidiClass::RightToLeft | BidiClass::ArabicLetter => Some(Run::Letters),
        BidiClass::ArabicNumber => Some(Run::Digits),
        _ => None,
    }
}
