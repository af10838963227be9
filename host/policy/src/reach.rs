//! Whether requests for an action could ever be approved: by counting whom its policies ask for, and by having everybody
//! who is known act on a synthetic request.
//!
//! It finds what a policy set gets wrong for every request alike. Whether one request can still be approved is another
//! question.

use std::collections::BTreeSet;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Escalation, Intent, Refusal, Request, Requirement, RequirementKind, State, Status, Timestamp,
};

use crate::action::ActionPolicy;
use crate::decide::{self, Attempt};

/// How many people act on the synthetic request at the most.
const MOST_PEOPLE: usize = 500;

/// What stands in the way of every request for an action: a sentence for each, without the action's name.
///
/// `request` is a synthetic one that was just made.
pub(crate) fn obstacles(policy: &ActionPolicy, request: &Request, directory: &Directory) -> Vec<String> {
    let at = request.submission.submitted_at;
    let mut found = shortfalls(policy, request, directory, at);
    if found.is_empty() && tried(policy, request.clone(), directory, at) == Tried::Nobody {
        found.push(
            "nobody could ever approve it: nobody whom the policy set knows is granted enough by its policies"
                .to_owned(),
        );
    }
    let escalated = escalated(policy, request);
    if let Some(escalated) = escalated {
        let at = request.submission.escalate_at.unwrap_or(at);
        let shortfalls = shortfalls(policy, &escalated, directory, at);
        let new = shortfalls.into_iter().filter(|shortfall| !found.contains(shortfall)).collect::<Vec<_>>();
        found.extend(new.into_iter().map(|shortfall| format!("once it is escalated, {shortfall}")));
    }
    found
}

/// Requirements that ask for more people than there are.
fn shortfalls(policy: &ActionPolicy, request: &Request, directory: &Directory, at: Timestamp) -> Vec<String> {
    let State::Open(open) = &request.state else { return Vec::new() };
    open.requirements.iter().filter_map(|wanted| shortfall(policy, wanted, directory, at)).collect()
}

fn shortfall(
    policy: &ActionPolicy,
    wanted: &Requirement,
    directory: &Directory,
    at: Timestamp,
) -> Option<String> {
    // Who may do it, if the policy does not say so, only the policy knows.
    if wanted.eligible.is_empty() || wanted.kind == RequirementKind::Time {
        return None;
    }
    let eligible = policy.entry().eligible(wanted, directory, at);
    let people = eligible.people.len();
    let missing = wanted.need.saturating_sub(wanted.have);
    if !eligible.is_complete() || u32::try_from(people).is_ok_and(|people| people >= missing) {
        return None;
    }
    let names = eligible.people.into_iter().collect::<Vec<_>>().join(", ");
    let able = match (people, missing) {
        (0, _) => "nobody can give".to_owned(),
        (1, _) => format!("only one person can give: {names}"),
        (people, _) => format!("only {people} people can give: {names}"),
    };
    Some(match wanted.kind {
        RequirementKind::Acknowledgement => format!("nobody can acknowledge `{}`", wanted.label),
        _ if missing == 1 => format!("an approval is needed that {able}"),
        _ => format!("{missing} approvals are needed, which {able}"),
    })
}

/// The request once it is escalated, if that happens.
fn escalated(policy: &ActionPolicy, request: &Request) -> Option<Request> {
    let State::Open(open) = &request.state else { return None };
    let Escalation::At(at) = open.escalation else { return None };
    let attempt = Attempt::of(Intent::Escalate, None);
    decide::event(policy, request, attempt, at).outcome.ok().map(|step| step.request)
}

/// What came of it when everybody acted.
#[derive(Debug, PartialEq, Eq)]
enum Tried {
    /// The request was approved.
    Approved,
    /// Nobody could do anything more.
    Nobody,
    /// A policy waits for something else, objects to the synthetic parameters or the time, or asks for people who are not
    /// known here.
    Unclear,
}

fn tried(policy: &ActionPolicy, mut request: Request, directory: &Directory, at: Timestamp) -> Tried {
    let entry = policy.entry();
    let mut at = at;
    loop {
        let State::Open(open) = &request.state else {
            return if request.status() == Status::Approved { Tried::Approved } else { Tried::Unclear };
        };
        // Whoever is asked for acts first, so that what works is found soon; then everybody in a group.
        let mut people: Vec<String> = Vec::new();
        let mut acts = Vec::new();
        let mut unclear = false;
        for wanted in &open.requirements {
            let eligible = entry.eligible(wanted, directory, at);
            unclear |= !eligible.is_complete() || wanted.eligible.is_empty();
            people.extend(eligible.people);
            if wanted.kind == RequirementKind::Acknowledgement {
                acts.push(Intent::Acknowledge { persona: wanted.label.clone() });
            }
        }
        acts.push(Intent::approve());
        for group in entry.groups.keys() {
            let members = entry.named(&format!("@{group}"), &[], directory, at);
            unclear |= !members.is_complete();
            people.extend(members.people);
        }
        let mut seen = BTreeSet::new();
        people.retain(|who| seen.insert(who.clone()));
        unclear |= people.len() > MOST_PEOPLE;

        let mut moved = false;
        let everybody = people.iter().take(MOST_PEOPLE);
        for (who, intent) in everybody.flat_map(|who| acts.iter().map(move |intent| (who, intent))) {
            at = at.plus(1);
            let by = entry.actor(who, directory, at);
            let attempt = Attempt::of(intent.clone(), Some(by));
            match decide::event(policy, &request, attempt, at).outcome {
                Ok(step) => {
                    request = step.request;
                    moved = true;
                    if request.status().is_terminal() {
                        break;
                    }
                }
                Err(Refusal::Objected(_) | Refusal::PolicyFailed(_)) => unclear = true,
                Err(_) => {}
            }
        }
        if !moved {
            return if unclear { Tried::Unclear } else { Tried::Nobody };
        }
    }
}
