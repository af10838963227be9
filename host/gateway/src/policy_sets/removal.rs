//! Policy sets that nothing needs any more, and removing them from the store.
//!
//! A set is needed while it is in force, while somebody may want it back, and while a request is stored that may have been
//! made under it. The store has no list of the requests of a set; it knows the ids of all requests, which tell when they were
//! made. So a set stays while any request is stored that was made between when the set was stored and when it was last used.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::lifecycle::{AuditEntry, AuditEvent, Count, Digest, RequestId, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_store::{Committed, RemovePolicySet, Store, StoreError, StoredSet, policy_set_use};
use serde_json::{Map, json};

use super::PolicySets;

/// The least time for which sets are kept: far longer than a request takes that is being made, or a change of the set in
/// force.
pub(super) const LEAST_RETENTION_MS: u64 = 60 * 60 * 1000;

/// How many sets are kept that were in force last, the one in force included.
pub(super) const KEPT_SETS: usize = 10;

/// By how much the clocks of instances may differ, and for how long an instance may not notice that another set is in force.
const MARGIN_MS: u64 = 10 * 60 * 1000;

/// The document that says when a set was last stored. Nothing is removed for [`MARGIN_MS`] after that: what a set names is
/// stored before the set.
const STORED: &str = "policy-set:stored";

/// How many changes of the set in force are read at once.
const PAGE: usize = 100;

/// The counters of sets and of modules that were removed.
const PURGED_SETS: &str = "purged_policy_sets_total";
/// See [`PURGED_SETS`].
const PURGED_MODULES: &str = "purged_policy_modules_total";

/// When sets were in force.
#[derive(Debug, Default)]
struct History {
    /// The last ones, the one in force first.
    last: Vec<Digest>,
    /// Until when each was in force.
    until: BTreeMap<Digest, Timestamp>,
}

/// The policy entries of stored sets, each read once.
#[derive(Debug, Default)]
struct Entries(BTreeMap<Digest, PolicyEntry>);

impl PolicySets {
    /// Removes the stored sets that nothing needs and that were last used `retention_ms` ago, or longer, with the modules that
    /// no other set names. Returns how many.
    ///
    /// # Errors
    /// If the store is unavailable, or an entry of a set cannot be read.
    pub async fn remove_unneeded(&self, retention_ms: u64) -> Result<u64, StoreError> {
        let (store, now) = (self.store(), self.now());
        let cutoff = now.minus(retention_ms.max(LEAST_RETENTION_MS));
        let stored = store.recall(STORED).await?;
        if stored.as_deref().is_some_and(|stored| time(stored) > now.minus(MARGIN_MS)) {
            return Ok(0);
        }
        let mut sets = store.policy_sets().await?;
        let old: Vec<StoredSet> = sets.iter().rev().filter(|set| set.stored_at <= cutoff).cloned().collect();
        if sets.len() <= 1 || old.is_empty() {
            return Ok(0);
        }
        let history = History::of(store, now).await?;
        let (mut entries, mut removed) = (Entries::default(), 0);
        for set in old {
            if history.last.contains(&set.hash) {
                continue;
            }
            let key = policy_set_use(set.hash);
            let used = store.recall(&key).await?;
            let until = history.until.get(&set.hash).copied();
            let last_used =
                [Some(set.stored_at), until, used.as_deref().map(time)].into_iter().flatten().max();
            let last_used = last_used.unwrap_or(now);
            if last_used > cutoff || has_request(store, set.stored_at, last_used).await? {
                continue;
            }
            let documents = vec![(STORED.to_owned(), stored.clone()), (key, used)];
            let removal = entries.removal(store, &set, &sets, (now, last_used)).await?;
            let (hash, modules) = (set.hash, removal.modules.len());
            // Something has happened since it was looked at: the next look tells.
            if store.remove_policy_set(RemovePolicySet { documents, ..removal }).await? != Committed::Done {
                break;
            }
            tracing::info!(%hash, modules, "a policy set that nothing needs was removed");
            sets.retain(|other| other.hash != hash);
            removed += 1;
        }
        Ok(removed)
    }

    /// Says that a set is used now, so that it is not removed.
    pub(super) async fn use_now(&self, hash: Digest) -> Result<(), StoreError> {
        use_now(self.store(), hash, self.now()).await
    }

    /// Says that the sets are used that this instance judges by, without that the store knows: a candidate in the shadow, and
    /// one that is not in force any more, if this instance cannot follow.
    pub(super) async fn keep_used(&self) -> Result<(), StoreError> {
        if let Some(standing) = self.gateway.shadow().standing() {
            self.use_now(standing.hash).await?;
        }
        let active = self.policies().active().hash();
        let last = self.store().policy_in_force().await?;
        if last.and_then(|(_, last)| last.to) != Some(active) {
            self.use_now(active).await?;
        }
        Ok(())
    }
}

/// Says that a set is used now, so that it is not removed.
pub(super) async fn use_now(store: &dyn Store, hash: Digest, now: Timestamp) -> Result<(), StoreError> {
    store.keep(&policy_set_use(hash), now.as_millis().to_string().into_bytes()).await
}

/// Says that something of a set is being stored now, so that no part of it is removed as one of another set.
pub(super) async fn storing_now(store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
    store.keep(STORED, now.as_millis().to_string().into_bytes()).await
}

/// What a document says; one that says nothing that can be read keeps its set.
fn time(document: &[u8]) -> Timestamp {
    let millis = std::str::from_utf8(document).ok().and_then(|text| text.parse().ok());
    Timestamp::from_millis(millis.unwrap_or(u64::MAX))
}

/// Whether a request is stored that was made between these times, or about then.
async fn has_request(store: &dyn Store, since: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
    let end = RequestId::new(until.plus(MARGIN_MS), 0, 0);
    let newest = store.newest(Some(end), 1).await?;
    Ok(newest.first().is_some_and(|newest| *newest >= RequestId::new(since.minus(MARGIN_MS), 0, 0)))
}

impl History {
    async fn of(store: &dyn Store, now: Timestamp) -> Result<History, StoreError> {
        let mut history = History::default();
        let (mut before, mut replaced_at) = (u64::MAX, now);
        loop {
            let changes = store.policy_changes(before, PAGE).await?;
            for (_, change) in &changes {
                let Some(hash) = change.in_force() else { continue };
                if history.last.len() < KEPT_SETS && !history.last.contains(&hash) {
                    history.last.push(hash);
                }
                let until = history.until.entry(hash).or_insert(Timestamp::EPOCH);
                *until = replaced_at.max(*until);
                replaced_at = change.at;
            }
            match changes.last() {
                Some((number, _)) if changes.len() == PAGE => before = *number,
                _ => return Ok(history),
            }
        }
    }
}

impl Entries {
    /// The removal of one of these sets, but for the documents.
    async fn removal(
        &mut self,
        store: &dyn Store,
        set: &StoredSet,
        sets: &[StoredSet],
        (now, last_used): (Timestamp, Timestamp),
    ) -> Result<RemovePolicySet, StoreError> {
        let others: BTreeSet<Digest> = sets
            .iter()
            .filter(|other| other.hash != set.hash)
            .flat_map(|other| other.entries.values().copied())
            .collect();
        let own: BTreeSet<Digest> = set.entries.values().copied().collect();
        let needed = self.modules(store, &others).await?;
        let modules: Vec<Digest> = self.modules(store, &own).await?.difference(&needed).copied().collect();
        let mut detail = Map::new();
        detail.insert("hash".to_owned(), json!(set.hash));
        detail.insert("modules".to_owned(), modules.len().into());
        detail.insert("lastUsed".to_owned(), json!(last_used));
        Ok(RemovePolicySet {
            hash: set.hash,
            sets: sets.iter().map(|set| set.hash).collect(),
            documents: Vec::new(),
            entries: own.difference(&others).copied().collect(),
            counts: vec![
                Count::of(PURGED_SETS, &[], 1),
                Count::of(PURGED_MODULES, &[], modules.len() as u64),
            ],
            modules,
            audit: vec![AuditEntry::of_admin(now, AuditEvent::PolicySetRemoved, None, detail)],
        })
    }

    /// The modules that these entries name.
    async fn modules(
        &mut self,
        store: &dyn Store,
        entries: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>, StoreError> {
        let mut modules = BTreeSet::new();
        for hash in entries {
            if !self.0.contains_key(hash) {
                let entry = store.policy_entry(*hash).await?.ok_or_else(|| StoreError::Corrupt {
                    table: "policy_set",
                    column: "entries",
                    key: hash.to_string(),
                    detail: "the entry is not kept".to_owned(),
                })?;
                self.0.insert(*hash, entry);
            }
            let named = self.0.get(hash).into_iter().flat_map(|entry| &entry.policies);
            modules.extend(named.map(|used| used.digest));
        }
        Ok(modules)
    }
}
