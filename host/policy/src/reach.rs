//! Whether requests for an action could ever be approved, and by what: by counting whom its policies ask for, and by having
//! everybody who is known act on a synthetic request.
//!
//! It finds what a policy set gets wrong for every request alike. The counting alone is done for each request that is made,
//! too; whether somebody can still approve one later is another question.

use std::collections::BTreeSet;

use countersign_core::directory::{Directory, Members, is_usergroup};
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

/// Somebody in a user group of Slack whose members are not known.
const MEMBER: &str = "U0SYNTHETICMEMBER";

/// What stands in the way of every request for an action: a sentence for each, without the action's name.
///
/// `request` is a synthetic one that was just made.
pub(crate) fn obstacles(policy: &ActionPolicy, request: &Request, directory: &Directory) -> Vec<String> {
    let at = request.submission.submitted_at;
    let short = shortfalls(policy.entry(), request, directory, at);
    let mut found: Vec<String> =
        short.iter().map(|shortfall| shortfall.text_for_all(policy, directory)).collect();
    if found.is_empty() && tried(policy, request.clone(), directory, at, Acts::All) == Tried::Nobody {
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

/// What whoever wrote the action may take for granted, and its policies do not do: a sentence for each, without the
/// action's name.
///
/// `request` is a synthetic one that was just made.
pub(crate) fn surprises(policy: &ActionPolicy, request: &Request, directory: &Directory) -> Vec<String> {
    let found = [without_approval(policy, request, directory), without_escalation(policy, request)];
    found.into_iter().flatten().collect()
}

/// That acknowledgements alone approve it.
fn without_approval(policy: &ActionPolicy, request: &Request, directory: &Directory) -> Option<String> {
    let State::Open(open) = &request.state else { return None };
    let at = request.submission.submitted_at;
    let directory = peopled(policy.entry(), directory, at);
    if tried(policy, request.clone(), &directory, at, Acts::Acknowledgements) != Tried::Approved {
        return None;
    }
    let asked = open.requirements.iter().find(|wanted| wanted.kind == RequirementKind::Acknowledgement)?;
    let who = actors(policy.entry().eligible(asked, &directory, at)).next()?;
    let own = if may_acknowledge_own(policy, &who, &asked.label, &directory) {
        ", and whoever asks may give one themselves"
    } else {
        ""
    };
    Some(format!(
        "acknowledgements are enough to approve a request{own}: put a policy that asks for approvals, such as `quorum`, \
         beside what asks for them"
    ))
}

/// Whether somebody could acknowledge what they ask for themselves.
fn may_acknowledge_own(policy: &ActionPolicy, who: &str, persona: &str, directory: &Directory) -> bool {
    let people = directory.people();
    let requester = people.find(who).and_then(|person| person.slack_ids().next()).unwrap_or(who);
    let Ok(own) = trial::request_by(policy, requester, directory) else { return false };
    let at = own.submission.submitted_at.plus(1);
    let by = policy.entry().actor(who, directory, at);
    let attempt = Attempt::of(Intent::Acknowledge { persona: persona.to_owned() }, Some(by));
    decide::event(policy, &own, attempt, at).outcome.is_ok()
}

/// A directory in which each user group of Slack whose members are not known has one: what any member could do, this one
/// can.
fn peopled(entry: &PolicyEntry, directory: &Directory, at: Timestamp) -> Directory {
    let peopled = if directory.knows_people() { Directory::default() } else { Directory::without_people() };
    peopled.set_people(directory.people());
    for group in entry.groups.values().flatten().filter(|member| is_usergroup(member)) {
        let ids = match directory.members_at(group, at) {
            Some(members) => members.ids.clone(),
            None => BTreeSet::from([MEMBER.to_owned()]),
        };
        peopled.put(group, Members { ids, as_of: at });
    }
    peopled
}

/// That the policies ask for something else once a request is escalated, if none ever is.
fn without_escalation(policy: &ActionPolicy, request: &Request) -> Option<String> {
    let asked = |request: &Request| -> Option<Vec<(RequirementKind, u32, Vec<String>)>> {
        let State::Open(open) = &request.state else { return None };
        let lasting = open.requirements.iter().filter(|wanted| wanted.kind != RequirementKind::Time);
        Some(lasting.map(|wanted| (wanted.kind, wanted.need, wanted.eligible.clone())).collect())
    };
    let mut escalating = request.clone();
    match &mut escalating.state {
        State::Open(open) if open.escalation == Escalation::Never => {
            open.escalation = Escalation::At(request.submission.submitted_at.plus(1));
        }
        _ => return None,
    }
    let differs = asked(&escalated(policy, &escalating)?) != asked(request);
    differs.then(|| {
        "its policies ask for something else once a request is escalated, but none ever is: the action has no `escalate`"
            .to_owned()
    })
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

/// What people do about the synthetic request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acts {
    /// Whatever helps.
    All,
    /// They acknowledge, and do not approve.
    Acknowledgements,
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

/// Who is tried: whoever can act, and names that may be somebody's.
fn actors(eligible: Eligible) -> impl Iterator<Item = String> {
    let names = eligible.unknown.into_iter().filter(|name| !is_usergroup(name));
    eligible.people.into_iter().chain(names)
}

fn tried(
    policy: &ActionPolicy,
    mut request: Request,
    directory: &Directory,
    at: Timestamp,
    what: Acts,
) -> Tried {
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
            people.extend(actors(eligible));
            if wanted.kind == RequirementKind::Acknowledgement {
                acts.push(Intent::Acknowledge { persona: wanted.label.clone() });
            }
        }
        if what == Acts::All {
            acts.push(Intent::approve());
        }
        for group in entry.groups.keys() {
            let members = entry.named(&format!("@{group}"), &[], directory, at);
            unclear |= !members.is_complete();
            people.extend(actors(members));
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
