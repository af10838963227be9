//! The targets in force, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::lifecycle::{Milestone, Request};

use crate::target::Target;

type ByName = BTreeMap<String, Arc<dyn Target>>;

/// The targets in force, by name. Clones share them.
#[derive(Clone, Default)]
pub struct Targets(Arc<ArcSwap<ByName>>);

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.load().keys()).finish()
    }
}

impl Targets {
    /// Puts these targets of a kind in force, in the place of all that there were of it, and returns the names of those that
    /// are not there any more. The name of a target is its kind, or its kind, a colon and its own name.
    pub fn replace(
        &self,
        kind: &str,
        targets: impl IntoIterator<Item = (String, Arc<dyn Target>)>,
    ) -> Vec<String> {
        let targets: ByName = targets.into_iter().collect();
        let before = self.0.rcu(|before| {
            let others = before.iter().filter(|(name, _)| !is_of_kind(name, kind));
            let mut next: ByName = others.map(|(name, target)| (name.clone(), Arc::clone(target))).collect();
            next.extend(targets.iter().map(|(name, target)| (name.clone(), Arc::clone(target))));
            next
        });
        let gone = before.keys().filter(|name| is_of_kind(name, kind) && !targets.contains_key(*name));
        gone.cloned().collect()
    }

    /// A target by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Target>> {
        self.0.load().get(name).cloned()
    }

    /// The names of all.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.load().keys().cloned().collect()
    }

    /// The names of those that want any of these milestones of a request.
    #[must_use]
    pub fn of(&self, request: &Request, milestones: &[Milestone]) -> Vec<String> {
        let targets = self.0.load();
        let wanting = targets
            .iter()
            .filter(|(_, target)| milestones.iter().any(|milestone| target.wants(request, *milestone)));
        wanting.map(|(name, _)| name.clone()).collect()
    }
}

/// Whether the target of this name is of a kind.
pub(crate) fn is_of_kind(name: &str, kind: &str) -> bool {
    name.split(':').next() == Some(kind)
}
