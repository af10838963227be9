//! Who changes the set in force, and what comes of it.

use countersign_core::lifecycle::Digest;
use countersign_core::record::{AdminCall, ChangeFault, ChangeOutcome, ChangeTrigger};
use countersign_policy::{LoadErrors, ModuleError, PolicySet};
use countersign_store::StoreError;

use crate::simulation::ShadowError;

/// Who changes the set in force, and what set it off.
#[derive(Clone, Debug)]
pub struct By {
    /// What set it off.
    pub trigger: ChangeTrigger,
    /// Who, if it was an admin.
    pub actor: Option<String>,
    /// How that admin called.
    pub call: Option<AdminCall>,
}

impl By {
    /// What sets itself off, or is set off from the machine of the gateway.
    #[must_use]
    pub fn itself(trigger: ChangeTrigger) -> By {
        By { trigger, actor: None, call: None }
    }
}

/// What came of an attempt that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whether another set is in force now.
    pub outcome: ChangeOutcome,
    /// The set in force.
    pub hash: Digest,
    /// The set that was in force before.
    pub previous: Digest,
    /// Its actions.
    pub actions: Vec<String>,
}

impl Changed {
    pub(super) fn of(outcome: ChangeOutcome, set: &PolicySet, previous: &PolicySet) -> Changed {
        let actions = set.actions().keys().cloned().collect();
        Changed { outcome, hash: set.hash(), previous: previous.hash(), actions }
    }
}

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The set is wrong; each mistake with its place.
    #[error("the policy set is refused, and nothing has changed")]
    Refused(LoadErrors),
    /// The set in the folder might be half-written, and nobody has asked for it; what is missing, or might be.
    #[error("the policy set in the folder may be half-written, and nothing has changed")]
    HeldBack(LoadErrors),
    /// A module is in a registry that does not give it for now; each with its place.
    #[error("a module cannot be fetched for now, and nothing has changed")]
    Unfetched(LoadErrors),
    /// The bytes are no policy module.
    #[error("the module is refused: {0}")]
    Module(#[from] ModuleError),
    /// Another set is in force than whoever wants to change it believes.
    #[error("the policy set in force is {current}, not {expected}")]
    Conflict {
        /// What was expected.
        expected: Digest,
        /// The set in force.
        current: Digest,
    },
    /// No set with this hash is stored.
    #[error("no policy set with the hash {0} is stored")]
    Unknown(Digest),
    /// There is nothing to go back to.
    #[error("no other policy set was in force before this one")]
    NothingBefore,
    /// The set is in force, and has nothing to be compared with.
    #[error("the policy set {0} is in force")]
    InForce(Digest),
    /// The set has not shown in the shadow what it is asked to have shown.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Work was stopped half-way.
    #[error("work was stopped half-way: {0}")]
    Stopped(String),
}

impl ChangeError {
    /// What was wrong, for the audit log and for whoever asked.
    #[must_use]
    pub fn faults(&self) -> Vec<ChangeFault> {
        match self {
            ChangeError::Refused(errors) | ChangeError::HeldBack(errors) | ChangeError::Unfetched(errors) => {
                let fault = |error: &countersign_policy::LoadError| {
                    let place = error.place.map(|(line, column)| format!(":{line}:{column}"));
                    let path = format!("{}{}", error.file, place.unwrap_or_default());
                    ChangeFault { path, message: error.message.clone() }
                };
                errors.0.iter().map(fault).collect()
            }
            error => vec![ChangeFault { path: String::new(), message: error.to_string() }],
        }
    }
}
