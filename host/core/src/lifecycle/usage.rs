//! How an approval is used: once, for the parameters that were agreed to, and what came of it.
//!
//! The status stays `approved`. No policy is asked: they have agreed already, and to these parameters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::audit_event::AuditEvent;
use super::digest::{Digest, payload_hash};
use super::effect::{AuditEntry, Count, Effect};
use super::request::{Request, State, Status};
use super::step::{Step, entry};
use super::timestamp::Timestamp;

/// How an approval is meant to be used, as its action says; a request keeps it to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseTerms {
    /// How long it can be consumed after it was approved, in milliseconds; `None` for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_ms: Option<u64>,
    /// Whether the caller must consume it before it acts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

impl UseTerms {
    /// Whether the action says nothing of it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == UseTerms::default()
    }
}

/// How far an approval has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// Nobody has consumed it.
    Unused,
    /// Its caller has consumed it, and has not said what came of it.
    Consumed,
    /// Nobody consumed it while that was possible.
    Lapsed,
    /// It was consumed, and what was approved succeeded.
    Succeeded,
    /// It was consumed, and what was approved failed.
    Failed,
}

impl Usage {
    /// As callers know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Usage::Unused => "unused",
            Usage::Consumed => "consumed",
            Usage::Lapsed => "lapsed",
            Usage::Succeeded => "succeeded",
            Usage::Failed => "failed",
        }
    }
}

/// That an approval was consumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumption {
    /// When.
    pub at: Timestamp,
    /// The caller of the access file that consumed it; `None` if there is no access file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The idempotency key that it was consumed with, so that a repeated call gets the same answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
    /// What came of it, if the caller has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<RunReport>,
}

/// What a repeated call is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// Digest of the caller and its idempotency key.
    pub key: Digest,
    /// Digest of the body: the same key with another body is refused.
    pub fingerprint: Digest,
}

/// What came of an approved run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// When the caller said so.
    pub at: Timestamp,
    /// Whether it succeeded.
    pub result: RunResult,
    /// More about it, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Whether an approved run succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunResult {
    /// It did.
    Succeeded,
    /// It did not.
    Failed,
}

impl RunResult {
    /// As callers and metrics know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RunResult::Succeeded => "succeeded",
            RunResult::Failed => "failed",
        }
    }
}

/// What somebody is about to run, for comparison with what was agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The action, if it was said.
    pub action: Option<String>,
    /// The parameters.
    pub parameters: PresentedParameters,
}

/// The parameters that somebody is about to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresentedParameters {
    /// The commitment to each parameter, made as those of the request are.
    Commitments(BTreeMap<String, Digest>),
    /// The payload hash, which the caller has computed from the parameters.
    PayloadHash(Digest),
}

/// Why an approval cannot be used so. Nothing changes but the audit log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UseRefusal {
    /// There is no approval to use.
    #[error("the request is {0}, not approved")]
    NotApproved(Status),
    /// It was consumed before.
    #[error("this approval was consumed already")]
    AlreadyConsumed,
    /// It was not consumed while that was possible.
    #[error("this approval could be consumed until {0}")]
    ApprovalExpired(Timestamp),
    /// What is about to be run is another action than the one that was agreed to.
    #[error("this approval is one of another action")]
    ActionMismatch,
    /// What is about to be run is not what was agreed to. Holds the keys that differ, if they are known.
    #[error("these are not the parameters that were approved{}", listed(.0))]
    PayloadMismatch(Vec<String>),
    /// The parameters cannot be compared, since the salt cannot be decrypted.
    #[error(
        "the salt of this request is lost, so its parameters cannot be compared; send their `payloadHash`"
    )]
    SaltLost,
    /// It was made by another caller.
    #[error("only the caller that made the request can use its approval")]
    NotTheCaller,
    /// The outcome of something that nobody has begun.
    #[error("this approval was not consumed, so nothing can have come of it")]
    NotConsumed,
    /// Another outcome was reported before.
    #[error("it was reported already that it {}", .0.as_str())]
    AlreadyReported(RunResult),
}

fn listed(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(": {}", keys.join(", ")) }
}

impl UseRefusal {
    /// All codes, for metrics that start at zero.
    pub const CODES: [&'static str; 9] = [
        "not_approved",
        "already_consumed",
        "approval_expired",
        "action_mismatch",
        "payload_mismatch",
        "salt_lost",
        "not_the_caller",
        "not_consumed",
        "already_reported",
    ];

    /// A stable code for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            UseRefusal::NotApproved(_) => "not_approved",
            UseRefusal::AlreadyConsumed => "already_consumed",
            UseRefusal::ApprovalExpired(_) => "approval_expired",
            UseRefusal::ActionMismatch => "action_mismatch",
            UseRefusal::PayloadMismatch(_) => "payload_mismatch",
            UseRefusal::SaltLost => "salt_lost",
            UseRefusal::NotTheCaller => "not_the_caller",
            UseRefusal::NotConsumed => "not_consumed",
            UseRefusal::AlreadyReported(_) => "already_reported",
        }
    }

    /// Whether it is worth a line of the audit log: somebody was about to run what was not agreed to, or more than once.
    #[must_use]
    pub const fn is_audited(&self) -> bool {
        match self {
            UseRefusal::AlreadyConsumed
            | UseRefusal::ApprovalExpired(_)
            | UseRefusal::ActionMismatch
            | UseRefusal::PayloadMismatch(_)
            | UseRefusal::NotTheCaller => true,
            UseRefusal::NotApproved(_)
            | UseRefusal::SaltLost
            | UseRefusal::NotConsumed
            | UseRefusal::AlreadyReported(_) => false,
        }
    }

    /// The keys that differ from what was agreed to, as far as they are known.
    #[must_use]
    pub fn differing(&self) -> &[String] {
        match self {
            UseRefusal::PayloadMismatch(keys) => keys,
            _ => &[],
        }
    }

    /// What the audit log says of it. No value is in it.
    #[must_use]
    pub fn audit(&self, request: &Request, at: Timestamp, act: UseAct, by: Option<&str>) -> AuditEntry {
        let mut detail = called_by(by);
        detail.insert("act".into(), act.as_str().into());
        detail.insert("code".into(), self.code().into());
        if !self.differing().is_empty() {
            detail.insert("differing".into(), json!(self.differing()));
        }
        entry(request, at, AuditEvent::UseRefused, None, detail)
    }

    /// How the metrics tell it.
    #[must_use]
    pub fn count(&self, request: &Request) -> Count {
        let action = request.submission.rules.as_str();
        Count::one("approval_use_refusals_total", &[("action", action), ("reason", self.code())])
    }
}

/// What somebody wants to do with an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseAct {
    /// Consume it.
    Consume,
    /// Say what came of it.
    Report,
}

impl UseAct {
    /// As the audit log has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            UseAct::Consume => "consume",
            UseAct::Report => "outcome",
        }
    }
}

impl Request {
    /// Until when its approval can be consumed; `None` if it is not approved, or if that has no end.
    #[must_use]
    pub fn valid_until(&self) -> Option<Timestamp> {
        let State::Approved { decided, .. } = &self.state else { return None };
        Some(decided.at.plus(self.submission.terms.valid_for_ms?))
    }

    /// That its approval was consumed, if it was.
    #[must_use]
    pub fn consumption(&self) -> Option<&Consumption> {
        match &self.state {
            State::Approved { consumed, .. } => consumed.as_ref(),
            State::Open(_) | State::Denied(_) | State::Expired { .. } | State::Cancelled { .. } => None,
        }
    }

    /// How far its approval has been used at `now`; `None` unless it is approved.
    #[must_use]
    pub fn usage(&self, now: Timestamp) -> Option<Usage> {
        let State::Approved { consumed, .. } = &self.state else { return None };
        Some(match consumed {
            Some(Consumption { report: Some(report), .. }) => match report.result {
                RunResult::Succeeded => Usage::Succeeded,
                RunResult::Failed => Usage::Failed,
            },
            Some(_) => Usage::Consumed,
            None if self.valid_until().is_some_and(|until| now >= until) => Usage::Lapsed,
            None => Usage::Unused,
        })
    }

    /// How many versions of it came after its end.
    pub(super) fn versions_since_end(&self) -> u64 {
        self.consumption().map_or(0, |consumed| 1 + u64::from(consumed.report.is_some()))
    }

    /// Uses the approval, for what is presented. `consumption` says by whom; its time is set here.
    ///
    /// # Errors
    /// If there is no approval, it was used before or has lapsed at `now`, or something else was agreed to.
    pub fn consume(
        &self,
        now: Timestamp,
        consumption: Consumption,
        presented: &Presented,
    ) -> Result<Step, UseRefusal> {
        let State::Approved { decided, consumed: None } = &self.state else {
            return Err(match self.status() {
                Status::Approved => UseRefusal::AlreadyConsumed,
                other => UseRefusal::NotApproved(other),
            });
        };
        if let Some(until) = self.valid_until().filter(|until| now >= *until) {
            return Err(UseRefusal::ApprovalExpired(until));
        }
        self.compare(presented)?;
        let at = self.time_of_next(now);
        let detail = called_by(consumption.by.as_deref());
        let consumed = Consumption { at, report: None, ..consumption };
        let action = self.submission.rules.as_str();
        let count = Count::one("approvals_consumed_total", &[("action", action)]);
        let state = State::Approved { decided: decided.clone(), consumed: Some(consumed) };
        Ok(self.used(at, state, AuditEvent::Consumed, detail, count))
    }

    /// Notes what came of the run that the approval was consumed for. Its time is set here.
    ///
    /// # Errors
    /// If the approval was not consumed, or an outcome was reported before.
    pub fn report(&self, now: Timestamp, by: Option<&str>, report: RunReport) -> Result<Step, UseRefusal> {
        let State::Approved { decided, consumed } = &self.state else {
            return Err(UseRefusal::NotApproved(self.status()));
        };
        let consumed = consumed.as_ref().ok_or(UseRefusal::NotConsumed)?;
        if let Some(known) = &consumed.report {
            return Err(UseRefusal::AlreadyReported(known.result));
        }
        let at = self.time_of_next(now);
        let mut detail = called_by(by);
        detail.insert("outcome".into(), report.result.as_str().into());
        if let Some(words) = &report.detail {
            detail.insert("detail".into(), words.as_str().into());
        }
        let action = self.submission.rules.as_str();
        let labels = [("action", action), ("outcome", report.result.as_str())];
        let count = Count::one("approval_outcomes_total", &labels);
        let consumed = Consumption { report: Some(RunReport { at, ..report }), ..consumed.clone() };
        let state = State::Approved { decided: decided.clone(), consumed: Some(consumed) };
        Ok(self.used(at, state, AuditEvent::OutcomeReported, detail, count))
    }

    /// Compares what is about to be run with what was agreed to.
    fn compare(&self, presented: &Presented) -> Result<(), UseRefusal> {
        if presented.action.as_ref().is_some_and(|action| *action != self.submission.action) {
            return Err(UseRefusal::ActionMismatch);
        }
        let agreed = self.commitments();
        let differing = match &presented.parameters {
            PresentedParameters::PayloadHash(hash) if *hash == payload_hash(&agreed) => return Ok(()),
            PresentedParameters::PayloadHash(_) => Vec::new(),
            PresentedParameters::Commitments(presented) if *presented == agreed => return Ok(()),
            PresentedParameters::Commitments(presented) => {
                let keys = agreed.keys().chain(presented.keys().filter(|key| !agreed.contains_key(*key)));
                keys.filter(|key| agreed.get(*key) != presented.get(*key)).cloned().collect()
            }
        };
        Err(UseRefusal::PayloadMismatch(differing))
    }

    /// The version after something was done with the approval.
    fn used(
        &self,
        at: Timestamp,
        state: State,
        event: AuditEvent,
        detail: Map<String, Value>,
        count: Count,
    ) -> Step {
        let request = Request { version: self.version + 1, state, ..self.clone() };
        let audit = vec![entry(&request, at, event, None, detail)];
        Step { request, audit, effects: vec![Effect::ShowRequest], counts: vec![count] }
    }
}

fn called_by(caller: Option<&str>) -> Map<String, Value> {
    caller.map(|caller| ("caller".to_owned(), caller.into())).into_iter().collect()
}
