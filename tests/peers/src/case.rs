//! What the engines are asked, and what all of them must answer.

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// A vote on a request, after earlier votes.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) requester: &'static str,
    /// Who approved already, one event each.
    pub(crate) approved: &'static [&'static str],
    pub(crate) by: &'static str,
    pub(crate) act: Act,
    pub(crate) answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Approve,
    Deny,
}

/// What becomes of the vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It counts, and more are needed.
    Waiting,
    /// It counts, and is the last that was needed.
    Satisfied,
    /// It is refused: the voter made the request.
    RequesterMayNotApprove,
    /// It is refused: the voter has approved already.
    AlreadyApproved,
    /// It ends the request.
    Denied,
    /// It changes nothing: the voter is not an approver.
    NoSay,
}

impl Answer {
    /// The answer with this name in the rules.
    pub(crate) fn named(name: &str) -> Result<Answer> {
        Ok(match name {
            "waiting" => Answer::Waiting,
            "satisfied" => Answer::Satisfied,
            "requester_may_not_approve" => Answer::RequesterMayNotApprove,
            "already_approved" => Answer::AlreadyApproved,
            "denied" => Answer::Denied,
            "no_say" => Answer::NoSay,
            _ => bail!("`{name}` is no answer"),
        })
    }
}

/// The case that is timed: the last vote that is needed.
pub(crate) const TIMED: &Case =
    &case("the vote that is timed", "U0DAVE", &["U0ALICE"], "U0BOB", Act::Approve, Answer::Satisfied);

/// Those in which the engines must agree before any is timed.
pub(crate) const CASES: &[Case] = &[
    case("the first approval", "U0DAVE", &[], "U0BOB", Act::Approve, Answer::Waiting),
    case("the second approval", "U0DAVE", &["U0ALICE"], "U0BOB", Act::Approve, Answer::Satisfied),
    case("the requester's own", "U0BOB", &["U0ALICE"], "U0BOB", Act::Approve, OWN),
    case("an earlier one of the requester", "U0ALICE", &["U0ALICE"], "U0BOB", Act::Approve, Answer::Waiting),
    case("a stranger's", "U0DAVE", &["U0ALICE"], "U0MALLORY", Act::Approve, Answer::NoSay),
    case("an earlier one of a stranger", "U0DAVE", &["U0MALLORY"], "U0BOB", Act::Approve, Answer::Waiting),
    case("twice the same", "U0DAVE", &["U0BOB"], "U0BOB", Act::Approve, Answer::AlreadyApproved),
    case("denied", "U0DAVE", &["U0ALICE"], "U0BOB", Act::Deny, Answer::Denied),
    case("denied by the requester", "U0BOB", &[], "U0BOB", Act::Deny, Answer::Denied),
    case("denied by a stranger", "U0DAVE", &["U0ALICE"], "U0MALLORY", Act::Deny, Answer::NoSay),
];

const OWN: Answer = Answer::RequesterMayNotApprove;

const fn case(
    name: &'static str,
    requester: &'static str,
    approved: &'static [&'static str],
    by: &'static str,
    act: Act,
    answer: Answer,
) -> Case {
    Case { name, requester, approved, by, act, answer }
}

/// The request's parameters. Its rule does not look at them, but a policy may, so every engine gets them.
pub(crate) fn params() -> Value {
    json!({ "ref": "v1.42.0", "replicas": 3, "service": "billing" })
}

/// What else a request says.
pub(crate) fn meta(requester: &str) -> Value {
    json!({
        "origin": { "repo": "acme/billing" },
        "requester": { "id": requester, "source": "slack" },
        "justification": JUSTIFICATION,
        "links": [],
    })
}

pub(crate) const JUSTIFICATION: &str = "Release of the week";
pub(crate) const SUBMITTED_AT: u64 = 1_772_366_400_000;
