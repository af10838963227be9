//! `countersign policy replay`: recorded requests, people's votes included, under a candidate set.
//!
//! Reads the store beside a gateway that may be running; writes nothing, and takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Outcome, Rehearsal, Timers};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Loading, StoreUrl};
use crate::gateway::Intent;
use crate::lifecycle::{
    Act, Actor, Change, Digest, REDACTED, Request, RequestId, State, Status, Submission, Timestamp,
};
use crate::policy::{ActionPolicy, Directory, Engine, Limits, PolicyEntry, PolicySet, Source, Trust};
use crate::policy_sets::fetch;
use crate::store::SqliteArchive;

/// How many requests are read at once.
const PAGE: usize = 500;

/// How many ids are told of each change in the table.
const IDS: usize = 5;

/// Judges recorded requests again, under another policy set, and prints what would have become of them.
///
/// Exits with 1 where more outcomes change than `--max-changes` allows, and with 2 where it cannot be done.
#[derive(Debug, Args)]
pub struct Replay {
    /// How far back to go: `30d`.
    #[arg(long, value_name = "TIME", value_parser = how_long)]
    since: Duration,
    /// The candidate set: its folder, or the `policy-set.yaml` in it.
    #[arg(long, value_name = "SET")]
    set: PathBuf,
    /// The store with the requests: `sqlite:PATH`. A gateway may be running on it.
    #[arg(long, value_name = "STORE", default_value = "sqlite:countersign.db")]
    store: StoreUrl,
    #[command(flatten)]
    loading: Loading,
    /// How many outcomes may change.
    #[arg(long, value_name = "N")]
    max_changes: Option<usize>,
    /// A table for people, or JSON.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// What a report looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Text,
    /// JSON.
    Json,
}

impl Replay {
    /// Whose signatures count for the candidate, and what a call of its policies may use.
    pub(crate) fn engine(&self) -> Result<(Trust, Limits)> {
        Ok((self.loading.supply.trust()?, self.loading.limits.limits()))
    }
}

/// A duration: what the parser of it says of a date would help nobody.
fn how_long(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "how far back to go is a duration such as `30d`".to_owned())
}

/// Does it. Returns what there is to say, and whether no more outcomes change than may. Blocks.
///
/// # Errors
/// Where the store cannot be read, or the set is wrong.
pub fn run(replay: &Replay, engine: &Engine) -> Result<(String, bool)> {
    let report = report(replay, engine)?;
    let mut text = match replay.format {
        Format::Text => report.text(),
        Format::Json => format!("{:#}\n", report.json()),
    };
    let good = replay.max_changes.is_none_or(|most| report.changes() <= most);
    if let Some(most) = replay.max_changes.filter(|_| !good && replay.format == Format::Text) {
        let _ = writeln!(text, "\n{} outcomes change, and {most} may", report.changes());
    }
    Ok((text, good))
}

fn report(replay: &Replay, engine: &Engine) -> Result<Report> {
    let StoreUrl::Sqlite(path) = &replay.store;
    let archive = SqliteArchive::open(path)?;
    let set = fetch::load(Source::folder(&replay.set), engine, &replay.loading.supply.registries())??;
    let now = SystemClock.now();
    let since = now.minus(u64::try_from(replay.since.as_millis()).unwrap_or(u64::MAX));
    let stage = Stage { directory: directory(&archive)?, set, now };
    let mut report = Report { since, set: stage.set.hash(), ..Report::default() };
    let mut entries: BTreeMap<Digest, Option<PolicyEntry>> = BTreeMap::new();
    // Ids sort by the time at which requests were made.
    let mut from = RequestId::new(since, 0, 0);
    loop {
        let page = archive.requests(from, PAGE)?;
        for request in &page {
            let hash = request.submission.policy_hash;
            let entry = match entries.get(&hash) {
                Some(entry) => entry,
                None => entries.entry(hash).or_insert(archive.policy_entry(hash)?),
            };
            report.take(request, stage.replay(request, entry.as_ref()));
        }
        match page.last() {
            Some(last) if page.len() == PAGE => from = last.id.next(),
            _ => return Ok(report),
        }
    }
}

/// Who was in Slack's user groups when Slack last said so: who was in them when a request was made is not known.
fn directory(archive: &SqliteArchive) -> Result<Directory> {
    const USERGROUP: &str = "usergroup:";
    let directory = Directory::default();
    for (key, document) in archive.kept(USERGROUP)? {
        let members = serde_json::from_slice(&document)
            .with_context(|| format!("`{key}` in the store cannot be read"))?;
        directory.put(key.strip_prefix(USERGROUP).unwrap_or_default(), members);
    }
    Ok(directory)
}

/// What requests are judged by, and with.
pub(super) struct Stage {
    set: PolicySet,
    directory: Directory,
    now: Timestamp,
}

/// How a request ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    NotAdmitted,
    Waiting,
    Approved,
    Denied,
    Expired,
    Cancelled,
}

/// What came of judging a request again.
#[derive(Debug)]
struct Replayed {
    ending: Result<Ending, NotJudged>,
    /// A policy saw `[redacted]` where the live one saw a value, and could have said otherwise.
    without_hidden: bool,
    /// A policy failed on the way.
    failed: bool,
}

/// Why a request cannot be judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NotJudged {
    UnknownAction,
    HiddenParameters,
    PolicyFailed,
}

impl Stage {
    /// The request from its submission to its end, under the candidate's rules. `original` are its own.
    fn replay(&self, request: &Request, original: Option<&PolicyEntry>) -> Replayed {
        let mut replayed =
            Replayed { ending: Err(NotJudged::UnknownAction), without_hidden: false, failed: false };
        let Some(rules) = self.set.action(&request.submission.action) else { return replayed };
        let submission = self.submission(rules, &request.submission, original);
        let known = known_memos(rules, request, &submission, original);
        let all_known = known.iter().all(Option::is_some);
        replayed.without_hidden = !request.submission.redacted.is_empty() && !all_known;
        let params = submission.params.clone();
        let known = |index: usize| known.get(index).cloned().flatten();
        let mut rehearsal = match Rehearsal::admit(rules, request.id, submission, &params, known) {
            Ok(rehearsal) => rehearsal,
            Err(outcome) => {
                replayed.ending = match outcome {
                    // Were it not for what is hidden, it might well have been admitted.
                    _ if replayed.without_hidden => Err(NotJudged::HiddenParameters),
                    Outcome::Failed(_) => Err(NotJudged::PolicyFailed),
                    _ => Ok(Ending::NotAdmitted),
                };
                replayed.without_hidden = false;
                return replayed;
            }
        };
        replayed.failed = self.events(&mut rehearsal, request, original);
        replayed.ending = Ok(Ending::of(rehearsal.status()));
        replayed
    }

    /// What happened to the request happens again, as far as it can. Says whether a policy failed.
    fn events(&self, rehearsal: &mut Rehearsal, request: &Request, original: Option<&PolicyEntry>) -> bool {
        let mut failed = false;
        let mut note = |outcome: &Outcome| failed |= matches!(outcome, Outcome::Failed(_));
        let mut timers = Timers { escalation: request.submission.escalate_at, wake_up: None };
        for event in request.history.iter().skip(1) {
            if rehearsal.status().is_terminal() {
                return failed;
            }
            if let Err(outcome) = rehearsal.advance(event.at, timers) {
                note(&outcome);
            }
            match (&event.act, &event.by) {
                (Act::Escalated, _) => {
                    timers.escalation = None;
                    // Not due under the candidate: it escalates later, or never.
                    note(&rehearsal.escalate(event.at));
                }
                (act, Some(by)) => {
                    let by = self.actor(rehearsal.rules().entry(), by, original, event.at);
                    note(&rehearsal.act(event.at, by, &intent(act), None));
                }
                // Wake-ups come when the candidate's own policies ask for them.
                (_, None) => {}
            }
        }
        let end = request.decided_at().unwrap_or(self.now);
        if let Err(outcome) = rehearsal.advance(end, timers) {
            note(&outcome);
        }
        match &request.state {
            State::Cancelled { at, .. } => note(&rehearsal.end(Change::Cancel { at: *at, reason: None })),
            // Nobody decided: so it would have ended, sooner or later.
            State::Expired { .. } => {
                let at = end.max(rehearsal.expires_at());
                note(&rehearsal.end(Change::Expire { at }));
            }
            State::Open(_) | State::Approved(_) | State::Denied(_) => {
                if rehearsal.expires_at() <= end {
                    note(&rehearsal.end(Change::Expire { at: end }));
                }
            }
        }
        failed
    }

    /// The submission, as it would have been made under the candidate's rules.
    fn submission(
        &self,
        rules: &ActionPolicy,
        stored: &Submission,
        original: Option<&PolicyEntry>,
    ) -> Submission {
        let entry = rules.entry();
        let (mut params, mut redacted) = entry.redact.apply(&stored.params);
        for key in &stored.redacted {
            redacted.insert(key.clone());
            params.insert(key.clone(), REDACTED.into());
        }
        let requester = Actor {
            id: stored.requester.id.clone(),
            groups: stored.requester_groups.clone(),
            groups_as_of: None,
        };
        let expires_at = stored.submitted_at.plus(entry.timeout_ms);
        Submission {
            rules: entry.action.clone(),
            requester_groups: self.actor(entry, &requester, original, stored.submitted_at).groups,
            params,
            redacted,
            policy_hash: rules.hash(),
            expires_at,
            escalate_at: entry.escalate.as_ref().map(|escalate| expires_at.minus(escalate.before_ms)),
            unattended: entry.unattended,
            ..stored.clone()
        }
    }

    /// Somebody who acted, with their groups under the candidate's rules: as recorded where the group is the same.
    fn actor(
        &self,
        entry: &PolicyEntry,
        recorded: &Actor,
        original: Option<&PolicyEntry>,
        at: Timestamp,
    ) -> Actor {
        let mut actor = entry.actor(&recorded.id, &self.directory, at);
        for (name, members) in &entry.groups {
            if original.is_some_and(|original| original.groups.get(name) == Some(members)) {
                match recorded.groups.contains(name) {
                    true => actor.groups.insert(name.clone()),
                    false => actor.groups.remove(name),
                };
            }
        }
        actor
    }
}

/// What the candidate's policies would have remembered, by their place, where the same module with the same
/// configuration has remembered it of the same submission.
fn known_memos(
    rules: &Arc<ActionPolicy>,
    request: &Request,
    submission: &Submission,
    original: Option<&PolicyEntry>,
) -> Vec<Option<String>> {
    let same_facts = submission.requester_groups == request.submission.requester_groups;
    let memo = |used: &crate::policy::PolicyUse| {
        let mut uses = original.filter(|_| same_facts)?.policies.iter();
        let place =
            uses.position(|earlier| earlier.digest == used.digest && earlier.config == used.config)?;
        request.memos.get(place).cloned()
    };
    rules.entry().policies.iter().map(memo).collect()
}

fn intent(act: &Act) -> Intent {
    match act {
        Act::Acknowledge { persona } => Intent::Acknowledge { persona: persona.clone() },
        Act::Approve { edits } => {
            let edits = edits.iter().map(|edit| (edit.key.clone(), edit.after.clone()));
            Intent::Approve { edits: edits.collect() }
        }
        Act::Deny { reason } => Intent::Deny { reason: reason.clone() },
        Act::Withdraw | Act::Submitted | Act::Escalated | Act::Tick => Intent::Withdraw,
    }
}

impl Ending {
    fn of(status: Status) -> Ending {
        match status {
            Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => Ending::Waiting,
            Status::Approved => Ending::Approved,
            Status::Denied => Ending::Denied,
            Status::Expired => Ending::Expired,
            Status::Cancelled => Ending::Cancelled,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Ending::NotAdmitted => "not admitted",
            Ending::Waiting => "waiting",
            Ending::Approved => "approved",
            Ending::Denied => "denied",
            Ending::Expired => "expired",
            Ending::Cancelled => "cancelled",
        }
    }
}

impl NotJudged {
    const fn as_str(self) -> &'static str {
        match self {
            NotJudged::UnknownAction => "unknown_action",
            NotJudged::HiddenParameters => "hidden_parameters",
            NotJudged::PolicyFailed => "policy_failed",
        }
    }

    const fn explained(self) -> &'static str {
        match self {
            NotJudged::UnknownAction => "the candidate does not know the action",
            NotJudged::HiddenParameters => {
                "hidden parameters, which are not stored, decide whether it is admitted"
            }
            NotJudged::PolicyFailed => "a policy of the candidate failed when it was to be admitted",
        }
    }
}

/// What came of it all.
#[derive(Debug)]
struct Report {
    since: Timestamp,
    set: Digest,
    requests: usize,
    same: usize,
    changed: BTreeMap<(Ending, Ending), Vec<(RequestId, String)>>,
    not_judged: BTreeMap<NotJudged, Vec<(RequestId, String)>>,
    without_hidden: usize,
    failed: Vec<(RequestId, String)>,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            since: Timestamp::EPOCH,
            set: Digest::from_bytes([0; 32]),
            requests: 0,
            same: 0,
            changed: BTreeMap::new(),
            not_judged: BTreeMap::new(),
            without_hidden: 0,
            failed: Vec::new(),
        }
    }
}

impl Report {
    fn take(&mut self, request: &Request, replayed: Replayed) {
        let about = (request.id, request.submission.action.clone());
        let before = Ending::of(request.status());
        self.requests += 1;
        self.without_hidden += usize::from(replayed.without_hidden);
        if replayed.failed {
            self.failed.push(about.clone());
        }
        match replayed.ending {
            Ok(after) if after == before => self.same += 1,
            Ok(after) => self.changed.entry((before, after)).or_default().push(about),
            Err(why) => self.not_judged.entry(why).or_default().push(about),
        }
    }

    /// How many outcomes change.
    fn changes(&self) -> usize {
        self.changed.values().map(Vec::len).sum()
    }

    fn text(&self) -> String {
        let Report { requests, same, set, since, .. } = self;
        let mut text =
            format!("{requests} requests since {since}, judged again under the policy set {set}\n\n");
        let mut rows = vec![("the same".to_owned(), *same, String::new())];
        for ((before, after), changed) in &self.changed {
            rows.push((format!("{} → {}", before.as_str(), after.as_str()), changed.len(), ids(changed)));
        }
        for (why, requests) in &self.not_judged {
            rows.push((format!("not judged: {}", why.explained()), requests.len(), ids(requests)));
        }
        for (what, count, ids) in rows {
            // A String takes all that is written to it.
            let _ = writeln!(text, "{what}: {count}");
            text.push_str(&ids);
        }
        if self.without_hidden > 0 {
            let _ = writeln!(
                text,
                "\nof those that were judged, {} have hidden parameters that a policy could not see this time",
                self.without_hidden
            );
        }
        if !self.failed.is_empty() {
            let _ = writeln!(
                text,
                "\na policy failed on the way, and the event did not count: {}",
                self.failed.len()
            );
            text.push_str(&ids(&self.failed));
        }
        text
    }

    fn json(&self) -> Value {
        let all = |requests: &[(RequestId, String)]| -> Value {
            requests.iter().map(|(id, action)| json!({"requestId": id, "action": action})).collect()
        };
        let changed = self.changed.iter().map(|((before, after), requests)| {
            let (from, to) = (before.as_str(), after.as_str());
            json!({"from": from, "to": to, "count": requests.len(), "requests": all(requests)})
        });
        let not_judged = self.not_judged.iter().map(|(why, requests)| {
            json!({"why": why.as_str(), "count": requests.len(), "requests": all(requests)})
        });
        json!({
            "since": self.since.to_string(),
            "set": self.set,
            "requests": self.requests,
            "same": self.same,
            "changes": self.changes(),
            "changed": changed.collect::<Vec<_>>(),
            "notJudged": not_judged.collect::<Vec<_>>(),
            "withoutHiddenParameters": self.without_hidden,
            "failed": all(&self.failed),
        })
    }
}

/// The first few ids by action, a line each.
fn ids(requests: &[(RequestId, String)]) -> String {
    let actions: BTreeSet<&str> = requests.iter().map(|(_, action)| action.as_str()).collect();
    let mut text = String::new();
    for action in actions {
        let ids: Vec<String> =
            requests.iter().filter(|(_, of)| of == action).map(|(id, _)| id.to_string()).collect();
        let more = ids.len().saturating_sub(IDS);
        let shown = ids.iter().take(IDS).map(String::as_str).collect::<Vec<_>>().join(" ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(text, "    {action}: {shown}{more}");
    }
    text
}

#[cfg(test)]
impl Stage {
    pub(super) fn new(set: PolicySet, now: Timestamp) -> Stage {
        Stage { set, directory: Directory::default(), now }
    }

    /// How a request has ended, and how it ends here.
    pub(super) fn told(&self, request: &Request, original: Option<&PolicyEntry>) -> (String, String) {
        let after = match self.replay(request, original).ending {
            Ok(ending) => ending.as_str(),
            Err(why) => why.as_str(),
        };
        (Ending::of(request.status()).as_str().to_owned(), after.to_owned())
    }
}
