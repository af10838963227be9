//! A made-up request, as the gateway would make one of what a caller sends.

use serde_json::{Map, Value};

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Digest, Link, Origin, Party, RequestId, Submission, Timestamp, parameter_digests,
};
use countersign_policy::ActionPolicy;

/// When every made-up request is made: a Thursday noon in 2026, and the same in every run.
pub(super) const SUBMITTED_AT: Timestamp = Timestamp::from_millis(1_767_268_800_000);

/// What a caller would send.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) requester: String,
    pub(super) params: Map<String, Value>,
    pub(super) origin: Origin,
    pub(super) justification: String,
    pub(super) links: Vec<Link>,
    pub(super) policy_hints: Option<Value>,
    /// How many requests of the same lineage came before.
    pub(super) depth: u32,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked {
            requester: "U0REQUESTER".to_owned(),
            params: Map::new(),
            origin: Origin { repo: "made-up/repository".to_owned(), branch: None, pr: None, run_id: None },
            justification: "a made-up request".to_owned(),
            links: Vec::new(),
            policy_hints: None,
            depth: 0,
        }
    }
}

/// The id of every made-up request.
pub(super) fn request_id() -> RequestId {
    RequestId::new(SUBMITTED_AT, 0, 0)
}

/// What is submitted of `action` under the rules of `policy`.
pub(super) fn submission(
    action: &str,
    asked: &Asked,
    policy: &ActionPolicy,
    directory: &Directory,
) -> Submission {
    let entry = policy.entry();
    let (shown, redacted) = entry.redact.apply(&asked.params);
    let expires_at = SUBMITTED_AT.plus(entry.timeout_ms);
    Submission {
        action: action.to_owned(),
        rules: entry.action.clone(),
        lineage: request_id(),
        depth: asked.depth,
        rerequested_by: None,
        requester: Party { id: asked.requester.clone(), source: "made-up".to_owned(), display: None },
        requester_groups: entry.actor(&asked.requester, directory, SUBMITTED_AT).groups,
        origin: asked.origin.clone(),
        justification: asked.justification.clone(),
        links: asked.links.clone(),
        policy_hints: asked.policy_hints.clone(),
        params: shown,
        redacted,
        digests: parameter_digests(&asked.params),
        policy_hash: policy.hash(),
        token_hash: Digest::of(b"made up"),
        submitted_at: SUBMITTED_AT,
        expires_at,
        escalate_at: entry.escalate.as_ref().map(|escalate| expires_at.minus(escalate.before_ms)),
        unattended: entry.unattended,
    }
}
