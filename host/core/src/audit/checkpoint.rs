//! Checkpoints: how long the log of each partition is, and the root of its tree, at a time.
//!
//! The form is that of C2SP `tlog-checkpoint`: a line with the origin, one with the size and one with the root of a tree,
//! and further lines. The tree is the one over the partitions: its leaves are the lines of the partitions, in order.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree;
use crate::lifecycle::{Digest, Timestamp};

/// What the origin of every log begins with.
pub const ORIGIN: &str = "countersign-audit/";

/// How long each partition's log was, and what was in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Tells this log from all others; also the name of the keys that sign it.
    pub origin: String,
    /// When it was made.
    pub at: Timestamp,
    /// By partition.
    pub heads: Vec<Head>,
}

/// The head of a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many entries it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

/// A text that is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no checkpoint of an audit log: {0}")]
pub struct BadCheckpoint(&'static str);

impl Checkpoint {
    /// As it is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let lines: Vec<String> =
            self.heads.iter().enumerate().map(|(partition, head)| head.line(partition)).collect();
        let root = tree::root(lines.iter().map(|line| tree::leaf(line.as_bytes())));
        let mut text = format!(
            "{}\n{}\n{}\ntime {}\n",
            self.origin,
            lines.len(),
            STANDARD.encode(root.as_bytes()),
            self.at
        );
        for line in lines {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Reads what was signed.
    ///
    /// # Errors
    /// If it is not exactly what [`Checkpoint::text`] writes; the root over the partitions is among it.
    pub fn parse(text: &str) -> Result<Checkpoint, BadCheckpoint> {
        let mut lines = text.lines();
        let origin = lines.next().filter(|origin| origin.starts_with(ORIGIN));
        let origin = origin.ok_or(BadCheckpoint("its origin is another one"))?.to_owned();
        let _size_and_root = (lines.next(), lines.next());
        let at = lines.next().and_then(|line| line.strip_prefix("time ")?.parse().ok());
        let at = at.ok_or(BadCheckpoint("it has no time"))?;
        let heads =
            lines.map(|line| Head::parse(line).ok_or(BadCheckpoint("the line of a partition is malformed")));
        let checkpoint = Checkpoint { origin, at, heads: heads.collect::<Result<_, _>>()? };
        if checkpoint.text() == text { Ok(checkpoint) } else { Err(BadCheckpoint("its root is another one")) }
    }

    /// How many entries it covers.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.heads.iter().map(|head| head.size).sum()
    }
}

impl Head {
    /// The head of an empty log.
    #[must_use]
    pub fn empty() -> Head {
        Head { size: 0, root: Digest::of(b"") }
    }

    fn line(&self, partition: usize) -> String {
        format!("partition {partition} {} {}", self.size, STANDARD.encode(self.root.as_bytes()))
    }

    fn parse(line: &str) -> Option<Head> {
        let mut words = line.split(' ').skip(2);
        let (size, root) = (words.next()?, words.next()?);
        let root = STANDARD.decode(root).ok()?.try_into().ok()?;
        Some(Head { size: size.parse().ok()?, root: Digest::from_bytes(root) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_has_one_spelling() {
        let heads = vec![Head::empty(), Head { size: 3, root: Digest::of(b"x") }];
        let at = Timestamp::from_millis(1_780_000_000_000);
        let checkpoint = Checkpoint { origin: format!("{ORIGIN}a1"), at, heads };
        let text = checkpoint.text();
        // Computed by other means.
        let expected = "countersign-audit/a1\n\
            2\n\
            yz3UDG+7Sfd2dAaOhMM8N7Uml5Tx1zU6k1LhBo0LZ9g=\n\
            time 2026-05-28T20:26:40.000Z\n\
            partition 0 0 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\
            partition 1 3 LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=\n";
        assert_eq!(text, expected);
        assert_eq!(Checkpoint::parse(&text), Ok(checkpoint.clone()));
        assert_eq!(checkpoint.entries(), 3);
        for (from, to) in [
            ("audit/a1", "other/a1"),
            ("\n2\n", "\n3\n"),
            ("partition 1 3", "partition 1 4"),
            ("partition 1", "partition 2"),
            ("partition 1 3", "partition 1 03"),
            ("time ", "at "),
            ("000Z", "001Z"),
        ] {
            let changed = text.replacen(from, to, 1);
            // The time is signed, and nothing else says it.
            assert!(changed != text && (Checkpoint::parse(&changed).is_err() || from == "000Z"), "{changed}");
        }
        assert!(Checkpoint::parse(&text.replace('\n', "\r\n")).is_err());
        assert!(Checkpoint::parse(text.trim_end()).is_err());
    }
}
