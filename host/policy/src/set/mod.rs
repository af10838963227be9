//! A policy set: which action is judged by which modules with which configuration.

mod doubt;
mod keys;
mod load;
mod manifest;
mod read;
mod running_out;
mod source;
pub(crate) mod trial;
mod warning;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::action::ActionPolicy;
use super::engine::Engine;
use super::module::Module;
use super::trust::{PublicKey, Verified};
use countersign_core::lifecycle::Digest;
use countersign_core::record::PolicyEntry;
use countersign_core::record::Signature;
use countersign_registry::Repository;

pub use crate::yaml::error::{LoadError, LoadErrors};
pub use doubt::Known;
pub use manifest::Manifest;
pub use source::{Kept, Source};

/// The name of the entry that judges actions which the set does not list.
pub(super) const ANY_ACTION: &str = "*";

/// The group whose members policies may take for approvers of anything.
const SUPER_APPROVERS: &str = "super-approvers";

/// An immutable set of policies: every module checked, every configuration tried.
#[derive(Debug)]
pub struct PolicySet {
    hash: Digest,
    actions: BTreeMap<String, Arc<ActionPolicy>>,
    fallback: Option<Arc<ActionPolicy>>,
    by_hash: HashMap<Digest, Arc<ActionPolicy>>,
    /// Every module that it pins, used or not.
    modules: BTreeMap<Digest, Arc<Module>>,
    /// Its valid signatures and those of its modules, as far as they are required.
    verified: Vec<(Digest, Verified)>,
    /// What is odd about the files that it was made of.
    oddities: Box<[String]>,
}

/// What the store must keep of a set before a request is made under it.
#[derive(Clone, Debug)]
pub struct Pins {
    /// Its entries.
    pub entries: Vec<PolicyEntry>,
    /// Each module's bytes, once.
    pub modules: Vec<Vec<u8>>,
    /// The signatures of the modules and of the set, each with the digest that it is over.
    pub signatures: Vec<(Digest, Signature)>,
}

/// What the store has kept of a set.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What errors call it.
    pub name: String,
    /// Its entries.
    pub entries: Vec<PolicyEntry>,
    /// The bytes of their modules.
    pub modules: Vec<Vec<u8>>,
    /// Signatures of the modules and of the set.
    pub signatures: Vec<Signature>,
}

impl PolicySet {
    /// Reads and checks the set in the folder `dir`: `policy-set.yaml`, `modules/*.wasm`, `schemas/*.json`.
    /// Slow, as it may compile: to be called off the request path.
    pub fn load(dir: &Path, engine: &Engine) -> Result<PolicySet, LoadErrors> {
        PolicySet::build(&Source::read(dir, engine.limits())?, engine)
    }

    /// Checks a set whose files are at hand, wherever they came from.
    pub fn build(source: &Source, engine: &Engine) -> Result<PolicySet, LoadErrors> {
        let mut set = load::load(source, engine)?;
        set.oddities = source.oddities(!set.signed_by().is_empty()).into();
        Ok(set)
    }

    /// Makes a set of what the store kept of it. Everything is tried again.
    /// Metrics and failures call its policies what `measured_as` makes of their names.
    /// Slow, as it may compile: to be called off the request path.
    pub fn restore(
        stored: Stored,
        engine: &Engine,
        measured_as: &dyn Fn(&str) -> String,
    ) -> Result<PolicySet, LoadErrors> {
        load::restore(stored, engine, measured_as)
    }

    /// The modules that the text of a set pins, as far as it can be read, each with where it can be fetched.
    #[must_use]
    pub fn pinned(text: &str) -> BTreeMap<Digest, Option<Repository>> {
        load::pinned(text)
    }

    fn new(
        actions: BTreeMap<String, Arc<ActionPolicy>>,
        fallback: Option<Arc<ActionPolicy>>,
        modules: BTreeMap<Digest, Arc<Module>>,
    ) -> PolicySet {
        let all = || actions.values().chain(&fallback);
        let hash = hash_of(all().map(|policy| (&policy.entry().action, policy.hash())));
        let by_hash = all().map(|policy| (policy.hash(), Arc::clone(policy))).collect();
        PolicySet {
            hash,
            actions,
            fallback,
            by_hash,
            modules,
            verified: Vec::new(),
            oddities: Box::default(),
        }
    }

    /// SHA-256 of the canonical object of policy hashes by action; `*` is the entry of unknown actions.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The policy hash of each action; `*` is the entry of unknown actions. Its canonical JSON has the digest
    /// [`PolicySet::hash`].
    #[must_use]
    pub fn entries(&self) -> BTreeMap<String, Digest> {
        self.policies().map(|policy| (policy.entry().action.clone(), policy.hash())).collect()
    }

    /// What judges this action: its own entry, else that of unknown actions. `None` if there is neither,
    /// and the action must be denied.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<&Arc<ActionPolicy>> {
        self.actions.get(name).or(self.fallback.as_ref())
    }

    /// Whose valid signatures it has; none if none is required.
    #[must_use]
    pub fn signed_by(&self) -> Vec<PublicKey> {
        let own = self.verified.iter().filter(|(digest, _)| *digest == self.hash);
        own.map(|(_, verified)| verified.key).collect()
    }

    /// The entry with this hash.
    #[must_use]
    pub fn by_hash(&self, hash: &Digest) -> Option<&Arc<ActionPolicy>> {
        self.by_hash.get(hash)
    }

    /// The listed actions and what judges them, by name.
    #[must_use]
    pub fn actions(&self) -> &BTreeMap<String, Arc<ActionPolicy>> {
        &self.actions
    }

    /// Every entry, that of unknown actions included.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<ActionPolicy>> {
        self.actions.values().chain(&self.fallback)
    }

    /// What the store must keep before a request is made under this set.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins {
            entries: self.policies().map(|policy| PolicyEntry::clone(policy.entry())).collect(),
            modules: self.modules.values().map(|module| module.bytes().to_vec()).collect(),
            signatures: self
                .verified
                .iter()
                .map(|(digest, verified)| (*digest, verified.signature))
                .collect(),
        }
    }
}

/// SHA-256 of the canonical object of policy hashes by action.
fn hash_of<'a>(entries: impl Iterator<Item = (&'a String, Digest)>) -> Digest {
    Digest::of_json(&json!(entries.collect::<BTreeMap<_, _>>()))
}
