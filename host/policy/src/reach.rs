//! Whether requests for an action could ever be approved: by counting whom its policies ask for, and by having everybody
//! who is known act on a synthetic request.
//!
//! It finds what a policy set gets wrong for every request alike. The counting alone is done for each request that is made,
//! too; whether somebody can still approve one later is another question.

use std::collections::BTreeSet;

use countersign_core::directory::Directory;
use countersign_core::eligible::Eligible;
use countersign_core::lifecycle::{
    Escalation, Intent, Reason, Refusal, Request, Requirement, RequirementKind, State, Status, Timestamp,
};
use countersign_core::record::PolicyEntry;

use crate::action::ActionPolicy;
use crate::decide::{self, Attempt};
use crate::set::trial;

/// How many people act on the synthetic request at the most.
const MOST_PEOPLE: usize = 500;

/// What stands in the way of every request for an action: a sentence for each, without the action's name.
///
/// `request` is a synthetic one that was just made.
pub(crate) fn obstacles(policy: &ActionPolicy, request: &Request, directory: &Directory) -> Vec<String> {
    let at = request.submission.submitted_at;
    let short = shortfalls(policy.entry(), request, directory, at);
    let mut found: Vec<String> =
        short.iter().map(|shortfall| shortfall.text_for_all(policy, directory)).collect();
    if found.is_empty() && tried(policy, request.clone(), directory, at) == Tried::Nobody {
        found.push(
            "nobody could ever approve it: nobody whom the policy set knows is granted enough by its policies"
                .to_owned(),
        );
    }
    let escalated = escalated(policy, request);
    if let Some(escalated) = escalated {
        let at = request.submission.escalate_at.unwrap_or(at);
        let shortfalls = shortfalls(policy.entry(), &escalated, directory, at);
        let said: Vec<String> = short.iter().map(Shortfall::text).collect();
        let new = shortfalls.iter().map(Shortfall::text).filter(|shortfall| !said.contains(shortfall));
        found.extend(new.map(|shortfall| format!("once it is escalated, {shortfall}")));
    }
    found
}

/// Why a request that was just made could never be approved; empty if it could, or if its action allows that.
#[must_use]
pub fn unsatisfiable(entry: &PolicyEntry, request: &Request, directory: &Directory) -> Vec<Reason> {
    if !entry.unsatisfiable.is_refused() {
        return Vec::new();
    }
    let shortfalls = shortfalls(entry, request, directory, request.submission.submitted_at);
    shortfalls.iter().map(Shortfall::reason).collect()
}

/// A requirement that asks for more people than there are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shortfall {
    kind: RequirementKind,
    label: String,
    missing: u32,
    eligible: Eligible,
}

/// The requirements of an open request that ask for more people than can act on it, as far as that is known at `at`. Only
/// counts: whether the policies would let those people act is another question.
fn shortfalls(
    entry: &PolicyEntry,
    request: &Request,
    directory: &Directory,
    at: Timestamp,
) -> Vec<Shortfall> {
    let State::Open(open) = &request.state else { return Vec::new() };
    open.requirements.iter().filter_map(|wanted| Shortfall::of(entry, wanted, directory, at)).collect()
}

impl Shortfall {
    fn of(
        entry: &PolicyEntry,
        wanted: &Requirement,
        directory: &Directory,
        at: Timestamp,
    ) -> Option<Shortfall> {
        // Who may do it, if the policy does not say so, only the policy knows.
        if wanted.eligible.is_empty() || wanted.kind == RequirementKind::Time {
            return None;
        }
        let eligible = entry.eligible(wanted, directory, at);
        let missing = wanted.need.saturating_sub(wanted.have);
        let enough = u32::try_from(eligible.people.len()).is_ok_and(|people| people >= missing);
        let label = wanted.label.clone();
        (eligible.is_complete() && !enough).then_some(Shortfall {
            kind: wanted.kind,
            label,
            missing,
            eligible,
        })
    }

    /// What is missing, without why.
    fn text(&self) -> String {
        let Shortfall { kind, label, missing, eligible } = self;
        let names = list(&eligible.people);
        let able = match (eligible.people.len(), missing) {
            (0, _) => "nobody can give".to_owned(),
            (1, _) => format!("only one person can give: {names}"),
            (people, _) => format!("only {people} people can give: {names}"),
        };
        match kind {
            RequirementKind::Acknowledgement => format!("nobody can acknowledge `{label}`"),
            _ if *missing == 1 => format!("an approval is needed that {able}"),
            _ => format!("{missing} approvals are needed, which {able}"),
        }
    }

    /// What is missing of every request: whoever is counted may have no say in what they ask for themselves.
    fn text_for_all(&self, policy: &ActionPolicy, directory: &Directory) -> String {
        let mut text = self.text();
        let Some(member) = self.eligible.people.first() else { return text };
        let people = directory.people();
        let member = people.find(member).and_then(|person| person.slack_ids().next()).unwrap_or(member);
        let Ok(own) = trial::request_by(policy, member, directory) else { return text };
        let at = own.submission.submitted_at;
        let of_own = shortfalls(policy.entry(), &own, directory, at)
            .into_iter()
            .find(|own| own.kind == self.kind && own.label == self.label);
        match of_own.map(|own| own.eligible.people.len()) {
            Some(0) => text.push_str("; nobody, if the requester is among them"),
            Some(people) if people < self.eligible.people.len() => {
                text.push_str(&format!("; only {people}, if the requester is among them"));
            }
            _ => {}
        }
        text
    }

    /// What is missing, and why whoever is named cannot act.
    fn reason(&self) -> Reason {
        let Eligible { excluded, gone, unreachable, empty, .. } = &self.eligible;
        let whys = [
            ("may not act on this request", excluded),
            ("has left Slack", gone),
            ("is nobody in Slack", unreachable),
            ("is a group without members", empty),
        ];
        let mut message = self.text();
        for (why, who) in whys.into_iter().filter(|(_, who)| !who.is_empty()) {
            message.push_str(&format!("; {why}: {}", list(who)));
        }
        Reason { code: "too_few_people".to_owned(), message, path: None }
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
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
