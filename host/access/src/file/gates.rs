//! `gate` of a caller: the deliveries of a CI system.

use std::collections::BTreeMap;

use countersign_policy::yaml::document::{Key, Node, Place};
use countersign_policy::yaml::fields::Fields;

use super::Reading;
use super::credentials::pattern;
use crate::caller::{RequesterRule, Template, TokenRule};
use crate::gate::{Filling, GateRule, GateSystem};

impl Reading<'_> {
    /// Which deliveries of a CI system are a caller's, and what they ask for.
    pub(super) fn gate(&mut self, node: &Node, of: &Fields<'_>, key: &Key) -> Option<GateRule> {
        for name in ["keys", "oidc", "certificate", "actions"] {
            if let Some(other) = of.get(name) {
                let message = format!(
                    "the caller `{}` is a gate, whose deliveries are its only credentials and have one action: \
                     it has no `{name}`",
                    key.text
                );
                self.reader.error(other.at, message);
            }
        }
        let fields = self.reader.fields(node, "`gate`", &["system", "claims", "action", "params"])?;
        let place = |name: &str| fields.get(name).map_or(node.at, |node| node.at);
        let name = self.required(&fields, node, "system", "`github` or `gitlab`")?;
        let Some(system) = GateSystem::named(&name) else {
            let message = format!("`{name}` is no system with gates: there are `github` and `gitlab`");
            self.reader.error(place("system"), message);
            return None;
        };
        let errors = self.reader.errors();
        let mut claims = BTreeMap::new();
        for (claim, node) in self.reader.members(fields.get("claims"), "`claims`") {
            self.known_claim(claim.at, system, &claim.text);
            let values = self.claim_values(node, &claim.text);
            if let Some(why) = pattern(&claim.text, &values) {
                self.reader.error(node.at, why);
            }
            claims.insert(claim.text.clone(), values);
        }
        let were_read = self.reader.errors() == errors;
        if were_read && !claims.contains_key(system.required_claim()) {
            let message = format!(
                "`claims` must name `{}`: a name can become somebody else's, and every repository could ask",
                system.required_claim()
            );
            self.reader.error(place("claims"), message);
        }
        let action = self.required(&fields, node, "action", "the action that is asked for");
        if let Some(action) = action.as_deref().filter(|action| action.contains('*')) {
            self.reader.error(place("action"), format!("`{action}` is a pattern, and a gate has one action"));
        }
        let params = fields.get("params").map(|node| {
            let mut params = BTreeMap::new();
            for (name, node) in self.reader.members(Some(node), "`params`") {
                let Some(text) = self.reader.text(node, &format!("`{}`", name.text)).map(str::to_owned)
                else {
                    continue;
                };
                if !text.contains(['{', '}']) {
                    params.insert(name.text.clone(), Filling::Fixed(text));
                    continue;
                }
                match Template::new(&text) {
                    Ok(template) => {
                        template.claims().for_each(|claim| self.known_claim(node.at, system, claim));
                        params.insert(name.text.clone(), Filling::Template(template));
                    }
                    Err(why) => self.reader.error(node.at, why),
                }
            }
            params
        });
        let deliveries = TokenRule { issuer: system.as_str().to_owned(), claims };
        Some(GateRule { system, deliveries, action: action?, params })
    }

    fn known_claim(&mut self, at: Place, system: GateSystem, claim: &str) {
        if !system.claims().contains(&claim) {
            let known = system.claims().join("`, `");
            let message = format!("a delivery of {} has no `{claim}`; it has `{known}`", system.as_str());
            self.reader.error(at, message);
        }
    }

    /// The requester of a gate is whoever triggered it: nobody else is in the delivery.
    pub(super) fn gate_requester(
        &mut self,
        of: &Fields<'_>,
        gate: Option<&GateRule>,
        requester: &RequesterRule,
    ) {
        let (Some(gate), Some(node)) = (gate, of.get("requester")) else { return };
        match requester {
            RequesterRule::Claims { id, .. } => {
                id.claims().for_each(|claim| self.known_claim(node.at, gate.system, claim));
            }
            RequesterRule::Machine | RequesterRule::Asserted => {
                let message =
                    "the requester of a gate is made of what its deliveries say: a map of `source` and `id`";
                self.reader.error(node.at, message);
            }
        }
    }
}
