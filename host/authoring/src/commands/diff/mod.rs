//! `countersign policy diff`: says what another policy set changes for people, action by action.
//!
//! Both sets are loaded as a gateway loads them, and compared entry by entry: what was only written otherwise is the same.
//! Who must agree is what the policies themselves say of a synthetic request; their configuration is compared, too, since
//! such a request does not show all of it.

mod aspect;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use countersign_core::lifecycle::Digest;
use countersign_core::record::PolicyEntry;
use countersign_gateway::{fetch, policy_sets};
use countersign_policy::settings::Loading;
use countersign_policy::{ActionPolicy, Engine, Limits, PolicySet, Source, Trust};
use countersign_registry::Registries;
use countersign_store::{Archive, StoreUrl};
use serde::Serialize;
use serde_json::Value;

use self::aspect::{Aspects, Said};
use crate::shown::plain;
use crate::{Answer, Format, Redis, StoreAddress, words};
use countersign_console::Progress;

/// Say what another policy set changes for people, action by action. Exits with 0 if that is nothing, with 1 if it is
/// something, and with 2 if one of the sets cannot be loaded.
#[derive(Debug, Args)]
pub struct Diff {
    /// The policy set as it is: its folder, or the `policy-set.yaml` in it; or a set in the store: its hash, or `active` for
    /// the set in force. A folder with such a name is given as `./active`.
    #[arg(value_name = "OLD")]
    old: Given,
    /// The policy set as it shall be, given in the same way.
    #[arg(value_name = "NEW")]
    new: Given,
    /// The store with the sets that are given by hash or as `active`: `sqlite:PATH` or `redis://HOST`. Gateways may be
    /// running on it.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db", value_parser = StoreAddress)]
    store: StoreUrl,
    /// The output format.
    #[arg(long, default_value = "text")]
    format: Format,
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    redis: Redis,
}

/// How a set is given.
#[derive(Clone, Debug)]
enum Given {
    /// In a folder.
    Folder(PathBuf),
    /// In the store.
    Hash(Digest),
    /// The one in force, in the store.
    Active,
}

/// What it is does not depend on which files there are: a folder must not take the place of a stored set.
impl From<OsString> for Given {
    fn from(text: OsString) -> Given {
        match text.to_str() {
            Some("active") => Given::Active,
            utf8 => match utf8.and_then(|text| text.parse().ok()) {
                Some(hash) => Given::Hash(hash),
                None => Given::Folder(text.into()),
            },
        }
    }
}

impl Diff {
    /// Takes what the command needs from the environment, and returns what is wrong there, one sentence each.
    pub(crate) fn read_variables(&mut self, environment: &BTreeMap<String, String>) -> Vec<String> {
        self.redis.read_variables(&self.store, environment)
    }

    /// The trusted keys and limits to load the sets with.
    pub(crate) fn engine(&self) -> Result<(Trust, Limits)> {
        Ok((self.loading.supply.trust()?, self.loading.limits.limits()))
    }

    fn load(&self, given: &Given, engine: &Engine) -> Result<PolicySet> {
        match given {
            Given::Folder(path) => in_folder(path, engine, &self.loading.supply.registries()),
            Given::Hash(hash) => in_store(&self.archive()?, *hash, engine),
            Given::Active => {
                let archive = self.archive()?;
                let in_force = archive.policy_in_force()?.and_then(|(_, change)| change.to);
                let hash = in_force.with_context(|| {
                    format!("no policy set was ever in force in the store `{}`", self.store)
                })?;
                in_store(&archive, hash, engine)
            }
        }
    }

    fn archive(&self) -> Result<Archive> {
        let opened = self.store.open_for_reading(self.redis.configured_here()?);
        opened.with_context(|| format!("cannot read the store `{}`", self.store))
    }
}

pub(crate) fn run(diff: &Diff, engine: &Engine) -> Result<Answer> {
    let _progress = Progress::start("loading the policy sets");
    let report = Report::of(&diff.load(&diff.old, engine)?, &diff.load(&diff.new, engine)?);
    match diff.format {
        Format::Text => Ok(Answer::lines(&report.text(), report.is_empty())),
        Format::Json => Answer::json(&report, report.is_empty()),
    }
}

/// What `--format json` says.
#[cfg(test)]
pub(crate) fn report(old: &PolicySet, new: &PolicySet) -> Value {
    serde_json::json!(Report::of(old, new))
}

fn in_folder(path: &Path, engine: &Engine, registries: &Registries) -> Result<PolicySet> {
    let folder = Source::folder(path);
    let file = folder.join("policy-set.yaml");
    if !file.exists() {
        let looks_like_hash = |text: &str| text.bytes().all(|letter| letter.is_ascii_hexdigit());
        let hint = match path.to_str().is_some_and(looks_like_hash) {
            true => "; a set in the store is given by its whole hash, 64 hexadecimal digits in lower case",
            false => "",
        };
        bail!("there is no policy set at `{}`{hint}", file.display());
    }
    let loaded = fetch::load(folder, engine, registries)?;
    loaded.with_context(|| format!("the policy set `{}` cannot be loaded", path.display()))
}

fn in_store(archive: &Archive, hash: Digest, engine: &Engine) -> Result<PolicySet> {
    let stored = policy_sets::archived(archive, hash)?;
    let restored = PolicySet::restore(stored, engine, &str::to_owned);
    restored.with_context(|| format!("the policy set {hash} in the store cannot be loaded"))
}

/// What differs between two sets.
#[derive(Debug, Serialize)]
struct Report {
    /// The hashes of the sets.
    old: String,
    new: String,
    /// Who joins and leaves which group.
    groups: Vec<Change>,
    /// The actions that differ, by name; `*` is what holds for all that are not listed.
    actions: BTreeMap<String, ActionChange>,
}

/// What differs of one action.
#[derive(Debug, Serialize)]
struct ActionChange {
    kind: Kind,
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Added,
    Removed,
    Changed,
}

/// One thing that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    /// What it is, such as `can approve` or `timeout`.
    what: String,
    #[serde(flatten)]
    how: How,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum How {
    /// Of something that has one value.
    Value { old: Option<String>, new: Option<String> },
    /// Of a list that has other members.
    Members { added: Vec<String>, removed: Vec<String> },
}

impl Report {
    fn of(old: &PolicySet, new: &PolicySet) -> Report {
        let by_name = |set: &PolicySet| -> BTreeMap<String, (Aspects, Digest)> {
            let of = |policy: &ActionPolicy| {
                // Groups are compared on their own.
                let own = PolicyEntry { groups: BTreeMap::new(), ..PolicyEntry::clone(policy.entry()) };
                (own.action.clone(), (Aspects::of(policy), own.hash()))
            };
            set.policies().map(|policy| of(policy)).collect()
        };
        let hashes = (old.hash().to_string(), new.hash().to_string());
        if hashes.0 == hashes.1 {
            return Report { old: hashes.0, new: hashes.1, groups: Vec::new(), actions: BTreeMap::new() };
        }
        let (before, after) = (by_name(old), by_name(new));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut actions = BTreeMap::new();
        for name in names {
            let (kind, changes) = match (before.get(name), after.get(name)) {
                (Some((before, old)), Some((after, new))) => {
                    let mut changes = differences(before.said(), after.said());
                    // Should the aspects ever leave something out, it is still a change.
                    if changes.is_empty() && old != new {
                        let (old, new) = (Some(old.to_string()), Some(new.to_string()));
                        changes.push(Change { what: "policy hash".to_owned(), how: How::Value { old, new } });
                    }
                    (Kind::Changed, changes)
                }
                (None, Some((after, _))) => (Kind::Added, differences(&BTreeMap::new(), after.said())),
                (_, None) => (Kind::Removed, Vec::new()),
            };
            if kind != Kind::Changed || !changes.is_empty() {
                actions.insert(name.clone(), ActionChange { kind, changes });
            }
        }
        let groups = differences(&groups(old), &groups(new));
        Report { old: hashes.0, new: hashes.1, groups, actions }
    }

    /// Only the hashes tell that nothing changes.
    fn is_empty(&self) -> bool {
        self.old == self.new
    }

    fn text(&self) -> String {
        if self.is_empty() {
            return format!("nothing changes: both sets have the hash {}\n", self.new);
        }
        let mut text = String::new();
        if !self.groups.is_empty() {
            text.push_str("groups\n");
            self.groups.iter().for_each(|change| change.write(&mut text));
        }
        for (name, ActionChange { kind, changes }) in &self.actions {
            let _ = match (kind, name.as_str()) {
                (Kind::Removed, "*") => writeln!(text, "actions that are not listed: denied from now on"),
                (Kind::Added, "*") => {
                    writeln!(text, "actions that are not listed: decided by hand from now on")
                }
                (Kind::Changed, "*") => writeln!(text, "actions that are not listed"),
                (Kind::Removed, _) => {
                    writeln!(text, "{name}: removed; from now on it is an action that is not listed")
                }
                (Kind::Added, _) => writeln!(text, "{name}: new"),
                (Kind::Changed, _) => writeln!(text, "{name}"),
            };
            changes.iter().for_each(|change| change.write(&mut text));
        }
        let _ = writeln!(text, "\n{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let of_kind = |wanted: Kind| self.actions.values().filter(|change| change.kind == wanted).count();
        format!(
            "{} changed, {} new, {} removed",
            words::count(of_kind(Kind::Changed), "action"),
            of_kind(Kind::Added),
            of_kind(Kind::Removed)
        )
    }
}

impl Change {
    fn write(&self, text: &mut String) {
        let how = match &self.how {
            How::Value { old: Some(old), new: Some(new) } => format!("{old} → {new}"),
            How::Value { old: None, new: Some(new) } => new.clone(),
            How::Value { old, new: _ } => format!("no longer {}", old.as_deref().unwrap_or_default()),
            How::Members { added, removed } => {
                let sign = |sign: char, names: &[String]| -> Vec<String> {
                    names.iter().map(|name| format!("{sign}{}", words::name(name))).collect()
                };
                [sign('+', added), sign('-', removed)].concat().join(", ")
            }
        };
        // A String takes all that is written to it.
        let _ = writeln!(text, "  {}: {}", plain(&self.what), plain(&how));
    }
}

/// The groups of a set. Every entry has all of them.
fn groups(set: &PolicySet) -> BTreeMap<String, Said> {
    let entry = set.policies().next().map(|policy| policy.entry());
    let groups = entry.into_iter().flat_map(|entry| &entry.groups);
    let said = |members: &BTreeSet<String>| match members.is_empty() {
        true => Said::value(&Value::Null, "a group without members".to_owned()),
        false => Said::members(members.iter().cloned()),
    };
    groups.map(|(name, members)| (format!("@{name}"), said(members))).collect()
}

/// What is said otherwise, or by one side alone.
fn differences(old: &BTreeMap<String, Said>, new: &BTreeMap<String, Said>) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |what: &String| {
        let how = match (old.get(what), new.get(what)) {
            (Some(old), Some(new)) if old == new => return None,
            (Some(Said::Members(old)), Some(Said::Members(new))) if !same_members(old, new) => {
                members(old, new)
            }
            (None, Some(Said::Members(new))) => members(&[], new),
            (Some(Said::Members(old)), None) => members(old, &[]),
            // Among others, lists of which only the order differs, which may matter to a policy.
            (old, new) => How::Value { old: old.map(Said::text), new: new.map(Said::text) },
        };
        Some(Change { what: what.clone(), how })
    };
    names.into_iter().filter_map(change).collect()
}

fn same_members(old: &[String], new: &[String]) -> bool {
    old.iter().all(|name| new.contains(name)) && new.iter().all(|name| old.contains(name))
}

fn members(old: &[String], new: &[String]) -> How {
    let others = |of: &[String], than: &[String]| -> Vec<String> {
        of.iter().filter(|name| !than.contains(name)).cloned().collect()
    };
    How::Members { added: others(new, old), removed: others(old, new) }
}
