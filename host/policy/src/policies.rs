//! The policies that the gateway judges by: the set in force, and what open requests are still pinned to.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;

use super::action::{ActionError, ActionPolicy};
use super::engine::Engine;
use super::module::{Module, ModuleError};
use super::set::PolicySet;
use countersign_core::lifecycle::Digest;
use countersign_core::record::PolicyEntry;
use countersign_core::record::Signature;

/// The set in force, and the entries of earlier ones by their hashes.
#[derive(Debug)]
pub struct Policies {
    engine: Engine,
    active: ArcSwap<PolicySet>,
    earlier: RwLock<HashMap<Digest, Arc<ActionPolicy>>>,
}

/// Why an entry that was kept in the store cannot judge again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A kept module is none.
    #[error("the stored module {digest} cannot be loaded: {error}")]
    Module {
        /// SHA-256 of the bytes.
        digest: Digest,
        /// What is wrong with them.
        error: ModuleError,
    },
    /// No policy set that has it has a valid signature of a trusted key.
    #[error("no policy set with the entry {0} is signed, as `COUNTERSIGN_SET_KEYS` demands")]
    Unsigned(Digest),
    /// The entry and its modules do not go together.
    #[error(transparent)]
    Action(#[from] ActionError),
}

impl Policies {
    /// Puts `set` in force.
    #[must_use]
    pub fn new(engine: Engine, set: PolicySet) -> Policies {
        Policies { engine, active: ArcSwap::from_pointee(set), earlier: RwLock::default() }
    }

    /// What loads and runs the modules.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The set that new requests are made under.
    #[must_use]
    pub fn active(&self) -> Arc<PolicySet> {
        self.active.load_full()
    }

    /// The entry with this hash, in force or not, if it is in memory; else see [`Policies::restore`].
    #[must_use]
    pub fn by_hash(&self, hash: &Digest) -> Option<Arc<ActionPolicy>> {
        if let Some(policy) = self.active.load().by_hash(hash) {
            return Some(Arc::clone(policy));
        }
        self.earlier.read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    /// Every entry that is in memory: those in force, and those of earlier sets that open requests still need.
    #[must_use]
    pub fn in_memory(&self) -> Vec<Arc<ActionPolicy>> {
        let earlier = self.earlier.read().unwrap_or_else(PoisonError::into_inner);
        self.active.load().policies().chain(earlier.values()).cloned().collect()
    }

    /// Puts `set` in force and returns the one before, whose entries stay to be found by their hashes.
    pub fn activate(&self, set: PolicySet) -> Arc<PolicySet> {
        // Kept before the swap as well as after: whoever looks in between finds an entry in one of the two.
        self.keep(self.active.load().policies());
        let before = self.active.swap(Arc::new(set));
        self.keep(before.policies());
        before
    }

    /// Makes an entry that the store kept ready to judge again, with the bytes of its modules and their signatures.
    /// Slow, as it may compile: to be called off the request path.
    pub fn restore(
        &self,
        entry: PolicyEntry,
        modules: &[Vec<u8>],
        signatures: &[Signature],
    ) -> Result<Arc<ActionPolicy>, RestoreError> {
        let mut loaded: HashMap<Digest, Arc<Module>> = HashMap::new();
        for bytes in modules {
            let module = self
                .engine
                .load(bytes, signatures)
                .map_err(|error| RestoreError::Module { digest: Digest::of(bytes), error })?;
            loaded.insert(module.digest(), module);
        }
        let policy = Arc::new(ActionPolicy::new(entry, |digest| loaded.get(digest).cloned())?);
        self.keep(std::iter::once(&policy));
        Ok(policy)
    }

    /// Whether entries of earlier sets are in memory, which may be needed no longer.
    #[must_use]
    pub fn has_earlier(&self) -> bool {
        let active = self.active.load();
        let earlier = self.earlier.read().unwrap_or_else(PoisonError::into_inner);
        earlier.keys().any(|hash| active.by_hash(hash).is_none())
    }

    /// Forgets the entries of earlier sets that `needed` says no open request needs, and the modules with them.
    pub fn retain(&self, needed: impl Fn(&Digest) -> bool) {
        self.earlier.write().unwrap_or_else(PoisonError::into_inner).retain(|hash, _| needed(hash));
    }

    fn keep<'a>(&self, policies: impl Iterator<Item = &'a Arc<ActionPolicy>>) {
        let mut earlier = self.earlier.write().unwrap_or_else(PoisonError::into_inner);
        earlier.extend(policies.map(|policy| (policy.hash(), Arc::clone(policy))));
    }
}
