//! The SQLite store behind failures: a call can be slow, fail before it is carried out, or be carried out and fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::lifecycle::{
    AuditEntry, Count, Counter, Digest, Effect, Request, RequestId, Timestamp, WrappedSalt,
};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature, SlackPost, Slot};
use countersign_store::{
    Audit, ChangePolicy, Commit, Committed, Create, Created, Documents, Due, Guards, KeepPost, Messages,
    NewSalt, Nonce, OpenPolicy, OpenRequests, Outbox, OutboxDepth, OutboxEntry, Policies, ReadyEntry,
    Requests, Salts, SqliteStore, StalePost, Statistics, Store, StoreError, StoreFault, StoredSet,
};

use super::world::World;

/// The store of a schedule.
pub(super) struct FaultyStore {
    pub(super) inner: Arc<SqliteStore>,
    pub(super) world: Arc<World>,
}

impl FaultyStore {
    /// A call that only reads.
    async fn read<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.before(name).await?;
        let result = call.await;
        self.world.point().await;
        result
    }

    /// A call that writes.
    async fn write<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.before(name).await?;
        let result = call.await;
        self.after(name).await?;
        result
    }

    async fn before(&self, name: &str) -> Result<(), StoreError> {
        self.world.point().await;
        let profile = self.world.profile();
        if self.world.is_outage() {
            return Err(self.failed(name, "the store is away"));
        }
        match self.world.per_thousand() {
            roll if roll < profile.store_fails => Err(self.failed(name, "it fails")),
            roll if roll < profile.store_fails + profile.store_slow => {
                let wait_ms = self.world.below(400);
                self.world.say(|| format!("store: {name} takes {wait_ms} ms"));
                self.world.disturb();
                self.world.pass(wait_ms).await;
                self.world.disturb();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn after(&self, name: &str) -> Result<(), StoreError> {
        self.world.point().await;
        if self.world.per_thousand() < self.world.profile().store_unsure {
            self.world.stored_unsurely();
            return Err(self.failed(name, "it is carried out, and fails all the same"));
        }
        Ok(())
    }

    fn failed(&self, name: &str, detail: &str) -> StoreError {
        self.world.say(|| format!("store: {name}: {detail}"));
        self.world.disturb();
        let (backend, detail) = ("simulated", detail.to_owned());
        StoreError::Unavailable { backend, fault: StoreFault::Other, detail }
    }
}

macro_rules! behind_failures {
    ($($port:ident { $($kind:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)* })*) => {$(
        #[async_trait]
        impl $port for FaultyStore {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$result, StoreError> {
                self.$kind(stringify!($name), self.inner.$name($($argument),*)).await
            })*
        }
    )*};
}

behind_failures! {
    Audit {
        write append(audit: Vec<AuditEntry>, counts: Vec<Count>) -> ();
        write append_once(audit: Vec<AuditEntry>, counts: Vec<Count>, nonce: Nonce) -> bool;
        read audit(after: u64, limit: usize) -> Vec<(u64, AuditEntry)>;
    }
    Documents {
        write keep(key: &str, value: Vec<u8>) -> ();
        read recall(key: &str) -> Option<Vec<u8>>;
    }
    Guards {
        write claim_nonce(nonce: Digest, now: Timestamp, until: Timestamp) -> bool;
        read has_nonce(nonce: &Digest, now: Timestamp) -> bool;
    }
    Messages {
        read slack_post(request: RequestId, slot: Slot) -> Option<SlackPost>;
        write keep_slack_post(keep: KeepPost) -> Committed;
        read stale_slack_posts(now: Timestamp, limit: usize) -> Vec<StalePost>;
    }
    Outbox {
        read ready_outbox(now: Timestamp, limit: usize) -> Vec<ReadyEntry>;
        write claim_outbox(request: RequestId, effect: Effect, now: Timestamp, until: Timestamp) -> Option<OutboxEntry>;
        write finish_outbox(entry: &OutboxEntry, delivered: u64) -> ();
        write retry_outbox(entry: &OutboxEntry, at: Timestamp, failed: bool) -> ();
    }
    Policies {
        write pin(entries: Vec<PolicyEntry>, modules: Vec<Vec<u8>>) -> ();
        read policy_entry(hash: Digest) -> Option<PolicyEntry>;
        read module(digest: Digest) -> Option<Vec<u8>>;
        read modules() -> Vec<(Digest, u64)>;
        write keep_signatures(signatures: Vec<(Digest, Signature)>) -> ();
        read signatures(digest: Digest) -> Vec<Signature>;
        write keep_policy_set(set: StoredSet, document: String) -> ();
        read policy_set(hash: Digest) -> Option<StoredSet>;
        read policy_document(hash: Digest) -> Option<String>;
        read policy_sets() -> Vec<StoredSet>;
        write change_policy(change: ChangePolicy) -> Committed;
        read policy_in_force() -> Option<(u64, PolicyChange)>;
        read policy_changes(before: u64, limit: usize) -> Vec<(u64, PolicyChange)>;
        read open_policies() -> Vec<OpenPolicy>;
    }
    Salts {
        read salts(after: Option<RequestId>, limit: usize) -> Vec<(RequestId, WrappedSalt)>;
        write replace_salts(replacements: Vec<NewSalt>) -> usize;
    }
    Statistics {
        read counters() -> BTreeMap<Counter, u64>;
        read open_requests() -> Vec<OpenRequests>;
        read waiting_personas() -> Vec<(String, String, u64)>;
        read outbox_depth() -> OutboxDepth;
    }
}

#[async_trait]
impl Requests for FaultyStore {
    async fn create(&self, new: Create) -> Result<Created, StoreError> {
        let (request, audit) = (new.request.clone(), new.audit.clone());
        let create = async {
            let created = self.inner.create(new).await;
            if matches!(created, Ok(Created::New)) {
                self.world.stored(&request, &audit);
            }
            created
        };
        self.write("create", create).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let (request, audit) = (commit.request.clone(), commit.audit.clone());
        let commit = async {
            let committed = self.inner.commit(commit).await;
            match committed {
                Ok(Committed::Done) => self.world.stored(&request, &audit),
                _ => self.world.say(|| format!("store: {} v{}: conflict", request.id, request.version)),
            }
            committed
        };
        self.write("commit", commit).await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        self.read("request", self.inner.request(id)).await
    }

    async fn idempotent(
        &self,
        key: &Digest,
        now: Timestamp,
    ) -> Result<Option<(Digest, Request)>, StoreError> {
        self.read("idempotent", self.inner.idempotent(key, now)).await
    }

    async fn lineage(&self, lineage: RequestId, from: u32, limit: usize) -> Result<Vec<Request>, StoreError> {
        self.read("lineage", self.inner.lineage(lineage, from, limit)).await
    }

    async fn newest_of_lineage(&self, lineage: RequestId) -> Result<Option<Request>, StoreError> {
        self.read("newest_of_lineage", self.inner.newest_of_lineage(lineage)).await
    }

    async fn recent_in_lineage(
        &self,
        lineage: RequestId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timestamp>, StoreError> {
        self.read("recent_in_lineage", self.inner.recent_in_lineage(lineage, since, limit)).await
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestId)>,
        limit: usize,
    ) -> Result<Due, StoreError> {
        self.read("due", self.inner.due(now, after, limit)).await
    }

    async fn next_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.read("next_due", self.inner.next_due(after)).await
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn backend(&self) -> &'static str {
        "simulated"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write("ping", self.inner.ping()).await
    }

    async fn maintain(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write("maintain", self.inner.maintain(now)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
