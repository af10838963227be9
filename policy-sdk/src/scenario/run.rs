//! Runs a scenario: what the gateway would ask the policy, and what fails the test.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    Outcome, Scenario,
    config::undocumented,
    describe::{codes, describe},
};
use crate::{
    Exported, Known, Policy,
    bindings::exports::countersign::policy::policy::{self as wire, Guest as _},
};

impl<P: Policy> Scenario<P> {
    /// Judges an event, and keeps it if it counts.
    #[track_caller]
    pub(super) fn happens(mut self, line: String, by: Option<&str>, act: wire::Act) -> Self {
        self.require_assertion();
        let Some(memo) = self.memo.clone() else { self.fail("a request, with `admitted()`", "none") };
        if let Some(wire::Ruling { standing: wire::Standing::Denied(_), .. }) = self.ruling {
            self.fail("the end of the scenario, for the request is denied", &line);
        }
        self.now += 1000;
        let event = wire::Event {
            seq: u32::try_from(self.history.len()).unwrap_or(u32::MAX),
            at: self.now,
            by: by.map(|id| self.actor(id)),
            act,
        };
        let judge = || {
            Exported::<P>::judge(wire::Context {
                config: self.config.clone(),
                memo: memo.clone(),
                request: self.request(),
                history: self.history.clone(),
                event: event.clone(),
            })
        };
        let (judged, again) = (judge(), judge());
        if format!("{judged:?}") != format!("{again:?}") {
            self.fail(&format!("the same answer twice: {judged:?}"), &format!("{again:?}"));
        }
        self.outcome = match judged {
            Err(reasons) => {
                self.assert_documented(&reasons);
                Outcome::Refused(reasons)
            }
            Ok(ruling) => {
                if let wire::Standing::Denied(reason) = &ruling.standing {
                    self.assert_documented([reason]);
                }
                let silent = by.is_some() && !ruling.grants;
                if !silent || self.granted_elsewhere {
                    self.history.push(event);
                    self.ruling = Some(ruling);
                }
                if silent { Outcome::Silent } else { Outcome::Counted }
            }
        };
        self.unasserted = match &self.outcome {
            Outcome::Counted => false,
            Outcome::Silent => !self.granted_elsewhere,
            Outcome::Refused(_) => true,
        };
        let seen = self.seen();
        self.steps.push(format!("{line}: {seen}"));
        self
    }

    #[track_caller]
    pub(super) fn admission(&self) -> Result<String, Vec<wire::Reason>> {
        let admitted = Exported::<P>::admit(self.config.clone(), self.request());
        match &admitted {
            Ok(memo) if serde_json::from_str::<Value>(memo).is_err() => self.fail("a memo of JSON", memo),
            Ok(_) => {}
            Err(reasons) => self.assert_documented(reasons),
        }
        admitted
    }

    fn request(&self) -> wire::Request {
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        wire::Request {
            id: "req_scenario".to_owned(),
            action: "scenario".to_owned(),
            requester: wire::Actor {
                known: match self.requester_is {
                    Known::Person => wire::Known::Person,
                    Known::Machine => wire::Known::Machine,
                    Known::Unknown => wire::Known::Unknown,
                },
                ..self.actor(&self.requester)
            },
            owners: self.owners.clone(),
            rerequested_by: None,
            params: self.params.clone(),
            meta: self.meta.clone(),
            submitted_at: self.submitted_at,
            expires_at: self.submitted_at.saturating_add(lifetime_ms),
            lineage_depth: self.lineage_depth,
        }
    }

    fn actor(&self, id: &str) -> wire::Actor {
        let groups = self.groups.iter().filter(|(_, ids)| ids.iter().any(|member| member == id));
        wire::Actor {
            id: id.to_owned(),
            groups: groups.map(|(name, _)| name.clone()).collect(),
            known: wire::Known::Person,
            authenticated: true,
        }
    }

    /// Fails if the last act did not count, and no assertion says so.
    #[track_caller]
    pub(super) fn require_assertion(&self) {
        if self.unasserted {
            self.fail("an act that counts, or an assertion that it does not", &self.seen());
        }
    }

    #[track_caller]
    fn assert_documented<'r>(&self, reasons: impl IntoIterator<Item = &'r wire::Reason>) {
        if let Some(code) = undocumented::<P>(reasons) {
            self.fail(&format!("`{code}` among the documented REASONS"), "it is not there");
        }
    }

    pub(super) fn seen(&self) -> String {
        match (&self.outcome, &self.ruling) {
            (Outcome::Refused(reasons), _) => codes(reasons),
            (Outcome::Silent, _) if !self.granted_elsewhere => "silent".to_owned(),
            (_, Some(ruling)) => describe(&ruling.standing),
            (_, None) => "nothing".to_owned(),
        }
    }

    #[track_caller]
    pub(super) fn fail(&self, expected: &str, seen: &str) -> ! {
        let mut message = format!("a request under `{}` {}:\n", P::NAME, self.config);
        for line in &self.steps {
            let _ = writeln!(message, "  {line}");
        }
        panic!("{message}expected: {expected}\nseen: {seen}")
    }
}

/// A scenario must not end on an act that silently did not count.
impl<P: Policy> Drop for Scenario<P> {
    fn drop(&mut self) {
        if self.unasserted && !std::thread::panicking() {
            self.fail("an act that counts, or an assertion that it does not", &self.seen());
        }
    }
}
