//! One action's rules, as a value: what a request is pinned to, by its hash.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::directory::{Directory, STALE_AFTER_MS, is_usergroup};
use crate::lifecycle::{Actor, Consent, Digest, Known, REDACTED, Request, Timestamp, UseTerms};
use crate::people::{People, Person, is_slack_id};

/// An action's canonical entry: everything that its requests are judged by, module digests included.
///
/// Its hash is the policy hash. It is kept in the store as long as a request needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyEntry {
    /// The action; `*` for the entry of unknown actions.
    pub action: String,
    /// What it does, for people.
    pub description: String,
    /// How long a request stays open, in milliseconds.
    pub timeout_ms: u64,
    /// Where its messages go.
    pub channel: Option<String>,
    /// Whom to tell when nobody decides.
    pub escalate: Option<Escalate>,
    /// Which parameters are shown.
    pub redact: Redaction,
    /// Whether and how often a request may be made again.
    pub rerequest: Option<Rerequest>,
    /// The policies may approve it with no human act.
    pub unattended: bool,
    /// What people must have read for their approval to count. Part of the hash only if the set says it, so that hashes of
    /// earlier sets stay.
    #[serde(default, skip_serializing_if = "Consent::is_whole")]
    pub consent: Consent,
    /// Whether the first message of a request notifies the people who can act. Part of the hash only if the set says it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// How approvals are meant to be used. Part of the hash only if the set says it.
    #[serde(rename = "use", default, skip_serializing_if = "UseTerms::is_default")]
    pub terms: UseTerms,
    /// The top-level parameters of which requests of one caller have the same values, for the newest open one to supersede
    /// the others; none supersedes another if it is empty. Part of the hash only if the set says it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub supersede: BTreeSet<String>,
    /// What becomes of a request that needs more people than there are. Part of the hash only if the set says it.
    #[serde(default, skip_serializing_if = "Unsatisfiable::is_refused")]
    pub unsatisfiable: Unsatisfiable,
    /// JSON Schema (2020-12) of the parameters.
    pub schema: Option<Value>,
    /// Members by group: people, and user groups of Slack.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// The policies that judge it, in order.
    pub policies: Vec<PolicyUse>,
}

/// What becomes of a request that needs more people than there are, as it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsatisfiable {
    /// It is not made.
    #[default]
    Refuse,
    /// It is made, and waits: there may be more people before it expires.
    Allow,
}

impl Unsatisfiable {
    /// Whether such a request is not made.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        *self == Unsatisfiable::Refuse
    }
}

/// One module, and how it is configured for an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyUse {
    /// The name that the policy set gives the module.
    pub name: String,
    /// SHA-256 of the module's bytes.
    pub digest: Digest,
    /// Its configuration.
    pub config: Value,
}

/// When to escalate, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalate {
    /// How long before the expiry, in milliseconds.
    pub before_ms: u64,
    /// A channel to tell too.
    pub channel: Option<String>,
    /// A person, or an `@group` of the policy set, to mention.
    pub mention: Option<String>,
}

/// Which top-level parameters are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redaction {
    /// Only these. An action that says nothing shows nothing.
    Show(BTreeSet<String>),
    /// All but these.
    Hide(BTreeSet<String>),
}

/// How often a request may be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerequest {
    /// How long to wait after the last one of the lineage ended, in milliseconds.
    pub cooldown_ms: u64,
    /// How many requests a lineage may have within the window, the first one included.
    pub limit: u32,
    /// How far back to count, in milliseconds.
    pub window_ms: u64,
    /// Who in Slack may ask for it again: `requester`, `approvers`, `@group` names and ids. Empty for the first two.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub by: BTreeSet<String>,
}

impl PolicyEntry {
    /// SHA-256 of the canonical JSON (RFC 8785) of the entry.
    #[must_use]
    pub fn hash(&self) -> Digest {
        // An entry is made of strings, numbers and maps with string keys: it always serialises.
        Digest::of_json(&serde_json::to_value(self).unwrap_or_default())
    }

    /// Somebody who acts or asks under `name`: a Slack id, `source:id`, or a person's name. With the one id that they
    /// have under this entry, and with every group that holds any of their names, by itself or in a user group of Slack.
    #[must_use]
    pub fn actor(&self, name: &str, directory: &Directory, now: Timestamp) -> Actor {
        let people = directory.people();
        let person = people.find(name);
        let (id, known) = match person {
            Some(person) => (self.id_of(person), Known::Person),
            None if is_slack_id(name) => (name, Known::Person),
            None => (name, Known::Unknown),
        };
        let names: Vec<&str> = match person {
            Some(person) => person.names().collect(),
            None => vec![name],
        };
        let mut actor = Actor {
            id: id.to_owned(),
            alias: (id != name).then(|| name.to_owned()),
            known,
            groups: BTreeSet::new(),
            groups_as_of: None,
        };
        for (group, members) in &self.groups {
            let found = || {
                let usergroups = members.iter().filter(|member| is_usergroup(member));
                let belongs = |usergroup: &String| {
                    names.iter().filter_map(|name| directory.belongs(usergroup, name, now)).max()
                };
                usergroups.filter_map(belongs).max()
            };
            if names.iter().any(|name| members.contains(*name)) {
                actor.groups.insert(group.clone());
            } else if let Some(as_of) = found() {
                actor.groups.insert(group.clone());
                if now.since(as_of) >= STALE_AFTER_MS {
                    actor.groups_as_of = Some(actor.groups_as_of.map_or(as_of, |earlier| earlier.min(as_of)));
                }
            }
        }
        actor
    }

    /// Somebody who acts on a request. Whoever made it or acted on it before keeps the id that they had then, whatever
    /// `people` says since: else a name that somebody gets would make two people of one, who approves their own request.
    /// An id that gives a right is kept only by the person who still has it.
    #[must_use]
    pub fn actor_on(&self, request: &Request, name: &str, directory: &Directory, now: Timestamp) -> Actor {
        let mut actor = self.actor(name, directory, now);
        let people = directory.people();
        let is_theirs = |other: &str| match people.find(name) {
            Some(person) => person.names().any(|theirs| theirs == other),
            None => name == other,
        };
        let kept = request
            .identities()
            .find(|(id, alias)| is_theirs(id) || (alias.as_deref().is_some_and(is_theirs) && !self.uses(id)));
        if let Some((id, _)) = kept {
            actor.alias = (id != name).then(|| name.to_owned());
            id.clone_into(&mut actor.id);
        }
        actor
    }

    /// The one id of a person under this entry: the first of their names that the entry uses, else their own. So an entry
    /// that lists a Slack id goes on to mean the same person when people get names, and nobody is two people under it.
    pub(crate) fn id_of<'a>(&self, person: &'a Person) -> &'a str {
        person.names().find(|name| self.uses(name)).unwrap_or(&person.name)
    }

    /// Whether a group or a configuration has this name in it.
    fn uses(&self, name: &str) -> bool {
        fn in_value(value: &Value, name: &str) -> bool {
            match value {
                Value::String(text) => text == name,
                Value::Array(items) => items.iter().any(|item| in_value(item, name)),
                Value::Object(members) => members.values().any(|member| in_value(member, name)),
                Value::Null | Value::Bool(_) | Value::Number(_) => false,
            }
        }
        self.policies.iter().any(|used| in_value(&used.config, name))
            || self.groups.values().any(|members| members.contains(name))
    }

    /// The Slack ids of the people whom it names, by themselves or by another name of theirs.
    #[must_use]
    pub fn slack_ids(&self, people: &People) -> BTreeSet<String> {
        fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::String(text) => found.push(text),
                Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
                Value::Object(members) => members.values().for_each(|member| texts(member, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut names: Vec<&str> = self.groups.values().flatten().map(String::as_str).collect();
        self.policies.iter().for_each(|used| texts(&used.config, &mut names));
        let ids = names.into_iter().flat_map(|name| match people.find(name) {
            Some(person) => person.slack_ids().map(str::to_owned).collect(),
            None => Vec::from_iter(is_slack_id(name).then(|| name.to_owned())),
        });
        ids.collect()
    }

    /// The user groups of Slack that its groups name.
    pub fn usergroups(&self) -> impl Iterator<Item = &str> {
        self.groups.values().flatten().map(String::as_str).filter(|member| is_usergroup(member))
    }
}

impl Redaction {
    /// Whether no parameter is shown, whatever its name.
    #[must_use]
    pub fn shows_nothing(&self) -> bool {
        matches!(self, Redaction::Show(keys) if keys.is_empty())
    }

    /// Whether the parameter's value may be stored and shown.
    #[must_use]
    pub fn shows(&self, key: &str) -> bool {
        match self {
            Redaction::Show(keys) => keys.contains(key),
            Redaction::Hide(keys) => !keys.contains(key),
        }
    }

    /// The parameters with hidden values replaced, and the keys whose values were.
    #[must_use]
    pub fn apply(&self, mut params: Map<String, Value>) -> (Map<String, Value>, BTreeSet<String>) {
        let mut redacted = BTreeSet::new();
        for (key, value) in &mut params {
            if !self.shows(key) {
                *value = REDACTED.into();
                redacted.insert(key.clone());
            }
        }
        (params, redacted)
    }
}
