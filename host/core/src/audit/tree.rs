//! Merkle trees as in RFC 6962, of which only the right edge is kept.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::lifecycle::Digest;

/// The hash of a leaf.
#[must_use]
pub fn leaf(data: &[u8]) -> Digest {
    let hash: [u8; 32] = Sha256::new_with_prefix([0]).chain_update(data).finalize().into();
    Digest::from_bytes(hash)
}

/// The hash of a node.
#[must_use]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    let hash = Sha256::new_with_prefix([1]).chain_update(left.as_bytes()).chain_update(right.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    Digest::from_bytes(hash)
}

/// The root over these leaves' hashes.
#[must_use]
pub fn root(leaves: impl IntoIterator<Item = Digest>) -> Digest {
    let mut range = Range::default();
    leaves.into_iter().for_each(|leaf| range.push(leaf));
    // It begins at the first leaf.
    range.root().unwrap_or_else(|| Digest::of(b""))
}

/// What must be kept of the leaves from `begin` on, to go on with more of them: the hashes of the largest whole subtrees.
/// There are no more than twice as many as the number of leaves has binary digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Range {
    begin: u64,
    subtrees: Vec<Subtree>,
}

/// A whole subtree: 2 to the power of `level` leaves, from the leaf `index * 2^level` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subtree {
    level: u32,
    index: u64,
    hash: Digest,
}

/// Hashes that are not those of so many leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these are not the subtrees of so many leaves")]
pub struct BadRange;

impl Range {
    /// No leaves, before the one with this index.
    #[must_use]
    pub fn starting_at(begin: u64) -> Range {
        Range { begin, subtrees: Vec::new() }
    }

    /// The leaves from `begin` to before `end`, by the hashes of their subtrees.
    ///
    /// # Errors
    /// If there are more or fewer hashes than subtrees.
    pub fn of(begin: u64, end: u64, hashes: &[Digest]) -> Result<Range, BadRange> {
        let mut range = Range::starting_at(begin);
        let mut hashes = hashes.iter();
        let mut at = begin;
        while at < end {
            let level = (end - at).ilog2().min(if at == 0 { 63 } else { at.trailing_zeros() });
            let hash = *hashes.next().ok_or(BadRange)?;
            range.subtrees.push(Subtree { level, index: at >> level, hash });
            at += 1 << level;
        }
        if hashes.next().is_some() || begin > end { Err(BadRange) } else { Ok(range) }
    }

    /// The index of its first leaf.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// The index of the next leaf.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.subtrees.last().map_or(self.begin, |last| (last.index + 1) << last.level)
    }

    /// The hashes of its subtrees, from the left to the right.
    #[must_use]
    pub fn hashes(&self) -> Vec<Digest> {
        self.subtrees.iter().map(|subtree| subtree.hash).collect()
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        self.join(Subtree { level: 0, index: self.end(), hash: leaf });
    }

    /// Adds the leaves that come next.
    ///
    /// # Errors
    /// If those do not begin where these end.
    pub fn append(&mut self, next: &Range) -> Result<(), BadRange> {
        if next.begin != self.end() {
            return Err(BadRange);
        }
        next.subtrees.iter().for_each(|subtree| self.join(*subtree));
        Ok(())
    }

    /// The root; `None` unless it begins at the first leaf.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        if self.begin != 0 {
            return None;
        }
        let mut hashes = self.subtrees.iter().rev().map(|subtree| subtree.hash);
        let Some(last) = hashes.next() else { return Some(Digest::of(b"")) };
        Some(hashes.fold(last, |right, left| node(&left, &right)))
    }

    fn join(&mut self, mut added: Subtree) {
        while let Some(last) = self.subtrees.last() {
            let are_siblings =
                last.level == added.level && last.index % 2 == 0 && last.index + 1 == added.index;
            if !are_siblings {
                break;
            }
            added = Subtree {
                level: added.level + 1,
                index: last.index / 2,
                hash: node(&last.hash, &added.hash),
            };
            self.subtrees.pop();
        }
        self.subtrees.push(added);
    }
}

/// As it is stored: where the subtrees lie follows from how many leaves there are.
#[derive(Serialize, Deserialize)]
struct Stored {
    begin: u64,
    end: u64,
    subtrees: Vec<Digest>,
}

impl From<Range> for Stored {
    fn from(range: Range) -> Stored {
        Stored { begin: range.begin, end: range.end(), subtrees: range.hashes() }
    }
}

impl TryFrom<Stored> for Range {
    type Error = BadRange;

    fn try_from(stored: Stored) -> Result<Range, BadRange> {
        Range::of(stored.begin, stored.end, &stored.subtrees)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The inputs and roots that implementations of RFC 6962 test with.
    const INPUTS: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_rfc_6962() {
        let mut range = Range::default();
        assert_eq!(range.root().unwrap().to_string(), ROOTS[0]);
        for (input, expected) in INPUTS.iter().zip(&ROOTS[1..]) {
            range.push(leaf(&hex::decode(input).unwrap()));
            assert_eq!(range.root().unwrap().to_string(), **expected);
        }
    }

    fn leaves(from: u64, to: u64) -> impl Iterator<Item = Digest> {
        (from..to).map(|index| leaf(&index.to_be_bytes()))
    }

    /// As the standard defines it.
    fn by_definition(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [one] => *one,
            more => {
                let split = more.len().next_power_of_two() / 2;
                node(&by_definition(&more[..split]), &by_definition(&more[split..]))
            }
        }
    }

    proptest! {
        /// However a log is cut in parts, they make one tree, and what is stored of a part is what it was.
        #[test]
        fn parts_make_a_whole(count in 0_u64..300, cut in 0_u64..300) {
            let cut = cut.min(count);
            let mut first = Range::default();
            leaves(0, cut).for_each(|leaf| first.push(leaf));
            let mut rest = Range::starting_at(cut);
            leaves(cut, count).for_each(|leaf| rest.push(leaf));
            let stored = serde_json::to_string(&rest).unwrap();
            let read: Range = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&read, &rest);
            prop_assert_eq!((read.begin(), read.end()), (cut, count));
            prop_assert_eq!(rest.root().is_some(), cut == 0);
            first.append(&read).unwrap();
            let all: Vec<Digest> = leaves(0, count).collect();
            prop_assert_eq!(first.root().unwrap(), by_definition(&all));
            prop_assert_eq!(first.append(&rest).is_ok(), count == cut);
            let short = rest.hashes();
            if let Some((_, short)) = short.split_last() {
                prop_assert_eq!(Range::of(cut, count, short), Err(BadRange));
            }
        }
    }
}
