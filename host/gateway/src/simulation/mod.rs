//! What would become of requests under other rules than their own, without any effect.
//!
//! A simulation is one request that goes its way under a candidate's rules. The [`Shadow`] rehearses live requests beside
//! the policy set in force; [`replay`] rehearses recorded ones.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod replay;
mod shadow;
mod size;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    self, Act, Actor, Escalation, Intent, PolicyFailure, Reason, Refusal, Request, RequestId, State, Status,
    Submission, Timestamp,
};
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Attempt, NotMade};
use countersign_policy::reach;
use serde_json::{Map, Value};

use crate::GatewayError;

pub(crate) use shadow::{Cause, Observation};
pub use shadow::{Difference, Explained, Observed, Sample, Shadow, ShadowError, Standing};

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
    /// What is due of `request` by itself.
    #[must_use]
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
    /// Submits it, and refuses what a gateway would refuse since nobody could approve it, as far as `directory` knows
    /// people. `known` are memos that need not be asked for, by the place of the policy.
    pub fn admit(
        rules: &Arc<ActionPolicy>,
        id: RequestId,
        submission: Submission,
        params: &Map<String, Value>,
        directory: &Directory,
        known: impl Fn(usize) -> Option<String>,
    ) -> Result<Simulation, Outcome> {
        match decide::admit(rules, id, submission, params, known).outcome {
            Ok(step) => {
                let reasons = reach::unsatisfiable(rules.entry(), &step.request, directory);
                if !reasons.is_empty() {
                    return Err(Outcome::Denied(codes(&reasons)));
                }
                Ok(Simulation { rules: Arc::clone(rules), request: step.request })
            }
            Err(NotMade::Denied(reasons)) => Err(Outcome::Denied(codes(&reasons))),
            Err(NotMade::Failed(failures)) => Err(Outcome::failed(&failures)),
            Err(NotMade::Refused(refusal)) => Err(Outcome::Denied(codes(refusal.reasons()))),
        }
    }

    /// The rules of the candidate.
    #[must_use]
    pub fn rules(&self) -> &ActionPolicy {
        &self.rules
    }

    /// Somebody who acts on it.
    #[must_use]
    pub fn actor(&self, name: &str, directory: &Directory, at: Timestamp) -> Actor {
        self.rules.entry().actor_on(&self.request, name, directory, at)
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.request.status()
    }

    /// When it expires.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.request.submission.expires_at
    }

    /// How many bytes the request takes, about.
    fn bytes(&self) -> usize {
        size::of_request(&self.request)
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
            let intent = if escalation == Some(due) { Intent::Escalate } else { Intent::Wake };
            // If it fails it stays due, and is tried again with what comes next.
            self.apply(due, by_itself(intent)).map_err(|refusal| Outcome::refused(&refusal))?;
        }
    }

    /// What happened to the other request at `at` happens to this one. An escalation comes if it is due and has not come
    /// before, a wake-up if it is due.
    pub fn happen(&mut self, at: Timestamp, attempt: Attempt) -> Outcome {
        let escalated = |event: &lifecycle::Event| event.act == Act::Escalated;
        let is_over = match attempt.intent {
            Intent::Escalate => self.request.history.iter().any(escalated),
            Intent::Wake => Timers::of(&self.request).wake_up.is_none_or(|due| due > at),
            _ => false,
        };
        if is_over {
            return Outcome::Counted(self.status());
        }
        match self.apply(at, attempt) {
            Ok(()) => Outcome::Counted(self.status()),
            Err(refusal) => Outcome::refused(&refusal),
        }
    }

    fn apply(&mut self, at: Timestamp, attempt: Attempt) -> Result<(), Refusal> {
        self.request = decide::event(&self.rules, &self.request, attempt, at).outcome?.request;
        Ok(())
    }
}

impl Outcome {
    /// What became of a submission that was not admitted; `None` if the policies have no part in that.
    pub fn of_submission(error: &GatewayError) -> Option<Outcome> {
        match error {
            GatewayError::UnknownAction(_) => Some(Outcome::unknown_action()),
            GatewayError::Denied(reasons) | GatewayError::Unsatisfiable(reasons) => {
                Some(Outcome::Denied(codes(reasons)))
            }
            GatewayError::PolicyFailed(failures) => Some(Outcome::failed(failures)),
            _ => None,
        }
    }

    /// What became of an event that did not count; `None` if the policies have no part in that.
    pub fn of_event(error: &GatewayError) -> Option<Outcome> {
        match error {
            GatewayError::Refused(Refusal::Unread | Refusal::TakenBack | Refusal::TooLargeToReview) => None,
            GatewayError::Refused(refusal) => Some(Outcome::refused(refusal)),
            _ => None,
        }
    }

    /// The candidate does not know the action.
    #[must_use]
    pub fn unknown_action() -> Outcome {
        Outcome::Denied(vec!["unknown_action".to_owned()])
    }

    /// The event does not count.
    #[must_use]
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

fn by_itself(intent: Intent) -> Attempt {
    Attempt::of(intent, None)
}

fn codes(reasons: &[Reason]) -> Vec<String> {
    let mut codes: Vec<String> = reasons.iter().map(|reason| reason.code.clone()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}
