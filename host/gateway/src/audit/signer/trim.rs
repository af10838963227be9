//! Retention of the audit log: its oldest entries go, and entries that checkpoints cover say so.
//!
//! The entries of a partition go from the oldest on, in parts. Of each part an entry says up to where it reaches, and has the
//! hashes of the largest whole subtrees over all that was removed until then. Only when a checkpoint covers that entry the
//! part is removed, in one write. So at any time what is left makes the roots that were signed, with the hashes in an entry
//! that was signed.

use std::collections::BTreeMap;

use countersign_core::audit::checkpoint::Head;
use countersign_core::audit::tree::Range;
use countersign_core::audit::trim_entry;
use countersign_core::lifecycle::{AuditEntry, AuditEvent, Digest, Timestamp};
use countersign_store::{AuditCursor, AuditRange, LogEntry};
use serde::Deserialize;
use serde_json::Map;

use super::{AuditSigner, PAGE, Refusal, SignError, leaf_of};
use crate::audit::AuditKeys;

/// How many entries of a partition are removed in one write at most.
const PART: u64 = 1000;

/// Entries that may be removed once a checkpoint covers the entry that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Their partition.
    pub partition: u16,
    /// The number of the last one.
    pub removed: u64,
    /// The number of the entry that says so.
    pub entry: u64,
}

impl Part {
    /// Whether a checkpoint with these heads covers the entry that says so.
    #[must_use]
    pub fn is_covered(&self, heads: &[Head]) -> bool {
        heads.get(usize::from(self.partition)).is_some_and(|head| head.size >= self.entry)
    }
}

/// What is in an entry about removed ones.
#[derive(Deserialize)]
struct Detail {
    partition: u16,
    removed: u64,
    subtrees: Vec<Digest>,
    #[serde(default)]
    signature: String,
}

impl Detail {
    fn of(entry: AuditEntry) -> Option<Detail> {
        serde_json::from_value(entry.detail.into()).ok()
    }
}

/// What an entry about removed ones is signed over.
fn signed_text(partition: u16, removed: u64, subtrees: &[Digest]) -> String {
    let mut text = format!("countersign-audit-trimmed\n{partition}\n{removed}\n");
    for hash in subtrees {
        text.push_str(&hash.to_string());
        text.push('\n');
    }
    text
}

/// Whether one of the keys has signed an entry about removed ones: whoever owns the database could have written it.
pub(super) fn is_signed(keys: &AuditKeys, entry: AuditEntry) -> bool {
    let Some(Detail { partition, removed, subtrees, signature }) = Detail::of(entry) else { return false };
    keys.has_signed(&signed_text(partition, removed, &subtrees), &signature)
}

/// The log of a partition, as it is read from its first entry that is still there.
struct Log {
    /// `None` before its first entry.
    range: Option<Range>,
    /// Up to which number entries may be removed; 0 once one was met that may not.
    most: u64,
    /// What can be removed: up to which number, when the last of it was written, and the range up to there.
    parts: Vec<(u64, Timestamp, Range)>,
    /// When the last entry that can be removed was written.
    last_at: Timestamp,
    /// The range over what checkpoints cover.
    at_head: Option<Range>,
    /// What entries say about removed ones, by the number of the last of them.
    trims: BTreeMap<u64, Range>,
}

impl Log {
    fn new(most: u64) -> Log {
        Log {
            range: None,
            most,
            parts: Vec::new(),
            last_at: Timestamp::EPOCH,
            at_head: None,
            trims: BTreeMap::new(),
        }
    }

    fn read(
        &mut self,
        entry: &LogEntry,
        covered: u64,
        before: Timestamp,
        keys: &AuditKeys,
    ) -> Result<(), Refusal> {
        let range = self.range.get_or_insert_with(|| Range::starting_at(entry.number.saturating_sub(1)));
        let number = range.end().saturating_add(1);
        if entry.number != number {
            return Err(Refusal::Missing { partition: entry.partition.into(), number });
        }
        let at = if number <= self.most { time(entry).filter(|at| *at < before) } else { None };
        if at.is_none() && self.most > 0 {
            self.most = 0;
            let last = self.parts.last().map_or(range.begin(), |(removed, ..)| *removed);
            if range.end() > last {
                self.parts.push((range.end(), self.last_at, range.clone()));
            }
        }
        range.push(leaf_of(entry));
        if let Some(at) = at {
            self.last_at = self.last_at.max(at);
            let last = self.parts.last().map_or(range.begin(), |(removed, ..)| *removed);
            if number - last >= PART || number == self.most {
                self.parts.push((number, self.last_at, range.clone()));
            }
        }
        if number == covered {
            self.at_head = Some(range.clone());
        }
        // A checkpoint is as good as a signature of its own, whose key may have been replaced since.
        if let Some(trim) = trim_entry(&entry.body)
            && (number <= covered || is_signed(keys, trim.clone()))
            && let Some(detail) = Detail::of(trim)
            && detail.partition == entry.partition
            && let Ok(range) = Range::of(0, detail.removed, &detail.subtrees)
        {
            self.trims.insert(detail.removed, range);
        }
        Ok(())
    }

    /// What was removed before, as an entry that is still there says.
    fn base(&self, partition: usize) -> Result<Range, Refusal> {
        match self.range.as_ref().map_or(0, Range::begin) {
            0 => Ok(Range::default()),
            begin => self.trims.get(&begin).cloned().ok_or(Refusal::Missing { partition, number: begin }),
        }
    }
}

impl AuditSigner {
    /// Writes entries that say that those before `before` are removed, and returns the parts, which are still there. Nothing
    /// that the newest checkpoint does not cover is among them, nor what comes after `most`, by partition.
    ///
    /// # Errors
    /// If the store is unavailable, or the log is not what was signed.
    pub async fn announce_trims(
        &mut self,
        before: Timestamp,
        most: Option<&[u64]>,
        now: Timestamp,
    ) -> Result<Vec<Part>, SignError> {
        let Some(newest) = self.newest().await? else { return Ok(Vec::new()) };
        let heads = newest.checkpoint.heads;
        let most_of = |partition: usize| match most {
            Some(most) => most.get(partition).copied().unwrap_or_default(),
            None => u64::MAX,
        };
        let logs =
            heads.iter().enumerate().map(|(partition, head)| Log::new(head.size.min(most_of(partition))));
        let mut logs: Vec<Log> = logs.collect();
        let covered: Vec<u64> = heads.iter().map(|head| head.size).collect();
        self.read_all(&mut logs, &covered, before).await?;
        let mut parts = Vec::new();
        for ((partition, log), head) in (0..).zip(&logs).zip(&heads) {
            if log.parts.is_empty() {
                continue;
            }
            let base = log.base(partition.into())?;
            let whole = |range: &Range| {
                let mut whole = base.clone();
                whole.append(range).ok().map(|()| whole)
            };
            // What is removed must be what was signed: nobody could tell afterwards.
            let root = log.at_head.as_ref().and_then(whole).and_then(|range| range.root());
            if root != Some(head.root) {
                return Err(Refusal::Root { partition: partition.into(), size: head.size }.into());
            }
            for (removed, until, range) in &log.parts {
                let Some(range) = whole(range) else { continue };
                let entry = self.trim_entry(partition, *removed, *until, &range.hashes(), now);
                let entry = self.store.append_to(partition, entry).await?;
                parts.push((*until, Part { partition, removed: *removed, entry }));
            }
        }
        // In about the order in which they lie in a store that has one log for all partitions.
        parts.sort_by_key(|(until, part)| (*until, part.partition, part.removed));
        Ok(parts.into_iter().map(|(_, part)| part).collect())
    }

    /// What was removed of each partition, as entries say that are still there, and that checkpoints cover or a key has
    /// signed. `covered` has how many entries of each partition checkpoints cover.
    pub(super) async fn removed(&self, covered: &[u64]) -> Result<Vec<Range>, SignError> {
        let mut logs: Vec<Log> = covered.iter().map(|_| Log::new(0)).collect();
        self.read_all(&mut logs, covered, Timestamp::EPOCH).await?;
        let bases = logs.iter().enumerate().map(|(partition, log)| log.base(partition));
        Ok(bases.collect::<Result<_, _>>()?)
    }

    async fn read_all(&self, logs: &mut [Log], covered: &[u64], before: Timestamp) -> Result<(), SignError> {
        let mut after = AuditCursor::default();
        loop {
            let page = self.store.audit_log(AuditRange::default(), &after, PAGE).await?;
            for entry in &page.entries {
                let partition = usize::from(entry.partition);
                let covered = covered.get(partition).copied().unwrap_or_default();
                if let Some(log) = logs.get_mut(partition) {
                    log.read(entry, covered, before, &self.keys)?;
                }
            }
            if page.is_last {
                return Ok(());
            }
            after = page.next;
        }
    }

    fn trim_entry(
        &self,
        partition: u16,
        removed: u64,
        until: Timestamp,
        subtrees: &[Digest],
        now: Timestamp,
    ) -> AuditEntry {
        let mut detail = Map::new();
        detail.insert("partition".to_owned(), partition.into());
        detail.insert("removed".to_owned(), removed.into());
        detail.insert("until".to_owned(), until.as_millis().into());
        let hashes: Vec<String> = subtrees.iter().map(Digest::to_string).collect();
        detail.insert("subtrees".to_owned(), hashes.into());
        let signature = self.keys.signature(&signed_text(partition, removed, subtrees));
        detail.insert("signature".to_owned(), signature.into());
        AuditEntry::of_admin(now, AuditEvent::AuditTrimmed, None, detail)
    }
}

/// When an entry was written, as it says.
fn time(entry: &LogEntry) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Timed {
        at: Timestamp,
    }
    serde_json::from_str::<Timed>(&entry.body).ok().map(|timed| timed.at)
}
