//! The setting of a scenario: what is so before the request is made.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use serde_json::{Value, json};

use super::{Outcome, Scenario, config::config_problems, instant};
use crate::{Known, Policy};

/// When a synthetic request is made unless the scenario says: an arbitrary time, and the same in every run.
const SUBMITTED_AT_MS: u64 = 1_700_000_000_000;

/// The setting: what is so before the request is made.
impl<P: Policy> Scenario<P> {
    /// A policy set with this configuration.
    ///
    /// # Panics
    /// If the gateway would refuse the configuration.
    #[must_use]
    #[track_caller]
    pub fn new(config: Value) -> Self {
        let problems = config_problems::<P>(&config);
        assert!(problems.is_empty(), "expected: a configuration without fault\nseen: {problems:#?}");
        Self {
            config: config.to_string(),
            groups: BTreeMap::new(),
            requester: "U0REQUESTER".to_owned(),
            requester_is: Known::Person,
            owners: Vec::new(),
            params: "{}".to_owned(),
            meta: json!({ "justification": "a synthetic request" }).to_string(),
            submitted_at: SUBMITTED_AT_MS,
            lifetime: Duration::from_secs(600),
            lineage_depth: 0,
            granted_elsewhere: false,
            now: SUBMITTED_AT_MS,
            memo: None,
            history: Vec::new(),
            ruling: None,
            outcome: Outcome::Counted,
            unasserted: false,
            steps: Vec::new(),
            policy: PhantomData,
        }
    }

    /// Asserts that the gateway would refuse this configuration, for what is at `path` (a JSON Pointer): by the schema or
    /// by [`Policy::check`].
    ///
    /// # Panics
    /// If nothing is wrong there.
    #[track_caller]
    pub fn config_refused(config: Value, path: &str) {
        let problems = config_problems::<P>(&config);
        let found = problems.iter().any(|problem| problem.path == path);
        assert!(found, "expected: a fault at `{path}` of {config}\nseen: {problems:#?}");
    }

    /// A group of the policy set, named without `@`.
    #[must_use]
    pub fn group<'i>(mut self, name: &str, ids: impl IntoIterator<Item = &'i str>) -> Self {
        self.groups.insert(name.to_owned(), ids.into_iter().map(str::to_owned).collect());
        self
    }

    /// Who makes the request.
    #[must_use]
    pub fn requested_by(mut self, id: &str) -> Self {
        id.clone_into(&mut self.requester);
        self
    }

    /// What kind of thing the requester is: a person, unless this says otherwise.
    #[must_use]
    pub fn requester_is(mut self, known: Known) -> Self {
        self.requester_is = known;
        self
    }

    /// People who count as requesters, too.
    #[must_use]
    pub fn owned_by<'i>(mut self, ids: impl IntoIterator<Item = &'i str>) -> Self {
        self.owners = ids.into_iter().map(str::to_owned).collect();
        self
    }

    /// The request's parameters, as the policy sees them in all calls; a JSON object.
    #[must_use]
    pub fn params(mut self, params: Value) -> Self {
        self.params = params.to_string();
        self
    }

    /// The request's origin, justification and links; a JSON object.
    #[must_use]
    pub fn meta(mut self, meta: Value) -> Self {
        self.meta = meta.to_string();
        self
    }

    /// When the request is made, in RFC 3339; for policies that look at the calendar.
    ///
    /// # Panics
    /// If this is no point in time.
    #[must_use]
    #[track_caller]
    pub fn requested_at(mut self, time: &str) -> Self {
        self.submitted_at = instant(time);
        self.now = self.submitted_at;
        self
    }

    /// When the request expires, counted from its submission.
    #[must_use]
    pub fn expires_after(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// How many requests of the same lineage came before.
    #[must_use]
    pub fn lineage_depth(mut self, depth: u32) -> Self {
        self.lineage_depth = depth;
        self
    }

    /// Another policy of the action grants every act, so that what this one does not refuse counts.
    /// For policies that grant little or nothing themselves.
    #[must_use]
    pub fn acts_granted_elsewhere(mut self) -> Self {
        self.granted_elsewhere = true;
        self
    }
}
