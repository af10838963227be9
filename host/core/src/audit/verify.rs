//! Checks a log against its checkpoints, entry by entry, in memory that does not grow with the log.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::checkpoint::{Checkpoint, Head};
use super::tree::Range;
use super::{leaf, trim_entry};
use crate::lifecycle::{Digest, RequestId, Timestamp};

/// How many findings are kept; further ones are counted.
const MOST_FINDINGS: usize = 1000;

/// How many gaps of one partition are remembered.
const MOST_GAPS: usize = 1000;

/// An entry as it is stored, or was exported.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its partition.
    pub partition: u16,
    /// Its number.
    pub number: u64,
    /// The digest that is kept beside it.
    pub digest: Digest,
    /// Its bytes.
    pub body: &'a str,
    /// What a store keeps beside it to find it by.
    pub columns: Option<Columns<'a>>,
}

/// Copies of what is in an entry, by which a store finds it.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// When it happened, in milliseconds since the epoch.
    pub at: i64,
    /// The bytes of the request's id.
    pub request: Option<&'a [u8]>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The bytes of an entry do not have the digest that is kept beside them.
    Altered {
        /// The partition.
        partition: u16,
        /// The entry's number.
        number: u64,
    },
    /// What is kept beside an entry to find it by is not what the entry says.
    Column {
        /// The partition.
        partition: u16,
        /// The entry's number.
        number: u64,
        /// Which.
        column: &'static str,
    },
    /// Entries between others are not there.
    Missing {
        /// The partition.
        partition: u16,
        /// The number of the first one.
        from: u64,
        /// The number of the last one.
        to: u64,
    },
    /// An entry comes after one with its number, or with a higher one.
    OutOfOrder {
        /// The partition.
        partition: u16,
        /// The entry's number.
        number: u64,
        /// That of the entry before it.
        after: u64,
    },
    /// The last entries that a checkpoint covers are not there.
    CutTail {
        /// The partition.
        partition: u16,
        /// The number of the last entry that is there; 0 if there is none.
        last: u64,
        /// How many there were.
        signed: u64,
        /// When that was signed.
        at: Timestamp,
    },
    /// Two checkpoints say something different of the same entries, so at least one of them is of another log.
    Forked {
        /// The partition.
        partition: u16,
        /// How many entries both cover.
        size: u64,
        /// When one was made.
        at: Timestamp,
        /// When the other one was made.
        other: Timestamp,
    },
    /// The entries are not those that a checkpoint covers, although each has the digest that is kept beside it: one or more
    /// of them were altered together with their digests, or exchanged for others.
    Root {
        /// The partition.
        partition: u16,
        /// The number of the first entry that it can be.
        from: u64,
        /// The number of the last entry that it can be.
        to: u64,
        /// When the checkpoint was made.
        at: Timestamp,
    },
}

/// What is right, and has to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The partition.
    pub partition: u16,
    /// The number of the last entry that was removed.
    pub removed: u64,
    /// The number of the entry that says so.
    pub entry: u64,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many entries were read.
    pub entries: u64,
    /// How many of them the newest checkpoint does not cover yet.
    pub unsigned: u64,
    /// When the last entry was written that the newest checkpoint covers, of all partitions.
    pub covered_until: Option<Timestamp>,
    /// How many heads of partitions were compared with a checkpoint and are right.
    pub matched: u64,
    /// What retention has removed, as signed entries say.
    pub trimmed: Vec<Trimmed>,
    /// What is wrong, at most a thousand.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub more: u64,
}

/// Checks a log.
#[derive(Debug)]
pub struct Verifier {
    logs: BTreeMap<u16, Log>,
    report: Report,
}

/// How far the log of a partition was read.
#[derive(Debug, Default)]
struct Log {
    /// What checkpoints say, by size; those that were compared are gone.
    wanted: BTreeMap<u64, (Digest, Timestamp)>,
    /// The largest size that was signed, and when.
    signed: Option<(u64, Timestamp)>,
    /// `None` before the first entry, and once a part of it is not there.
    range: Option<Range>,
    /// The same, by the bytes of the entries in place of the digests that are kept beside them, if they differ somewhere
    /// after the last checkpoint: one of the two was altered, and the checkpoint tells which.
    by_bytes: Option<Range>,
    /// How many entries were missing before the first one.
    before: u64,
    /// The number of the entry that was read last.
    last: u64,
    /// The largest number that was read.
    highest: u64,
    /// What was not there when something after it was, first and last number.
    gaps: Vec<(u64, u64)>,
    /// Up to which size it is known to be right.
    right: u64,
    /// Without the oldest entries: what there was where checkpoints say something.
    floating: Vec<(u64, Range)>,
    /// What entries say about removed ones, by the number of the last one that was removed.
    trims: BTreeMap<u64, (u64, Range)>,
}

#[derive(Deserialize)]
struct Copies {
    at: Timestamp,
    #[serde(rename = "requestId", default)]
    request: Option<RequestId>,
}

impl Verifier {
    /// Checks a log against these checkpoints, whose signatures were checked.
    #[must_use]
    pub fn new(checkpoints: &[Checkpoint]) -> Verifier {
        let mut logs: BTreeMap<u16, Log> = BTreeMap::new();
        let mut report = Report::default();
        for checkpoint in checkpoints {
            for (partition, Head { size, root }) in (0..).zip(&checkpoint.heads) {
                let log = logs.entry(partition).or_default();
                if *size > 0 {
                    let (known, at) = *log.wanted.entry(*size).or_insert((*root, checkpoint.at));
                    if known != *root {
                        let other = checkpoint.at;
                        report.add(Finding::Forked { partition, size: *size, at, other });
                    }
                }
                if log.signed.is_none_or(|(signed, _)| *size > signed) {
                    log.signed = Some((*size, checkpoint.at));
                }
            }
        }
        Verifier { logs, report }
    }

    /// Reads the next entry.
    pub fn read(&mut self, entry: Stored<'_>) {
        let Stored { partition, number, digest, body, columns } = entry;
        self.report.entries += 1;
        let found = Digest::of(body.as_bytes());
        if found != digest {
            self.report.add(Finding::Altered { partition, number });
        } else if let Some(columns) = columns
            && let Some(column) = columns.difference(body)
        {
            self.report.add(Finding::Column { partition, number, column });
        }
        let log = self.logs.entry(partition).or_default();
        let is_first = log.highest == 0;
        if number <= log.last || number == 0 {
            self.report.add(Finding::OutOfOrder { partition, number, after: log.last });
            log.fill(number);
            log.range = None;
        } else if is_first {
            log.before = number - 1;
            log.range = Some(Range::starting_at(log.before));
        } else if number > log.highest + 1 {
            log.gaps.push((log.highest + 1, number - 1));
            log.gaps.truncate(MOST_GAPS);
            log.range = None;
        } else if number <= log.highest {
            // After one that came too early.
            log.fill(number);
        }
        log.last = number;
        log.highest = log.highest.max(number);
        if log.signed.is_some_and(|(signed, _)| signed == number) {
            let copies = serde_json::from_str::<Copies>(body).ok();
            self.report.covered_until = self.report.covered_until.max(copies.map(|copies| copies.at));
        }
        if log.range.is_some() {
            // So one entry that was altered leaves the others to be checked.
            log.push((partition, number), (&digest, &found), &mut self.report);
        }
        log.trims.extend(trim(partition, number, body));
    }

    /// The result, once every entry was read.
    #[must_use]
    pub fn finish(self) -> Report {
        let Verifier { logs, mut report } = self;
        for (partition, log) in logs {
            log.finish(partition, &mut report);
        }
        report
    }
}

impl Report {
    fn add(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

impl Log {
    /// An entry that was missing so far is there.
    fn fill(&mut self, number: u64) {
        let Some(index) = self.gaps.iter().position(|(from, to)| (*from..=*to).contains(&number)) else {
            return;
        };
        let (from, to) = self.gaps.remove(index);
        let parts = [(from, number - 1), (number + 1, to)];
        self.gaps.extend(parts.into_iter().filter(|(from, to)| from <= to));
    }

    fn push(&mut self, at: (u16, u64), (digest, found): (&Digest, &Digest), report: &mut Report) {
        let (partition, number) = at;
        let Some(range) = &mut self.range else { return };
        if digest != found || self.by_bytes.is_some() {
            self.by_bytes.get_or_insert_with(|| range.clone()).push(leaf(partition, number, found));
        }
        range.push(leaf(partition, number, digest));
        let size = range.end();
        let Some((root, at)) = self.wanted.get(&size).copied() else { return };
        let by_bytes = self.by_bytes.take();
        if let Some(by_bytes) = by_bytes.filter(|by_bytes| by_bytes.root() == Some(root)) {
            *range = by_bytes;
        }
        match range.root() {
            None => self.floating.push((size, range.clone())),
            Some(found) => {
                self.wanted.remove(&size);
                self.compare(partition, size, (found, root, at), report);
            }
        }
    }

    fn compare(
        &mut self,
        partition: u16,
        size: u64,
        (found, root, at): (Digest, Digest, Timestamp),
        report: &mut Report,
    ) {
        if found == root {
            self.right = size;
            report.matched += 1;
            return;
        }
        report.add(Finding::Root { partition, from: self.right + 1, to: size, at });
        // Nothing after it can be right any more.
        self.range = None;
        self.wanted.clear();
    }

    fn finish(mut self, partition: u16, report: &mut Report) {
        if self.before > 0 {
            self.settle_trimmed(partition, self.before, report);
        }
        self.gaps.sort_unstable();
        for (from, to) in std::mem::take(&mut self.gaps) {
            report.add(Finding::Missing { partition, from, to });
        }
        let signed = self.signed.map_or(0, |(signed, _)| signed);
        if let Some((signed, at)) = self.signed.filter(|(signed, _)| *signed > self.highest) {
            report.add(Finding::CutTail { partition, last: self.highest, signed, at });
        }
        report.unsigned += self.highest.saturating_sub(signed);
    }

    /// A log without its oldest entries is right if one of the others says that they were removed, and what they were: the
    /// hashes that it has make the roots that were signed, which nothing else does.
    fn settle_trimmed(&mut self, partition: u16, removed: u64, report: &mut Report) {
        let trim = self.trims.remove(&removed);
        let Some((entry, oldest)) = trim else {
            report.add(Finding::Missing { partition, from: 1, to: removed });
            return;
        };
        self.right = removed;
        for (size, rest) in std::mem::take(&mut self.floating) {
            let Some((root, at)) = self.wanted.remove(&size) else { continue };
            let mut whole = oldest.clone();
            // It begins where the others end: `removed`.
            if whole.append(&rest).is_err() {
                continue;
            }
            let Some(found) = whole.root() else { continue };
            self.compare(partition, size, (found, root, at), report);
        }
        if self.right >= entry {
            report.trimmed.push(Trimmed { partition, removed, entry });
        } else {
            // What says so is not signed itself.
            report.add(Finding::Missing { partition, from: 1, to: removed });
        }
    }
}

impl Columns<'_> {
    /// The first column that is not what the entry says.
    fn difference(&self, body: &str) -> Option<&'static str> {
        let Ok(Copies { at, request }) = serde_json::from_str(body) else { return Some("body") };
        if u64::try_from(self.at) != Ok(at.as_millis().min(i64::MAX.unsigned_abs())) {
            return Some("at");
        }
        let request = request.map(RequestId::to_bytes);
        let is_same = self.request == request.as_ref().map(<[u8; 16]>::as_slice);
        (!is_same).then_some("request")
    }
}

/// What an entry says about removed ones.
fn trim(partition: u16, number: u64, body: &str) -> Option<(u64, (u64, Range))> {
    let entry = trim_entry(body)?;
    #[derive(Deserialize)]
    struct Detail {
        partition: u16,
        removed: u64,
        subtrees: Vec<Digest>,
    }
    let detail: Detail = serde_json::from_value(entry.detail.into()).ok()?;
    let range = Range::of(0, detail.removed, &detail.subtrees).ok()?;
    (detail.partition == partition).then_some((detail.removed, (number, range)))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Altered { partition, number } => {
                write!(f, "altered: entry {partition}/{number} is not what was written")
            }
            Finding::Column { partition, number, column } => {
                write!(
                    f,
                    "altered: column `{column}` of entry {partition}/{number} is not what the entry says"
                )
            }
            Finding::Missing { partition, from, to } if from == to => {
                write!(f, "missing: entry {partition}/{from}")
            }
            Finding::Missing { partition, from, to } => {
                write!(f, "missing: entries {partition}/{from} to {partition}/{to}")
            }
            Finding::OutOfOrder { partition, number, after } => {
                write!(f, "out of order: entry {partition}/{number} comes after {partition}/{after}")
            }
            Finding::CutTail { partition, last, signed, at } => write!(
                f,
                "cut off: partition {partition} ends with entry {last}, and had {signed} when a checkpoint was signed at {at}"
            ),
            Finding::Forked { partition, size, at, other } => write!(
                f,
                "forked: the checkpoints of {at} and {other} say something different of the first {size} entries of \
                 partition {partition}"
            ),
            Finding::Root { partition, from, to, at } if from == to => write!(
                f,
                "altered: entry {partition}/{from} is not the one that the checkpoint of {at} covers, and its digest was \
                 altered with it"
            ),
            Finding::Root { partition, from, to, at } => write!(
                f,
                "altered: among entries {partition}/{from} to {partition}/{to} are others than those that the checkpoint of \
                 {at} covers, and their digests were altered with them"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::TRIMMED;
    use super::*;

    fn body(number: u64) -> String {
        format!(r#"{{"action":"deploy","at":{number},"event":"created"}}"#)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    type Entry = (u16, u64, Digest, String);

    fn entry(partition: u16, number: u64, body: String) -> Entry {
        (partition, number, Digest::of(body.as_bytes()), body)
    }

    /// Two partitions with so many entries, and a checkpoint after each number in `signed`.
    fn log(count: u64, signed: &[u64]) -> (Vec<Entry>, Vec<Checkpoint>) {
        let mut entries = Vec::new();
        let mut checkpoints = Vec::new();
        let mut trees = [Range::default(), Range::default()];
        for number in 1..=count {
            for (partition, tree) in (0..).zip(&mut trees) {
                let entry = entry(partition, number, body(number));
                tree.push(leaf(partition, number, &entry.2));
                entries.push(entry);
            }
            if signed.contains(&number) {
                let heads = trees.iter().map(|tree| Head { size: tree.end(), root: tree.root().unwrap() });
                let origin = "countersign-audit/1".to_owned();
                checkpoints.push(Checkpoint { origin, at: at(number), heads: heads.collect() });
            }
        }
        (entries, checkpoints)
    }

    fn verify(entries: &[Entry], checkpoints: &[Checkpoint]) -> Report {
        let mut verifier = Verifier::new(checkpoints);
        for (partition, number, digest, body) in entries {
            let (partition, number, digest) = (*partition, *number, *digest);
            verifier.read(Stored { partition, number, digest, body, columns: None });
        }
        verifier.finish()
    }

    #[test]
    fn a_log_that_nobody_touched_is_right() {
        let (entries, checkpoints) = log(20, &[5, 16]);
        let report = verify(&entries, &checkpoints);
        let expected =
            Report { entries: 40, unsigned: 8, covered_until: Some(at(16)), matched: 4, ..Report::default() };
        assert_eq!(report, expected);
        assert_eq!(verify(&[], &[]), Report::default());
    }

    #[test]
    fn two_checkpoints_of_one_size_must_agree() {
        let (entries, mut checkpoints) = log(20, &[5, 16]);
        let mut other = Checkpoint { at: at(30), ..checkpoints[1].clone() };
        // The same again is no fork.
        checkpoints.push(other.clone());
        assert_eq!(verify(&entries, &checkpoints).findings, []);
        other.heads[1].root = Digest::of(b"other");
        let forked = Finding::Forked { partition: 1, size: 16, at: at(16), other: at(30) };
        // Whichever of them the log is that of, and whichever comes first.
        checkpoints.push(other.clone());
        assert_eq!(verify(&entries, &checkpoints).findings, [forked]);
        checkpoints.insert(0, other);
        let findings = verify(&entries, &checkpoints).findings;
        assert!(findings.iter().any(|it| matches!(it, Finding::Forked { partition: 1, size: 16, .. })));
    }

    #[test]
    fn what_was_done_to_a_log_is_named() {
        let (entries, checkpoints) = log(20, &[5, 16]);
        let position = |partition, number| {
            entries.iter().position(|entry| (entry.0, entry.1) == (partition, number)).unwrap()
        };
        let check = |change: &dyn Fn(&mut Vec<Entry>), expected: &[&str]| {
            let mut changed = entries.clone();
            change(&mut changed);
            let found = verify(&changed, &checkpoints).findings;
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let (seventh, eighth, last) = (position(1, 7), position(1, 8), position(0, 20));
        check(&|log| log[seventh].3.push(' '), &["altered: entry 1/7 is not what was written"]);
        check(&|log| log[seventh].2 = Digest::of(b"x"), &["altered: entry 1/7 is not what was written"]);
        check(&|log| log[last].3.push(' '), &["altered: entry 0/20 is not what was written"]);
        check(
            &|log| log[seventh] = entry(1, 7, body(70)),
            &["altered: among entries 1/6 to 1/16 are others than those that the checkpoint of \
               1970-01-01T00:00:00.016Z covers, and their digests were altered with them"],
        );
        check(&|log| drop(log.remove(seventh)), &["missing: entry 1/7"]);
        check(&|log| drop(log.drain(0..10)), &["missing: entries 0/1 to 0/5", "missing: entries 1/1 to 1/5"]);
        check(&|log| log.swap(seventh, eighth), &["out of order: entry 1/7 comes after 1/8"]);
        // Their contents were exchanged, and their numbers stayed.
        check(
            &|log| {
                log.swap(seventh, eighth);
                (log[seventh].1, log[eighth].1) = (7, 8);
            },
            &["altered: among entries 1/6 to 1/16 are others than those that the checkpoint of \
               1970-01-01T00:00:00.016Z covers, and their digests were altered with them"],
        );
        check(&|log| log.insert(eighth, log[seventh].clone()), &["out of order: entry 1/7 comes after 1/7"]);
        let cut = "ends with entry 12, and had 16 when a checkpoint was signed at 1970-01-01T00:00:00.016Z";
        check(
            &|log| log.truncate(24),
            &[&format!("cut off: partition 0 {cut}"), &format!("cut off: partition 1 {cut}")],
        );
        // One of another partition.
        check(&|log| log[last].0 = 1, &["out of order: entry 1/20 comes after 1/20"]);
    }

    #[test]
    fn copies_beside_an_entry_are_compared_with_it() {
        let id = RequestId::from_bytes([7; 16]);
        let body = json!({ "at": 5, "event": "created", "action": "a", "requestId": id }).to_string();
        let id = id.to_bytes();
        let columns = |at, request| Columns { at, request };
        assert_eq!(columns(5, Some(id.as_slice())).difference(&body), None);
        assert_eq!(columns(6, Some(id.as_slice())).difference(&body), Some("at"));
        assert_eq!(columns(5, None).difference(&body), Some("request"));
        assert_eq!(columns(5, Some(&[8; 16])).difference(&body), Some("request"));
        assert_eq!(columns(5, Some(id.as_slice())).difference("{"), Some("body"));
    }

    #[test]
    fn what_retention_removed_is_told_from_what_is_missing() {
        let removed = 7;
        let make = |subtrees: Vec<Digest>, signed: bool| {
            let (mut entries, mut checkpoints) = log(20, &[5, 16]);
            let says = json!({
                "at": 21, "event": TRIMMED, "action": "", "partition": 1, "removed": removed, "subtrees": subtrees,
            });
            entries.push(entry(1, 21, says.to_string()));
            let mut tree = Range::default();
            for (partition, number, digest, _) in entries.iter().filter(|entry| entry.0 == 1) {
                tree.push(leaf(*partition, *number, digest));
            }
            if signed {
                let heads = vec![checkpoints[1].heads[0], Head { size: 21, root: tree.root().unwrap() }];
                checkpoints.push(Checkpoint { heads, at: at(21), ..checkpoints[1].clone() });
            }
            entries.retain(|entry| entry.0 == 0 || entry.1 > removed);
            verify(&entries, &checkpoints)
        };
        let mut oldest = Range::default();
        (1..=removed).for_each(|number| oldest.push(leaf(1, number, &Digest::of(body(number).as_bytes()))));
        let right = make(oldest.hashes(), true);
        assert_eq!(right.findings, []);
        assert_eq!(right.trimmed, [Trimmed { partition: 1, removed, entry: 21 }]);
        // The checkpoint before it was trimmed, the one after it, and two of the other partition.
        assert_eq!(right.matched, 4);
        let missing = Finding::Missing { partition: 1, from: 1, to: removed };
        // Nothing has signed it yet, so anybody may have written it.
        assert_eq!(make(oldest.hashes(), false).findings, std::slice::from_ref(&missing));
        let mut other = oldest.hashes();
        other[0] = Digest::of(b"other");
        let found = make(other, true).findings;
        assert!(
            matches!(found.as_slice(), [Finding::Root { partition: 1, .. }, last] if *last == missing),
            "{found:?}"
        );
        assert_eq!(make(vec![], true).findings, [missing]);
    }
}
