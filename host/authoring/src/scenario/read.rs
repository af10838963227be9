//! Reads a file of scenarios; every error has its place.

mod expect;
mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use countersign_core::json;
use countersign_core::people::People;
use countersign_gateway::Intent;
use countersign_policy::yaml::document::{self, Kind, Node};
use countersign_policy::yaml::error::{Errors, LoadErrors};
use countersign_policy::yaml::fields::{Fields, Reader};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::setting::{Given, SETTING};
use super::{Scenario, Step};
use crate::event::{ACTS, AUTOMATIC, Event};
use crate::file;
use crate::synthetic::{Somebody, check_name};

const MAX_BYTES: usize = 1 << 20;
const SECOND: u64 = 1000;
const DAY: u64 = 24 * 3600 * SECOND;

/// Reads a file of scenarios.
///
/// # Errors
/// Lists everything that is wrong with the file.
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
            // Read once on their own, so that their errors are not reported for every scenario.
            self.setting(&Given { own: &fields, defaults: None });
            Some(fields)
        });
        let items = match fields.get("scenarios") {
            Some(node) => self.reader.items(node, "`scenarios`"),
            None => Vec::new(),
        };
        if items.is_empty() {
            self.reader.error(document.at, "`scenarios` is missing or empty");
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
                self.reader.error(node.at, "`name` is missing");
                return None;
            }
        };
        let given = Given { own: &fields, defaults };
        let setting = self.setting(&given);
        match given.get("config") {
            // Not of the defaults on their own: a scenario may have other groups.
            Some(config) => self.reader.groups_exist(config, &setting.groups),
            None => self.reader.error(node.at, format!("`config` is missing in the scenario `{name}`")),
        }
        let config_refused = fields.get("config_refused").map(|node| self.texts(node, "a JSON Pointer"));
        let expect = fields.get("expect").map(|node| self.expect(node, true));
        let items = fields.get("events").map_or_else(Vec::new, |node| self.reader.items(node, "`events`"));
        if config_refused.is_some() && (expect.is_some() || !items.is_empty()) {
            let message = "a refused configuration makes no request: remove `expect` and `events`";
            self.reader.error(node.at, message);
        }
        let timeout_ms = setting.timeout_ms;
        let events = items.into_iter().filter_map(|item| self.step(item, timeout_ms)).collect();
        Some(Scenario { name, line: node.at.line, setting, config_refused, expect, events })
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
            self.reader.error(node.at, "`act` is missing");
            return None;
        };
        let act = self.reader.text(act_node, "`act`")?;
        let (by, intent) = if AUTOMATIC.contains(&act) {
            self.allow_only(&fields, act, &[]);
            (None, if act == "tick" { Intent::Wake } else { Intent::Escalate })
        } else if ACTS.contains(&act) {
            let Some(by) = fields.get("by") else {
                self.reader.error(node.at, format!("`by` is missing: `{act}` needs a person"));
                return None;
            };
            let by = self.somebody(by, "`by`")?;
            let intent = self.intent(node, act, &fields)?;
            (Some(by.name), intent)
        } else {
            let all: Vec<&str> = ACTS.into_iter().chain(AUTOMATIC).collect();
            let message = format!("`{act}` is not an act; the acts are `{}`", all.join("`, `"));
            self.reader.error(act_node.at, message);
            return None;
        };
        Some(Step { line: node.at.line, event: Event { at_ms, by, intent }, expect })
    }

    fn intent(&mut self, node: &Node, act: &str, fields: &Fields<'_>) -> Option<Intent> {
        match act {
            "approve" => {
                self.allow_only(fields, act, &["by", "edits", "removes"]);
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
                self.allow_only(fields, act, &["by", "reason"]);
                let reason = self.reader.optional_text(fields.get("reason"), "`reason`");
                Some(Intent::Deny { reason })
            }
            "acknowledge" => {
                self.allow_only(fields, act, &["by", "persona"]);
                let Some(persona) = fields.get("persona") else {
                    self.reader.error(node.at, "`persona` is missing");
                    return None;
                };
                let persona = self.reader.text(persona, "`persona`")?.to_owned();
                Some(Intent::Acknowledge { persona })
            }
            _ => {
                self.allow_only(fields, act, &["by"]);
                Some(Intent::Withdraw)
            }
        }
    }

    /// Reports fields that this act cannot have.
    fn allow_only(&mut self, fields: &Fields<'_>, act: &str, allowed: &[&str]) {
        for name in ["by", "persona", "reason", "edits", "removes"] {
            if let Some(node) = fields.get(name).filter(|_| !allowed.contains(&name)) {
                self.reader.error(node.at, format!("`{act}` cannot have `{name}`"));
            }
        }
    }

    /// Somebody, by a Slack id or `source:id`: a scenario knows no access file.
    fn somebody(&mut self, node: &Node, what: &str) -> Option<Somebody> {
        let text = self.reader.text(node, what)?;
        self.named(node, text)
    }

    fn named(&mut self, node: &Node, text: &str) -> Option<Somebody> {
        let somebody = text.parse::<Somebody>();
        let known =
            somebody.and_then(|somebody| check_name(&somebody.name, &People::default()).map(|()| somebody));
        known.map_err(|why| self.reader.error(node.at, why)).ok()
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

    /// Deserializes a value.
    fn typed<T: DeserializeOwned>(&mut self, node: &Node, what: &str) -> Option<T> {
        match json::typed(node.to_json()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.reader.error(node.at, format!("{what}: {error}"));
                None
            }
        }
    }
}
