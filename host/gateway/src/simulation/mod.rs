//! What would become of requests under other rules than their own, without any effect.
//!
//! A simulation is one request that goes its way under a candidate's rules. The [`Shadow`] rehearses live requests beside
//! the policy set in force; [`replay`] rehearses recorded ones.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod replay;
mod shadow;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

pub(crate) use shadow::{Cause, Observation};
pub use shadow::{Difference, Explained, Observed, Sample, Shadow, ShadowError, Standing};

use crate::{GatewayError, Intent};
use countersign_core::lifecycle::{
    self, Act, Actor, Change, Digest, Escalation, PolicyFailure, Reason, Refusal, Request, RequestId, State,
    Status, Submission, Timestamp,
};
use countersign_policy::{ActionPolicy, NotAdmitted};

/// What became of a submission or an event. Codes only: a message may quote what must not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request was made.
    Admitted(Status),
    /// It was not, for reasons with these codes.
    Denied(Vec<String>),
    /// The event counted, and left the request so.
    Counted(Status),
    /// The event did not count, for reasons with these codes.
    Refused(Vec<String>),
    /// Policies failed in these ways.
    Failed(Vec<String>),
}

/// What happens to a request by itself, before its expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// When it escalates.
    pub escalation: Option<Timestamp>,
    /// When a policy wants to judge again.
    pub wake_up: Option<Timestamp>,
}

impl Timers {
    pub fn of(request: &Request) -> Timers {
        let State::Open(open) = &request.state else { return Timers::default() };
        let escalation = match open.escalation {
            Escalation::At(at) => Some(at),
            Escalation::Never | Escalation::Done(_) => None,
        };
        Timers { escalation, wake_up: open.wake_at }
    }
}

/// A request that goes its way under a candidate's rules.
#[derive(Clone, Debug)]
pub struct Simulation {
    rules: Arc<ActionPolicy>,
    request: Request,
}

impl Simulation {
    /// Submits it. `known` are memos that need not be asked for, by the place of the policy.
    pub fn admit(
        rules: &Arc<ActionPolicy>,
        id: RequestId,
        submission: Submission,
        params: &Map<String, Value>,
        known: impl Fn(usize) -> Option<String>,
    ) -> Result<Simulation, Outcome> {
        let memos = rules.admit_again(id, &submission, params, known).map_err(|refused| match refused {
            NotAdmitted::Denied(reasons) => Outcome::Denied(codes(&reasons)),
            NotAdmitted::Failed(failure) => Outcome::failed(&[failure]),
        })?;
        if memos.iter().any(|memo| crate::repeats_hidden(memo, params, &submission.redacted)) {
            return Err(Outcome::Failed(vec!["malformed".to_owned()]));
        }
        let draft = lifecycle::draft(id, submission.clone(), memos.clone());
        let submitted = draft.next_event(submission.submitted_at, None, Act::Submitted);
        let verdicts = submitted.map(|event| rules.judge(&draft, &event));
        let step = verdicts.and_then(|verdicts| lifecycle::submit(id, submission, memos, verdicts));
        match step {
            Ok(step) => Ok(Simulation { rules: Arc::clone(rules), request: step.request }),
            Err(Refusal::PolicyFailed(failures)) => Err(Outcome::failed(&failures)),
            Err(refusal) => Err(Outcome::Denied(codes(refusal.reasons()))),
        }
    }

    pub fn rules(&self) -> &ActionPolicy {
        &self.rules
    }

    pub fn status(&self) -> Status {
        self.request.status()
    }

    pub fn expires_at(&self) -> Timestamp {
        self.request.submission.expires_at
    }

    /// What happens by itself until `to` happens: its own escalation, and the wake-ups that its own policies ask for. What
    /// the other request waits for at the same time is left to when that happens, which may be a little late.
    pub fn advance(&mut self, to: Timestamp, other: Timers) -> Result<(), Outcome> {
        loop {
            let Timers { escalation, wake_up } = Timers::of(&self.request);
            let escalation = escalation.filter(|due| Some(*due) != other.escalation);
            let wake_up = wake_up.filter(|due| Some(*due) != other.wake_up);
            let due = [escalation, wake_up].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= to && *due < self.expires_at()) else { return Ok(()) };
            let act = if escalation == Some(due) { Act::Escalated } else { Act::Tick };
            // Where it fails it stays due, and is tried again with what comes next.
            self.apply(due, None, act, None).map_err(|refusal| Outcome::refused(&refusal))?;
        }
    }

    /// The other request is escalated at `at`; so is this one, where it is due and was not before.
    pub fn escalate(&mut self, at: Timestamp) -> Outcome {
        let escalated = |event: &lifecycle::Event| event.act == Act::Escalated;
        if self.request.history.iter().any(escalated) {
            return Outcome::Counted(self.status());
        }
        self.happen(at, None, Act::Escalated, None)
    }

    /// The other request is woken at `at`; so is this one, where it is due.
    pub fn wake(&mut self, at: Timestamp) -> Outcome {
        match Timers::of(&self.request).wake_up {
            Some(due) if due <= at => self.happen(at, None, Act::Tick, None),
            _ => Outcome::Counted(self.status()),
        }
    }

    /// A person acts, who saw the parameters with the payload hash `seen`, where that is known.
    pub fn act(&mut self, at: Timestamp, by: Actor, intent: &Intent, seen: Option<Digest>) -> Outcome {
        let act = crate::act_of(&self.request, &self.rules, intent);
        self.happen(at, Some(by), act, seen)
    }

    /// Ends it in a way that no policy is asked about.
    pub fn end(&mut self, change: Change) -> Outcome {
        match lifecycle::step(self.request.clone(), change) {
            Ok(step) => {
                self.request = step.request;
                Outcome::Counted(self.status())
            }
            Err(refusal) => Outcome::refused(&refusal),
        }
    }

    fn happen(&mut self, at: Timestamp, by: Option<Actor>, act: Act, seen: Option<Digest>) -> Outcome {
        match self.apply(at, by, act, seen) {
            Ok(()) => Outcome::Counted(self.status()),
            Err(refusal) => Outcome::refused(&refusal),
        }
    }

    fn apply(
        &mut self,
        at: Timestamp,
        by: Option<Actor>,
        act: Act,
        seen: Option<Digest>,
    ) -> Result<(), Refusal> {
        let event = self.request.next_event(at, by, act)?;
        if seen.is_some_and(|seen| seen != self.request.payload_hash()) {
            return Err(Refusal::ParametersChanged);
        }
        let verdicts = self.rules.judge(&self.request, &event);
        let step = lifecycle::step(self.request.clone(), Change::Judged { event, verdicts })?;
        self.request = step.request;
        Ok(())
    }
}

impl Outcome {
    /// What became of a submission that was not admitted; `None` where the policies have no part in that.
    pub fn of_submission(error: &GatewayError) -> Option<Outcome> {
        match error {
            GatewayError::UnknownAction(_) => Some(Outcome::unknown_action()),
            GatewayError::Denied(reasons) => Some(Outcome::Denied(codes(reasons))),
            GatewayError::PolicyFailed(failures) => Some(Outcome::failed(failures)),
            _ => None,
        }
    }

    /// What became of an event that did not count; `None` where the policies have no part in that.
    pub fn of_event(error: &GatewayError) -> Option<Outcome> {
        match error {
            GatewayError::Refused(refusal) => Some(Outcome::refused(refusal)),
            _ => None,
        }
    }

    pub fn unknown_action() -> Outcome {
        Outcome::Denied(vec!["unknown_action".to_owned()])
    }

    pub fn refused(refusal: &Refusal) -> Outcome {
        if let Refusal::PolicyFailed(failures) = refusal {
            return Outcome::failed(failures);
        }
        let mut all = codes(refusal.reasons());
        // That a policy objects is told by its own code.
        if all.is_empty() || !matches!(refusal, Refusal::Objected(_)) {
            all.insert(0, refusal.code().to_owned());
        }
        Outcome::Refused(all)
    }

    fn failed(failures: &[PolicyFailure]) -> Outcome {
        let mut kinds: Vec<String> = failures.iter().map(|failure| failure.kind.to_string()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        Outcome::Failed(kinds)
    }

    /// Whether the request goes on after it.
    pub fn ended(&self) -> bool {
        match self {
            Outcome::Admitted(status) | Outcome::Counted(status) => status.is_terminal(),
            Outcome::Denied(_) | Outcome::Refused(_) | Outcome::Failed(_) => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Admitted(status) => write!(f, "admitted({status})"),
            Outcome::Counted(status) => write!(f, "counted({status})"),
            Outcome::Denied(codes) => write!(f, "denied({})", codes.join(", ")),
            Outcome::Refused(codes) => write!(f, "refused({})", codes.join(", ")),
            Outcome::Failed(kinds) => write!(f, "failed({})", kinds.join(", ")),
        }
    }
}

fn codes(reasons: &[Reason]) -> Vec<String> {
    let mut codes: Vec<String> = reasons.iter().map(|reason| reason.code.clone()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}
