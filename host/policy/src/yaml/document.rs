//! A YAML document in which every value knows its place, so that every error can say where.

use std::fmt;
use std::ops::Range;

use countersign_core::json;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Error as YamlError, Location, MergeKeyPolicy, Spanned};

/// How many values aliases may stand for in all: a short text that says one list a thousand times in a thousand lists
/// would otherwise take as much time and memory as it likes.
const MOST_ALIASED: usize = 20_000;

/// How deep values may be nested. Reading takes stack for each level, some 30 KiB without optimisation, and a thread has
/// 2 MiB; what is read has no use for a third of this.
const MOST_NESTED: usize = 24;

/// How many values there may be.
const MOST_VALUES: usize = 250_000;

/// A place in the document, from 1; 0 if it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub at: Place,
    /// The value.
    pub kind: Kind,
    /// Its bytes in the text, at its anchor if it is an alias; empty if they are not known.
    source: Range<usize>,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `null`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// In the order of the document; no key comes twice.
    Map(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where it begins.
    pub at: Place,
    /// The key.
    pub text: String,
}

/// Reads a document. The error is where, and what is wrong.
///
/// A number is held to what strict JSON takes: entries have the same hash if their canonical JSON is the same, so no number
/// may become another one in it.
pub fn parse(text: &str) -> Result<Node, (Place, String)> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MOST_NESTED,
            flow_nesting_limit: MOST_NESTED,
            max_nodes: MOST_VALUES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_ALIASED },
    };
    let document = serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let error = error.without_snippet();
        let at = error.location().map(Place::from).unwrap_or_default();
        (at, message(error, at.letter(text)))
    })?;
    document.check_numbers(text)?;
    Ok(document)
}

/// What is wrong, without the place that the parser adds to it: ours is in front. `letter` is what is at that place. What
/// the parser advises is meant for programs: nobody can follow it who only writes the document.
fn message(error: &YamlError, letter: Option<char>) -> String {
    match error {
        YamlError::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` comes twice"),
        YamlError::DuplicateMappingKey { key: None, .. } => "a key comes twice".to_owned(),
        YamlError::MergeKeyNotAllowed { .. } => {
            "`<<` merges nothing here: write out what it stands for".to_owned()
        }
        YamlError::MultipleDocuments { .. } => {
            "another document begins here, after `---`: there must be one".to_owned()
        }
        YamlError::NullIntoString { .. } => "a key must be text, but is nothing: put it in quotes".to_owned(),
        YamlError::Unexpected { expected: "string scalar", .. } => "a key must be text".to_owned(),
        YamlError::NonFiniteFloat { value, .. } => format!("`{value}` is no number that JSON knows"),
        YamlError::AliasError { error, .. } => message(error, letter),
        YamlError::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias (`*name`) is within what it stands for".to_owned()
        }
        YamlError::UnknownAnchor { .. } => unknown_alias(),
        YamlError::AliasReplayLimitExceeded { .. } => {
            format!("aliases stand for more than {MOST_ALIASED} values")
        }
        YamlError::Budget { breach, .. } => too_much(breach),
        error => {
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text).trim();
            // So the parser says it of lists and maps in brackets.
            if text == "recursion limit exceeded" {
                return too_deep();
            }
            let begins = text.starts_with("unexpected character: `");
            let is_name = text.starts_with("while scanning an anchor or alias");
            match letter {
                Some(letter) if begins && letter.is_control() => {
                    let code = u32::from(letter);
                    format!("the control character U+{code:04X} may only be in quotes, as \"\\u{code:04X}\"")
                }
                Some(first) if begins => {
                    format!("`{first}` cannot begin a value: put the value in quotes, as \"{first}…\"")
                }
                Some('*') if is_name => unknown_alias(),
                Some('&') if is_name => {
                    "`&` begins the name of an anchor: put the value in quotes, as \"&…\"".to_owned()
                }
                _ => text.to_owned(),
            }
        }
    }
}

fn unknown_alias() -> String {
    "`*` begins an alias, and nothing before it has that name, as `&name`: put the value in quotes, as \"*…\""
        .to_owned()
}

fn too_deep() -> String {
    format!("it is nested more than {MOST_NESTED} levels deep")
}

/// What of a document is more than is read.
fn too_much(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Nodes { .. } => format!("it has more than {MOST_VALUES} values"),
        BudgetBreach::Depth { .. } => too_deep(),
        BudgetBreach::Aliases { .. } | BudgetBreach::AliasAnchorRatio { .. } => {
            "it has too many aliases (`*name`): write out what they stand for".to_owned()
        }
        BudgetBreach::Anchors { .. }
        | BudgetBreach::RecordedAnchorEvents { .. }
        | BudgetBreach::RecordedAnchorBytes { .. } => {
            "it has too many anchors (`&name`), or too much in them: write out what they stand for".to_owned()
        }
        BudgetBreach::ScalarBytes { .. } | BudgetBreach::InputBytes { .. } => "it is too large".to_owned(),
        _ => "it is too large, or too nested".to_owned(),
    }
}

impl Node {
    /// A value that stands for one that the document leaves out.
    #[must_use]
    pub fn implied(at: Place, kind: Kind) -> Node {
        Node { at, kind, source: 0..0 }
    }

    /// The value alone.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Map(members) => Value::Object(
                members.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect(),
            ),
        }
    }

    /// Where the value that the JSON Pointer leads to is, or the last one on the way that is there.
    pub fn place_of(&self, pointer: &str) -> Place {
        let mut node = self;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                Kind::Map(members) => {
                    members.iter().find(|(key, _)| key.text == step).map(|(_, value)| value)
                }
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node.at
    }

    fn check_numbers(&self, document: &str) -> Result<(), (Place, String)> {
        match &self.kind {
            Kind::Number(number) => {
                let text = document.get(self.source.clone()).unwrap_or_default();
                json::check_number(text, number).map_err(|wrong| (self.at, wrong.replace("send", "write")))
            }
            Kind::List(items) => items.iter().try_for_each(|item| item.check_numbers(document)),
            Kind::Map(members) => members.iter().try_for_each(|(_, value)| value.check_numbers(document)),
            Kind::Null | Kind::Bool(_) | Kind::Text(_) => Ok(()),
        }
    }

    /// Calls `visit` with each text in it, its JSON Pointer, and its place.
    pub fn texts(&self, pointer: &str, visit: &mut impl FnMut(&str, &str, Place)) {
        match &self.kind {
            Kind::Text(text) => visit(text, pointer, self.at),
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.texts(&format!("{pointer}/{index}"), visit);
                }
            }
            Kind::Map(members) => {
                for (key, value) in members {
                    let key = key.text.replace('~', "~0").replace('/', "~1");
                    value.texts(&format!("{pointer}/{key}"), visit);
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => {}
        }
    }
}

impl Place {
    /// The letter at this place of a text.
    fn letter(self, text: &str) -> Option<char> {
        let before = |number: u64| usize::try_from(number).ok()?.checked_sub(1);
        text.split('\n').nth(before(self.line)?)?.chars().nth(before(self.column)?)
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Place {
        Place { line: location.line(), column: location.column() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<Kind>::deserialize(deserializer)?;
        let span = defined.span();
        let start = span.byte_offset().and_then(|start| usize::try_from(start).ok()).unwrap_or_default();
        let length = span.byte_len().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        Ok(Node { at: referenced.into(), kind: value, source: start..start.saturating_add(length) })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Kind, E> {
        Number::from_f64(value).map(Kind::Number).ok_or_else(|| E::custom("not a number that JSON knows"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Kind, A::Error> {
        let mut map = Vec::new();
        while let Some(Spanned { value, referenced, .. }) = members.next_key::<Spanned<String>>()? {
            map.push((Key { at: referenced.into(), text: value }, members.next_value()?));
        }
        Ok(Kind::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nine levels of nine aliases each would be 387 million values.
    #[test]
    fn an_alias_bomb_is_refused_and_a_list_that_is_used_often_is_not() {
        let level = |number: u32| {
            let before = number - 1;
            format!("a{number}: &a{number} [{}]\n", vec![format!("*a{before}"); 9].join(", "))
        };
        let bomb: String = std::iter::once("a0: &a0 [lol]\n".to_owned()).chain((1..9).map(level)).collect();
        let (at, wrong) = parse(&bomb).unwrap_err();
        assert_eq!(wrong, "aliases stand for more than 20000 values");
        assert!(at.line > 1, "{at:?}");
        let used: String = (0..90).map(|number| format!("b{number}: *people\n")).collect();
        let people: Vec<String> = (0..100).map(|number| format!("U{number}")).collect();
        let read = parse(&format!("people: &people [{}]\n{used}", people.join(", ")));
        assert!(read.is_ok(), "{read:?}");
    }

    #[test]
    fn limits_are_told_in_words() {
        let wrong = |text: &str| parse(text).map(drop).map_err(|(_, wrong)| wrong);
        let many = "[1]".repeat(200_000).replace("][", "],[");
        assert_eq!(wrong(&format!("[{many}]")), Err("it has more than 250000 values".to_owned()));
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(wrong(&deep(MOST_NESTED)), Ok(()));
        for levels in [MOST_NESTED + 1, 70, 10_000] {
            assert_eq!(
                wrong(&deep(levels)),
                Err("it is nested more than 24 levels deep".to_owned()),
                "{levels}"
            );
        }
        let deep: String = (0..100).map(|level| format!("{}a:\n", "  ".repeat(level))).collect();
        assert_eq!(wrong(&deep), Err("it is nested more than 24 levels deep".to_owned()));
    }

    /// No message is about the parser, or a program that calls it.
    #[test]
    fn what_cannot_be_read_is_told_to_whoever_wrote_it() {
        let quoted = |letter: char| {
            format!("`{letter}` cannot begin a value: put the value in quotes, as \"{letter}…\"")
        };
        for (text, expected) in [
            ("a: [U1, @team]", quoted('@')),
            ("é: 1\na:\n  - @team", quoted('@')),
            ("a: %x", quoted('%')),
            ("a: [|x]", quoted('|')),
            ("a: \u{7}", "the control character U+0007 may only be in quotes, as \"\\u0007\"".to_owned()),
            ("a: \0", "the control character U+0000 may only be in quotes, as \"\\u0000\"".to_owned()),
            ("a: [*]", unknown_alias()),
            ("a: *", unknown_alias()),
            ("a: *team", unknown_alias()),
            ("a: [U1, *team]", unknown_alias()),
            ("a: [&]", "`&` begins the name of an anchor: put the value in quotes, as \"&…\"".to_owned()),
            ("a: &x [*x]", "an alias (`*name`) is within what it stands for".to_owned()),
            ("a: 1\n---\nb: 1", "another document begins here, after `---`: there must be one".to_owned()),
            ("~: 1", "a key must be text, but is nothing: put it in quotes".to_owned()),
            ("? [a]\n: 1", "a key must be text".to_owned()),
            ("? {a: b}\n: 1", "a key must be text".to_owned()),
            ("a: .nan", "`.nan` is no number that JSON knows".to_owned()),
            ("a: [-.inf]", "`-.inf` is no number that JSON knows".to_owned()),
            ("a: 1\na: 2", "the key `a` comes twice".to_owned()),
        ] {
            assert_eq!(parse(text).map(drop).map_err(|(_, wrong)| wrong), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_number_stays_the_number_that_was_written() {
        let documents = |text: &str| {
            [text.to_owned(), format!("a: é\nb: [x, {text}] # y"), format!("a: &n {text}\nb: *n")]
        };
        for text in [
            "1",
            "-1",
            "0x10",
            "1_000",
            "1.50",
            "+1.5",
            ".5",
            "5.",
            "1e2",
            "007",
            "0.1",
            "9007199254740991",
            "!!float 1",
            "!!int 7",
        ] {
            for document in documents(text) {
                assert!(parse(&document).is_ok(), "{document}: {:?}", parse(&document));
            }
        }
        for text in [
            "9007199254740992",
            "-9007199254740992",
            "0x20000000000000",
            "123456789012345678901234567890",
            "1e300",
            "9007199254740991.4",
            "1.00000000000000000001",
            "+.10000000000000000555",
            "1e-400",
            "0.1000000000000000055511151231257827",
            "!!float 1.00000000000000000001",
        ] {
            for document in documents(text) {
                let read = parse(&document);
                assert!(
                    read.as_ref().is_err_and(|(_, wrong)| wrong.contains("number")),
                    "{document}: {read:?}"
                );
            }
        }
        let (at, wrong) = parse("a:\n  b: 9007199254740993").unwrap_err();
        assert_eq!((at.line, at.column), (2, 6), "{wrong}");
        assert!(wrong.ends_with("write a string"), "{wrong}");
    }
}
