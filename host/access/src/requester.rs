//! In whose name a caller asks.

use std::collections::BTreeSet;

use countersign_core::lifecycle::Party;
use countersign_core::people::{People, name_of};

use crate::authenticate::Identified;
use crate::caller::{RequesterRule, Template};

/// The source of requesters that are machines; nobody else can have it.
pub(crate) const MACHINE: &str = "machine";

/// Who wants an action done, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// As the request shows it.
    pub party: Party,
    /// The name in its one form: a bare Slack id, or `source:id`.
    pub name: String,
    /// Whether it is a machine.
    pub machine: bool,
    /// Whether somebody has proven the name, rather than asserted it.
    pub authenticated: bool,
    /// Who counts as the requester, too, in the form of `name`, or by the name of a person.
    pub owners: BTreeSet<String>,
}

/// Why there is no requester.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequesterError {
    /// The caller says nothing of the requester, and nothing else does.
    #[error("is missing: this caller asserts who its requesters are")]
    Missing,
    /// The id cannot be one of its source.
    #[error("{0}")]
    Malformed(String),
    /// The token lacks a claim that the requester is made of.
    #[error("the token lacks a claim that the requester is made of")]
    Claim,
    /// The caller names another requester than its token does.
    #[error("the requester is `{claimed}` by the caller's token, but the request names `{asserted}`")]
    Mismatch {
        /// Who it is by the token.
        claimed: String,
        /// Whom the request names.
        asserted: String,
    },
}

impl Requester {
    /// A requester as whoever asks asserts it.
    ///
    /// # Errors
    /// If the id cannot be one of its source.
    pub fn asserted(party: Party) -> Result<Requester, RequesterError> {
        let name = named(&party)?;
        Ok(Requester { party, name, machine: false, authenticated: false, owners: BTreeSet::new() })
    }
}

impl Identified {
    /// The requester of what this caller asks for; `asserted` is whom the request itself names.
    ///
    /// # Errors
    /// If there is none, or the request contradicts the caller's token.
    pub fn requester(&self, asserted: Option<Party>, people: &People) -> Result<Requester, RequesterError> {
        let caller = &self.caller;
        let owners = caller.owners.clone();
        match &caller.requester {
            RequesterRule::Asserted => {
                Ok(Requester { owners, ..Requester::asserted(asserted.ok_or(RequesterError::Missing)?)? })
            }
            RequesterRule::Machine => {
                let party = Party { id: caller.name.clone(), source: MACHINE.to_owned(), display: None };
                let name = format!("{MACHINE}:{}", caller.name);
                Ok(Requester { party, name, machine: true, authenticated: true, owners })
            }
            RequesterRule::Claims { source, id } => {
                let (party, name) = self.claimed(source, id)?;
                let person = |name: &str| people.find(name).map(|person| &person.name);
                if let Some(asserted) = asserted {
                    let other = named(&asserted)?;
                    if other != name && (person(&name).is_none() || person(&other) != person(&name)) {
                        return Err(RequesterError::Mismatch { claimed: name, asserted: other });
                    }
                }
                // Beside a name that is proven, one that somebody chose for themselves would look proven, too.
                let party = Party { display: person(&name).cloned(), ..party };
                Ok(Requester { party, name, machine: false, authenticated: true, owners })
            }
        }
    }

    /// The name of the person whom the token proves, if the caller's requesters come from claims: several people share
    /// such a caller, and what one of them asks for is none of the others'. `None` for every other caller.
    #[must_use]
    pub fn proven_person(&self) -> Option<String> {
        let RequesterRule::Claims { source, id } = &self.caller.requester else { return None };
        self.claimed(source, id).ok().map(|(_, name)| name)
    }

    fn claimed(&self, source: &str, id: &Template) -> Result<(Party, String), RequesterError> {
        let claims = self.claims.as_ref().ok_or(RequesterError::Claim)?;
        let id = id.fill(claims).ok_or(RequesterError::Claim)?;
        let party = Party { id, source: source.to_owned(), display: None };
        let name = named(&party)?;
        Ok((party, name))
    }
}

fn named(party: &Party) -> Result<String, RequesterError> {
    if party.source == MACHINE {
        return Err(RequesterError::Malformed("`machine` is no source that a request can name".to_owned()));
    }
    name_of(&party.source, &party.id).map_err(|why| RequesterError::Malformed(format!("the id {why}")))
}
