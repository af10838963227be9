//! A synthetic request, as the gateway would make one of what a caller sends.

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Digest, Origin, Party, RequestId, Submission, Timestamp};
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Ask, Issued, Who};
use serde_json::Map;

/// When every synthetic request is made: a Thursday noon in 2026, and the same in every run.
pub(super) const SUBMITTED_AT: Timestamp = Timestamp::from_millis(1_767_268_800_000);

/// What a caller would send, if nothing else is said.
pub(super) fn ask(action: &str) -> Ask {
    Ask {
        action: action.to_owned(),
        params: Map::new(),
        origin: Origin { repo: "made-up/repository".to_owned(), branch: None, pr: None, run_id: None },
        requester: requester("U0REQUESTER"),
        who: Who::asserted("U0REQUESTER"),
        caller: None,
        justification: "a made-up request".to_owned(),
        links: Vec::new(),
        policy_hints: None,
    }
}

/// Somebody who asks.
pub(super) fn requester(id: &str) -> Party {
    Party { id: id.to_owned(), source: "made-up".to_owned(), display: None }
}

/// The id of every synthetic request.
pub(super) fn request_id() -> RequestId {
    RequestId::new(SUBMITTED_AT, 0, 0)
}

/// What is submitted under the rules of `policy`, after `depth` earlier requests of the lineage.
pub(super) fn submission(ask: &Ask, depth: u32, policy: &ActionPolicy, directory: &Directory) -> Submission {
    let issued = Issued { id: request_id(), token_hash: Digest::of(b"made up"), at: SUBMITTED_AT };
    Submission { depth, ..decide::submission(policy, ask, issued, None, directory) }
}
