//! A caller, as the access file describes it: what it may ask for, how much, and in whose name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub use countersign_core::glob::Glob;

use crate::gate::GateRule;

/// Who may ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Its name in the access file.
    pub name: String,
    /// Which actions it may ask for.
    pub actions: Vec<Glob>,
    /// How many of its requests may be open at once; `None` for any number.
    pub open: Option<u32>,
    /// How many of one action; `None` for as many as the gateway lets every caller have.
    pub open_per_action: Option<u32>,
    /// How many requests it may make a minute; `None` for any number.
    pub per_minute: Option<u32>,
    /// How many event streams of its requests may be open at once; `None` for half of all.
    pub streams: Option<u32>,
    /// Where the requester of its requests comes from.
    pub requester: RequesterRule,
    /// People who count as requesters of its requests, by their names in `people` or by names that people have elsewhere.
    pub owners: BTreeSet<String>,
    /// The tokens that it is recognised by, if it is.
    pub tokens: Option<TokenRule>,
    /// The deliveries of a CI system that it is recognised by, if it is, and what they ask for.
    pub gate: Option<GateRule>,
}

impl Caller {
    /// Whether it may ask for this action.
    #[must_use]
    pub fn may_ask_for(&self, action: &str) -> bool {
        self.actions.iter().any(|glob| glob.matches(action))
    }
}

/// Where the requester of a caller's requests comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequesterRule {
    /// From the claims of its token, in place of `meta.requester`.
    Claims {
        /// The system that the id belongs to: `github`, say.
        source: String,
        /// The id, with claims in braces: `{actor}`.
        id: Template,
    },
    /// The caller itself, which is a machine.
    Machine,
    /// `meta.requester`, as the caller asserts it: for portals that authenticate people themselves.
    Asserted,
}

/// Which tokens of an issuer are a caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRule {
    /// The issuer's name in the access file.
    pub issuer: String,
    /// The values that each of these claims may have.
    pub claims: BTreeMap<String, BTreeSet<String>>,
}

impl TokenRule {
    /// Whether a token with these claims is the caller's. A claim that is absent, a list or an object matches nothing.
    #[must_use]
    pub fn matches(&self, issuer: &str, claims: &Map<String, Value>) -> bool {
        self.issuer == issuer
            && self.claims.iter().all(|(name, values)| {
                claims.get(name).and_then(claim_text).is_some_and(|value| values.contains(&value))
            })
    }

    /// Whether it matches every token that `narrower` matches.
    #[must_use]
    pub fn covers(&self, narrower: &TokenRule) -> bool {
        self.issuer == narrower.issuer
            && self
                .claims
                .iter()
                .all(|(name, values)| narrower.claims.get(name).is_some_and(|other| other.is_subset(values)))
    }
}

/// A claim's value as rules write it: a text, a whole number or a truth value.
#[must_use]
pub fn claim_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text with claims in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Claim(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// If a brace has no counterpart, a claim has no name, or there is no claim in it at all.
    pub fn new(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (claim, after) =
                after.split_once('}').ok_or_else(|| format!("`{text}` has a `{{` without its `}}`"))?;
            if claim.is_empty() || claim.contains('{') {
                return Err(format!("`{text}` has braces without a claim's name in them"));
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Claim(claim.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(format!("`{text}` has a `}}` without its `{{`"));
        }
        if parts.is_empty() {
            return Err(format!("`{text}` names no claim, such as `{{actor}}`"));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template(parts))
    }

    /// The claims that it is filled with.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Claim(name) => Some(name.as_str()),
        })
    }

    /// The claim that it is, if it is nothing else and CI systems have numbers in it.
    pub(crate) fn number(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Claim(name)] if name.ends_with("_id") => Some(name),
            _ => None,
        }
    }

    /// The text with the same value for every claim.
    #[must_use]
    pub(crate) fn with_each(&self, value: &str) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Claim(_) => value,
        });
        parts.collect()
    }

    /// The text with the claims filled in; `None` if one is absent, empty, or no plain value.
    #[must_use]
    pub fn fill(&self, claims: &Map<String, Value>) -> Option<String> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Claim(name) => {
                    filled
                        .push_str(&claims.get(name).and_then(claim_text).filter(|value| !value.is_empty())?);
                }
            }
        }
        Some(filled)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_glob_fits_all_of_a_name() {
        for (glob, text, expected) in [
            ("deploy", "deploy", true),
            ("deploy", "deploy_prod", false),
            ("deploy_*", "deploy_prod", true),
            ("deploy_*", "deploy_", true),
            ("deploy_*", "redeploy_prod", false),
            ("*", "", true),
            ("*_prod", "deploy_prod", true),
            ("*_prod", "deploy_prod2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(glob).matches(text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn a_template_is_filled_from_claims() {
        let claims = json!({"actor": "dana-d", "run": 7, "list": ["x"], "empty": ""});
        let Value::Object(claims) = claims else { panic!() };
        for (template, expected) in [
            ("{actor}", Some("dana-d")),
            ("a-{actor}-{run}!", Some("a-dana-d-7!")),
            ("{list}", None),
            ("{empty}", None),
            ("{absent}", None),
        ] {
            assert_eq!(Template::new(template).unwrap().fill(&claims).as_deref(), expected, "{template}");
        }
        for template in ["", "actor", "{actor", "actor}", "{}", "{a{b}}"] {
            assert!(Template::new(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_rule_wants_every_claim() {
        let rule = TokenRule {
            issuer: "github".into(),
            claims: [
                ("repository_id".to_owned(), ["4711".to_owned()].into()),
                ("event_name".to_owned(), ["push".to_owned(), "workflow_dispatch".to_owned()].into()),
            ]
            .into(),
        };
        for (issuer, claims, expected) in [
            ("github", json!({"repository_id": "4711", "event_name": "push"}), true),
            ("github", json!({"repository_id": 4711, "event_name": "workflow_dispatch"}), true),
            ("gitlab", json!({"repository_id": "4711", "event_name": "push"}), false),
            ("github", json!({"repository_id": "4711", "event_name": "pull_request"}), false),
            ("github", json!({"repository_id": "4711"}), false),
            ("github", json!({"repository_id": ["4711"], "event_name": "push"}), false),
        ] {
            let Value::Object(map) = &claims else { panic!() };
            assert_eq!(rule.matches(issuer, map), expected, "{issuer} {claims}");
        }
    }
}
