//! The assertions of a scenario: what came of the last event.

use std::time::Duration;

use serde_json::Value;

use super::{
    Outcome, Scenario,
    describe::{describe, quoted},
    instant,
};
use crate::{Instant, Policy, bindings::exports::countersign::policy::policy as wire};

/// What came of it. Each assertion returns the scenario, to go on with it or to end it.
impl<P: Policy> Scenario<P> {
    /// The last act was refused, with this code among the reasons.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn refused_with(self, code: &str) -> Self {
        self.refused(&format!("a refusal with `{code}`"), |reason| reason.code == code)
    }

    /// The last act was refused with this code for what is at `path`.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn refused_at(self, code: &str, path: &str) -> Self {
        let is_there = |reason: &wire::Reason| reason.code == code && reason.path.as_deref() == Some(path);
        self.refused(&format!("a refusal with `{code}` at `{path}`"), is_there)
    }

    /// The policy had nothing to say of the last act, so it does not count unless another policy grants it.
    ///
    /// # Panics
    /// If the policy granted or refused it.
    #[track_caller]
    pub fn silent(mut self) -> Self {
        if !matches!(self.outcome, Outcome::Silent) {
            self.fail("silence", &self.seen());
        }
        self.unasserted = false;
        self
    }

    /// The request waits for one thing, with this label.
    ///
    /// # Panics
    /// If it does not, or waits for more.
    #[track_caller]
    pub fn waits_for(self, label: &str) -> Self {
        self.waits_for_all([label])
    }

    /// The request waits for the things with these labels, in this order, and for nothing else.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn waits_for_all<'l>(self, labels: impl IntoIterator<Item = &'l str>) -> Self {
        let expected: Vec<&str> = labels.into_iter().collect();
        let assertion = format!("waiting for {}", quoted(&expected));
        self.stands(&assertion, |standing| match standing {
            wire::Standing::Waiting(wanted) => wanted.iter().map(|wanted| wanted.label.as_str()).eq(expected),
            _ => false,
        })
    }

    /// The request waits for something that exactly these ids and `@group` names can meet.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn asks<'e>(self, eligible: impl IntoIterator<Item = &'e str>) -> Self {
        let expected: Vec<&str> = eligible.into_iter().collect();
        let assertion = format!("a requirement that {} can meet", quoted(&expected));
        self.stands(&assertion, |standing| match standing {
            wire::Standing::Waiting(wanted) => wanted.iter().any(|wanted| wanted.eligible == expected),
            _ => false,
        })
    }

    /// The policy is satisfied.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn satisfied(self) -> Self {
        self.stands("satisfied", |standing| matches!(standing, wire::Standing::Satisfied))
    }

    /// The request is denied, with this code and message.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn denied_with(self, code: &str, message: &str) -> Self {
        let assertion = format!("denied with `{code}`: {message}");
        self.stands(&assertion, |standing| match standing {
            wire::Standing::Denied(reason) => reason.code == code && reason.message == message,
            _ => false,
        })
    }

    /// Approvers may edit exactly these parameters.
    ///
    /// # Panics
    /// If the policy says otherwise.
    #[track_caller]
    pub fn editable<'k>(self, keys: impl IntoIterator<Item = &'k str>) -> Self {
        let expected: Vec<&str> = keys.into_iter().collect();
        let assertion = format!("editable: {}", quoted(&expected));
        let seen = self.counted(&assertion).editable.clone();
        if seen != expected {
            self.fail(&assertion, &format!("editable: {}", quoted(&seen)));
        }
        self
    }

    /// The policy asks to be woken this long after the request was made.
    ///
    /// # Panics
    /// If it asks for another time, or for none.
    #[track_caller]
    pub fn wakes_after(self, duration: Duration) -> Self {
        let assertion = format!("a wish to be woken after {duration:?}");
        match self.counted(&assertion).wake_at {
            None => self.fail(&assertion, "none"),
            Some(at) => {
                let seen = Duration::from_millis(at.saturating_sub(self.submitted_at));
                if seen != duration {
                    self.fail(&assertion, &format!("after {seen:?}"));
                }
            }
        }
        self
    }

    /// The policy asks to be woken at this time, in RFC 3339.
    ///
    /// # Panics
    /// If it asks for another time, or for none.
    #[track_caller]
    pub fn wakes_at(self, time: &str) -> Self {
        let assertion = format!("a wish to be woken at {time}");
        match self.counted(&assertion).wake_at {
            Some(at) if at == instant(time) => {}
            Some(at) => self.fail(&assertion, &Instant::from_millis(at).to_string()),
            None => self.fail(&assertion, "none"),
        }
        self
    }

    /// The policy does not ask to be woken.
    ///
    /// # Panics
    /// If it does.
    #[track_caller]
    pub fn sleeps(self) -> Self {
        let assertion = "no wish to be woken";
        if let Some(at) = self.counted(assertion).wake_at {
            self.fail(assertion, &Instant::from_millis(at).to_string());
        }
        self
    }

    /// The policy remembers this of the request, from its admission.
    ///
    /// # Panics
    /// If it remembers something else.
    #[track_caller]
    pub fn remembers(self, memo: &Value) -> Self {
        let seen = self.memo.as_deref().unwrap_or("nothing, for no request was made");
        if serde_json::from_str::<Value>(seen).ok().as_ref() != Some(memo) {
            self.fail(&format!("the memo {memo}"), seen);
        }
        self
    }
}

impl<P: Policy> Scenario<P> {
    #[track_caller]
    fn refused(mut self, assertion: &str, expected: impl Fn(&wire::Reason) -> bool) -> Self {
        match &self.outcome {
            Outcome::Refused(reasons) if reasons.iter().any(expected) => {}
            _ => self.fail(assertion, &self.seen()),
        }
        self.unasserted = false;
        self
    }

    /// The request stands as asserted after the last event that counted.
    #[track_caller]
    fn stands(self, assertion: &str, holds: impl FnOnce(&wire::Standing) -> bool) -> Self {
        let standing = &self.counted(assertion).standing;
        if !holds(standing) {
            self.fail(assertion, &describe(standing));
        }
        self
    }

    /// The ruling on the last event that counted, for assertions about what came of it.
    #[track_caller]
    fn counted(&self, assertion: &str) -> &wire::Ruling {
        self.require_assertion();
        match &self.ruling {
            Some(ruling) => ruling,
            None => self.fail(assertion, "no request"),
        }
    }
}
