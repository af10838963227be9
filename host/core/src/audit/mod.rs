//! What makes the audit log prove itself: the hashes of its entries, the tree over them, and the checkpoints that are
//! signed over the trees. docs/AUDIT.md is the definition.
//!
//! The log is in partitions. A partition's entries are numbered from 1 without gaps, in the order in which they were
//! stored.

pub mod checkpoint;
pub mod note;
pub mod tree;
pub mod verify;

use crate::lifecycle::{AuditEntry, AuditEvent, Digest};

/// The event of the entry that says that the oldest entries of its partition were removed.
///
/// Its detail has `partition`, `removed` (the number of the last one that was removed), and `subtrees`: the hashes, in
/// hexadecimal, of the [`tree::Range`] over all that were removed, from the first one on.
pub const TRIMMED: &str = AuditEvent::AuditTrimmed.as_str();

/// The entry of these bytes, if it says that others were removed.
#[must_use]
pub fn trim_entry(body: &str) -> Option<AuditEntry> {
    // Few entries are parsed for it.
    let entry: Option<AuditEntry> = body.contains(TRIMMED).then(|| serde_json::from_str(body).ok())?;
    entry.filter(|entry| entry.event == TRIMMED)
}

/// The hash of an entry in the tree of its partition, by the digest of its bytes.
///
/// The leaf is the partition in two bytes and the number in eight, both with the highest first, and the digest.
#[must_use]
pub fn leaf(partition: u16, number: u64, digest: &Digest) -> Digest {
    let mut leaf = [0; 42];
    let (partition, number) = (partition.to_be_bytes(), number.to_be_bytes());
    let bytes = partition.iter().chain(&number).chain(digest.as_bytes());
    leaf.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    tree::leaf(&leaf)
}
