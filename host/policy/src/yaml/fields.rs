//! Typed access to the document: each helper takes what it wants or reports what it found instead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use countersign_core::duration;

use super::document::{Key, Kind, Node, Place};
use super::error::{Errors, did_you_mean};

/// A map's members.
pub struct Fields<'a>(&'a [(Key, Node)]);

impl<'a> Fields<'a> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Node> {
        self.0.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// The keys that are not among `known`.
    pub fn unknown(&self, known: &[&str]) -> impl Iterator<Item = &'a Key> {
        self.0.iter().map(|(key, _)| key).filter(|key| !known.contains(&key.text.as_str()))
    }
}

/// The members of each group that a file has.
pub type Groups = BTreeMap<String, BTreeSet<String>>;

/// Reads values, and reports those that are not what they should be.
pub struct Reader<'e> {
    errors: &'e mut Errors,
}

/// What a name is, for whoever has written another one.
pub const NAME_RULE: &str =
    "a name is 1 to 64 letters, digits, `-`, `_`, `.` or `:`, and begins with a letter or digit";

/// 1 to 64 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or digit: what an action, a
/// module and a group may be called. Upper and lower case differ.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_.:".contains(&letter))
}

impl<'e> Reader<'e> {
    /// A reader that adds to `errors`.
    pub fn new(errors: &'e mut Errors) -> Reader<'e> {
        Reader { errors }
    }

    /// Reports an error.
    pub fn error(&mut self, at: Place, message: impl Into<String>) {
        self.errors.add(at, message);
    }

    /// Something is wrong with a policy's configuration, at this JSON Pointer into it.
    pub fn error_at(&mut self, at: Place, pointer: &str, message: impl Into<String>) {
        self.errors.add_at(at, pointer, message);
    }

    /// How many have been reported.
    pub fn errors(&self) -> usize {
        self.errors.count()
    }

    /// Reports that something cannot have this name.
    pub fn name_error(&mut self, at: Place, what: &str, name: &str) {
        self.error(at, format!("`{name}` cannot name {what}: {NAME_RULE}"));
    }

    /// The members of a map that may have only `known` ones.
    pub fn fields<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Option<Fields<'a>> {
        let fields = self.any_fields(node, what)?;
        for key in fields.unknown(known) {
            let hint = did_you_mean(&key.text, known.iter().copied());
            self.error(key.at, format!("{what} has no field `{}`{hint}", key.text));
        }
        Some(fields)
    }

    /// The members of a map that may have others than are asked for.
    pub fn any_fields<'a>(&mut self, node: &'a Node, what: &str) -> Option<Fields<'a>> {
        let Kind::Map(members) = &node.kind else {
            self.wrong(node, what, "a map");
            return None;
        };
        Some(Fields(members))
    }

    /// The members of a map with keys of the user's choice; none if it is absent.
    pub fn members<'a>(&mut self, node: Option<&'a Node>, what: &str) -> &'a [(Key, Node)] {
        match node {
            None => &[],
            Some(Node { kind: Kind::Map(members), .. }) => members,
            Some(node) => {
                self.wrong(node, what, "a map");
                &[]
            }
        }
    }

    /// The items of a list.
    pub fn items<'a>(&mut self, node: &'a Node, what: &str) -> Vec<&'a Node> {
        match &node.kind {
            Kind::List(items) => items.iter().collect(),
            _ => {
                self.wrong(node, what, "a list");
                Vec::new()
            }
        }
    }

    /// A string.
    pub fn text<'a>(&mut self, node: &'a Node, what: &str) -> Option<&'a str> {
        match &node.kind {
            Kind::Text(text) => Some(text),
            Kind::Bool(_) | Kind::Number(_) => {
                self.error(node.at, format!("{what} must be text: put it in quotes"));
                None
            }
            Kind::Null => {
                let message =
                    format!("{what} must be text, but is nothing; what begins with `#` must be in quotes");
                self.error(node.at, message);
                None
            }
            Kind::List(_) | Kind::Map(_) => {
                self.wrong(node, what, "text");
                None
            }
        }
    }

    /// A string, if there is one.
    pub fn optional_text(&mut self, node: Option<&Node>, what: &str) -> Option<String> {
        self.text(node?, what).map(str::to_owned)
    }

    /// One of a few words.
    pub fn one_of(&mut self, node: &Node, what: &str, words: &[&'static str]) -> Option<&'static str> {
        let quoted =
            |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let allowed = match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or `{last}`", quoted(rest)),
            _ => quoted(words),
        };
        let Kind::Text(text) = &node.kind else {
            self.wrong(node, what, &allowed);
            return None;
        };
        let found = words.iter().find(|word| *word == text);
        if found.is_none() {
            self.error(node.at, format!("{what} must be {allowed}, not `{text}`"));
        }
        found.copied()
    }

    /// `true` or `false`.
    pub fn truth(&mut self, node: &Node, what: &str) -> bool {
        if let Kind::Bool(value) = node.kind {
            return value;
        }
        self.wrong(node, what, "`true` or `false`");
        false
    }

    /// A whole number in `range`.
    pub fn count(&mut self, node: &Node, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = match &node.kind {
            Kind::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.wrong(node, what, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A duration in milliseconds.
    pub fn duration(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let Kind::Text(text) = &node.kind else {
            self.wrong(node, what, "a duration with its unit, such as `10m`");
            return None;
        };
        let millis = match duration::parse(text) {
            Ok(duration) => u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            Err(error) => {
                self.error(node.at, format!("`{text}` is no duration such as `10m`: {error}"));
                return None;
            }
        };
        if range.contains(&millis) {
            return Some(millis);
        }
        let show = |millis: &u64| duration::show(Duration::from_millis(*millis));
        let (least, most) = (show(range.start()), show(range.end()));
        self.error(node.at, format!("{what} must be from {least} to {most}, but is `{text}`"));
        None
    }

    /// The members of a group.
    pub fn group(&mut self, key: &Key, items: &[&Node]) -> BTreeSet<String> {
        let group = &key.text;
        if !is_name(group) {
            self.name_error(key.at, "a group", group);
        }
        let mut members = BTreeSet::new();
        for item in items {
            let Some(id) = self.text(item, "a member's id") else { continue };
            if id.trim().is_empty() || id.starts_with('@') || id.contains(char::is_control) {
                self.error(item.at, format!("a group holds ids, but `{id}` is none"));
            } else if !members.insert(id.to_owned()) {
                self.error(item.at, format!("`{id}` is in the group `{group}` twice"));
            }
        }
        members
    }

    /// Reports `text` if it names a group that is not there.
    pub fn group_exists(&mut self, text: &str, at: Place, groups: &Groups) {
        if let Some(message) = unknown_group(text, groups) {
            self.error(at, message);
        }
    }

    /// Reports the groups that a policy's configuration names and that are not there.
    pub fn groups_exist(&mut self, config: &Node, groups: &Groups) {
        config.texts("", &mut |text, pointer, place| {
            if let Some(message) = unknown_group(text, groups) {
                self.error_at(place, pointer, format!("at `{pointer}`: {message}"));
            }
        });
    }

    /// A list of parameter keys.
    pub fn keys(&mut self, node: &Node) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for item in self.items(node, "a list of parameters") {
            let Some(key) = self.text(item, "a parameter's key") else { continue };
            if !keys.insert(key.to_owned()) {
                self.error(item.at, format!("`{key}` is listed twice"));
            }
        }
        keys
    }

    fn wrong(&mut self, node: &Node, what: &str, wanted: &str) {
        let found = match &node.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(_) => "a truth value".to_owned(),
            Kind::Number(number) => format!("`{number}`"),
            Kind::Text(_) => "text".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        };
        self.error(node.at, format!("{what} must be {wanted}, but is {found}"));
    }
}

/// What is wrong with a text that names a group which is not there.
fn unknown_group(text: &str, groups: &Groups) -> Option<String> {
    let group = text.strip_prefix('@').filter(|group| !groups.contains_key(*group))?;
    let hint = did_you_mean(group, groups.keys().map(String::as_str));
    Some(format!("`{text}` names no group of `groups`{hint}"))
}
