//! Which deliveries of a CI system are a caller's, and what they ask for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::caller::{Template, TokenRule};

/// A CI system whose gates are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateSystem {
    /// GitHub, with custom deployment protection rules.
    Github,
    /// GitLab, with external status checks.
    Gitlab,
}

impl GateSystem {
    /// All of them.
    pub const ALL: [GateSystem; 2] = [GateSystem::Github, GateSystem::Gitlab];

    /// Its name in the access file, which is also the source of its ids.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            GateSystem::Github => "github",
            GateSystem::Gitlab => "gitlab",
        }
    }

    pub(crate) fn named(name: &str) -> Option<GateSystem> {
        GateSystem::ALL.into_iter().find(|system| system.as_str() == name)
    }

    /// What its deliveries say, by name.
    pub(crate) const fn claims(self) -> &'static [&'static str] {
        match self {
            GateSystem::Github => &countersign_gates::github::CLAIMS,
            GateSystem::Gitlab => &countersign_gates::gitlab::CLAIMS,
        }
    }

    /// What a rule must name: the number of the repository, since its name can become somebody else's.
    pub(crate) const fn required_claim(self) -> &'static str {
        match self {
            GateSystem::Github => "repository_id",
            GateSystem::Gitlab => "project_id",
        }
    }

    /// The requester, unless the access file says otherwise: whoever triggered it.
    pub(crate) const fn requester(self) -> &'static str {
        match self {
            GateSystem::Github => "{sender_id}",
            GateSystem::Gitlab => "{user_id}",
        }
    }
}

/// Which deliveries of a CI system are a caller's, and what they ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct GateRule {
    /// The system.
    pub system: GateSystem,
    /// Which of its deliveries; the issuer is the name of the system.
    pub(crate) deliveries: TokenRule,
    /// The action that they ask for.
    pub action: String,
    /// The parameters of the request; `None` for those that every delivery of the system has.
    pub(crate) params: Option<BTreeMap<String, Filling>>,
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filling {
    /// Always the same.
    Fixed(String),
    /// Made of what the delivery says.
    Template(Template),
}

impl GateRule {
    /// Whether a delivery with these claims is the caller's.
    #[must_use]
    pub fn matches(&self, system: GateSystem, claims: &Map<String, Value>) -> bool {
        self.deliveries.matches(system.as_str(), claims)
    }

    /// The parameters of a request for a delivery with these claims; `usual` are those that every delivery has. `None` if one
    /// cannot be filled in.
    #[must_use]
    pub fn params(
        &self,
        claims: &Map<String, Value>,
        usual: &Map<String, Value>,
    ) -> Option<Map<String, Value>> {
        let Some(params) = &self.params else { return Some(usual.clone()) };
        let filled = params.iter().map(|(key, filling)| {
            let value = match filling {
                Filling::Fixed(text) => text.clone(),
                Filling::Template(template) => template.fill(claims)?,
            };
            Some((key.clone(), Value::from(value)))
        });
        filled.collect()
    }
}
