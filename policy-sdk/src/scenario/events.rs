//! The events of a scenario: what happens, in order.

use std::time::Duration;

use serde_json::Value;

use super::{Scenario, describe::codes, instant};
use crate::{Edit, Instant, Json, Policy, bindings::exports::countersign::policy::policy as wire};

/// An edit, for [`Scenario::approve_with`]; set its `violations` if the action's schema would find some.
/// ```
/// use countersign_policy_sdk::{Edit, scenario::edit};
/// use serde_json::json;
///
/// let added = edit("canary", None, json!(true));
/// let too_many = Edit { violations: vec!["more than 20".into()], ..edit("replicas", json!(3), json!(30)) };
/// # let _ = (added, too_many);
/// ```
#[must_use]
pub fn edit(key: &str, before: impl Into<Option<Value>>, after: impl Into<Option<Value>>) -> Edit {
    let text = |value: Option<Value>| value.map(|value| Json::from_text(value.to_string()));
    Edit {
        key: key.to_owned(),
        before: text(before.into()),
        after: text(after.into()),
        violations: Vec::new(),
    }
}

/// What happens, in order.
impl<P: Policy> Scenario<P> {
    /// The request is made and admitted.
    ///
    /// # Panics
    /// If the policy refuses it.
    #[must_use]
    #[track_caller]
    pub fn admitted(mut self) -> Self {
        match self.admission() {
            Ok(memo) => self.memo = Some(memo),
            Err(reasons) => self.fail("an admission", &codes(&reasons)),
        }
        self.steps.push(format!("{} makes a request: admitted", self.requester));
        self.happens("the request is submitted".to_owned(), None, wire::Act::Submitted)
    }

    /// The request is made and refused, with this code among the reasons. The scenario ends here.
    ///
    /// # Panics
    /// If it is admitted, or refused for other reasons.
    #[track_caller]
    pub fn not_admitted(self, code: &str) {
        match self.admission() {
            Err(reasons) if reasons.iter().any(|reason| reason.code == code) => {}
            Err(reasons) => self.fail(&format!("no admission, with `{code}`"), &codes(&reasons)),
            Ok(memo) => {
                self.fail(&format!("no admission, with `{code}`"), &format!("admitted, with the memo {memo}"))
            }
        }
    }

    /// Time passes, and nothing else happens.
    #[must_use]
    pub fn later(mut self, duration: Duration) -> Self {
        self.now += u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Time passes up to this point, in RFC 3339, and nothing else happens.
    ///
    /// # Panics
    /// If this is no point in time, or is over already.
    #[must_use]
    #[track_caller]
    pub fn until(mut self, time: &str) -> Self {
        let time = instant(time);
        assert!(
            time > self.now,
            "expected: a time that is still to come\nseen: {}",
            Instant::from_millis(time)
        );
        // The next event happens a second after the last one.
        self.now = time - 1000;
        self
    }

    /// Somebody approves the request as it stands.
    #[must_use]
    #[track_caller]
    pub fn approve(self, id: &str) -> Self {
        self.happens(format!("{id} approves"), Some(id), wire::Act::Approve(Vec::new()))
    }

    /// Somebody approves the request with edits.
    #[must_use]
    #[track_caller]
    pub fn approve_with(self, id: &str, edits: impl IntoIterator<Item = Edit>) -> Self {
        let edits: Vec<_> = edits.into_iter().map(write_edit).collect();
        let keys: Vec<_> = edits.iter().map(|edit| edit.key.as_str()).collect();
        let line = format!("{id} approves with edits of {}", keys.join(", "));
        self.happens(line, Some(id), wire::Act::Approve(edits))
    }

    /// Somebody denies the request, without saying why.
    #[must_use]
    #[track_caller]
    pub fn deny(self, id: &str) -> Self {
        self.happens(format!("{id} denies"), Some(id), wire::Act::Deny(None))
    }

    /// Somebody denies the request, and says why.
    #[must_use]
    #[track_caller]
    pub fn deny_saying(self, id: &str, message: &str) -> Self {
        self.happens(format!("{id} denies: `{message}`"), Some(id), wire::Act::Deny(Some(message.to_owned())))
    }

    /// Somebody acknowledges a persona.
    #[must_use]
    #[track_caller]
    pub fn acknowledge(self, id: &str, persona: &str) -> Self {
        let line = format!("{id} acknowledges the persona {persona}");
        self.happens(line, Some(id), wire::Act::Acknowledge(persona.to_owned()))
    }

    /// Somebody takes back their own approval and acknowledgements.
    #[must_use]
    #[track_caller]
    pub fn withdraw(self, id: &str) -> Self {
        self.happens(format!("{id} withdraws"), Some(id), wire::Act::Withdraw)
    }

    /// The escalation time passes.
    #[must_use]
    #[track_caller]
    pub fn escalated(self) -> Self {
        self.happens("the request is escalated".to_owned(), None, wire::Act::Escalated)
    }

    /// The time comes that the policy asked to be woken at; see [`wakes_after`](Self::wakes_after).
    ///
    /// # Panics
    /// If it did not ask.
    #[must_use]
    #[track_caller]
    pub fn tick(mut self) -> Self {
        match self.ruling.as_ref().and_then(|ruling| ruling.wake_at) {
            Some(wake_at) => self.now = self.now.max(wake_at),
            None => self.fail("a wish to be woken", "none"),
        }
        self.happens("the policy is woken".to_owned(), None, wire::Act::Tick)
    }
}

fn write_edit(edit: Edit) -> wire::Edit {
    let text = |value: Option<Json>| value.map(|value| value.text().to_owned());
    wire::Edit {
        key: edit.key,
        before: text(edit.before),
        after: text(edit.after),
        violations: edit.violations,
    }
}
