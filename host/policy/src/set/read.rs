//! From the document to what it says, with every error that the document alone shows.

use std::collections::{BTreeMap, BTreeSet};

use super::{ANY_ACTION, SUPER_APPROVERS, keys};
use crate::yaml::document::{Kind, Node, Place};
use crate::yaml::error::{Errors, did_you_mean};
use crate::yaml::fields::{Fields, Groups, Reader, is_name};
use countersign_core::lifecycle::{Consent, Digest, UseTerms};
use countersign_core::record::{Escalate, PolicyEntry, PolicyUse, Redaction, Rerequest, Unsatisfiable};
use countersign_registry::{Pinned, Repository};

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
const DEFAULT_TIMEOUT: u64 = 600 * SECOND;
const DEFAULT_RECOOLDOWN: u64 = 300 * SECOND;

/// The most modules that a set may pin: each is looked for, fetched and compiled before anything else is known.
const MOST_MODULES: usize = 64;

/// The most members that all groups may have, times the actions: each action's entry has a copy of the groups.
const MOST_COPIES: usize = 500_000;

/// What the document says.
pub(super) struct Draft {
    pub(super) modules: BTreeMap<String, Pin>,
    pub(super) actions: Vec<DraftAction>,
    pub(super) fallback: Option<DraftAction>,
}

/// A module's digest, and where the document says it.
#[derive(Clone)]
pub(super) struct Pin {
    pub(super) digest: Digest,
    /// Where its bytes can be fetched, if they are not at hand.
    pub(super) repository: Option<Repository>,
    pub(super) at: Place,
}

/// An entry that lacks its schema, and the places of what can still be wrong with it.
pub(super) struct DraftAction {
    pub(super) at: Place,
    pub(super) entry: PolicyEntry,
    /// The configuration of each policy.
    pub(super) configs: Vec<Node>,
    /// Every policy that the document lists is in the entry: what lacks one would judge otherwise than meant.
    pub(super) complete: bool,
    /// The document says nothing wrong of it, so that trying it tells something new.
    pub(super) sound: bool,
}

struct Defaults {
    timeout_ms: u64,
    channel: Option<String>,
    unsatisfiable: Unsatisfiable,
    manual: Option<Place>,
}

/// Reads the document as far as it can be; what is wrong goes to `errors`.
pub(super) fn read(document: &Node, errors: &mut Errors) -> Draft {
    let mut reader = Reader::new(errors);
    let Some(fields) = reader.fields(document, "a policy set", &keys::SET) else {
        return Draft { modules: BTreeMap::new(), actions: Vec::new(), fallback: None };
    };
    match fields.get("version") {
        Some(Node { kind: Kind::Number(number), .. }) if number.as_u64() == Some(1) => {}
        Some(node) => reader.error(node.at, "the version must be 1"),
        None => reader.error(document.at, "`version: 1` is missing"),
    }
    let (modules, unpinned) = modules(&mut reader, &fields);
    let groups = groups(&mut reader, &fields);
    let members: usize = groups.values().map(|members| members.len() + 1).sum();
    let actions = match fields.get("actions") {
        Some(Node { kind: Kind::Map(actions), .. }) => actions.len(),
        _ => 0,
    };
    if members.saturating_mul(actions) > MOST_COPIES {
        reader.error(
            document.at,
            format!("it has {members} groups and members, and {actions} actions: multiplied, {MOST_COPIES} at the most"),
        );
        return Draft { modules, actions: Vec::new(), fallback: None };
    }
    let defaults = defaults(&mut reader, &fields, &groups);
    let mut set =
        SetReader { reader, modules: &modules, unpinned: &unpinned, groups: &groups, defaults: &defaults };
    let actions = set.actions(&fields, document.at);
    let fallback = set.fallback();
    Draft { modules, actions, fallback }
}

/// The modules, and the names of those whose digest is wrong, which is said of them once.
fn modules(reader: &mut Reader<'_>, fields: &Fields<'_>) -> (BTreeMap<String, Pin>, BTreeSet<String>) {
    let (mut modules, mut unpinned) = (BTreeMap::new(), BTreeSet::new());
    let members = reader.members(fields.get("modules"), "`modules`");
    if let Some((key, _)) = members.get(MOST_MODULES) {
        reader.error(key.at, format!("a policy set may pin {MOST_MODULES} modules at the most"));
        unpinned.extend(members.iter().map(|(key, _)| key.text.clone()));
        return (modules, unpinned);
    }
    for (key, node) in members {
        if !is_name(&key.text) {
            reader.name_error(key.at, "a module", &key.text);
        }
        let pinned = reader.text(node, "a module's digest").map(|text| pin(text, node.at));
        match pinned {
            Some(Ok(pin)) => drop(modules.insert(key.text.clone(), pin)),
            Some(Err(wrong)) => {
                reader.error(node.at, format!("the digest of `{}`{wrong}", key.text));
                unpinned.insert(key.text.clone());
            }
            None => drop(unpinned.insert(key.text.clone())),
        }
    }
    (modules, unpinned)
}

fn pin(text: &str, at: Place) -> Result<Pin, String> {
    if text.starts_with("oci:") {
        let Pinned { repository, digest } = text.parse().map_err(|error| format!(": {error}"))?;
        return Ok(Pin { digest, repository: Some(repository), at });
    }
    match text.strip_prefix("sha256:").map(str::parse) {
        Some(Ok(digest)) => Ok(Pin { digest, repository: None, at }),
        _ => {
            let digits = text.strip_prefix("sha256:").map_or(0, |digits| digits.chars().count());
            let length = if digits == 0 || digits == 64 { String::new() } else { format!(", not {digits}") };
            Err(format!(" should be `sha256:` and 64 hexadecimal digits in lower case{length}"))
        }
    }
}

fn groups(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Groups {
    let mut groups = Groups::new();
    for (key, node) in reader.members(fields.get("groups"), "`groups`") {
        let items = reader.items(node, "a group");
        groups.insert(key.text.clone(), reader.group(key, &items));
    }
    groups
}

fn defaults(reader: &mut Reader<'_>, fields: &Fields<'_>, groups: &Groups) -> Defaults {
    let mut defaults = Defaults {
        timeout_ms: DEFAULT_TIMEOUT,
        channel: None,
        unsatisfiable: Unsatisfiable::default(),
        manual: None,
    };
    let Some(node) = fields.get("defaults") else { return defaults };
    let Some(fields) = reader.fields(node, "`defaults`", &keys::DEFAULTS) else { return defaults };
    if let Some(timeout) = timeout(reader, &fields) {
        defaults.timeout_ms = timeout;
    }
    defaults.channel = not_blank(reader, fields.get("channel"), "a channel");
    if let Some(node) = fields.get("unsatisfiable") {
        defaults.unsatisfiable = unsatisfiable(reader, node);
    }
    if let Some(node) = fields.get("unknown_action")
        && reader.one_of(node, "`unknown_action`", &["deny", "manual"]) == Some("manual")
    {
        defaults.manual = Some(node.at);
        if !groups.contains_key(SUPER_APPROVERS) {
            reader.error(node.at, format!("`manual` needs the group `{SUPER_APPROVERS}`, who then decide"));
        }
    }
    defaults
}

/// A channel, or somebody, if there is one.
fn not_blank(reader: &mut Reader<'_>, node: Option<&Node>, what: &str) -> Option<String> {
    let node = node?;
    let text = reader.text(node, what)?;
    if text.trim().is_empty() {
        reader.error(node.at, format!("{what} is empty: leave it out if there is none"));
    } else if text.contains(char::is_control) {
        reader.error(node.at, format!("{what} cannot have control characters"));
    }
    Some(text.to_owned())
}

fn unsatisfiable(reader: &mut Reader<'_>, node: &Node) -> Unsatisfiable {
    match reader.one_of(node, "`unsatisfiable`", &["refuse", "allow"]) {
        Some("allow") => Unsatisfiable::Allow,
        _ => Unsatisfiable::Refuse,
    }
}

fn timeout(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<u64> {
    reader.duration(fields.get("timeout")?, "a timeout", SECOND..=30 * DAY)
}

struct SetReader<'a, 'e> {
    reader: Reader<'e>,
    modules: &'a BTreeMap<String, Pin>,
    /// The names of modules whose digest is wrong.
    unpinned: &'a BTreeSet<String>,
    groups: &'a Groups,
    defaults: &'a Defaults,
}

impl SetReader<'_, '_> {
    fn actions(&mut self, fields: &Fields<'_>, document: Place) -> Vec<DraftAction> {
        let mut actions = Vec::new();
        if fields.get("actions").is_none() {
            self.reader.error(document, "`actions` is missing");
        }
        for (key, node) in self.reader.members(fields.get("actions"), "`actions`") {
            if key.text == ANY_ACTION {
                self.reader.error(
                    key.at,
                    "`*` stands for unknown actions and cannot be listed; say `unknown_action` under `defaults`",
                );
                continue;
            }
            if !is_name(&key.text) {
                self.reader.name_error(key.at, "an action", &key.text);
            }
            actions.extend(self.action(&key.text, key.at, node));
        }
        actions
    }

    fn action(&mut self, name: &str, at: Place, node: &Node) -> Option<DraftAction> {
        let errors = self.reader.errors();
        let fields = self.reader.fields(node, &format!("the action `{name}`"), &keys::ACTION)?;
        let timeout_ms = timeout(&mut self.reader, &fields).unwrap_or(self.defaults.timeout_ms);
        let channel = not_blank(&mut self.reader, fields.get("channel"), "a channel");
        let (policies, configs, complete) = self.policies(name, at, fields.get("policies"));
        let entry = PolicyEntry {
            action: name.to_owned(),
            description: self.description(fields.get("description")),
            timeout_ms,
            channel: channel.or_else(|| self.defaults.channel.clone()),
            escalate: fields.get("escalate").and_then(|node| self.escalate(node, timeout_ms)),
            redact: fields.get("redact").map_or_else(nothing_shown, |node| self.redact(node)),
            rerequest: fields.get("rerequest").and_then(|node| self.rerequest(node)),
            unattended: fields.get("unattended").is_some_and(|node| self.reader.truth(node, "`unattended`")),
            consent: fields.get("consent").map_or(Consent::Whole, |node| self.consent(node)),
            notify: fields.get("notify").is_some_and(|node| self.reader.truth(node, "`notify`")),
            terms: self.terms(&fields),
            supersede: fields.get("supersede").map_or_else(BTreeSet::new, |node| self.supersede(node)),
            unsatisfiable: match fields.get("unsatisfiable") {
                Some(node) => unsatisfiable(&mut self.reader, node),
                None => self.defaults.unsatisfiable,
            },
            schema: None,
            groups: self.groups.clone(),
            policies,
        };
        let sound = errors == self.reader.errors();
        Some(DraftAction { at, entry, configs, complete, sound })
    }

    /// It may have several lines.
    fn description(&mut self, node: Option<&Node>) -> String {
        let description = self.reader.optional_text(node, "a description").unwrap_or_default();
        let control = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
        if let Some(node) = node.filter(|_| description.contains(control)) {
            self.reader.error(
                node.at,
                "a description cannot have control characters other than line feeds and tabs",
            );
        }
        description
    }

    fn escalate(&mut self, node: &Node, timeout_ms: u64) -> Option<Escalate> {
        let fields = self.reader.fields(node, "`escalate`", &keys::ESCALATE)?;
        let channel = not_blank(&mut self.reader, fields.get("channel"), "a channel");
        let mention = not_blank(&mut self.reader, fields.get("mention"), "a mention");
        if let (Some(mention), Some(node)) = (&mention, fields.get("mention")) {
            self.reader.group_exists(mention, node.at, self.groups);
        }
        let Some(before) = fields.get("before") else {
            self.reader.error(node.at, "`before` is missing: how long before the expiry to escalate");
            return None;
        };
        let before_ms = self.reader.duration(before, "`before`", SECOND..=30 * DAY)?;
        if before_ms >= timeout_ms {
            self.reader.error(before.at, "`before` must be shorter than the action's timeout");
        }
        Some(Escalate { before_ms, channel, mention })
    }

    fn consent(&mut self, node: &Node) -> Consent {
        match self.reader.one_of(node, "`consent`", &["whole", "summary"]) {
            Some("summary") => Consent::Summary,
            _ => Consent::Whole,
        }
    }

    /// How approvals are meant to be used.
    fn terms(&mut self, fields: &Fields<'_>) -> UseTerms {
        let valid_for = fields
            .get("valid_for")
            .and_then(|node| self.reader.duration(node, "`valid_for`", SECOND..=30 * DAY));
        let words = ["required", "optional"];
        let consume = fields.get("consume").and_then(|node| self.reader.one_of(node, "`consume`", &words));
        let required = consume == Some("required");
        UseTerms { valid_for_ms: valid_for, required }
    }

    /// The parameters that requests have in common of which only the newest stands. Whether the schema knows them is
    /// looked at once it is read.
    fn supersede(&mut self, node: &Node) -> BTreeSet<String> {
        let items = self.reader.items(node, "`supersede`");
        if items.is_empty() && matches!(&node.kind, Kind::List(_)) {
            let message = "`supersede` is empty: name the parameters that requests have in common of which only the \
                           newest open one stands, or leave it out";
            self.reader.error(node.at, message);
        }
        self.reader.keys(node)
    }

    fn redact(&mut self, node: &Node) -> Redaction {
        let Some(fields) = self.reader.fields(node, "`redact`", &keys::REDACT) else {
            return nothing_shown();
        };
        match (fields.get("show"), fields.get("hide")) {
            (Some(keys), None) => Redaction::Show(self.reader.keys(keys)),
            (None, Some(keys)) => Redaction::Hide(self.reader.keys(keys)),
            _ => {
                self.reader.error(node.at, "`redact` must have either `show` or `hide`");
                nothing_shown()
            }
        }
    }

    fn rerequest(&mut self, node: &Node) -> Option<Rerequest> {
        let fields = self.reader.fields(node, "`rerequest`", &keys::REREQUEST)?;
        let mut duration = |name: &str, range, default| match fields.get(name) {
            Some(node) => self.reader.duration(node, &format!("`{name}`"), range),
            None => Some(default),
        };
        let cooldown_ms = duration("cooldown", 0..=30 * DAY, DEFAULT_RECOOLDOWN)?;
        let window_ms = duration("window", SECOND..=365 * DAY, DAY)?;
        let limit = match fields.get("limit") {
            Some(node) => self.reader.count(node, "`limit`", 1..=1000)?,
            None => 5,
        };
        if cooldown_ms >= window_ms {
            self.reader.error(node.at, "`cooldown` must be shorter than `window`");
        }
        let mut by = BTreeSet::new();
        if let Some(node) = fields.get("by") {
            let items = self.reader.items(node, "`by`");
            if items.is_empty() {
                self.reader.error(node.at, "`by` is empty: leave it out for the requester and the approvers");
            }
            for item in items {
                let Some(who) = not_blank(&mut self.reader, Some(item), "`by`") else { continue };
                self.reader.group_exists(&who, item.at, self.groups);
                by.insert(who);
            }
        }
        Some(Rerequest { cooldown_ms, limit, window_ms, by })
    }

    fn policies(
        &mut self,
        action: &str,
        at: Place,
        node: Option<&Node>,
    ) -> (Vec<PolicyUse>, Vec<Node>, bool) {
        let (mut uses, mut configs) = (Vec::new(), Vec::new());
        let items = node.map_or_else(Vec::new, |node| self.reader.items(node, "`policies`"));
        if items.is_empty() {
            let place = node.map_or(at, |node| node.at);
            self.reader.error(place, format!("the action `{action}` needs at least one policy"));
        }
        let listed = items.len();
        for item in items {
            let Some(fields) = self.reader.fields(item, "a policy", &keys::POLICY) else { continue };
            let config = fields.get("with").cloned();
            let config = config.unwrap_or(Node::implied(item.at, Kind::Map(Vec::new())));
            self.reader.groups_exist(&config, self.groups);
            let Some(name) = fields.get("use") else {
                self.reader.error(item.at, "`use` is missing: the name of a module");
                continue;
            };
            let Some(text) = self.reader.text(name, "`use`") else { continue };
            let Some(pin) = self.modules.get(text) else {
                if self.unpinned.contains(text) {
                    continue;
                }
                let hint = did_you_mean(text, self.modules.keys().map(String::as_str));
                self.reader.error(name.at, format!("`{text}` names no module of `modules`{hint}"));
                continue;
            };
            uses.push(PolicyUse { name: text.to_owned(), digest: pin.digest, config: config.to_json() });
            configs.push(config);
        }
        let complete = uses.len() == listed && listed > 0;
        (uses, configs, complete)
    }

    /// What judges unknown actions if they are to be decided by hand.
    fn fallback(&mut self) -> Option<DraftAction> {
        let at = self.defaults.manual?;
        let Some(pin) = self.modules.get("quorum") else {
            if self.unpinned.contains("quorum") {
                return None;
            }
            self.reader.error(at, "`manual` needs the module `quorum`, which is not among `modules`");
            return None;
        };
        let config = serde_json::json!({ "approvers": [format!("@{SUPER_APPROVERS}")], "approvals": 1 });
        let entry = PolicyEntry {
            action: ANY_ACTION.to_owned(),
            description: String::new(),
            timeout_ms: self.defaults.timeout_ms,
            channel: self.defaults.channel.clone(),
            escalate: None,
            redact: nothing_shown(),
            rerequest: None,
            unattended: false,
            consent: Consent::Whole,
            notify: false,
            terms: Default::default(),
            supersede: Default::default(),
            unsatisfiable: self.defaults.unsatisfiable,
            schema: None,
            groups: self.groups.clone(),
            policies: vec![PolicyUse { name: "quorum".to_owned(), digest: pin.digest, config }],
        };
        Some(DraftAction {
            at,
            entry,
            configs: vec![Node::implied(at, Kind::Null)],
            complete: true,
            sound: true,
        })
    }
}

fn nothing_shown() -> Redaction {
    Redaction::Show(BTreeSet::new())
}
