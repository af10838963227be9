//! A made-up request, admitted and judged before any real one: what would only be found out later.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::action::{ActionPolicy, NotAdmitted};
use countersign_core::lifecycle::{
    Act, Digest, Event, Needs, Open, Origin, Party, Request, RequestId, Ruling, Standing, State, Submission,
    Timestamp, Verdict, parameter_digests,
};

/// A Thursday noon in 2026: policies see no other clock, so any time does.
const MADE_UP_TIME: Timestamp = Timestamp::from_millis(1_767_268_800_000);

/// What shows, when a made-up request is tried, that the action must not be used as it is.
pub(super) fn problems(policy: &ActionPolicy) -> Vec<String> {
    let params = policy.param_schema().and_then(|schema| schema.made_up()).unwrap_or_default();
    let request = match admit(policy, &params) {
        Ok(request) => request,
        // The policies say no to made-up data, as they may.
        Err(NotAdmitted::Denied(_)) => return Vec::new(),
        Err(NotAdmitted::Failed(failure)) => {
            return vec![format!("a made-up request is not admitted: {failure}")];
        }
    };
    let submitted = Event { seq: 0, at: request.submission.submitted_at, by: None, act: Act::Submitted };
    let verdicts = policy.judge(&request, &submitted);
    let mut problems = Vec::new();
    let mut rulings = Vec::new();
    for verdict in &verdicts {
        match verdict {
            Verdict::Ruled(ruling) => rulings.push(ruling),
            Verdict::Refused(_) => {}
            Verdict::Failed(failure) => problems.push(format!("a made-up request is not judged: {failure}")),
        }
    }
    let approved = rulings.len() == verdicts.len()
        && rulings.iter().all(|ruling| ruling.standing == Standing::Satisfied);
    if approved && !policy.entry().unattended {
        problems.push(
            "its policies approve a request before anybody has acted; if that is meant, say `unattended: true`"
                .to_owned(),
        );
    }
    problems.extend(hidden_edits(policy, &rulings));
    problems
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
    }
    problems
}

fn admit(policy: &ActionPolicy, params: &Map<String, Value>) -> Result<Request, NotAdmitted> {
    let id = RequestId::new(MADE_UP_TIME, 0, 0);
    let entry = policy.entry();
    let (shown, redacted) = entry.redact.apply(params);
    let expires_at = MADE_UP_TIME.plus(entry.timeout_ms);
    let submission = Submission {
        action: entry.action.clone(),
        rules: entry.action.clone(),
        lineage: id,
        depth: 0,
        rerequested_by: None,
        requester: Party { id: "made-up-requester".to_owned(), source: "trial".to_owned(), display: None },
        requester_groups: Default::default(),
        origin: Origin { repo: "made-up/repository".to_owned(), branch: None, pr: None, run_id: None },
        justification: "A made-up request, to try the policies.".to_owned(),
        links: Vec::new(),
        policy_hints: None,
        params: shown,
        redacted,
        digests: parameter_digests(params),
        policy_hash: policy.hash(),
        token_hash: Digest::of(b"made up"),
        submitted_at: MADE_UP_TIME,
        expires_at,
        escalate_at: entry.escalate.as_ref().map(|escalate| expires_at.minus(escalate.before_ms)),
        unattended: entry.unattended,
    };
    let memos = policy.admit(id, &submission, params)?;
    Ok(Request {
        id,
        version: 1,
        submission: Arc::new(submission),
        memos: memos.into(),
        history: Vec::new(),
        needs: Needs::default(),
        state: State::Open(Open::default()),
    })
}
