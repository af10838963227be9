//! Walks JSON, and collects its faults in Slack's words.

use serde_json::Value;

/// Faults, in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, at: &Node<'_>, message: &str) {
        self.0.push(format!("{message} [json-pointer:{}]", at.pointer));
    }

    pub(super) fn into_messages(self) -> Vec<String> {
        self.0
    }
}

/// A text object: which kinds it may be of, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts {
    plain_only: bool,
    most: usize,
    required: bool,
}

impl Texts {
    pub(super) const fn plain(most: usize) -> Texts {
        Texts { plain_only: true, most, required: false }
    }

    pub(super) const fn any(most: usize) -> Texts {
        Texts { plain_only: false, most, required: false }
    }

    pub(super) const fn required(self) -> Texts {
        Texts { required: true, ..self }
    }
}

/// A place in the JSON.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    pointer: String,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, pointer: &str) -> Node<'a> {
        Node { value, pointer: pointer.to_owned() }
    }

    /// A member, unless it is missing or null.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Node { value, pointer: format!("{}/{key}", self.pointer) })
    }

    /// A member that must be there.
    pub(super) fn need(&self, key: &str, problems: &mut Problems) -> Option<Node<'a>> {
        let found = self.get(key);
        if found.is_none() {
            problems.add(self, &format!("missing required field: {key}"));
        }
        found
    }

    fn find(&self, key: &str, required: bool, problems: &mut Problems) -> Option<Node<'a>> {
        if required { self.need(key, problems) } else { self.get(key) }
    }

    /// The items of this array, if it is one and has an allowed number of them.
    pub(super) fn elements(
        &self,
        least: usize,
        most: usize,
        problems: &mut Problems,
    ) -> Option<Vec<Node<'a>>> {
        let Some(items) = self.value.as_array() else {
            problems.add(self, "must be an array");
            return None;
        };
        if items.len() < least {
            problems.add(self, &format!("no fewer than {least} items allowed"));
        }
        if items.len() > most {
            problems.add(self, &format!("no more than {most} items allowed"));
        }
        let node = |(index, value)| Node { value, pointer: format!("{}/{index}", self.pointer) };
        Some(items.iter().enumerate().map(node).collect())
    }

    /// A member that is a string of so many characters, as Slack counts them.
    pub(super) fn string(
        &self,
        key: &str,
        least: usize,
        most: usize,
        required: bool,
        problems: &mut Problems,
    ) {
        if let Some(node) = self.find(key, required, problems) {
            node.is_string(least, most, problems);
        }
    }

    fn is_string(&self, least: usize, most: usize, problems: &mut Problems) {
        let Some(text) = self.value.as_str() else {
            return problems.add(self, "must be a string");
        };
        let length = super::width(text);
        if length < least {
            problems.add(self, &format!("must be more than {} characters", least - 1));
        }
        if length > most {
            problems.add(self, &format!("must be less than {} characters", most + 1));
        }
    }

    pub(super) fn boolean(&self, key: &str, required: bool, problems: &mut Problems) {
        if let Some(node) = self.find(key, required, problems)
            && !node.value.is_boolean()
        {
            problems.add(&node, "must be a boolean");
        }
    }

    pub(super) fn integer(&self, key: &str, least: u64, most: u64, problems: &mut Problems) {
        if let Some(node) = self.get(key)
            && !node.value.as_u64().is_some_and(|number| (least..=most).contains(&number))
        {
            problems.add(&node, &format!("must be a whole number from {least} to {most}"));
        }
    }

    pub(super) fn one_of(&self, key: &str, allowed: &[&str], required: bool, problems: &mut Problems) {
        if let Some(node) = self.find(key, required, problems)
            && !node.value.as_str().is_some_and(|value| allowed.contains(&value))
        {
            problems.add(&node, &format!("must be one of: {}", allowed.join(", ")));
        }
    }

    /// A member that is a text object.
    pub(super) fn text(&self, key: &str, texts: Texts, problems: &mut Problems) {
        if let Some(node) = self.find(key, texts.required, problems) {
            node.is_text(texts, problems);
        }
    }

    /// Checks that this is a text object.
    pub(super) fn is_text(&self, texts: Texts, problems: &mut Problems) {
        if !self.value.is_object() {
            return problems.add(self, "must be a text object");
        }
        let kinds: &[&str] = if texts.plain_only { &["plain_text"] } else { &["plain_text", "mrkdwn"] };
        self.one_of("type", kinds, true, problems);
        self.string("text", 1, texts.most, true, problems);
        let (own, other) = match self.value["type"].as_str() {
            Some("mrkdwn") => ("verbatim", "emoji"),
            _ => ("emoji", "verbatim"),
        };
        self.boolean(own, false, problems);
        if self.get(other).is_some() {
            problems.add(self, &format!("invalid additional property: {other}"));
        }
    }
}
