//! A synthetic request, as the gateway would make one of what a caller sends.

use std::str::FromStr;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Commitments, Digest, Known, Origin, Party, RequestId, Submission, Timestamp,
};
use countersign_core::people::{People, SLACK, is_slack_id, name_of};
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Again, Ask, Issued, Who};
use serde_json::{Map, Value};

/// When a synthetic request is made, if nothing else is said: a Thursday noon in 2026, and the same in every run.
pub(super) const SUBMITTED_AT: Timestamp = Timestamp::from_millis(1_767_268_800_000);

/// Who asks, if nothing else is said.
pub(super) const REQUESTER: &str = "U0REQUESTER";

/// Somebody in a synthetic request, who is called as the gateway calls them: one person must not be two.
#[derive(Clone, Debug)]
pub(super) struct Somebody {
    party: Party,
    /// A bare Slack id, `source:id`, or a person's name.
    pub(super) name: String,
}

impl FromStr for Somebody {
    type Err = String;

    fn from_str(text: &str) -> Result<Somebody, String> {
        let (source, id) = match text.split_once(':') {
            Some((source, id)) => (source, id),
            None if is_slack_id(text) => (SLACK, text),
            None => ("synthetic", text),
        };
        let name = name_of(source, id).map_err(|why| format!("`{text}` {why}"))?;
        // A name of the access file has no source.
        let name = if text.contains(':') { name } else { id.to_owned() };
        Ok(Somebody { party: Party { id: id.to_owned(), source: source.to_owned(), display: None }, name })
    }
}

/// Checks that a gateway that knows these people could know somebody by this name.
///
/// # Errors
/// Why it could not.
pub(super) fn check_name(name: &str, people: &People) -> Result<(), String> {
    if name.contains(':') || is_slack_id(name) || people.find(name).is_some() {
        return Ok(());
    }
    let capitals = name.to_ascii_uppercase();
    let hint = if is_slack_id(&capitals) { format!("; did you mean `{capitals}`?") } else { String::new() };
    Err(format!(
        "`{name}` is neither a Slack id (`U…` or `W…`, in capitals) nor the id of another system (`source:id`){}{hint}",
        if people.is_empty() { "" } else { " nor a name in `people` of the access file" }
    ))
}

/// Who asks, if nothing else is said.
impl Default for Somebody {
    fn default() -> Somebody {
        let party = Party { id: REQUESTER.to_owned(), source: SLACK.to_owned(), display: None };
        Somebody { party, name: REQUESTER.to_owned() }
    }
}

/// What a caller would send, and what the gateway would know of the people in it.
#[derive(Clone, Debug)]
pub(super) struct SyntheticRequest {
    pub(super) ask: Ask,
    /// What kind of thing the requester is; if not given, what the id alone says: a Slack id is a person's.
    pub(super) requester_is: Option<Known>,
    /// How many requests of the same lineage came before.
    pub(super) depth: u32,
    /// Whoever had an earlier request made again, if this one was.
    pub(super) rerequested_by: Option<Somebody>,
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
    pub(super) fn new(action: &str, requester: Somebody) -> SyntheticRequest {
        let ask = Ask {
            action: action.to_owned(),
            params: Map::new(),
            origin: Origin { repo: "synthetic/repository".to_owned(), branch: None, pr: None, run_id: None },
            who: Who::asserted(&requester.name),
            requester: requester.party,
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
            Some(Somebody { party, name }) => {
                let again = Again { party: party.clone(), who: Who::asserted(name) };
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

/// The id of every synthetic request that is made at this time.
pub(super) fn request_id(at: Timestamp) -> RequestId {
    RequestId::new(at, 0, 0)
}
