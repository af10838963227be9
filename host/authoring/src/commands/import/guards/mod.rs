//! The legacy service's `guards.yml`: what it can say, and what each part meant.

mod read;

use std::collections::BTreeMap;

use countersign_policy::yaml::document::Place;

pub(super) use self::read::read;

/// The content of `guards.yml`.
pub(super) struct Guards {
    pub(super) actions: Vec<Action>,
    /// The holders of each persona. The legacy service did not have this: users add it before an import.
    pub(super) personas: BTreeMap<String, Located<Vec<String>>>,
    pub(super) default_channel: Option<String>,
    pub(super) dm_fallback: Option<Located<String>>,
    /// In seconds.
    pub(super) default_timeout: u32,
    /// The place of `unknownAction: manual`.
    pub(super) manual: Option<Place>,
    pub(super) super_approvers: Vec<String>,
    /// A note for each field that the legacy service did not know and ignored.
    pub(super) ignored: Vec<Located<String>>,
}

/// A value with its place in the file.
pub(super) struct Located<T> {
    pub(super) at: Place,
    pub(super) value: T,
}

pub(super) struct Action {
    pub(super) name: String,
    pub(super) description: Option<String>,
    /// The ids listed; if there are none, only super approvers approve.
    pub(super) approvers: Vec<String>,
    /// The place of `allowHandles`: GitHub names, which cannot be resolved to Slack ids.
    pub(super) handles: Option<Place>,
    pub(super) min_approvals: u32,
    pub(super) personas: Option<Located<Vec<String>>>,
    /// In seconds.
    pub(super) timeout: Option<u32>,
    pub(super) redact: Redact,
    pub(super) channel: Option<String>,
    pub(super) escalation: Option<Escalation>,
    /// The cooldown in seconds, if rerequests are allowed.
    pub(super) rerequest: Option<u32>,
    /// The place of a cooldown that had no effect.
    pub(super) unused_cooldown: Option<Place>,
    /// The parameters that approvers may edit.
    pub(super) editable: Vec<Located<String>>,
    /// The place of editable keys that had no effect.
    pub(super) unused_keys: Option<Place>,
}

pub(super) enum Redact {
    Show(Vec<String>),
    Hide(Vec<String>),
}

pub(super) struct Escalation {
    /// Seconds before the expiry.
    pub(super) before: u32,
    pub(super) channel: Option<String>,
    pub(super) mention: Option<String>,
    pub(super) min_approvals: Option<u32>,
}

impl Action {
    pub(super) fn shows(&self, key: &str) -> bool {
        match &self.redact {
            Redact::Show(keys) => keys.iter().any(|shown| shown == key),
            Redact::Hide(keys) => !keys.iter().any(|hidden| hidden == key),
        }
    }

    /// The parameters that approvers may edit in a policy set: only those that they can see.
    pub(super) fn editable_and_shown(&self) -> impl Iterator<Item = &str> {
        self.editable.iter().map(|key| key.value.as_str()).filter(|key| self.shows(key))
    }
}
