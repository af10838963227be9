//! Reads `guards.yml`; every error has its place.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use countersign_policy::yaml::document::{Node, Place};
use countersign_policy::yaml::error::{Errors, did_you_mean};
use countersign_policy::yaml::fields::{Fields, Reader, is_name};

use super::{Action, Escalation, Guards, Located, Redact};

/// The maximum of every duration, in seconds: requests are open no longer than this.
const MAX_SECONDS: u32 = 30 * 86_400;
/// The legacy service's default, in seconds.
const DEFAULT_TIMEOUT: u32 = 600;

/// Reads the document; returns `None` after adding at least one error to `errors`.
pub(in super::super) fn read(document: &Node, errors: &mut Errors) -> Option<Guards> {
    let mut reader = GuardsReader { reader: Reader::new(errors), ignored: Vec::new() };
    let guards = reader.guards(document);
    let GuardsReader { mut reader, ignored } = reader;
    if reader.errors() == 0 {
        return Some(Guards { ignored, ..guards? });
    }
    // An unknown field may be a misspelt one that is reported as missing.
    for Located { at, value } in ignored {
        reader.error(at, value);
    }
    None
}

struct GuardsReader<'e> {
    reader: Reader<'e>,
    ignored: Vec<Located<String>>,
}

impl GuardsReader<'_> {
    fn guards(&mut self, document: &Node) -> Option<Guards> {
        let known = ["actions", "routing", "defaults", "personas"];
        let fields = self.fields(document, "a guards file", &known)?;
        let routing = fields.get("routing").and_then(|node| {
            self.fields(node, "`routing`", &["defaultChannel", "dmFallbackUser", "defaultTimeoutSec"])
        });
        let get = |name: &str| routing.as_ref().and_then(|fields| fields.get(name));
        let default_channel = self.text(get("defaultChannel"), "`defaultChannel`");
        let dm_fallback = get("dmFallbackUser")
            .and_then(|node| Some(Located { at: node.at, value: self.person(node, "`dmFallbackUser`")? }));
        let default_timeout = get("defaultTimeoutSec")
            .and_then(|node| self.seconds(node, "`defaultTimeoutSec`", 1..=MAX_SECONDS))
            .unwrap_or(DEFAULT_TIMEOUT);

        let defaults = fields
            .get("defaults")
            .and_then(|node| self.fields(node, "`defaults`", &["unknownAction", "superApprovers"]));
        let get = |name: &str| defaults.as_ref().and_then(|fields| fields.get(name));
        let manual = get("unknownAction").filter(|node| {
            self.reader.one_of(node, "`unknownAction`", &["deny", "manual"]) == Some("manual")
        });
        let manual = manual.map(|node| node.at);
        let super_approvers =
            get("superApprovers").map(|node| self.people(node, "`superApprovers`")).unwrap_or_default();

        let mut personas = BTreeMap::new();
        for (key, node) in self.reader.members(fields.get("personas"), "`personas`") {
            self.check_persona(&key.text, key.at);
            let ids = self.people(node, &format!("the persona `{}`", key.text));
            personas.insert(key.text.clone(), Located { at: key.at, value: ids });
        }

        if fields.get("actions").is_none() {
            self.reader.error(document.at, "`actions` is missing");
        }
        let mut actions = Vec::new();
        for (key, node) in self.reader.members(fields.get("actions"), "`actions`") {
            if !is_name(&key.text) {
                self.reader.name_error(key.at, "an action", &key.text);
            }
            let super_count = super_approvers.len();
            actions.extend(self.action(&key.text, key.at, node, super_count, default_timeout));
        }
        Some(Guards {
            actions,
            personas,
            default_channel,
            dm_fallback,
            default_timeout,
            manual,
            super_approvers,
            // `read` decides whether these become notes or errors.
            ignored: Vec::new(),
        })
    }

    /// The fields of a map. Those that are not `known` had no effect, and are noted.
    fn fields<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Option<Fields<'a>> {
        let fields = self.reader.any_fields(node, what)?;
        for key in fields.unknown(known) {
            let hint = did_you_mean(&key.text, known.iter().copied());
            let value = format!("{what} has no field `{}`: it had no effect, and is dropped{hint}", key.text);
            self.ignored.push(Located { at: key.at, value });
        }
        Some(fields)
    }

    fn action(
        &mut self,
        name: &str,
        at: Place,
        node: &Node,
        super_count: usize,
        default_timeout: u32,
    ) -> Option<Action> {
        let known = [
            "description",
            "approvers",
            "personasRequired",
            "timeoutSec",
            "redactParams",
            "channel",
            "escalation",
            "allowReRequest",
            "reRequestCooldownSec",
            "allowParamOverrides",
            "overrideKeys",
        ];
        let fields = self.fields(node, &format!("the action `{name}`"), &known)?;
        let timeout =
            fields.get("timeoutSec").and_then(|node| self.seconds(node, "`timeoutSec`", 1..=MAX_SECONDS));
        let approvers = match fields.get("approvers") {
            Some(node) => self.approvers(node, super_count),
            None => {
                self.reader.error(at, format!("the action `{name}` has no `approvers`"));
                None
            }
        };
        let personas = fields.get("personasRequired").map(|node| {
            let value =
                self.texts(node, "`personasRequired`", |reader, text, at| reader.check_persona(text, at));
            Located { at: node.at, value: value.into_iter().map(|persona| persona.value).collect() }
        });
        let redact =
            fields.get("redactParams").map_or(Some(Redact::Hide(Vec::new())), |node| self.redact(node));
        let min_approvals = approvers.as_ref().map_or(1, |approvers| approvers.needed);
        let escalation = fields.get("escalation").and_then(|node| {
            let timeout = timeout.unwrap_or(default_timeout);
            self.escalation(
                node,
                timeout,
                min_approvals,
                approvers.as_ref().map_or(0, |a| a.ids.len()) + super_count,
            )
        });
        let may_rerequest =
            fields.get("allowReRequest").is_some_and(|node| self.reader.truth(node, "`allowReRequest`"));
        let cooldown = fields.get("reRequestCooldownSec").and_then(|node| {
            Some(Located {
                at: node.at,
                value: self.seconds(node, "`reRequestCooldownSec`", 0..=MAX_SECONDS)?,
            })
        });
        let may_edit = fields
            .get("allowParamOverrides")
            .is_some_and(|node| self.reader.truth(node, "`allowParamOverrides`"));
        let keys = fields
            .get("overrideKeys")
            .map(|node| (node.at, self.texts(node, "`overrideKeys`", |_, _, _| {})));
        let unused_keys = keys.as_ref().filter(|_| !may_edit).map(|(at, _)| *at);
        let unused_cooldown = cooldown.as_ref().filter(|_| !may_rerequest).map(|cooldown| cooldown.at);
        let approvers = approvers?;
        Some(Action {
            name: name.to_owned(),
            description: self.text(fields.get("description"), "`description`"),
            approvers: approvers.ids,
            handles: approvers.handles,
            min_approvals,
            personas,
            timeout,
            redact: redact?,
            channel: self.text(fields.get("channel"), "`channel`"),
            escalation,
            rerequest: may_rerequest.then(|| cooldown.map_or(0, |cooldown| cooldown.value)),
            unused_cooldown,
            editable: keys.filter(|_| may_edit).map(|(_, keys)| keys).unwrap_or_default(),
            unused_keys,
        })
    }

    fn approvers(&mut self, node: &Node, super_count: usize) -> Option<Approvers> {
        let known = ["allowSlackIds", "allowHandles", "minApprovals"];
        let fields = self.fields(node, "`approvers`", &known)?;
        let ids = fields.get("allowSlackIds").map(|node| self.people(node, "`allowSlackIds`"));
        if ids.is_none() && super_count == 0 {
            self.reader
                .error(node.at, "nobody can approve: there is neither `allowSlackIds` nor `superApprovers`");
        }
        let ids = ids.unwrap_or_default();
        let Some(min_node) = fields.get("minApprovals") else {
            self.reader.error(node.at, "`minApprovals` is missing: how many must approve");
            return None;
        };
        let count = self.reader.count(min_node, "`minApprovals`", 1..=1000)?;
        self.enough(min_node, count, ids.len() + super_count);
        Some(Approvers { ids, handles: fields.get("allowHandles").map(|node| node.at), needed: count })
    }

    fn enough(&mut self, node: &Node, needed: u32, people: usize) {
        if usize::try_from(needed).is_ok_and(|needed| needed > people) {
            self.reader.error(node.at, format!("{needed} approvals cannot come from {people} approvers"));
        }
    }

    fn redact(&mut self, node: &Node) -> Option<Redact> {
        let fields = self.fields(node, "`redactParams`", &["mode", "keys"])?;
        let keys =
            fields.get("keys").map(|node| self.texts(node, "`keys`", |_, _, _| {})).unwrap_or_default();
        let keys = keys.into_iter().map(|key| key.value).collect();
        let Some(mode) = fields.get("mode") else {
            self.reader.error(node.at, "`mode` is missing: `allowlist`, `denylist` or `all`");
            return None;
        };
        match self.reader.one_of(mode, "`mode`", &["allowlist", "denylist", "all"])? {
            "allowlist" => Some(Redact::Show(keys)),
            "denylist" => Some(Redact::Hide(keys)),
            // All parameters are shown, whatever `keys` says.
            _ => Some(Redact::Hide(Vec::new())),
        }
    }

    fn escalation(
        &mut self,
        node: &Node,
        timeout: u32,
        min_approvals: u32,
        people: usize,
    ) -> Option<Escalation> {
        let known = ["escalateBeforeSec", "escalationChannel", "fallbackUser", "escalateMinApprovals"];
        let fields = self.fields(node, "`escalation`", &known)?;
        let channel = self.text(fields.get("escalationChannel"), "`escalationChannel`");
        let mention = fields.get("fallbackUser").and_then(|node| self.person(node, "`fallbackUser`"));
        let more = fields.get("escalateMinApprovals").and_then(|node| {
            let count = self.reader.count(node, "`escalateMinApprovals`", 1..=1000)?;
            self.enough(node, count, people);
            if count < min_approvals {
                let message =
                    format!("`escalateMinApprovals` must not be lower than `minApprovals`, {min_approvals}");
                self.reader.error(node.at, message);
            }
            Some(count)
        });
        let Some(before) = fields.get("escalateBeforeSec") else {
            self.reader
                .error(node.at, "`escalateBeforeSec` is missing: how long before the expiry to escalate");
            return None;
        };
        let seconds = self.seconds(before, "`escalateBeforeSec`", 1..=MAX_SECONDS)?;
        if seconds >= timeout {
            let message = format!("`escalateBeforeSec` must be lower than the timeout, {timeout} s");
            self.reader.error(before.at, message);
        }
        Some(Escalation { before: seconds, channel, mention, min_approvals: more })
    }

    fn seconds(&mut self, node: &Node, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        self.reader.count(node, what, range)
    }

    fn text(&mut self, node: Option<&Node>, what: &str) -> Option<String> {
        self.reader.optional_text(node, what)
    }

    /// Distinct Slack ids.
    fn people(&mut self, node: &Node, what: &str) -> Vec<String> {
        let people = self.texts(node, what, |reader, text, at| reader.check_person(text, at));
        people.into_iter().map(|person| person.value).collect()
    }

    fn person(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.reader.text(node, what)?;
        self.check_person(text, node.at);
        Some(text.to_owned())
    }

    fn check_person(&mut self, text: &str, at: Place) {
        if text.trim().is_empty() || text.trim() != text || text.starts_with('@') {
            self.reader.error(at, format!("`{text}` is not a Slack id"));
        }
    }

    fn check_persona(&mut self, name: &str, at: Place) {
        if name.trim().is_empty() || name.trim() != name || name.chars().count() > 64 {
            let rule = "1 to 64 characters, without spaces around them";
            self.reader.error(at, format!("`{name}` cannot name a persona: a name has {rule}"));
        }
    }

    /// A list of distinct texts that is not empty.
    fn texts(
        &mut self,
        node: &Node,
        what: &str,
        mut check: impl FnMut(&mut Self, &str, Place),
    ) -> Vec<Located<String>> {
        let errors = self.reader.errors();
        let mut texts: Vec<Located<String>> = Vec::new();
        for item in self.reader.items(node, what) {
            let Some(text) = self.reader.text(item, "an entry") else { continue };
            if text.is_empty() {
                self.reader.error(item.at, "an entry is empty");
                continue;
            }
            check(self, text, item.at);
            // The legacy service ignored duplicates.
            if !texts.iter().any(|earlier| earlier.value == text) {
                texts.push(Located { at: item.at, value: text.to_owned() });
            }
        }
        if texts.is_empty() && errors == self.reader.errors() {
            self.reader.error(node.at, format!("{what} is empty: add an entry, or remove it"));
        }
        texts
    }
}

struct Approvers {
    ids: Vec<String>,
    handles: Option<Place>,
    needed: u32,
}
