//! `callers`: who may ask, for what, how often, and in whose name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::people::{People, is_slack_id, name_of};
use countersign_policy::yaml::document::{Key, Kind, Node};

use super::{Reading, impossible_action};
use crate::authenticate::Holder;
use crate::caller::{Caller, Glob, RequesterRule, Template};
use crate::issuer::Issuer;
use crate::requester::MACHINE;

/// The most limits that can be said.
const MOST: u32 = 1_000_000;

impl Reading<'_> {
    pub(super) fn caller(
        &mut self,
        key: &Key,
        node: &Node,
        issuers: &BTreeMap<String, Arc<Issuer>>,
        people: &People,
    ) -> Option<Arc<Caller>> {
        let known = ["keys", "oidc", "certificate", "gate", "actions", "limits", "requester", "owners"];
        let fields = self.reader.fields(node, "a caller", &known)?;
        let gate = match fields.get("gate") {
            Some(node) => Some(self.gate(node, &fields, key)?),
            None => None,
        };
        let tokens = match gate {
            Some(_) => None,
            None => self.tokens(&fields, key, "caller", issuers),
        };
        let actions = match (fields.get("actions"), &gate) {
            (_, Some(gate)) => vec![(key.at, gate.action.clone())],
            (Some(node), None) => self.one_or_more(Some(node), "`actions`"),
            (None, None) => {
                let message = format!("the caller `{}` has no `actions`: it could ask for nothing", key.text);
                self.reader.error(key.at, message);
                Vec::new()
            }
        };
        for (at, glob) in &actions {
            if let Some(why) = impossible_action(glob) {
                self.reader.error(*at, format!("`{glob}` {why}, so it is no action"));
            }
        }
        let [open, open_per_action, per_minute, streams] = self.limits(fields.get("limits"));
        let requester = match (&gate, fields.get("requester")) {
            (Some(gate), None) => RequesterRule::Claims {
                source: gate.system.as_str().to_owned(),
                id: Template::new(gate.system.requester()).ok()?,
            },
            (_, node) => self.requester(node, key, fields.get("oidc").is_some() || gate.is_some())?,
        };
        self.gate_requester(&fields, gate.as_ref(), &requester);
        let provider = tokens.as_ref().and_then(|tokens| issuers.get(&tokens.issuer)?.provider);
        if let (Some(provider), RequesterRule::Claims { id, .. }) = (provider, &requester) {
            let at = fields.get("requester").map_or(key.at, |node| node.at);
            id.claims().filter_map(|claim| provider.unknown_claim(claim)).for_each(|why| self.warn(at, why));
        }
        if requester == RequesterRule::Machine && fields.get("owners").is_none() {
            let message = format!(
                "the caller `{}` is a machine without `owners`: whoever starts it may approve what it asks for",
                key.text
            );
            self.warn(key.at, message);
        }
        let mut owners = BTreeSet::new();
        for (at, owner) in self.one_or_more(fields.get("owners"), "`owners`") {
            let is_known =
                people.find(&owner).is_some() || is_slack_id(&owner) || self.refused_people.has(&owner);
            if !is_known {
                self.reader.error(at, format!("the owner `{owner}` is neither in `people` nor a Slack id"));
            }
            owners.insert(owner);
        }
        for (name, what) in [("keys", "key"), ("certificate", "certificate")] {
            if let (Some(node), RequesterRule::Claims { .. }) = (fields.get(name), &requester) {
                let message = format!(
                    "a {what} has no claims to make the requester from, so nothing could be asked for with it"
                );
                self.reader.error(node.at, message);
            }
        }
        let caller = Arc::new(Caller {
            name: key.text.clone(),
            actions: actions.iter().map(|(_, glob)| Glob::new(glob)).collect(),
            open,
            open_per_action,
            per_minute,
            streams,
            requester,
            owners,
            tokens,
            gate,
        });
        self.credentials(&fields, &Holder::of(&caller));
        Some(caller)
    }

    fn limits(&mut self, node: Option<&Node>) -> [Option<u32>; 4] {
        const NAMES: [&str; 4] = ["open", "open_per_action", "per_minute", "streams"];
        let Some(fields) = node.and_then(|node| self.reader.fields(node, "`limits`", &NAMES)) else {
            return [None; 4];
        };
        NAMES.map(|name| {
            fields.get(name).and_then(|node| self.reader.count(node, &format!("`{name}`"), 1..=MOST))
        })
    }

    fn requester(&mut self, node: Option<&Node>, key: &Key, has_tokens: bool) -> Option<RequesterRule> {
        let Some(node) = node else {
            let message = format!(
                "the caller `{}` has no `requester`: say `machine`, `asserted`, or which claims make one",
                key.text
            );
            self.reader.error(key.at, message);
            return None;
        };
        if let Kind::Text(text) = &node.kind {
            return match text.as_str() {
                "machine" => Some(RequesterRule::Machine),
                "asserted" => Some(RequesterRule::Asserted),
                other => {
                    let message = format!(
                        "`requester` is `machine`, `asserted`, or a map of `source` and `id`, but not `{other}`"
                    );
                    self.reader.error(node.at, message);
                    None
                }
            };
        }
        let fields = self.reader.fields(node, "`requester`", &["source", "id"])?;
        let source = self.required(&fields, node, "source", "the system that the id belongs to")?;
        let id = self.required(&fields, node, "id", "the id, with claims in braces, such as `{actor}`")?;
        let place = |name: &str| fields.get(name).map_or(node.at, |node| node.at);
        if source == MACHINE {
            let message =
                "`machine` is no source of ids: for a caller that is a machine write `requester: machine`";
            self.reader.error(place("source"), message);
        } else if let Err(why) = name_of(&source, EXAMPLE) {
            self.reader.error(place("source"), format!("a requester {why}"));
        }
        if !has_tokens {
            self.reader.error(node.at, "a requester is made from claims, but the caller has no `oidc`");
        }
        match Template::new(&id) {
            Ok(template) => {
                // What is wrong whatever the claims are, is wrong for every request.
                if name_of(&source, EXAMPLE).is_ok()
                    && let Err(why) = name_of(&source, &template.with_each(EXAMPLE))
                {
                    self.reader.error(place("id"), format!("`{id}` {why}, whatever the claims are"));
                }
                Some(RequesterRule::Claims { source, id: template })
            }
            Err(why) => {
                self.reader.error(place("id"), why);
                None
            }
        }
    }
}

/// An id that is one in every source, to try rules with.
const EXAMPLE: &str = "U0EXAMPLE";
