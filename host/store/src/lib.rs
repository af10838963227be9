//! The port to durable state. One contract suite holds every backend to what is said here.

#[cfg(test)]
mod contract;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
mod sqlite;
mod url;

use std::collections::BTreeMap;

use async_trait::async_trait;

use countersign_core::lifecycle::{
    AuditEntry, Count, Counter, Digest, Effect, Request, RequestId, Status, Timestamp,
};
use countersign_core::record::PolicyChange;
use countersign_core::record::{PolicyEntry, Signature};
use countersign_core::record::{SlackPost, Slot};

pub use sqlite::{OpenError, SqliteArchive, SqliteStore};
pub use url::StoreUrl;

/// Durable state.
///
/// A call that returns `Ok` is durable: it survives `kill -9` at any instant from then on.
/// A write that returns an error may or may not have happened, and happened whole where it did;
/// repeating it is safe, since a repeated commit is a conflict.
/// A span "until" a time excludes that time.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The backend's name: `sqlite`, `redis`.
    fn backend(&self) -> &'static str;

    /// Finishes what was queued and stops writing: every later write is refused.
    async fn close(&self) -> Result<(), StoreError>;

    /// Stores a new request, its audit entries, outbox entries and counts, all or nothing.
    ///
    /// The time is the request's `submitted_at`: an idempotency key that ran out by then is forgotten.
    async fn create(&self, new: Create) -> Result<Created, StoreError>;

    /// Stores a request's next version, its audit entries, outbox entries and counts, all or nothing.
    ///
    /// The submission never changes, and a terminal request never does: storing one more version of it is a conflict.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// Adds audit entries and counts that change no request.
    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError>;

    /// A request by its id.
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError>;

    /// The request and fingerprint that an idempotency key was first used for, where it still counts at `now`.
    async fn idempotent(&self, key: &Digest, now: Timestamp)
    -> Result<Option<(Digest, Request)>, StoreError>;

    /// All requests of a lineage, oldest first.
    async fn lineage(&self, lineage: RequestId) -> Result<Vec<Request>, StoreError>;

    /// Up to `limit` open requests with something due at `now`, most overdue first, with the time it was due.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<(RequestId, Timestamp)>, StoreError>;

    /// When the next open request has something due, after `after`.
    async fn next_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Outbox entries that are ready at `now`: of each urgency up to `limit`, those first that have been ready for longest.
    ///
    /// An entry is ready from the moment it is stored, unless it is claimed or was given back for later.
    /// A claim that ran out is void: the entry is ready again.
    async fn ready_outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<ReadyEntry>, StoreError>;

    /// Takes an outbox entry for this worker alone until `until`. `None` where it is not ready at `now` (any more).
    async fn claim_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<OutboxEntry>, StoreError>;

    /// Removes an entry that was delivered as the request stood at version `delivered`, unless a newer version has
    /// asked for it since: then it is ready at once, or stays with the worker that has claimed it since.
    async fn finish_outbox(&self, entry: &OutboxEntry, delivered: u64) -> Result<(), StoreError>;

    /// Gives an undelivered entry back, for the next try at `at`. Where this one `failed`, its count of attempts grows.
    /// Does nothing where another worker has claimed it since.
    async fn retry_outbox(&self, entry: &OutboxEntry, at: Timestamp, failed: bool) -> Result<(), StoreError>;

    /// How much waits for delivery.
    async fn outbox_depth(&self) -> Result<OutboxDepth, StoreError>;

    /// How far a message in Slack has come.
    async fn slack_post(&self, request: RequestId, slot: Slot) -> Result<Option<SlackPost>, StoreError>;

    /// Stores how far a message in Slack has come, with its audit entries and counts, all or nothing.
    ///
    /// Its revision is one more than the stored one's, else it is a conflict.
    async fn keep_slack_post(&self, keep: KeepPost) -> Result<Committed, StoreError>;

    /// Up to `limit` messages in Slack that are to be looked at again at `now`, most overdue first.
    async fn stale_slack_posts(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(RequestId, Slot)>, StoreError>;

    /// Keeps a small document in the place of the one that has this key, if any.
    ///
    /// A key begins with the name of its part and a colon, and the parts are listed in [`KEPT`].
    async fn keep(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError>;

    /// The document that is kept under this key.
    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Audit entries in the order they were written, from after `after` on, at most `limit`, each with its number.
    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<(u64, AuditEntry)>, StoreError>;

    /// Keeps policy entries and module bytes by their hashes. What is already kept stays as it is.
    async fn pin(&self, entries: Vec<PolicyEntry>, modules: Vec<Vec<u8>>) -> Result<(), StoreError>;

    /// The policy entry with this hash.
    async fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError>;

    /// The bytes of the module with this digest.
    async fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// The digests of the modules that are kept, each with its size in bytes, in order.
    async fn modules(&self) -> Result<Vec<(Digest, u64)>, StoreError>;

    /// Keeps detached signatures with the digests that they are over: of modules, or of policy sets. What is already kept
    /// stays. Whether they are worth anything is not looked at.
    async fn keep_signatures(&self, signatures: Vec<(Digest, Signature)>) -> Result<(), StoreError>;

    /// The signatures that are kept over this digest, in order.
    async fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError>;

    /// Keeps a policy set by its hash, with the document that it was read from. What is already kept stays as it is.
    ///
    /// Its entries and their modules must be pinned before.
    async fn keep_policy_set(&self, set: StoredSet, document: String) -> Result<(), StoreError>;

    /// The policy set with this hash.
    async fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError>;

    /// The document that the policy set with this hash was first read from.
    async fn policy_document(&self, hash: Digest) -> Result<Option<String>, StoreError>;

    /// Every policy set that is kept, those first that were stored last.
    async fn policy_sets(&self) -> Result<Vec<StoredSet>, StoreError>;

    /// Stores a change of the set in force with its audit entries and counts, all or nothing.
    ///
    /// Where it puts a set in force, its `from` is the set that was put in force last, else it is a conflict.
    async fn change_policy(&self, change: ChangePolicy) -> Result<Committed, StoreError>;

    /// The last change that put a set in force, with its number.
    async fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError>;

    /// Up to `limit` changes of the set in force with numbers below `before`, the last one first.
    async fn policy_changes(&self, before: u64, limit: usize)
    -> Result<Vec<(u64, PolicyChange)>, StoreError>;

    /// How many open requests there are under each policy hash, by that hash and the action.
    async fn open_policies(&self) -> Result<Vec<OpenPolicy>, StoreError>;

    /// Every counter's value.
    async fn counters(&self) -> Result<BTreeMap<Counter, u64>, StoreError>;

    /// The open requests, by action and status.
    async fn open_requests(&self) -> Result<Vec<OpenRequests>, StoreError>;

    /// How many open requests wait for each persona, by action and persona.
    async fn waiting_personas(&self) -> Result<Vec<(String, String, u64)>, StoreError>;

    /// Remembers `nonce` until `until`. False where it is already remembered at `now`: a replay.
    async fn claim_nonce(&self, nonce: Digest, now: Timestamp, until: Timestamp) -> Result<bool, StoreError>;

    /// The server secret: the one kept here, else `fresh`, which is kept from then on.
    async fn secret(&self, fresh: [u8; 32]) -> Result<[u8; 32], StoreError>;

    /// Whether the store can be reached and written to.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// A new request, and what must be stored with it.
#[derive(Clone, Debug)]
pub struct Create {
    /// The request, at version 1.
    pub request: Request,
    /// Where the caller sent an idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Audit entries.
    pub audit: Vec<AuditEntry>,
    /// Work for the outbox.
    pub effects: Vec<Effect>,
    /// Counts.
    pub counts: Vec<Count>,
}

/// What makes a repeated create give the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the caller and its key.
    pub key: Digest,
    /// Digest of the body: the same key with another one is refused.
    pub fingerprint: Digest,
    /// Until when the key counts.
    pub until: Timestamp,
}

/// What became of a create.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// It is stored.
    New,
    /// Nothing was stored: the idempotency key was used before, with this fingerprint and for this request.
    Known(Digest, Box<Request>),
    /// Nothing was stored: the lineage already has a request at this depth, or the id is taken.
    LineageConflict,
}

/// A request's next version, and what must be stored with it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The request; its version is one more than the stored one's, else it is a conflict.
    pub request: Request,
    /// Audit entries.
    pub audit: Vec<AuditEntry>,
    /// Work for the outbox.
    pub effects: Vec<Effect>,
    /// Counts.
    pub counts: Vec<Count>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is stored.
    Done,
    /// Nothing was stored: the stored version has moved on, or the request is terminal or unknown.
    Conflict,
}

/// The parts of the gateway that keep documents, as their keys begin.
pub const KEPT: [&str; 1] = ["usergroup:"];

/// How soon work that waits is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// The request has ended: nobody should go on looking at it.
    Ended,
    /// The request is new, or escalated: people are yet to hear of it.
    First,
    /// The request has changed.
    Changed,
}

impl Urgency {
    /// All, the most urgent first.
    pub const ALL: [Urgency; 3] = [Urgency::Ended, Urgency::First, Urgency::Changed];

    /// How urgent it is to deliver an effect of the request as it stands. Work that was asked for before and still
    /// waits stays as urgent as it was.
    #[must_use]
    pub fn of(request: &Request, effect: Effect) -> Urgency {
        match effect {
            Effect::NotifyEscalation => Urgency::First,
            Effect::ShowRequest if request.status().is_terminal() => Urgency::Ended,
            Effect::ShowRequest if request.version <= 1 => Urgency::First,
            Effect::ShowRequest => Urgency::Changed,
        }
    }
}

/// Work that can be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyEntry {
    /// The request it is about.
    pub request: RequestId,
    /// What to deliver.
    pub effect: Effect,
    /// How soon.
    pub urgency: Urgency,
    /// The request's version that asked for it last.
    pub revision: u64,
    /// Since when it waits.
    pub since: Timestamp,
}

/// How far a message in Slack has come, and what must be stored with that.
#[derive(Clone, Debug)]
pub struct KeepPost {
    /// The request.
    pub request: RequestId,
    /// Which of its messages.
    pub slot: Slot,
    /// How far it has come; its revision is one more than the stored one's, else it is a conflict.
    pub post: SlackPost,
    /// Audit entries.
    pub audit: Vec<AuditEntry>,
    /// Counts.
    pub counts: Vec<Count>,
}

/// Work that waits for delivery. There is at most one of a kind for each request.
///
/// Asking for it again while it waits keeps its place, forgets failed attempts and makes it ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The request it is about.
    pub request: RequestId,
    /// What to deliver.
    pub effect: Effect,
    /// The request's version that asked for it last; tells a finished entry from one that is stale again.
    pub revision: u64,
    /// How often delivery was tried in vain.
    pub attempts: u32,
    /// Since when it waits: the time of the event or the decision that asked for it first.
    pub since: Timestamp,
    /// Until when it is the claimer's alone; tells this claim from a later one.
    pub claimed_until: Timestamp,
}

/// How much waits for delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxDepth {
    /// Entries, claimed ones included.
    pub entries: u64,
    /// Since when the oldest waits.
    pub oldest: Option<Timestamp>,
}

/// Open requests of one action in one status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequests {
    /// The action.
    pub action: String,
    /// The status.
    pub status: Status,
    /// How many.
    pub count: u64,
    /// When the oldest was made.
    pub oldest: Timestamp,
    /// The sum of the times they were made at, in milliseconds since the epoch, for their average age.
    pub sum_submitted_ms: u128,
}

/// A policy set, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSet {
    /// SHA-256 of the canonical JSON (RFC 8785) of `entries`.
    pub hash: Digest,
    /// The policy hash of each action; `*` is the entry of unknown actions.
    pub entries: BTreeMap<String, Digest>,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// A change of the set in force, and what must be stored with it.
#[derive(Clone, Debug)]
pub struct ChangePolicy {
    /// The change. Where it puts a set in force, its `from` is the set that was put in force last.
    pub change: PolicyChange,
    /// Audit entries.
    pub audit: Vec<AuditEntry>,
    /// Counts.
    pub counts: Vec<Count>,
}

/// Open requests under one policy hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPolicy {
    /// The policy hash.
    pub policy: Digest,
    /// The action.
    pub action: String,
    /// How many.
    pub count: u64,
}

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or written to now; the caller may try again.
    #[error("the {backend} store is unavailable: {detail}")]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        detail: String,
    },
    /// A stored value cannot be read.
    #[error("cannot read `{column}` of `{table}` where its key is `{key}`: {detail}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}
