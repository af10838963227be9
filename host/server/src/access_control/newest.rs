//! Which access file is the newest of those that the instances over a store have in force.
//!
//! Each instance reads a file of its own, and says in one document of the store which one it has in force. Nothing here puts
//! a file in force: it says when another instance has a newer one.
//!
//! A file is known by its SHA-256, as in the history and the audit log. That helps nobody to guess: what is secret in the
//! file are the digests of API keys, which are random, and a guess at a key cannot be tried without all the rest of the
//! file.

use std::collections::BTreeMap;

use countersign_core::lifecycle::Digest;
use countersign_store::{Shared, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::instances::LIFE_MS;

/// The key of the document.
pub(crate) const KEY: &str = "access:newest";

/// How many files that were replaced are known as such.
const EARLIER: usize = 100;

/// The newest access file, and those of the instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    /// Rises by one with each file that becomes the newest.
    pub(crate) version: u64,
    /// SHA-256 of the newest file; `None` before the first one.
    pub(crate) hash: Option<Digest>,
    /// Those that were the newest before, the latest last.
    earlier: Vec<Digest>,
    /// Which file each instance has in force, of those that live.
    pub(crate) instances: BTreeMap<u64, Digest>,
}

impl Newest {
    /// What is known once `instance` has the file with this hash in force, and these instances live.
    ///
    /// The file is the newest if nobody had it before, if the instance has put it in the place of the newest one, or if no
    /// other instance has the newest one any more. Otherwise it was replaced before, and the instance is late.
    fn with(&self, instance: u64, hash: Digest, live: &[u64]) -> Newest {
        let mut next = self.clone();
        let had = next.instances.remove(&instance);
        next.instances.retain(|it, _| live.contains(it));
        let replaces_newest = had.is_some() && had == next.hash;
        let is_held = next.instances.values().any(|it| Some(*it) == next.hash);
        if next.hash != Some(hash) && (replaces_newest || !is_held || !next.earlier.contains(&hash)) {
            next.earlier.extend(next.hash.replace(hash));
            next.earlier.retain(|it| *it != hash);
            let surplus = next.earlier.len().saturating_sub(EARLIER);
            next.earlier.drain(..surplus);
            next.version += 1;
        }
        next.instances.insert(instance, hash);
        next
    }
}

/// Says that this instance has the file with this hash in force, and returns what is known then.
///
/// # Errors
/// If the store is unavailable.
pub(crate) async fn record(
    store: &dyn Store,
    shared: &dyn Shared,
    instance: u64,
    hash: Digest,
) -> Result<Newest, StoreError> {
    loop {
        let stored = store.recall(KEY).await?;
        let known = begun(stored.as_deref());
        if known.hash == Some(hash) && known.instances.get(&instance) == Some(&hash) {
            return Ok(known);
        }
        let live = shared.announce(instance, LIFE_MS).await?;
        let next = known.with(instance, hash, &live);
        if next == known {
            return Ok(known);
        }
        let document = serde_json::to_vec(&next).unwrap_or_default();
        if store.replace(KEY, stored, document).await? {
            return Ok(next);
        }
    }
}

/// What is known of the newest file; nothing if no instance has an access file.
///
/// # Errors
/// If the store is unavailable, or the document cannot be read.
pub(crate) async fn load(store: &dyn Store) -> Result<Newest, StoreError> {
    store.recall(KEY).await?.as_deref().map_or_else(|| Ok(Newest::default()), read)
}

/// What cannot be read begins anew with the files of the instances that live, as the history does: otherwise none of them
/// would ever know again that its file is old.
fn begun(stored: Option<&[u8]>) -> Newest {
    stored.map_or_else(|| Ok(Newest::default()), read).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read which access file is the newest; it begins anew");
        Newest::default()
    })
}

fn read(document: &[u8]) -> Result<Newest, StoreError> {
    serde_json::from_slice(document).map_err(|error| StoreError::Corrupt {
        table: "kept",
        column: "value",
        key: KEY.to_owned(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    /// Instances put files in force one after the other; each step says which version and file is the newest then.
    #[track_caller]
    fn check(steps: &[(u64, &str, &[u64], u64, &str)]) {
        let mut known = Newest::default();
        for (place, (instance, name, live, version, newest)) in steps.iter().enumerate() {
            known = known.with(*instance, file(name), live);
            assert_eq!((known.version, known.hash), (*version, Some(file(newest))), "step {place}");
            let again = known.with(*instance, file(name), live);
            assert_eq!(again, known, "step {place}: saying it again changes nothing");
            assert!(known.instances.keys().all(|it| live.contains(it)), "step {place}: {known:?}");
        }
    }

    #[test]
    fn a_new_file_is_the_newest_and_the_others_catch_up() {
        check(&[
            (1, "a", &[1], 1, "a"),
            (2, "a", &[1, 2], 1, "a"),
            (1, "b", &[1, 2], 2, "b"),
            (2, "b", &[1, 2], 2, "b"),
        ]);
    }

    #[test]
    fn an_instance_that_starts_or_is_late_with_an_old_file_makes_it_no_newer() {
        check(&[
            (1, "a", &[1, 2], 1, "a"),
            (2, "a", &[1, 2], 1, "a"),
            (1, "b", &[1, 2], 2, "b"),
            (1, "c", &[1, 2], 3, "c"),
            // It starts with an old file.
            (3, "a", &[1, 2, 3], 3, "c"),
            // It gets the file before the newest one late.
            (2, "b", &[1, 2, 3], 3, "c"),
            (2, "c", &[1, 2, 3], 3, "c"),
        ]);
    }

    #[test]
    fn an_old_file_is_the_newest_again_if_it_replaces_the_newest() {
        check(&[
            (1, "a", &[1, 2], 1, "a"),
            (2, "a", &[1, 2], 1, "a"),
            (1, "b", &[1, 2], 2, "b"),
            (2, "b", &[1, 2], 2, "b"),
            (1, "a", &[1, 2], 3, "a"),
            // The other one still has what was replaced.
            (2, "b", &[1, 2], 3, "a"),
            (2, "a", &[1, 2], 3, "a"),
        ]);
    }

    #[test]
    fn an_old_file_is_the_newest_again_if_nobody_has_another_any_more() {
        check(&[
            (1, "a", &[1], 1, "a"),
            (1, "b", &[1], 2, "b"),
            (2, "a", &[1, 2], 2, "b"),
            // Instance 1 has ended.
            (2, "a", &[2], 3, "a"),
            (3, "a", &[2, 3], 3, "a"),
        ]);
    }

    #[test]
    fn what_cannot_be_read_begins_anew() {
        let known = Newest::default().with(1, file("a"), &[1]);
        let stored = serde_json::to_vec(&known).unwrap();
        assert_eq!(begun(Some(&stored)), known);
        for broken in [&b"{"[..], b"", b"[]", b"{\"version\":-1}"] {
            assert_eq!(begun(Some(broken)), Newest::default());
        }
    }

    #[test]
    fn replaced_files_are_not_remembered_for_ever() {
        let mut known = Newest::default();
        for number in 0..3 * EARLIER {
            known = known.with(1, file(&number.to_string()), &[1, 2]);
        }
        assert_eq!(known.earlier.len(), EARLIER);
        let late = known.with(2, file(&(3 * EARLIER - 2).to_string()), &[1, 2]);
        assert_eq!(late.version, known.version, "the latest of them are known");
    }
}
