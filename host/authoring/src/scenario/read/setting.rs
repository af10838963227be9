//! Reads the setting of a scenario: the configuration, and the request that is made.

use std::collections::BTreeSet;

use countersign_core::lifecycle::{Known, Link, Origin};
use countersign_core::record::Redaction;
use countersign_policy::decide::Ask;
use countersign_policy::yaml::document::{Kind, Node};
use countersign_policy::yaml::fields::{Fields, Groups};
use serde_json::{Map, Value};

use super::{DAY, SECOND, ScenarioReader};
use crate::event::time;
use crate::scenario::{ACTION, Setting};
use crate::synthetic::SyntheticRequest;

const DEFAULT_TIMEOUT: u64 = 600 * SECOND;

/// The fields of a scenario's setting, which `defaults` may have too.
pub(super) const SETTING: [&str; 17] = [
    "config",
    "groups",
    "requester",
    "requester_is",
    "authenticated",
    "owned_by",
    "rerequested_by",
    "params",
    "redact",
    "schema",
    "meta",
    "policy_hints",
    "timeout",
    "lineage_depth",
    "requested_at",
    "granted_elsewhere",
    "editable_elsewhere",
];

/// A scenario's own fields, and the defaults for those that it lacks.
pub(super) struct Given<'g, 'n> {
    pub(super) own: &'g Fields<'n>,
    pub(super) defaults: Option<&'g Fields<'n>>,
}

impl<'n> Given<'_, 'n> {
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.own.get(name).or_else(|| self.defaults.and_then(|fields| fields.get(name)))
    }
}

impl ScenarioReader<'_> {
    pub(super) fn setting(&mut self, given: &Given<'_, '_>) -> Setting {
        let config = given.get("config").map_or_else(|| Value::Object(Map::new()), Node::to_json);
        let groups = self.groups(given.get("groups"));
        let request = self.request(given);
        let redact = given.get("redact").map_or_else(shows_all, |node| self.redact(node));
        let schema = given.get("schema").map(Node::to_json);
        let reader = &mut self.reader;
        let timeout =
            given.get("timeout").and_then(|node| reader.duration(node, "a timeout", SECOND..=30 * DAY));
        let timeout_ms = timeout.unwrap_or(DEFAULT_TIMEOUT);
        let granted_elsewhere =
            given.get("granted_elsewhere").is_some_and(|node| reader.truth(node, "`granted_elsewhere`"));
        let editable = given.get("editable_elsewhere").map(|node| reader.keys(node));
        Setting {
            config,
            groups,
            request,
            redact,
            schema,
            timeout_ms,
            granted_elsewhere,
            editable_elsewhere: editable.unwrap_or_default(),
        }
    }

    fn request(&mut self, given: &Given<'_, '_>) -> SyntheticRequest {
        let requester = given.get("requester").and_then(|node| self.somebody(node, "`requester`"));
        let mut request = SyntheticRequest::new(ACTION, requester.unwrap_or_default());
        request.rerequested_by =
            given.get("rerequested_by").and_then(|node| self.somebody(node, "`rerequested_by`"));
        let reader = &mut self.reader;
        request.ask.who.authenticated =
            given.get("authenticated").is_some_and(|node| reader.truth(node, "`authenticated`"));
        let again = request.rerequested_by.is_some();
        request.depth = match given.get("lineage_depth") {
            None => u32::from(again),
            Some(node) => {
                let depth = reader.count(node, "`lineage_depth`", 0..=1000);
                if depth == Some(0) && again {
                    reader.error(node.at, "with `rerequested_by`, `lineage_depth` must be at least 1");
                }
                depth.unwrap_or_default()
            }
        };
        if let Some(node) = given.get("requested_at")
            && let Some(text) = reader.text(node, "`requested_at`")
        {
            match time(text) {
                Ok(at) => request.at = at,
                Err(wrong) => reader.error(node.at, format!("`requested_at` is `{text}`: {wrong}")),
            }
        }
        request.requester_is =
            given.get("requester_is").and_then(|node| self.typed::<Known>(node, "`requester_is`"));
        let ask = &mut request.ask;
        if let Some(node) = given.get("owned_by") {
            let owners = self.texts(node, "an owner's id").into_iter();
            let owners = owners.filter_map(|owner| self.named(node, &owner));
            ask.who.owners = owners.map(|owner| owner.name).collect();
        }
        ask.params = given.get("params").map(|node| self.object(node, "`params`")).unwrap_or_default();
        ask.policy_hints = given.get("policy_hints").map(Node::to_json);
        if let Some(node) = given.get("meta") {
            self.meta(node, ask);
        }
        request
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

    fn groups(&mut self, node: Option<&Node>) -> Groups {
        let mut groups = Groups::new();
        for (key, node) in self.reader.members(node, "`groups`") {
            let members = match &node.kind {
                Kind::Text(_) => vec![node],
                _ => self.reader.items(node, "a group"),
            };
            groups.insert(key.text.clone(), self.reader.group(key, &members));
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
}

/// The default: no parameter is hidden.
fn shows_all() -> Redaction {
    Redaction::Hide(BTreeSet::new())
}
