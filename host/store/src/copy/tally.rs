//! How many records of each kind there are, and a digest of them all that does not depend on the order in which they are
//! met: the sum of their digests. A record that has an order is digested with its place in it.

use std::collections::BTreeMap;

use countersign_core::lifecycle::Digest;

use super::record::{AuditRecord, Home, Kind, Record};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    kinds: BTreeMap<Kind, Sum>,
    /// How many records of an ordered kind were met in each part.
    places: BTreeMap<(Kind, Home), u64>,
    /// The values of counters, of which each may be met in parts.
    counters: BTreeMap<(String, String), u64>,
    /// How many entries of each partition of the audit log there are, and the least and the greatest of their numbers.
    audit: BTreeMap<u16, (u64, u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    digests: [u64; 4],
}

impl Tally {
    pub(super) fn add(&mut self, record: &Record) {
        if let Record::Counter { metric, labels, value } = record {
            let sum = self.counters.entry((metric.clone(), labels.clone())).or_default();
            *sum = sum.saturating_add(*value);
            return;
        }
        if let Record::Audit(AuditRecord { partition, number, .. }) = record {
            let (count, first, last) = self.audit.entry(*partition).or_insert((0, *number, *number));
            (*count, *first, *last) = (*count + 1, (*first).min(*number), (*last).max(*number));
        }
        let mut bytes = record.to_bytes();
        if record.kind().is_ordered() {
            let place = self.places.entry((record.kind(), record.home())).or_default();
            bytes.extend_from_slice(&place.to_be_bytes());
            *place += 1;
        }
        let sum = self.kinds.entry(record.kind()).or_default();
        sum.count += 1;
        for (limb, digest) in sum.digests.iter_mut().zip(limbs(&bytes)) {
            *limb = limb.wrapping_add(digest);
        }
    }

    /// Of a kind without an order.
    pub(super) fn remove(&mut self, record: &Record) {
        let sum = self.kinds.entry(record.kind()).or_default();
        sum.count = sum.count.saturating_sub(1);
        for (limb, digest) in sum.digests.iter_mut().zip(limbs(&record.to_bytes())) {
            *limb = limb.wrapping_sub(digest);
        }
    }

    pub(super) fn count(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Counter => self.counters.len() as u64,
            kind => self.kinds.get(&kind).map_or(0, |sum| sum.count),
        }
    }

    pub(super) fn records(&self) -> u64 {
        Kind::ALL.iter().map(|kind| self.count(*kind)).sum()
    }

    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        Kind::ALL.iter().map(|kind| (kind.name(), self.count(*kind))).collect()
    }

    /// The first kind of which there are others, with how many there are here and there.
    pub(super) fn difference(&self, other: &Tally) -> Option<(Kind, u64, u64)> {
        let differs = |kind: &&Kind| match kind {
            Kind::Counter => self.counters != other.counters,
            kind => self.sum(**kind) != other.sum(**kind),
        };
        let kind = Kind::ALL.iter().find(differs)?;
        Some((*kind, self.count(*kind), other.count(*kind)))
    }

    /// How many audit entries the first partition has whose entries are not numbered without gaps up to its size, from its
    /// first one on, which is another than 1 if retention has removed some; and how many there should be.
    /// `sizes` are those of the partitions, in their order.
    pub(super) fn audit_difference(&self, sizes: &[u64]) -> Option<(u64, u64)> {
        let partitions = sizes.len().max(self.audit.keys().last().map_or(0, |last| usize::from(*last) + 1));
        let mut sizes = sizes.iter().copied();
        (0..partitions).find_map(|partition| {
            let partition = u16::try_from(partition).unwrap_or(u16::MAX);
            let (count, first, last) = self.audit.get(&partition).copied().unwrap_or((0, 1, 0));
            let size = sizes.next().unwrap_or_default();
            let expected = size.saturating_sub(first.saturating_sub(1));
            ((count, last) != (expected, size)).then_some((count, expected))
        })
    }

    fn sum(&self, kind: Kind) -> Sum {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }
}

/// The digest as four numbers.
fn limbs(bytes: &[u8]) -> [u64; 4] {
    let digest = Digest::of(bytes);
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(digest.as_bytes().as_chunks::<8>().0) {
        *limb = u64::from_be_bytes(*bytes);
    }
    limbs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(key: &str) -> Record {
        Record::Document { key: key.into(), value: vec![1] }
    }

    fn change(body: &str) -> Record {
        Record::Change { in_force: None, body: body.into() }
    }

    fn tally(records: &[Record]) -> Tally {
        let mut tally = Tally::default();
        records.iter().for_each(|record| tally.add(record));
        tally
    }

    #[test]
    fn the_order_counts_only_where_there_is_one() {
        let [one, two] = ["one", "two"].map(document);
        assert_eq!(tally(&[one.clone(), two.clone()]).difference(&tally(&[two.clone(), one.clone()])), None);
        let differs = tally(&[one.clone(), two.clone()]).difference(&tally(&[one.clone(), one.clone()]));
        assert_eq!(differs, Some((Kind::Document, 2, 2)));
        let [first, second] = ["first", "second"].map(change);
        let differs = tally(&[first.clone(), second.clone()]).difference(&tally(&[second, first]));
        assert_eq!(differs, Some((Kind::Change, 2, 2)));
        let mut replaced = tally(std::slice::from_ref(&one));
        replaced.remove(&one);
        replaced.add(&two);
        assert_eq!(replaced.difference(&tally(&[two])), None);
    }

    #[test]
    fn counters_are_added_up() {
        let counter = |value| Record::Counter { metric: "m".into(), labels: "[]".into(), value };
        assert_eq!(tally(&[counter(1), counter(2)]).difference(&tally(&[counter(3)])), None);
        assert_eq!(tally(&[counter(1)]).difference(&tally(&[counter(2)])), Some((Kind::Counter, 1, 1)));
    }
}
