//! An event that does not count: why, and how the audit log and the metrics tell it.

use serde_json::{Map, Value, json};

use super::audit_event::AuditEvent;
use super::effect::{AuditEntry, Count};
use super::event::{Act, Actor, PolicyFailure, Reason};
use super::request::{Request, Status};
use super::timestamp::Timestamp;

/// Why an event does not count. A refused event changes nothing but the audit log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has ended.
    #[error("the request is already {0}")]
    Ended(Status),
    /// The time to decide is over, even if the expiry is not stored yet.
    #[error("the request has expired")]
    TooLate,
    /// The actor's approval already stands.
    #[error("your approval already counts")]
    DuplicateApproval,
    /// The persona is already acknowledged.
    #[error("`{0}` is already acknowledged")]
    DuplicateAcknowledgement(String),
    /// The actor has neither an approval nor an acknowledgement to take back.
    #[error("you have nothing to withdraw")]
    NothingToWithdraw,
    /// No policy gives the actor the right to act so.
    #[error("you are not entitled to this{}", listed(.0))]
    Unauthorized(Vec<Reason>),
    /// The actor may act so, but a policy objects.
    #[error("a policy objects{}", listed(.0))]
    Objected(Vec<Reason>),
    /// No policy lets an approver edit these parameters.
    #[error("these parameters cannot be edited: {}", .0.join(", "))]
    NotEditable(Vec<String>),
    /// The actor saw other parameters than those that they would agree to.
    #[error("the parameters were changed since you looked")]
    ParametersChanged,
    /// The payload hash cannot be made for edited parameters, since the salt cannot be decrypted.
    #[error("these parameters can no longer be edited; approve them as they are, or deny")]
    SaltLost,
    /// The actor approves what they cannot have read in full.
    #[error("not all of the request was shown where you approved it")]
    Unread,
    /// The actor took back what they agree to, or denied, after they had agreed.
    #[error("you took this back, or denied, after you had pressed it")]
    TakenBack,
    /// Not all of the request could be shown to people, even in a review.
    #[error("the request is too large for people to read in full")]
    TooLargeToReview,
    /// A policy gave no usable answer.
    #[error("a policy gave no usable answer, so nothing was changed")]
    PolicyFailed(Vec<PolicyFailure>),
    /// It is not due, or was already done.
    #[error("this is not due")]
    NotDue,
    /// The request has too long a history to take another event.
    #[error("the request has too long a history to take another event")]
    HistoryFull,
}

fn listed(reasons: &[Reason]) -> String {
    reasons
        .iter()
        .enumerate()
        .map(|(n, reason)| format!("{}{}", if n == 0 { ": " } else { "; " }, reason.message))
        .collect()
}

impl Refusal {
    /// A stable code for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Ended(_) => "already_decided",
            Refusal::TooLate => "expired",
            Refusal::DuplicateApproval => "duplicate_approval",
            Refusal::DuplicateAcknowledgement(_) => "duplicate_acknowledgement",
            Refusal::NothingToWithdraw => "nothing_to_withdraw",
            Refusal::Unauthorized(_) => "unauthorized",
            Refusal::Objected(_) => "refused",
            Refusal::NotEditable(_) => "key_not_allowed",
            Refusal::ParametersChanged => "parameters_changed",
            Refusal::SaltLost => "salt_lost",
            Refusal::Unread => "not_reviewed",
            Refusal::TakenBack => "taken_back",
            Refusal::TooLargeToReview => "too_large_to_review",
            Refusal::PolicyFailed(_) => "policy_failure",
            Refusal::NotDue => "not_due",
            Refusal::HistoryFull => "history_full",
        }
    }

    /// The policies' reasons, if they gave any.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Refusal::Unauthorized(reasons) | Refusal::Objected(reasons) => reasons,
            _ => &[],
        }
    }

    /// What the audit log says of it. The values of edits are left out: nobody agreed to them.
    #[must_use]
    pub fn audit(&self, request: &Request, at: Timestamp, by: Option<&Actor>, act: &Act) -> AuditEntry {
        let mut detail = Map::new();
        detail.insert("act".into(), act.name().into());
        detail.insert("code".into(), self.code().into());
        if !self.reasons().is_empty() {
            detail.insert("reasons".into(), json!(self.reasons()));
        }
        match (self, act) {
            (Refusal::PolicyFailed(failures), _) => {
                let failures = failures.iter().map(|failure| {
                    json!({"policy": failure.policy, "kind": failure.kind.to_string(), "detail": failure.detail})
                });
                detail.insert("failures".into(), failures.collect());
            }
            (_, Act::Acknowledge { persona }) => {
                detail.insert("persona".into(), persona.as_str().into());
            }
            (_, Act::Approve { edits }) if !edits.is_empty() => {
                detail
                    .insert("keys".into(), edits.iter().map(|edit| Value::from(edit.key.as_str())).collect());
            }
            _ => {}
        }
        let event = match (self, act) {
            (Refusal::Unauthorized(_), _) => AuditEvent::UnauthorizedAttempt,
            (Refusal::PolicyFailed(_), _) => AuditEvent::PolicyFailure,
            (_, Act::Approve { edits }) if !edits.is_empty() => AuditEvent::OverrideRejected,
            _ => AuditEvent::Refused,
        };
        AuditEntry {
            at,
            event: event.as_str().to_owned(),
            action: request.submission.action.clone(),
            request: Some(request.id),
            status: Some(request.status()),
            actor: by.map(|actor| actor.id.clone()),
            policy_hash: Some(request.submission.policy_hash),
            payload_hash: Some(request.payload_hash()),
            detail,
        }
    }

    /// How the metrics tell it: a refused edit counts once for each reason.
    #[must_use]
    pub fn counts(&self, request: &Request, act: &Act) -> Vec<Count> {
        let Act::Approve { edits } = act else { return Vec::new() };
        if edits.is_empty() {
            return Vec::new();
        }
        let action = request.submission.rules.as_str();
        let mut codes: Vec<&str> = match self {
            Refusal::NotEditable(_) => vec!["key_not_allowed"],
            _ => self.reasons().iter().map(|reason| known_override_reason(&reason.code)).collect(),
        };
        codes.sort_unstable();
        codes.dedup();
        let mut counts =
            vec![Count::one("param_overrides_total", &[("action", action), ("outcome", "rejected")])];
        counts.extend(
            codes
                .iter()
                .map(|code| Count::one("override_rejections_total", &[("action", action), ("reason", code)])),
        );
        counts
    }
}

/// The four documented reasons; a policy's own codes share one label, so that labels stay few.
fn known_override_reason(code: &str) -> &'static str {
    match code {
        "key_not_allowed" => "key_not_allowed",
        "limit_exceeded" => "limit_exceeded",
        "diff_size_exceeded" => "diff_size_exceeded",
        "schema_validation" => "schema_validation",
        _ => "other",
    }
}
