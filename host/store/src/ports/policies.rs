//! Policies: entries, modules, signatures, policy sets, and which set was in force when.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count, Digest, Timestamp};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature};

use super::Committed;
use crate::StoreError;

/// Stores policies by their digests, and the changes of the policy set in force.
#[async_trait]
pub trait Policies: Send + Sync {
    /// Stores policy entries and module bytes by their digests. What is already stored does not change.
    async fn pin(&self, entries: Vec<PolicyEntry>, modules: Vec<Vec<u8>>) -> Result<(), StoreError>;

    /// The policy entry with this hash.
    async fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError>;

    /// The bytes of the module with this digest.
    async fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// The digest and size in bytes of every stored module, by digest.
    async fn modules(&self) -> Result<Vec<(Digest, u64)>, StoreError>;

    /// Stores detached signatures over the digests of modules or policy sets. What is already stored does not change.
    ///
    /// The signatures are not verified.
    async fn keep_signatures(&self, signatures: Vec<(Digest, Signature)>) -> Result<(), StoreError>;

    /// The stored signatures over this digest, in order of their bytes.
    async fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError>;

    /// Stores a policy set by its hash, with its source document. What is already stored does not change.
    ///
    /// Its entries and their modules must be pinned before.
    async fn keep_policy_set(&self, set: StoredSet, document: String) -> Result<(), StoreError>;

    /// The policy set with this hash.
    async fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError>;

    /// The source document that the policy set with this hash was first stored with.
    async fn policy_document(&self, hash: Digest) -> Result<Option<String>, StoreError>;

    /// Every stored policy set, newest first.
    async fn policy_sets(&self) -> Result<Vec<StoredSet>, StoreError>;

    /// Stores a change of the set in force with its audit entries and counts, all or nothing.
    ///
    /// A change that puts a set in force is a conflict unless its `from` is the set in force.
    async fn change_policy(&self, change: ChangePolicy) -> Result<Committed, StoreError>;

    /// The last change that put a set in force, with its sequence number.
    async fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError>;

    /// Up to `limit` changes of the set in force with sequence numbers below `before`, newest first.
    async fn policy_changes(&self, before: u64, limit: usize)
    -> Result<Vec<(u64, PolicyChange)>, StoreError>;

    /// Removes a policy set with its signatures and its document of [`policy_set_use`], and with policy entries, modules and
    /// the signatures of these, all or nothing.
    ///
    /// It is a conflict, and nothing is removed, if the set is in force or is not stored, or if something is not as it was
    /// when the removal was decided: the stored sets, or one of the documents.
    async fn remove_policy_set(&self, removal: RemovePolicySet) -> Result<Committed, StoreError>;

    /// The number of open requests under each policy hash, by that hash and the action.
    async fn open_policies(&self) -> Result<Vec<OpenPolicy>, StoreError>;
}

/// A policy set as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSet {
    /// SHA-256 of the canonical JSON (RFC 8785) of `entries`.
    pub hash: Digest,
    /// The policy hash of each action; `*` is the entry of unknown actions.
    pub entries: BTreeMap<String, Digest>,
    /// When it was first stored.
    pub stored_at: Timestamp,
}

/// A change of the set in force, and what must be stored with it.
#[derive(Clone, Debug)]
pub struct ChangePolicy {
    /// The change. If it puts a set in force, it is a conflict unless its `from` is the set in force.
    pub change: PolicyChange,
    /// Audit entries to append.
    pub audit: Vec<AuditEntry>,
    /// Increments of counters.
    pub counts: Vec<Count>,
}

/// The key of the document that says when a policy set was last used, apart from having been in force.
#[must_use]
pub fn policy_set_use(hash: Digest) -> String {
    format!("policy-set:{hash}")
}

/// A policy set to be removed, what goes with it, and what must still be so.
#[derive(Clone, Debug)]
pub struct RemovePolicySet {
    /// The set.
    pub hash: Digest,
    /// Every stored set, this one included.
    pub sets: Vec<Digest>,
    /// The keys and values of documents; `None` for one that is not stored.
    pub documents: Vec<(String, Option<Vec<u8>>)>,
    /// Its policy entries that no other set names.
    pub entries: Vec<Digest>,
    /// The modules that no entry of another set names.
    pub modules: Vec<Digest>,
    /// Audit entries to append.
    pub audit: Vec<AuditEntry>,
    /// Increments of counters.
    pub counts: Vec<Count>,
}

/// Open requests of one action under one policy hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPolicy {
    /// The policy hash.
    pub policy: Digest,
    /// The action.
    pub action: String,
    /// How many.
    pub count: u64,
}
