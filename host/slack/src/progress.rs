//! The progress of a request as text: its status, what is missing, and who did what. Messages, notices and ephemeral
//! messages share it.
//!
//! All of it is `mrkdwn` in which names are escaped.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Act, Decided, Escalation, Open, Request, Requirement, RequirementKind, State, Status, Timestamp, Usage,
};
use countersign_core::record::PolicyEntry;
use serde_json::Value;

use super::text::{self, code, counted, person};
use super::time::{date, left, span};

/// The members of each group of the policy set.
pub(super) type Groups = BTreeMap<String, BTreeSet<String>>;

/// Who is who when a message is rendered.
#[derive(Clone, Copy)]
pub(super) struct Roster<'a> {
    /// The rules of the request, which name people and groups.
    pub(super) entry: &'a PolicyEntry,
    /// Who they are, and who has left.
    pub(super) directory: &'a Directory,
    /// When.
    pub(super) now: Timestamp,
}

/// The group whose members may approve everything.
const SUPER_APPROVERS: &str = "super-approvers";

/// The most people or groups that are named; the others are counted.
pub(super) const MOST_NAMES: usize = 6;

/// The most members of a group that are named; the others are counted.
const MOST_MEMBERS: usize = 3;

/// The width of all names of a requirement up to which the members of its groups are named, too.
const MEMBERS_WIDTH: usize = 500;

/// The width of a name.
const NAME_WIDTH: usize = 60;

/// The width of a requirement's label.
const LABEL_WIDTH: usize = 100;

/// The status line, and on a second line since when or until when.
pub(super) fn status(request: &Request, now: Timestamp) -> String {
    let submitted_at = request.submission.submitted_at;
    match &request.state {
        State::Open(open) => {
            let (emoji, escalated) = match open.escalation {
                Escalation::Done(at) => (":rotating_light:", format!(" · escalated {}", date(at))),
                Escalation::Never | Escalation::At(_) => (":hourglass_flowing_sand:", String::new()),
            };
            let word = if escalated.is_empty() { "Waiting" } else { "Escalated: waiting" };
            let end = request.submission.expires_at;
            let (missing, left, end) = (missing(open), left(now, end), date(end));
            format!("{emoji} *{word} for {missing}*\n:alarm_clock: *{left}*, until {end}{escalated}")
        }
        _ => {
            let (emoji, word) = status_label(request);
            let ended_by = ended_by(request);
            let at = request.decided_at().unwrap_or(now);
            let took = span(at.since(submitted_at));
            let at = date(at);
            let used = usage(request, now).map(|used| format!("\n{used}")).unwrap_or_default();
            format!("{emoji} *{word}*{ended_by}\n{at}, after {took}{used}")
        }
    }
}

/// How far an approval has been used. `None` if nobody has used it and nothing says that somebody must: many callers only
/// wait for their decision, and then act.
fn usage(request: &Request, now: Timestamp) -> Option<String> {
    let used_at = || request.consumption().map(|consumed| date(consumed.at)).unwrap_or_default();
    Some(match request.usage(now)? {
        Usage::Unused => match request.valid_until() {
            Some(until) => format!(":double_vertical_bar: *Not used yet*, possible until {}", date(until)),
            None if request.submission.terms.required => ":double_vertical_bar: *Not used yet*".to_owned(),
            None => return None,
        },
        Usage::Lapsed => ":wastebasket: *Lapsed*: nobody used it in time".to_owned(),
        Usage::Consumed => format!(":arrow_forward: *Used* {}", used_at()),
        Usage::Succeeded => format!(":checkered_flag: *Ran* {}, *succeeded*", used_at()),
        Usage::Failed => format!(":boom: *Ran* {}, *failed*", used_at()),
    })
}

/// The emoji and the word for the status.
pub(super) fn status_label(request: &Request) -> (&'static str, &'static str) {
    match request.status() {
        Status::Approved if changes(request).is_empty() => (":white_check_mark:", "Approved"),
        Status::Approved => (":white_check_mark:", "Approved with edits"),
        Status::Denied => (":no_entry:", "Denied"),
        Status::Expired => (":hourglass:", "Expired"),
        Status::Cancelled => (":leftwards_arrow_with_hook:", "Cancelled"),
        Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => {
            (":hourglass_flowing_sand:", "Waiting")
        }
    }
}

/// Who or what ended the request; empty if it is open.
pub(super) fn ended_by(request: &Request) -> String {
    let by = |decided: &Decided, nobody: &str| {
        decided.by.as_deref().map_or(nobody.to_owned(), |id| format!(" by {}", person(id, NAME_WIDTH)))
    };
    match &request.state {
        State::Open(_) => String::new(),
        State::Approved { decided, .. } => {
            let approvers = request.approvers();
            if !approvers.is_empty() {
                return format!(" by {}", people(approvers));
            }
            if request.history.iter().all(|event| event.by.is_none()) {
                return ": its policies ask for nobody".to_owned();
            }
            by(decided, " by its policies")
        }
        State::Denied(decided) => by(decided, " by its policies"),
        State::Expired { by: Some(admin), .. } | State::Cancelled { by: Some(admin), .. } => {
            format!(" by the admin {}", person(admin, NAME_WIDTH))
        }
        State::Expired { .. } => ": nobody decided in time".to_owned(),
        State::Cancelled { successor: Some(_), .. } => ": a newer request has superseded it".to_owned(),
        State::Cancelled { .. } => " by its caller".to_owned(),
    }
}

/// The reason with which the request ended, if there is one.
pub(super) fn reason(request: &Request) -> Option<&str> {
    match &request.state {
        // Ours, not the caller's; the status says it.
        State::Cancelled { successor: Some(_), .. } => None,
        _ => request.reason(),
    }
}

/// What an open request waits for, in a few words.
pub(super) fn missing(open: &Open) -> String {
    let of = |kind| open.requirements.iter().filter(move |requirement| requirement.kind == kind);
    let mut parts = Vec::new();
    match of(RequirementKind::Acknowledgement).count() {
        0 => {}
        number => parts.push(counted(number, "acknowledgement")),
    }
    let approvals: Vec<&Requirement> = of(RequirementKind::Approval).collect();
    match approvals.as_slice() {
        [] => {}
        [one] => {
            let missing = usize::try_from(one.need.saturating_sub(one.have)).unwrap_or(usize::MAX);
            let more = if one.have > 0 { "more " } else { "" };
            parts.push(counted(missing.max(1), &format!("{more}approval")));
        }
        // One approval may count for several policies, so a sum would be wrong.
        _ => parts.push("approvals".to_owned()),
    }
    if of(RequirementKind::Time).next().is_some() {
        parts.push("the right time".to_owned());
    }
    match parts.as_slice() {
        [] => "its policies".to_owned(),
        [one] => one.clone(),
        [first, last] => format!("{first} and {last}"),
        [first, second, ..] => format!("{first}, {second} and the right time"),
    }
}

/// The requirements, one a line: personas as a checklist, and approvals with who gave them and who can.
pub(super) fn lines(request: &Request, roster: Roster<'_>) -> Vec<String> {
    let mut lines = personas(request, roster);
    let approvers = request.approvers();
    let State::Open(open) = &request.state else {
        // The status line already says who approved.
        if request.status() != Status::Approved {
            lines.extend(approvals_at_the_end(request, &approvers));
        }
        return lines;
    };
    let mut named = BTreeSet::new();
    // If the only requirement counts as many approvals as there are, it counts all of them, whomever the policy names.
    let mut asked =
        open.requirements.iter().filter(|requirement| requirement.kind == RequirementKind::Approval);
    let counts_all = asked.next().is_some_and(|only| usize::try_from(only.have) == Ok(approvers.len()))
        && asked.next().is_none();
    for requirement in &open.requirements {
        match requirement.kind {
            RequirementKind::Acknowledgement => {}
            RequirementKind::Approval => {
                let counting: Vec<&str> = approvers
                    .iter()
                    .copied()
                    .filter(|id| counts_all || counts(request, &roster.entry.groups, requirement, id))
                    .collect();
                named.extend(counting.iter().copied());
                lines.push(approval(requirement, &counting, &approvers, roster));
            }
            RequirementKind::Time => {
                let next = open.wake_at.map_or(String::new(), |at| format!("; looked at again {}", date(at)));
                lines.push(format!(":clock3: {}{next}", code(&requirement.label, LABEL_WIDTH)));
            }
        }
    }
    let others: Vec<&str> = approvers.into_iter().filter(|id| !named.contains(id)).collect();
    if !others.is_empty() {
        lines.push(format!(":white_check_mark: approved by {}", people(others)));
    }
    lines
}

/// What is missing, one requirement a line, without names: a name in a new message would notify that person.
pub(super) fn lines_without_names(request: &Request) -> Vec<String> {
    let State::Open(open) = &request.state else { return Vec::new() };
    let line = |requirement: &Requirement| match requirement.kind {
        RequirementKind::Acknowledgement => {
            format!(":white_large_square: {}: to be acknowledged", code(&requirement.label, LABEL_WIDTH))
        }
        RequirementKind::Approval => approval_count(requirement),
        RequirementKind::Time => format!(":clock3: {}", code(&requirement.label, LABEL_WIDTH)),
    };
    open.requirements.iter().map(line).collect()
}

/// As many lines as fit into `most`, and the number of the others.
pub(super) fn packed(lines: &[String], most: usize) -> String {
    // The room for that number.
    const REST: usize = 32;
    let mut text = String::new();
    let mut room = most;
    for (n, line) in lines.iter().enumerate() {
        let is_last = n + 1 == lines.len();
        let takes = text::width(line) + 2;
        if takes + if is_last { 0 } else { REST } > room {
            let rest = counted(lines.len() - n, "more line");
            text.push_str(&format!("… and {rest}"));
            break;
        }
        room -= takes;
        text.push_str(line);
        text.push_str(if is_last { "" } else { "\n" });
    }
    text
}

/// What approvers changed in the submitted parameters: the key, the value before and the value after.
pub(super) fn changes(request: &Request) -> Vec<(&str, Option<&Value>, Option<&Value>)> {
    let before = |key: &str| request.submission.params.get(key);
    let edits = request.edits().into_iter().map(|(key, after)| (key, before(key), after));
    edits.filter(|(_, before, after)| before != after).collect()
}

/// The first few people, and the number of the others.
pub(super) fn people<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    listed(ids.into_iter().map(|id| person(id, NAME_WIDTH)).collect(), MOST_NAMES)
}

/// The personas that are not acknowledged, each once, in the order of the requirements.
pub(super) fn pending_personas(request: &Request) -> Vec<&Requirement> {
    let State::Open(open) = &request.state else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let personas = open.requirements.iter().filter(|r| r.kind == RequirementKind::Acknowledgement);
    personas.filter(|persona| seen.insert(persona.label.as_str())).collect()
}

fn personas(request: &Request, roster: Roster<'_>) -> Vec<String> {
    let pending = pending_personas(request);
    let done = request.acknowledgements();
    let is_open = !request.status().is_terminal();
    let mut names: Vec<&str> = request.needs.personas.iter().map(String::as_str).collect();
    names.extend(pending.iter().map(|persona| persona.label.as_str()));
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let line = |name: &str| {
        let label = code(name, LABEL_WIDTH);
        let waits = pending.iter().find(|persona| persona.label == name);
        match (waits, done.get(name)) {
            (Some(persona), _) => {
                let who = match eligible(persona, &[], roster) {
                    Some(names) if names.is_empty() => ", but *nobody can*".to_owned(),
                    Some(names) => format!(" by {names}"),
                    None => String::new(),
                };
                format!(":white_large_square: {label}: to be acknowledged{who}")
            }
            (None, Some(by)) => {
                format!(":white_check_mark: {label}: acknowledged by {}", person(by, NAME_WIDTH))
            }
            (None, None) if is_open => format!(":white_check_mark: {label}: no longer asked for"),
            (None, None) => format!(":white_large_square: {label}: nobody acknowledged it"),
        }
    };
    names.into_iter().map(line).collect()
}

fn approval(requirement: &Requirement, counting: &[&str], approvers: &[&str], roster: Roster<'_>) -> String {
    let mut line = approval_count(requirement);
    if !counting.is_empty() {
        line.push_str(&format!(": {}", people(counting.iter().copied())));
    }
    if requirement.have < requirement.need {
        let separator = if counting.is_empty() { ":" } else { ";" };
        match eligible(requirement, approvers, roster) {
            Some(names) if names.is_empty() => {
                line.push_str(&format!("{separator} *nobody else can approve it*"));
            }
            who => {
                let who = who.as_deref().unwrap_or("somebody");
                line.push_str(&format!("{separator} waiting for {who}"));
            }
        }
    }
    line
}

/// The number of approvals, and the policy's label if that says more.
fn approval_count(requirement: &Requirement) -> String {
    let Requirement { label, have, need, .. } = requirement;
    let progress = format!("{have} of {need} approval{}", if *need == 1 { "" } else { "s" });
    if *label == progress {
        format!(":busts_in_silhouette: {progress}")
    } else {
        format!(":busts_in_silhouette: {}: {progress}", code(label, LABEL_WIDTH))
    }
}

/// The number of approvals of an ended request, of which no requirement says any more how many count.
fn approvals_at_the_end(request: &Request, approvers: &[&str]) -> Option<String> {
    let need = request.needs.approvals.iter().copied().max().unwrap_or_default();
    if need == 0 && approvers.is_empty() {
        return None;
    }
    let by =
        if approvers.is_empty() { String::new() } else { format!(": {}", people(approvers.iter().copied())) };
    let of = if need == 0 { String::new() } else { format!(" of {need}") };
    let noun = if need == 1 { "approval" } else { "approvals" };
    Some(format!(":busts_in_silhouette: {}{of} {noun}{by}", approvers.len()))
}

/// `@group, @person`: who can meet the requirement and has not yet. `None` if the policy names nobody in particular; empty
/// if nobody is left whom it names.
fn eligible(requirement: &Requirement, done: &[&str], roster: Roster<'_>) -> Option<String> {
    if requirement.eligible.is_empty() {
        return None;
    }
    let mut seen = BTreeSet::new();
    let names = requirement.eligible.iter().map(String::as_str);
    let names: Vec<&str> = names.filter(|name| !done.contains(name) && seen.insert(*name)).collect();
    let shown = |most_members: usize| {
        let shown = |name: &&str| roster.shown(name, &requirement.excluded, done, most_members);
        listed(names.iter().filter_map(shown).collect(), MOST_NAMES)
    };
    let with_members = shown(MOST_MEMBERS);
    Some(if text::width(&with_members) <= MEMBERS_WIDTH { with_members } else { shown(0) })
}

impl Roster<'_> {
    /// A person whom a policy or a policy set names: by their Slack id, if they are known by another name.
    pub(super) fn person(self, name: &str) -> String {
        let people = self.directory.people();
        let slack = people.find(name).and_then(|person| person.slack_ids().next());
        person(slack.filter(|_| !text::is_user(name)).unwrap_or(name), NAME_WIDTH)
    }

    /// A name of a policy, with what people should know of it, and so many members of a group; `None` if nobody who has it
    /// can act. Who is `done` is not waited for.
    fn shown(self, name: &str, excluded: &[String], done: &[&str], most_members: usize) -> Option<String> {
        let Roster { entry, directory, now } = self;
        let who = entry.named(name, excluded, directory, now);
        let members: Vec<&String> = who.people.iter().filter(|id| !done.contains(&id.as_str())).collect();
        let Some(group) = name.strip_prefix('@') else {
            let left_out = !who.gone.is_empty() || !who.excluded.is_empty();
            return (!left_out).then(|| self.person(name));
        };
        let mut notes = Vec::new();
        match (members.len(), who.is_complete()) {
            (0, true) if who.people.is_empty() => notes.push("nobody".to_owned()),
            (0, true) => notes.push("nobody else".to_owned()),
            (count, is_complete) if count > 0 && most_members > 0 => {
                let mut names = listed(members.into_iter().map(|id| self.person(id)).collect(), most_members);
                // Who is in a user group of Slack is not always known.
                names.push_str(if is_complete { "" } else { " and others" });
                notes.push(names);
            }
            _ => {}
        }
        if !who.excluded.is_empty() && !who.people.is_empty() {
            notes.push("except the requester".to_owned());
        }
        let group = text::group(group, NAME_WIDTH);
        Some(if notes.is_empty() { group } else { format!("{group} ({})", notes.join("; ")) })
    }
}

/// The first few names, and the number of the others.
pub(super) fn listed(mut names: Vec<String>, most: usize) -> String {
    // One more name takes no more room than "and 1 more".
    if names.len() > most + 1 {
        let rest = names.len() - most;
        names.truncate(most);
        return format!("{} and {} more", names.join(", "), text::grouped(rest));
    }
    names.join(", ")
}

/// Whether this person's approval counts for the requirement, judging by whom the policy names.
fn counts(request: &Request, groups: &Groups, requirement: &Requirement, id: &str) -> bool {
    let is_in = |group: &str| {
        let now = groups.get(group).is_some_and(|members| members.contains(id));
        now || request.history.iter().any(|event| {
            let by = event.by.as_ref().filter(|actor| actor.id == id);
            matches!(event.act, Act::Approve { .. }) && by.is_some_and(|actor| actor.groups.contains(group))
        })
    };
    let named = |name: &String| name == id || name.strip_prefix('@').is_some_and(is_in);
    requirement.eligible.iter().any(named) || is_in(SUPER_APPROVERS)
}
