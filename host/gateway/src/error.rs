//! Why the gateway did not do what it was asked.

use countersign_core::lifecycle::{Digest, PolicyFailure, Reason, Refusal};
use countersign_policy::RestoreError;
use countersign_store::StoreError;

/// Why the gateway did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No policy knows the action.
    #[error("no policy admits the action `{0}`")]
    UnknownAction(String),
    /// The policies do not admit the request.
    #[error("the policy does not admit this request")]
    Denied(Vec<Reason>),
    /// A policy gave no usable answer; nothing was changed.
    #[error("a policy gave no usable answer, so nothing was changed")]
    PolicyFailed(Vec<PolicyFailure>),
    /// The idempotency key was used with another body.
    #[error("this idempotency key was used with another body")]
    KeyReused,
    /// There is no such request, or the token is not its.
    #[error("no such request")]
    NotFound,
    /// The request cannot be made again.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// It is too early to make the request again.
    #[error("this request can be made again in {} s", .retry_after_ms.div_ceil(1000))]
    Cooldown {
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
    /// The lineage has had its share for now.
    #[error("this request was made {limit} times within the allowed window")]
    LineageLimit {
        /// How many are allowed.
        limit: u32,
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
    /// The event does not count.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many others act on the same request at this instant.
    #[error("too many others act on this request at this instant")]
    Contended,
    /// The rules that the request was made under cannot be made ready again.
    #[error("the rules that this request was made under cannot be loaded: {0}")]
    Rules(#[from] RestoreError),
    /// The store has no entry or module with this hash, although a request needs it.
    #[error("the rules that this request was made under are not in the store: nothing has the hash {0}")]
    RulesLost(Digest),
    /// Work was stopped half-way, by a panic or a shutdown.
    #[error("work was stopped half-way: {0}")]
    Stopped(String),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Randomness(String),
}
