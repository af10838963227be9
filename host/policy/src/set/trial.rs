//! A synthetic request, decided on before any real one: what would only be found out later.

use std::collections::BTreeSet;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Commitments, Digest, Origin, Party, Request, RequestId, Ruling, Status, Submission, Timestamp, Verdict,
};

use crate::action::ActionPolicy;
use crate::decide::{self, Admission, Ask, Issued, NotMade, Who};
use crate::yaml::error::did_you_mean;

/// A Thursday noon in 2026: policies see no other clock, so any time does.
const AT: Timestamp = Timestamp::from_millis(1_767_268_800_000);

/// Who asks: nobody whom a policy set names.
const REQUESTER: &str = "U0SYNTHETIC";

/// Why the action must not be used as it is, as far as a synthetic request shows.
pub(super) fn problems(policy: &ActionPolicy) -> Vec<String> {
    let Admission { verdicts, outcome } = decide(policy, REQUESTER, &Directory::default());
    let mut problems = Vec::new();
    match &outcome {
        Ok(step) if step.request.status() == Status::Approved && !policy.entry().unattended => problems.push(
            "its policies approve a request before anybody has acted; if that is meant, say `unattended: true`"
                .to_owned(),
        ),
        Err(NotMade::Failed(failures)) => {
            let what = if verdicts.is_empty() { "admitted" } else { "judged" };
            problems
                .extend(failures.iter().map(|failure| format!("a synthetic request is not {what}: {failure}")));
        }
        // The policies may say no to synthetic data.
        Ok(_) | Err(NotMade::Denied(_) | NotMade::Refused(_)) => {}
    }
    let rulings: Vec<&Ruling> = verdicts
        .iter()
        .filter_map(|verdict| match verdict {
            Verdict::Ruled(ruling) => Some(ruling),
            Verdict::Refused(_) | Verdict::Failed(_) => None,
        })
        .collect();
    problems.extend(hidden_edits(policy, &rulings));
    problems.extend(unknown_to_schema(policy));
    problems
}

/// Parameters that requests supersede each other by, and that no request can have: a typing error, with which none would
/// be told apart from another.
fn unknown_to_schema(policy: &ActionPolicy) -> Vec<String> {
    let Some(schema) = policy.param_schema() else { return Vec::new() };
    let unknown = policy.entry().supersede.iter().filter(|key| !schema.lists(key));
    let problem = |key: &String| {
        let hint = did_you_mean(key, schema.listed());
        format!(
            "requests supersede each other by the parameter `{key}`, which the action's schema does not list{hint}"
        )
    };
    unknown.map(problem).collect()
}

/// The synthetic request, or why it is not made, so that less of the action could be tried.
pub(super) fn request(policy: &ActionPolicy) -> Result<Request, String> {
    request_by(policy, REQUESTER, &Directory::default())
}

/// The same, asked for by whoever has this Slack id.
pub(crate) fn request_by(
    policy: &ActionPolicy,
    requester: &str,
    directory: &Directory,
) -> Result<Request, String> {
    match decide(policy, requester, directory).outcome {
        Ok(step) => Ok(step.request),
        Err(NotMade::Denied(reasons)) => Err(reasons
            .into_iter()
            .map(|reason| format!("{} ({})", reason.message, reason.code))
            .collect::<Vec<_>>()
            .join("; ")),
        Err(NotMade::Failed(failures)) => {
            Err(failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
        Err(NotMade::Refused(refusal)) => Err(refusal.to_string()),
    }
}

/// Parameters that approvers may edit, but cannot see, or that the schema does not know.
fn hidden_edits(policy: &ActionPolicy, rulings: &[&Ruling]) -> Vec<String> {
    let editable: BTreeSet<&String> = rulings.iter().flat_map(|ruling| &ruling.editable).collect();
    let mut problems = Vec::new();
    for key in editable {
        if !policy.entry().redact.shows(key) {
            problems.push(format!("the parameter `{key}` can be edited, but `redact` hides it"));
        }
        if policy.param_schema().is_some_and(|schema| !schema.has(key)) {
            problems.push(format!(
                "the parameter `{key}` can be edited, but the action's schema does not allow it"
            ));
        }
        let unchecked = policy.param_schema().into_iter().flat_map(|schema| schema.unchecked(key));
        problems.extend(unchecked.map(|path| {
            format!(
                "the parameter `{key}` can be edited, but the schema's rule `{path}` joins it with parameters that `redact` \
                 hides, so no edit of it could be checked: show them, or split the rule"
            )
        }));
    }
    problems
}

fn decide(policy: &ActionPolicy, requester: &str, directory: &Directory) -> Admission {
    let ask = Ask {
        action: policy.entry().action.clone(),
        params: policy.param_schema().and_then(|schema| schema.synthetic()).unwrap_or_default(),
        origin: Origin { repo: "synthetic/repository".to_owned(), branch: None, pr: None, run_id: None },
        requester: Party { id: requester.to_owned(), source: "slack".to_owned(), display: None },
        who: Who::asserted(requester),
        caller: None,
        justification: "A synthetic request, to try the policies.".to_owned(),
        links: Vec::new(),
        policy_hints: None,
        gate: None,
    };
    let id = RequestId::new(AT, 0, 0);
    let commitments = Commitments::unsalted(&ask.params);
    let issued = Issued { id, token_hash: Digest::of(b"synthetic"), commitments, at: AT };
    let submission = decide::submission(policy, &ask, issued, None, directory);
    // As if it were meant to be approved by itself: whether it would be is what is to be found out.
    let submission = Submission { unattended: true, ..submission };
    decide::admit(policy, id, submission, &ask.params, |_| None)
}
