//! From a file of scenarios to what it says, with the place of everything that is wrong in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{ACTION, Expect, Scenario, Setting, Step, Wanted, WantedReason, WantedRequirement};
use crate::event::{ACTS, AUTOMATIC, Event};
use crate::file;
use crate::synthetic;
use countersign_core::lifecycle::{FailureKind, Link, Origin, RequirementKind};
use countersign_core::record::Redaction;
use countersign_gateway::Intent;
use countersign_policy::decide::{Ask, Who};
use countersign_policy::yaml::document::{self, Kind, Node};
use countersign_policy::yaml::error::{Errors, LoadErrors};
use countersign_policy::yaml::fields::{Fields, Reader};

const MAX_BYTES: usize = 1 << 20;
const SECOND: u64 = 1000;
const DAY: u64 = 24 * 3600 * SECOND;
const DEFAULT_TIMEOUT: u64 = 600 * SECOND;

/// What a scenario may say of its setting; `defaults` may say the same.
const SETTING: [&str; 11] = [
    "config",
    "groups",
    "requester",
    "params",
    "redact",
    "schema",
    "meta",
    "policy_hints",
    "timeout",
    "lineage_depth",
    "granted_elsewhere",
];
const FAILURES: [FailureKind; 5] = [
    FailureKind::Trap,
    FailureKind::Fuel,
    FailureKind::Deadline,
    FailureKind::Memory,
    FailureKind::Malformed,
];

/// Reads a file of scenarios.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Vec<Scenario>, LoadErrors> {
    let name = path.display().to_string();
    match file::text(path, MAX_BYTES) {
        Ok(text) => parse(&name, &text),
        Err(error) => {
            let mut errors = Errors::about(&name);
            errors.add(Default::default(), format!("cannot be read: {error}"));
            errors.into_result().map(|()| Vec::new())
        }
    }
}

pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Scenario>, LoadErrors> {
    let mut errors = Errors::about(name);
    let scenarios = match document::parse(text) {
        Ok(document) => ScenarioReader { reader: Reader::new(&mut errors) }.file(&document),
        Err((place, message)) => {
            errors.add(place, message);
            Vec::new()
        }
    };
    errors.into_result()?;
    Ok(scenarios)
}

struct ScenarioReader<'e> {
    reader: Reader<'e>,
}

impl ScenarioReader<'_> {
    fn file(&mut self, document: &Node) -> Vec<Scenario> {
        let known = ["version", "defaults", "scenarios"];
        let Some(fields) = self.reader.fields(document, "a file of scenarios", &known) else {
            return Vec::new();
        };
        match fields.get("version") {
            Some(Node { kind: Kind::Number(number), .. }) if number.as_u64() == Some(1) => {}
            Some(node) => self.reader.error(node.at, "the version must be 1"),
            None => self.reader.error(document.at, "`version: 1` is missing"),
        }
        let defaults = fields.get("defaults").and_then(|node| {
            let fields = self.reader.fields(node, "`defaults`", &SETTING)?;
            // Read for what is wrong in them, which else would be told of each scenario.
            self.setting(&fields, None);
            Some(fields)
        });
        let items = match fields.get("scenarios") {
            Some(node) => self.reader.items(node, "`scenarios`"),
            None => Vec::new(),
        };
        if items.is_empty() {
            self.reader.error(document.at, "`scenarios` is missing: there is nothing to tell");
        }
        let mut names = BTreeSet::new();
        let mut scenarios = Vec::new();
        for item in items {
            let Some(scenario) = self.scenario(item, defaults.as_ref()) else { continue };
            if !names.insert(scenario.name.clone()) {
                self.reader.error(item.at, format!("two scenarios have the name `{}`", scenario.name));
            }
            scenarios.push(scenario);
        }
        scenarios
    }

    fn scenario(&mut self, node: &Node, defaults: Option<&Fields<'_>>) -> Option<Scenario> {
        let own = ["name", "config_refused", "expect", "events"];
        let known: Vec<&str> = own.into_iter().chain(SETTING).collect();
        let fields = self.reader.fields(node, "a scenario", &known)?;
        let name = match fields.get("name") {
            Some(node) => self.reader.text(node, "a scenario's name").unwrap_or_default().to_owned(),
            None => {
                self.reader.error(node.at, "`name` is missing: what the scenario shows");
                return None;
            }
        };
        let setting = self.setting(&fields, defaults);
        if fields.get("config").is_none() && defaults.is_none_or(|fields| fields.get("config").is_none()) {
            self.reader.error(node.at, format!("`config` is missing in the scenario `{name}`"));
        }
        let config_refused = fields.get("config_refused").map(|node| self.texts(node, "a JSON Pointer"));
        let expect = fields.get("expect").map(|node| self.expect(node, true));
        let items = fields.get("events").map_or_else(Vec::new, |node| self.reader.items(node, "`events`"));
        if config_refused.is_some() && (expect.is_some() || !items.is_empty()) {
            let message =
                "with a configuration that is refused there is no request: leave out `expect` and `events`";
            self.reader.error(node.at, message);
        }
        let timeout_ms = setting.timeout_ms;
        let events = items.into_iter().filter_map(|item| self.step(item, timeout_ms)).collect();
        Some(Scenario { name, line: node.at.line, setting, config_refused, expect, events })
    }

    /// The setting of a scenario: what it says itself, else what the defaults say.
    fn setting(&mut self, own: &Fields<'_>, defaults: Option<&Fields<'_>>) -> Setting {
        let get = |name: &str| own.get(name).or_else(|| defaults.and_then(|fields| fields.get(name)));
        let reader = &mut self.reader;
        let timeout = get("timeout").and_then(|node| reader.duration(node, "a timeout", SECOND..=30 * DAY));
        let requester = reader.optional_text(get("requester"), "`requester`");
        let lineage_depth =
            get("lineage_depth").and_then(|node| reader.count(node, "`lineage_depth`", 0..=1000));
        let granted_elsewhere =
            get("granted_elsewhere").is_some_and(|node| reader.truth(node, "`granted_elsewhere`"));
        let params = get("params").map(|node| self.object(node, "`params`")).unwrap_or_default();
        let schema = get("schema").map(Node::to_json);
        let groups = self.groups(get("groups"));
        let redact = get("redact").map_or_else(shows_all, |node| self.redact(node));
        let default = synthetic::ask(ACTION);
        let requester = requester.unwrap_or(default.requester.id);
        let ask = Ask {
            requester: synthetic::requester(&requester),
            who: Who::asserted(&requester),
            params,
            policy_hints: get("policy_hints").map(Node::to_json),
            ..default
        };
        let mut setting = Setting {
            config: get("config").map_or_else(|| Value::Object(Map::new()), Node::to_json),
            groups,
            ask,
            depth: lineage_depth.unwrap_or_default(),
            redact,
            schema,
            timeout_ms: timeout.unwrap_or(DEFAULT_TIMEOUT),
            granted_elsewhere,
        };
        if let Some(node) = get("meta") {
            self.meta(node, &mut setting.ask);
        }
        setting
    }

    fn meta(&mut self, node: &Node, ask: &mut Ask) {
        let Some(fields) = self.reader.fields(node, "`meta`", &["origin", "justification", "links"]) else {
            return;
        };
        if let Some(origin) = fields.get("origin").and_then(|node| self.typed::<Origin>(node, "`origin`")) {
            ask.origin = origin;
        }
        if let Some(links) = fields.get("links").and_then(|node| self.typed::<Vec<Link>>(node, "`links`")) {
            ask.links = links;
        }
        if let Some(text) = self.reader.optional_text(fields.get("justification"), "`justification`") {
            ask.justification = text;
        }
    }

    fn groups(&mut self, node: Option<&Node>) -> BTreeMap<String, BTreeSet<String>> {
        let mut groups = BTreeMap::new();
        for (key, node) in self.reader.members(node, "`groups`") {
            groups.insert(key.text.clone(), self.texts(node, "a member's id").into_iter().collect());
        }
        groups
    }

    fn redact(&mut self, node: &Node) -> Redaction {
        let Some(fields) = self.reader.fields(node, "`redact`", &["show", "hide"]) else {
            return shows_all();
        };
        match (fields.get("show"), fields.get("hide")) {
            (Some(keys), None) => Redaction::Show(self.reader.keys(keys)),
            (None, Some(keys)) => Redaction::Hide(self.reader.keys(keys)),
            _ => {
                self.reader.error(node.at, "`redact` must have either `show` or `hide`");
                shows_all()
            }
        }
    }

    fn step(&mut self, node: &Node, timeout_ms: u64) -> Option<Step> {
        let known = ["by", "act", "persona", "reason", "edits", "removes", "at", "expect"];
        let fields = self.reader.fields(node, "an event", &known)?;
        let expect = fields.get("expect").map(|node| self.expect(node, false));
        let at_ms = match fields.get("at") {
            Some(node) => {
                let at = self.reader.duration(node, "`at`", 0..=30 * DAY)?;
                if at > timeout_ms {
                    self.reader.error(node.at, "`at` is after the request's `timeout`");
                }
                Some(at)
            }
            None => None,
        };
        let Some(act_node) = fields.get("act") else {
            self.reader.error(node.at, "`act` is missing: what happens");
            return None;
        };
        let act = self.reader.text(act_node, "`act`")?;
        let (by, intent) = if AUTOMATIC.contains(&act) {
            self.only(&fields, act, &[]);
            (None, if act == "tick" { Intent::Wake } else { Intent::Escalate })
        } else if ACTS.contains(&act) {
            let by = self.reader.optional_text(fields.get("by"), "`by`").or_else(|| {
                if fields.get("by").is_none() {
                    self.reader.error(node.at, format!("`by` is missing: who does `{act}`"));
                }
                None
            })?;
            let intent = self.intent(node, act, &fields)?;
            (Some(by), intent)
        } else {
            let all: Vec<&str> = ACTS.into_iter().chain(AUTOMATIC).collect();
            let message = format!("`{act}` is none of the acts `{}`", all.join("`, `"));
            self.reader.error(act_node.at, message);
            return None;
        };
        Some(Step { line: node.at.line, event: Event { at_ms, by, intent }, expect })
    }

    fn intent(&mut self, node: &Node, act: &str, fields: &Fields<'_>) -> Option<Intent> {
        match act {
            "approve" => {
                self.only(fields, act, &["by", "edits", "removes"]);
                let mut edits = BTreeMap::new();
                for (key, value) in self.reader.members(fields.get("edits"), "`edits`") {
                    edits.insert(key.text.clone(), Some(value.to_json()));
                }
                if let Some(removes) = fields.get("removes") {
                    for key in self.reader.keys(removes) {
                        if edits.insert(key.clone(), None).is_some() {
                            self.reader.error(removes.at, format!("`{key}` is both edited and removed"));
                        }
                    }
                }
                Some(Intent::Approve { edits })
            }
            "deny" => {
                self.only(fields, act, &["by", "reason"]);
                let reason = self.reader.optional_text(fields.get("reason"), "`reason`");
                Some(Intent::Deny { reason })
            }
            "acknowledge" => {
                self.only(fields, act, &["by", "persona"]);
                let Some(persona) = fields.get("persona") else {
                    self.reader.error(node.at, "`persona` is missing: what is acknowledged");
                    return None;
                };
                let persona = self.reader.text(persona, "`persona`")?.to_owned();
                Some(Intent::Acknowledge { persona })
            }
            _ => {
                self.only(fields, act, &["by"]);
                Some(Intent::Withdraw)
            }
        }
    }

    /// Reports fields that do not go with this act.
    fn only(&mut self, fields: &Fields<'_>, act: &str, allowed: &[&str]) {
        for name in ["by", "persona", "reason", "edits", "removes"] {
            if let Some(node) = fields.get(name).filter(|_| !allowed.contains(&name)) {
                self.reader.error(node.at, format!("`{name}` does not go with `{act}`"));
            }
        }
    }

    /// What is expected: a word such as `satisfied`, or a map.
    fn expect(&mut self, node: &Node, of_submission: bool) -> Expect {
        let mut expect = Expect {
            line: node.at.line,
            outcome: None,
            grants: None,
            editable: None,
            wake_at: None,
            memo: None,
        };
        if let Kind::Text(word) = &node.kind {
            expect.outcome = self.word(node, word);
            return expect;
        }
        let known = [
            "standing", "waiting", "denied", "refused", "silent", "fails", "grants", "editable", "wake_at",
            "memo",
        ];
        let Some(fields) = self.reader.fields(node, "`expect`", &known) else { return expect };
        let mut outcomes: Vec<Wanted> = Vec::new();
        if let Some(node) = fields.get("standing") {
            let word = self.reader.text(node, "`standing`");
            outcomes.extend(word.and_then(|word| self.word(node, word)));
        }
        if let Some(node) = fields.get("waiting") {
            let items = self.reader.items(node, "`waiting`");
            let wanted = items.into_iter().filter_map(|item| self.requirement(item)).collect();
            outcomes.push(Wanted::Waiting(Some(wanted)));
        }
        if let Some(node) = fields.get("denied") {
            outcomes.extend(self.reason(node, false).map(Wanted::Denied));
        }
        if let Some(node) = fields.get("refused") {
            let items = match &node.kind {
                Kind::List(items) => items.iter().collect(),
                _ => vec![node],
            };
            let wanted = items.into_iter().filter_map(|item| self.reason(item, true)).collect();
            outcomes.push(Wanted::Refused(Some(wanted)));
        }
        if let Some(node) = fields.get("silent")
            && self.reader.truth(node, "`silent`")
        {
            outcomes.push(Wanted::Silent);
        }
        if let Some(node) = fields.get("fails") {
            let kind = self.reader.text(node, "`fails`").map(|word| {
                let kind = FAILURES.into_iter().find(|kind| kind.to_string() == word);
                if kind.is_none() {
                    let all = FAILURES.map(|kind| kind.to_string()).join("`, `");
                    self.reader.error(node.at, format!("`{word}` is none of the failures `{all}`"));
                }
                kind
            });
            outcomes.extend(kind.flatten().map(Wanted::Fails));
        }
        if outcomes.len() > 1 {
            self.reader.error(node.at, "an event comes to one thing only: expect one outcome");
        }
        expect.outcome = outcomes.into_iter().next();
        expect.grants = fields.get("grants").map(|node| self.reader.truth(node, "`grants`"));
        expect.editable = fields.get("editable").map(|node| self.reader.keys(node));
        expect.wake_at = fields.get("wake_at").and_then(|node| self.wake_at(node));
        expect.memo = fields.get("memo").map(Node::to_json);
        if let Some(node) = fields.get("memo").filter(|_| !of_submission) {
            self.reader.error(node.at, "a memo is made at the submission only: expect it of the scenario");
        }
        let unchanged = matches!(&expect.outcome, Some(Wanted::Refused(_) | Wanted::Fails(_)));
        for name in ["grants", "editable", "wake_at", "memo"] {
            if let Some(node) = fields.get(name).filter(|_| unchanged) {
                self.reader
                    .error(node.at, format!("what does not count changes nothing: leave out `{name}`"));
            }
        }
        expect
    }

    fn word(&mut self, node: &Node, word: &str) -> Option<Wanted> {
        let wanted = match word {
            "satisfied" => Wanted::Satisfied,
            "waiting" => Wanted::Waiting(None),
            "denied" => Wanted::Denied(WantedReason::default()),
            "silent" => Wanted::Silent,
            "refused" => Wanted::Refused(None),
            _ => {
                let message =
                    format!("`{word}` is none of `satisfied`, `waiting`, `denied`, `silent` and `refused`");
                self.reader.error(node.at, message);
                return None;
            }
        };
        Some(wanted)
    }

    /// A label, or a map of what is said of a requirement.
    fn requirement(&mut self, node: &Node) -> Option<WantedRequirement> {
        if let Kind::Text(label) = &node.kind {
            return Some(WantedRequirement { label: Some(label.clone()), ..Default::default() });
        }
        let fields =
            self.reader.fields(node, "a requirement", &["kind", "label", "have", "need", "eligible"])?;
        let kind = match fields.get("kind") {
            Some(node) => self.typed::<RequirementKind>(node, "`kind`"),
            None => None,
        };
        let mut count = |name: &str| {
            let node = fields.get(name)?;
            self.reader.count(node, &format!("`{name}`"), 0..=u32::MAX)
        };
        let (have, need) = (count("have"), count("need"));
        let label = self.reader.optional_text(fields.get("label"), "`label`");
        let eligible =
            fields.get("eligible").map(|node| self.texts(node, "who is eligible").into_iter().collect());
        Some(WantedRequirement { kind, label, have, need, eligible })
    }

    /// A code, or a map of what is said of a reason.
    fn reason(&mut self, node: &Node, with_path: bool) -> Option<WantedReason> {
        if let Kind::Text(code) = &node.kind {
            return Some(WantedReason { code: Some(code.clone()), ..Default::default() });
        }
        let known: &[&str] = if with_path { &["code", "message", "path"] } else { &["code", "message"] };
        let fields = self.reader.fields(node, "a reason", known)?;
        let mut text = |name: &str| self.reader.optional_text(fields.get(name), &format!("`{name}`"));
        Some(WantedReason { code: text("code"), message: text("message"), path: text("path") })
    }

    fn wake_at(&mut self, node: &Node) -> Option<Option<u64>> {
        if matches!(&node.kind, Kind::Text(text) if text == "never") {
            return Some(None);
        }
        self.reader.duration(node, "`wake_at`", 0..=365 * DAY).map(Some)
    }

    fn texts(&mut self, node: &Node, what: &str) -> Vec<String> {
        if let Kind::Text(text) = &node.kind {
            return vec![text.clone()];
        }
        let items = self.reader.items(node, &format!("a list ({what})"));
        items.into_iter().filter_map(|item| self.reader.text(item, what).map(str::to_owned)).collect()
    }

    fn object(&mut self, node: &Node, what: &str) -> Map<String, Value> {
        let members = self.reader.members(Some(node), what);
        members.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect()
    }

    /// A value that has a type of its own.
    fn typed<T: DeserializeOwned>(&mut self, node: &Node, what: &str) -> Option<T> {
        match serde_json::from_value(node.to_json()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.reader.error(node.at, format!("{what}: {error}"));
                None
            }
        }
    }
}

/// Nothing is hidden: a scenario is about the policy, and redaction is the policy set's.
fn shows_all() -> Redaction {
    Redaction::Hide(BTreeSet::new())
}
