//! A synthetic request, as the gateway would make one of what a caller sends.

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Commitments, Digest, Known, Origin, Party, RequestId, Submission, Timestamp,
};
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Again, Ask, Issued, Who};
use serde_json::{Map, Value};

/// When a synthetic request is made, if nothing else is said: a Thursday noon in 2026, and the same in every run.
pub(super) const SUBMITTED_AT: Timestamp = Timestamp::from_millis(1_767_268_800_000);

/// Who asks, if nothing else is said.
pub(super) const REQUESTER: &str = "U0REQUESTER";

/// What a caller would send, and what the gateway would know of the people in it.
#[derive(Clone, Debug)]
pub(super) struct SyntheticRequest {
    pub(super) ask: Ask,
    /// What kind of thing the requester is; if not given, what the id alone says: a Slack id is a person's.
    pub(super) requester_is: Option<Known>,
    /// How many requests of the same lineage came before.
    pub(super) depth: u32,
    /// The id of whoever had an earlier request made again, if this one was.
    pub(super) rerequested_by: Option<String>,
    /// When it is made.
    pub(super) at: Timestamp,
}

/// What is decided about.
pub(super) struct Submitted {
    pub(super) submission: Submission,
    /// The parameters as the policies' admission sees them.
    pub(super) params: Map<String, Value>,
}

impl SyntheticRequest {
    /// A request for `action` by `requester`, who is not authenticated.
    pub(super) fn new(action: &str, requester: &str) -> SyntheticRequest {
        let ask = Ask {
            action: action.to_owned(),
            params: Map::new(),
            origin: Origin { repo: "synthetic/repository".to_owned(), branch: None, pr: None, run_id: None },
            requester: party(requester),
            who: Who::asserted(requester),
            caller: None,
            justification: "a synthetic request".to_owned(),
            links: Vec::new(),
            policy_hints: None,
            gate: None,
        };
        SyntheticRequest { ask, requester_is: None, depth: 0, rerequested_by: None, at: SUBMITTED_AT }
    }

    /// What is submitted under the rules of `policy`.
    pub(super) fn submit(&self, policy: &ActionPolicy, directory: &Directory) -> Submitted {
        let issued = |commitments| {
            let token_hash = Digest::of(b"synthetic");
            Issued { id: request_id(self.at), token_hash, commitments, at: self.at }
        };
        let commitments = Commitments::unsalted(&self.ask.params);
        let first = decide::submission(policy, &self.ask, issued(commitments), None, directory);
        let (mut submission, params) = match &self.rerequested_by {
            None => (first, self.ask.params.clone()),
            Some(id) => {
                let again = Again { party: party(id), who: Who::asserted(id) };
                // Nobody has the hidden values of a request that is made again, its admission included.
                let ask = Ask { params: first.params.clone(), ..self.ask.clone() };
                let issued = issued(first.commitments());
                let submission = decide::submission(policy, &ask, issued, Some((&first, &again)), directory);
                let params = submission.params.clone();
                (submission, params)
            }
        };
        submission.depth = self.depth;
        if let (Some(known), Some(identity)) = (self.requester_is, &mut submission.requester_is) {
            identity.known = known;
        }
        Submitted { submission, params }
    }
}

fn party(id: &str) -> Party {
    Party { id: id.to_owned(), source: "synthetic".to_owned(), display: None }
}

/// The id of every synthetic request that is made at this time.
pub(super) fn request_id(at: Timestamp) -> RequestId {
    RequestId::new(at, 0, 0)
}
