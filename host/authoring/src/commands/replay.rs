//! `countersign policy replay`: evaluates recorded requests, with their recorded votes, under a candidate set.
//!
//! Reads the store, also while a gateway runs on it. Writes nothing and takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::directory::Directory;
use countersign_core::duration;
use countersign_core::lifecycle::{Digest, Request, RequestId, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_gateway::fetch;
use countersign_gateway::simulation::replay::{Ending, NotJudged, Replayed, Replayer};
use countersign_policy::settings::Loading;
use countersign_policy::{Engine, Limits, Source, Trust};
use countersign_store::{Archive, StoreUrl};
use serde_json::{Value, json};

use crate::people::People;
use crate::shown::plain;
use crate::{Answer, Format, Redis, StoreAddress, words};
use countersign_console::Progress;

/// How many requests are read from the store at once.
const PAGE: usize = 500;

/// How many request ids the text report shows for each action.
const SHOWN_IDS: usize = 5;

/// Evaluate recorded requests under another policy set and report which outcomes change.
#[derive(Debug, Args)]
pub struct Replay {
    /// How far back to go, `30d`, or from when on, `2026-05-01T00:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Since,
    /// The candidate policy set: its folder, or the `policy-set.yaml` in it.
    #[arg(long, value_name = "SET")]
    set: PathBuf,
    /// The store with the recorded requests: `sqlite:PATH` or `redis://HOST`. Gateways may be running on it.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db", value_parser = StoreAddress)]
    store: StoreUrl,
    /// The number of outcomes that may change. Exits with 1 if more do.
    #[arg(long, value_name = "N")]
    max_changes: Option<usize>,
    /// The output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    #[command(flatten)]
    people: People,
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    redis: Redis,
}

impl Replay {
    /// Takes what the command needs from the environment, and returns what is wrong there, one sentence each.
    pub(crate) fn read_variables(&mut self, environment: &BTreeMap<String, String>) -> Vec<String> {
        self.redis.read_variables(&self.store, environment)
    }

    /// The trusted keys and limits to load the candidate set with.
    pub(crate) fn engine(&self) -> Result<(Trust, Limits)> {
        Ok((self.loading.supply.trust()?, self.loading.limits.limits()))
    }
}

/// From when on requests are replayed.
#[derive(Clone, Copy, Debug)]
enum Since {
    /// So long before now.
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Since::Ago(ago) => now.minus(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            Since::At(at) => at,
        }
    }
}

/// Of what looks like a date, what it lacks as a duration would not help.
fn since(text: &str) -> Result<Since, String> {
    const EXPECTED: &str = "expected a duration such as `30d`, or a time such as `2026-05-01T00:00:00Z`";
    match (duration::parse(text), text.parse()) {
        (Ok(ago), _) => Ok(Since::Ago(ago)),
        (_, Ok(at)) => Ok(Since::At(at)),
        (Err(_), Err(_)) if text.contains('-') => Err(EXPECTED.to_owned()),
        (Err(why), Err(_)) => Err(format!("{EXPECTED}: {why}")),
    }
}

pub(crate) fn run(replay: &Replay, engine: &Engine) -> Result<Answer> {
    let report = report(replay, engine)?;
    let refused = replay.max_changes.and_then(|most| report.refused(most));
    match replay.format {
        Format::Text => {
            let mut text = report.text();
            if let Some(refused) = &refused {
                let _ = writeln!(text, "\n{refused}");
            }
            Ok(Answer::lines(&text, refused.is_none()))
        }
        Format::Json => Answer::json(&report.json(), refused.is_none()),
    }
}

fn report(replay: &Replay, engine: &Engine) -> Result<Report> {
    let progress = Progress::start("loading the policy set");
    let archive = replay.store.open_for_reading(replay.redis.configured_here()?)?;
    let set = fetch::load(Source::folder(&replay.set), engine, &replay.loading.supply.registries())??;
    let now = SystemClock.now();
    let since = replay.since.before(now);
    ensure!(since <= now, "`--since` is {since}, which is in the future: no request was made since then");
    let directory = directory(&archive, &replay.people)?;
    let unknown_people = set.policies().flat_map(|policy| policy.unknown_people(&directory, now)).collect();
    let replayer = Replayer::new(set, directory, now);
    let mut report = Report { since, set: replayer.set().hash(), unknown_people, ..Report::default() };
    let mut entries: BTreeMap<Digest, Option<PolicyEntry>> = BTreeMap::new();
    progress.next("evaluating requests");
    // Ids are ordered by the time at which requests were made.
    let mut from = RequestId::new(since, 0, 0);
    loop {
        let page = archive.requests(from, PAGE)?;
        for request in &page {
            let hash = request.submission.policy_hash;
            let entry = match entries.get(&hash) {
                Some(entry) => entry,
                None => entries.entry(hash).or_insert(archive.policy_entry(hash)?),
            };
            report.add(request, replayer.replay(request, entry.as_ref()));
            progress.one_more();
        }
        match page.last() {
            Some(last) if page.len() == PAGE => from = last.id.next(),
            _ => return Ok(report),
        }
    }
}

/// The last known members of Slack user groups. Who was a member when a request was made is not recorded.
fn directory(archive: &Archive, people: &People) -> Result<Directory> {
    const USERGROUP: &str = "usergroup:";
    let directory = people.directory()?;
    for (key, document) in archive.kept(USERGROUP)? {
        let members = serde_json::from_slice(&document)
            .with_context(|| format!("`{key}` in the store cannot be read"))?;
        directory.put(key.strip_prefix(USERGROUP).unwrap_or_default(), members);
    }
    Ok(directory)
}

/// How the outcomes compare.
#[derive(Debug)]
struct Report {
    since: Timestamp,
    set: Digest,
    requests: usize,
    same: usize,
    changed: BTreeMap<(Ending, Ending), Vec<(RequestId, String)>>,
    not_judged: BTreeMap<NotJudged, Vec<(RequestId, String)>>,
    /// Requests for which a policy saw `[redacted]` instead of a hidden parameter, which is not stored.
    without_hidden: usize,
    /// Requests with an event at which a policy failed.
    failed: Vec<(RequestId, String)>,
    /// Names of people in the candidate set, of which only the access file says whose they are.
    unknown_people: BTreeSet<String>,
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
            unknown_people: BTreeSet::new(),
        }
    }
}

impl Report {
    fn add(&mut self, request: &Request, replayed: Replayed) {
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

    /// The number of outcomes that change.
    fn changes(&self) -> usize {
        self.changed.values().map(Vec::len).sum()
    }

    /// Whether no request says anything of the candidate.
    fn says_nothing(&self) -> bool {
        self.same == 0 && self.changed.is_empty()
    }

    /// Why this is not good enough if at most so many outcomes may change.
    fn refused(&self, most: usize) -> Option<String> {
        let changes = self.changes();
        if changes > most {
            return Some(format!("{changes} outcomes change; at most {most} may"));
        }
        self.says_nothing()
            .then(|| format!("no request was evaluated, so more than {most} outcomes may change"))
    }

    fn text(&self) -> String {
        let Report { requests, same, set, since, .. } = self;
        let mut text = format!("{requests} requests since {since}, evaluated under the policy set {set}\n\n");
        let mut rows = vec![("the same".to_owned(), *same, String::new())];
        for ((before, after), changed) in &self.changed {
            rows.push((format!("{} → {}", before.as_str(), after.as_str()), changed.len(), ids(changed)));
        }
        for (why, requests) in &self.not_judged {
            rows.push((format!("not evaluated: {}", explanation(*why)), requests.len(), ids(requests)));
        }
        for (what, count, ids) in rows {
            let _ = writeln!(text, "{what}: {count}");
            text.push_str(&ids);
        }
        if self.requests > 0 && self.says_nothing() {
            text.push_str("\nno request could be evaluated, so this says nothing of the candidate\n");
        }
        if self.without_hidden > 0 {
            let _ = writeln!(
                text,
                "\nevaluated without hidden parameters, which are not stored: {}",
                self.without_hidden
            );
        }
        if !self.unknown_people.is_empty() {
            let names = words::names(&self.unknown_people);
            let _ = writeln!(
                text,
                "\nonly the access file says who has these names, and what they decided may not count: {names}; give it with \
                 `--access FILE`"
            );
        }
        if !self.failed.is_empty() {
            let _ = writeln!(
                text,
                "\na policy failed at an event, which was then left out: {}",
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
            "unknownPeople": self.unknown_people,
        })
    }
}

/// The first few ids of each action, one action per line.
fn ids(requests: &[(RequestId, String)]) -> String {
    let actions: BTreeSet<&str> = requests.iter().map(|(_, action)| action.as_str()).collect();
    let mut text = String::new();
    for action in actions {
        let ids: Vec<String> =
            requests.iter().filter(|(_, of)| of == action).map(|(id, _)| id.to_string()).collect();
        let more = ids.len().saturating_sub(SHOWN_IDS);
        let shown = ids.iter().take(SHOWN_IDS).map(String::as_str).collect::<Vec<_>>().join(" ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(text, "    {}: {shown}{more}", plain(action));
    }
    text
}

/// The report's explanation.
const fn explanation(why: NotJudged) -> &'static str {
    match why {
        NotJudged::HiddenParameters => "admission depends on hidden parameters, which are not stored",
    }
}
