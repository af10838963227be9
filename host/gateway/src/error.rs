//! Why the gateway did not do what it was asked, with the code and the text that a caller may read.
//!
//! Which HTTP status an error has, and how Slack shows it, is up to whoever answers.

use countersign_core::lifecycle::{Digest, PolicyFailure, Reason, Refusal, UseRefusal};
use countersign_policy::RestoreError;
use countersign_store::{StoreError, StoreFault};

use crate::policy_sets::ChangeError;
use crate::salt::SaltError;

/// Why the gateway did not do what it was asked.
///
/// `Display` is for the log: it may repeat what the store or a policy said.
/// Callers read [`GatewayError::public_message`].
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No policy knows the action.
    #[error("no policy admits the action `{0}`")]
    UnknownAction(String),
    /// The policies do not admit the request.
    #[error("the policy does not admit this request")]
    Denied(Vec<Reason>),
    /// The request needs more people than there are.
    #[error("nobody could ever approve this request: it needs more people than can act on it")]
    Unsatisfiable(Vec<Reason>),
    /// A policy gave no usable answer; nothing was changed.
    #[error("a policy gave no usable answer, so nothing was changed")]
    PolicyFailed(Vec<PolicyFailure>),
    /// The idempotency key was used with another body.
    #[error("this idempotency key was used with another body")]
    KeyReused,
    /// The idempotency key was used before, and the token that was given for it cannot be made again.
    #[error("the request of this idempotency key is there, but its token was made with a key that is gone")]
    TokenRetired,
    /// What stands for hidden parameters cannot be taken over into a new request: its salt cannot be decrypted.
    #[error(
        "a request with hidden parameters cannot be made again without its salt, whose key is gone; ask anew"
    )]
    SaltLost,
    /// A new salt cannot be encrypted.
    #[error("a salt cannot be encrypted: {0}")]
    Salt(#[from] SaltError),
    /// There is no such request, or the token belongs to another one.
    #[error("no such request")]
    NotFound,
    /// The request is open, so there is no decision yet.
    #[error("the request has not been decided yet")]
    Undecided,
    /// The request cannot be made again.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// It is too early to make the request again.
    #[error("this request can be made again in {} s", .retry_after_ms.div_ceil(1000))]
    Cooldown {
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
    /// The lineage has reached its limit of requests for now.
    #[error("this request was made {limit} times within the allowed window")]
    LineageLimit {
        /// How many are allowed.
        limit: u32,
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
    /// The caller has as many open requests already as it may have.
    #[error("this caller has as many open requests as it may have")]
    TooManyOpen,
    /// The act was delivered before. It has counted, or was refused: [`Gateway::has_counted`](crate::Gateway::has_counted).
    #[error("this was delivered before, and counts no second time")]
    Repeated,
    /// The event does not count.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The approval of the request cannot be used so.
    #[error(transparent)]
    NotUsed(#[from] UseRefusal),
    /// Too many others act on the same request at this instant.
    #[error("too many others act on this request at this instant")]
    Contended,
    /// The policies of the action are slow, and more waits for them already than they can judge soon.
    #[error("the policies of this action have too much to judge at this instant; try again")]
    Overloaded,
    /// The rules that the request was made under cannot be loaded.
    #[error("the rules that this request was made under cannot be loaded: {0}")]
    Rules(#[from] RestoreError),
    /// The store has no entry or module with this hash, although a request needs it.
    #[error("the rules that this request was made under are not in the store: nothing has the hash {0}")]
    RulesLost(Digest),
    /// Work was stopped half-way, by a shutdown.
    #[error("work was stopped half-way: {0}")]
    Stopped(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Randomness(String),
}

impl GatewayError {
    /// The stable code, in `snake_case`. Callers and scripts match on it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            GatewayError::UnknownAction(_) | GatewayError::Denied(_) => "policy_denied",
            GatewayError::Unsatisfiable(_) => "unsatisfiable",
            GatewayError::PolicyFailed(_)
            | GatewayError::Rules(_)
            | GatewayError::RulesLost(_)
            | GatewayError::Stopped(_) => "policy_failure",
            GatewayError::KeyReused => "idempotency_key_reused",
            GatewayError::TokenRetired => "token_retired",
            GatewayError::SaltLost => "salt_lost",
            GatewayError::NotFound => "not_found",
            GatewayError::Undecided => "not_decided",
            GatewayError::NotAllowed(_) => "not_allowed",
            GatewayError::Cooldown { .. } => "cooldown",
            GatewayError::LineageLimit { .. } => "rate_limited",
            GatewayError::TooManyOpen => "too_many_open",
            GatewayError::Repeated => "duplicate_delivery",
            GatewayError::Refused(refusal) => refusal.code(),
            GatewayError::NotUsed(refusal) => refusal.code(),
            GatewayError::Contended => "contended",
            GatewayError::Overloaded => "overloaded",
            GatewayError::Store(error) => store_code(error),
            GatewayError::Salt(_) | GatewayError::Randomness(_) => "internal",
        }
    }

    /// Whether something is wrong with the gateway or its policies, rather than with what was asked of it.
    #[must_use]
    pub(crate) fn is_failure(&self) -> bool {
        matches!(
            self,
            GatewayError::PolicyFailed(_)
                | GatewayError::Refused(Refusal::PolicyFailed(_))
                | GatewayError::Rules(_)
                | GatewayError::RulesLost(_)
                | GatewayError::Stopped(_)
                | GatewayError::Contended
                | GatewayError::Overloaded
                | GatewayError::Store(_)
                | GatewayError::Salt(_)
                | GatewayError::Randomness(_)
        )
    }

    /// What a caller or a person in Slack may read. What the store or a policy said is not in it.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            GatewayError::Rules(_) | GatewayError::RulesLost(_) | GatewayError::Stopped(_) => {
                "the rules that this request was made under cannot be loaded".to_owned()
            }
            GatewayError::Store(StoreError::Unavailable { fault, .. }) => store_message(*fault).to_owned(),
            GatewayError::Store(StoreError::Corrupt { .. }) => "a stored value cannot be read".to_owned(),
            GatewayError::Salt(_) => "a salt cannot be encrypted".to_owned(),
            GatewayError::Randomness(_) => "the system gave no randomness".to_owned(),
            error => error.to_string(),
        }
    }

    /// The reasons why something was refused, which a caller may read, too; empty if it was for none of them.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        match self {
            GatewayError::Denied(reasons) | GatewayError::Unsatisfiable(reasons) => reasons.clone(),
            GatewayError::Refused(refusal) => refusal.reasons().to_vec(),
            error @ GatewayError::UnknownAction(_) => vec![Reason {
                code: "unknown_action".into(),
                message: error.to_string(),
                path: Some("action".into()),
            }],
            _ => Vec::new(),
        }
    }

    /// The keys of parameters that differ from what was agreed to, as far as they are known.
    #[must_use]
    pub fn differing(&self) -> &[String] {
        match self {
            GatewayError::NotUsed(refusal) => refusal.differing(),
            _ => &[],
        }
    }

    /// How long to wait before the same call can succeed, in milliseconds, if that is known.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            GatewayError::TooManyOpen => Some(10_000),
            GatewayError::Cooldown { retry_after_ms } | GatewayError::LineageLimit { retry_after_ms, .. } => {
                Some(*retry_after_ms)
            }
            _ => None,
        }
    }
}

impl ChangeError {
    /// The stable code, as [`GatewayError::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ChangeError::Refused(_) => "invalid_policy_set",
            ChangeError::HeldBack(_) => "held_back",
            ChangeError::Unfetched(_) => "registry_unavailable",
            ChangeError::Module(_) => "invalid_module",
            ChangeError::Conflict { .. } => "conflict",
            ChangeError::NothingBefore => "nothing_before",
            ChangeError::InForce(_) => "in_force",
            ChangeError::Shadow(_) => "shadow_not_ready",
            ChangeError::Unknown(_) => "not_found",
            ChangeError::Store(error) => store_code(error),
            ChangeError::Stopped(_) => "internal",
        }
    }

    /// What an admin reads. An admin may read what went wrong inside, except how the store is reached.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            ChangeError::Store(StoreError::Unavailable { fault, .. }) => store_message(*fault).to_owned(),
            error => error.to_string(),
        }
    }
}

fn store_message(fault: StoreFault) -> &'static str {
    match fault {
        StoreFault::Full => {
            "the disk of the store is full, so nothing was stored; try again when there is space"
        }
        StoreFault::ReadOnly => "the store cannot be written to, so nothing was stored",
        StoreFault::Io => "the disk of the store reports errors, so nothing was stored; try again",
        StoreFault::Busy => "the store is busy, so nothing was stored; try again",
        StoreFault::Slow => {
            "the store did not answer in time, and may still store this; look, or repeat it with its idempotency key"
        }
        StoreFault::Other => "the store cannot be reached; try again",
    }
}

pub(crate) fn store_code(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable { fault: StoreFault::Full, .. } => "store_full",
        StoreError::Unavailable { fault: StoreFault::Slow, .. } => "store_timeout",
        StoreError::Unavailable { .. } => "store_unavailable",
        StoreError::Corrupt { .. } | StoreError::Cursor(_) => "internal",
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::lifecycle::{FailureKind, Status};

    use super::*;

    /// Callers get a stable code and a text that says nothing of the inside.
    #[test]
    fn public_messages_reveal_nothing_of_the_inside() {
        let failure =
            || PolicyFailure { policy: "quorum".into(), kind: FailureKind::Trap, detail: "secret".into() };
        let reason = || Reason { code: "no".into(), message: "not today".into(), path: None };
        let corrupt = StoreError::Corrupt {
            table: "requests",
            column: "body",
            key: "secret key".into(),
            detail: "secret".into(),
        };
        let errors = [
            GatewayError::UnknownAction("x".into()),
            GatewayError::Denied(vec![reason()]),
            GatewayError::Unsatisfiable(vec![reason()]),
            GatewayError::PolicyFailed(vec![failure()]),
            GatewayError::KeyReused,
            GatewayError::TokenRetired,
            GatewayError::SaltLost,
            GatewayError::NotFound,
            GatewayError::Undecided,
            GatewayError::NotAllowed("the request was approved"),
            GatewayError::Cooldown { retry_after_ms: 1 },
            GatewayError::LineageLimit { limit: 5, retry_after_ms: 60_001 },
            GatewayError::Repeated,
            Refusal::Ended(Status::Denied).into(),
            Refusal::Objected(vec![reason()]).into(),
            Refusal::PolicyFailed(vec![failure()]).into(),
            UseRefusal::PayloadMismatch(vec!["ref".into(), "replicas".into()]).into(),
            UseRefusal::ApprovalExpired(countersign_core::lifecycle::Timestamp::EPOCH).into(),
            GatewayError::Contended,
            GatewayError::Overloaded,
            GatewayError::RulesLost(Digest::of(b"")),
            GatewayError::Stopped("secret".into()),
            StoreError::Unavailable { backend: "sqlite", fault: StoreFault::Other, detail: "secret".into() }
                .into(),
            StoreError::Unavailable { backend: "sqlite", fault: StoreFault::Full, detail: "secret".into() }
                .into(),
            StoreError::Unavailable { backend: "sqlite", fault: StoreFault::Slow, detail: "secret".into() }
                .into(),
            corrupt.into(),
            GatewayError::Salt(SaltError::KeyGone("secret".into())),
            GatewayError::Randomness("secret".into()),
        ];
        let shown: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.code(), error.public_message())).collect();
        assert_eq!(
            shown,
            [
                "policy_denied: no policy admits the action `x`",
                "policy_denied: the policy does not admit this request",
                "unsatisfiable: nobody could ever approve this request: it needs more people than can act on it",
                "policy_failure: a policy gave no usable answer, so nothing was changed",
                "idempotency_key_reused: this idempotency key was used with another body",
                "token_retired: the request of this idempotency key is there, but its token was made with a key that is gone",
                "salt_lost: a request with hidden parameters cannot be made again without its salt, whose key is gone; ask anew",
                "not_found: no such request",
                "not_decided: the request has not been decided yet",
                "not_allowed: the request was approved",
                "cooldown: this request can be made again in 1 s",
                "rate_limited: this request was made 5 times within the allowed window",
                "duplicate_delivery: this was delivered before, and counts no second time",
                "already_decided: the request is already denied",
                "refused: a policy objects: not today",
                "policy_failure: a policy gave no usable answer, so nothing was changed",
                "payload_mismatch: these are not the parameters that were approved: ref, replicas",
                "approval_expired: this approval could be consumed until 1970-01-01T00:00:00.000Z",
                "contended: too many others act on this request at this instant",
                "overloaded: the policies of this action have too much to judge at this instant; try again",
                "policy_failure: the rules that this request was made under cannot be loaded",
                "policy_failure: the rules that this request was made under cannot be loaded",
                "store_unavailable: the store cannot be reached; try again",
                "store_full: the disk of the store is full, so nothing was stored; try again when there is space",
                "store_timeout: the store did not answer in time, and may still store this; look, or repeat it with its idempotency key",
                "internal: a stored value cannot be read",
                "internal: a salt cannot be encrypted",
                "internal: the system gave no randomness",
            ]
        );
        let [unknown, denied, ..] = &errors;
        assert_eq!(unknown.reasons()[0].code, "unknown_action");
        assert_eq!(denied.reasons(), [reason()]);
    }
}
