//! `countersign policy replay`: recorded requests, people's votes included, under a candidate set.
//!
//! Reads the store beside a gateway that may be running; writes nothing, and takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Digest, Request, RequestId, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_gateway::fetch;
use countersign_gateway::simulation::replay::{Ending, NotJudged, Replayed, Replayer};
use countersign_policy::settings::Loading;
use countersign_policy::{Engine, Limits, Source, Trust};
use countersign_store::SqliteArchive;
use countersign_store::StoreUrl;

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
pub(crate) fn run(replay: &Replay, engine: &Engine) -> Result<(String, bool)> {
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
    let archive = replay.store.open_archive()?;
    let set = fetch::load(Source::folder(&replay.set), engine, &replay.loading.supply.registries())??;
    let now = SystemClock.now();
    let since = now.minus(u64::try_from(replay.since.as_millis()).unwrap_or(u64::MAX));
    let replayer = Replayer::new(set, directory(&archive)?, now);
    let mut report = Report { since, set: replayer.set().hash(), ..Report::default() };
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
            report.take(request, replayer.replay(request, entry.as_ref()));
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
            rows.push((format!("not judged: {}", explained(*why)), requests.len(), ids(requests)));
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

/// What the report says of it.
const fn explained(why: NotJudged) -> &'static str {
    match why {
        NotJudged::UnknownAction => "the candidate does not know the action",
        NotJudged::HiddenParameters => {
            "hidden parameters, which are not stored, decide whether it is admitted"
        }
        NotJudged::PolicyFailed => "a policy of the candidate failed when it was to be admitted",
    }
}
