//! A store whose writes go wrong on demand, for tests of what the gateway does then. It passes everything on to a real one.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::lifecycle::{
    AuditEntry, Count, Counter, Digest, Effect, Request, RequestId, Timestamp, WrappedSalt,
};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature, SlackPost, Slot};
use tokio::sync::watch;

use crate::*;

/// What becomes of writes that create requests, commit them, or audit a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are stored.
    None,
    /// They wait for another fault, or for none.
    Held,
    /// They are answered with an error, and not stored.
    NotStored,
    /// They are answered with an error, and stored all the same.
    Stored,
}

/// Sets the fault of a [`FaultyStore`].
#[derive(Clone, Debug)]
pub struct Faults {
    fault: Arc<watch::Sender<Fault>>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults { fault: Arc::new(watch::Sender::new(Fault::None)) }
    }
}

impl Faults {
    /// Every write has this fault from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    async fn apply<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut faults = self.fault.subscribe();
        let fault = faults.wait_for(|fault| *fault != Fault::Held).await.map_or(Fault::None, |fault| *fault);
        let failed = || StoreError::Unavailable {
            backend: "faulty",
            fault: StoreFault::Other,
            detail: format!("{fault:?}"),
        };
        match fault {
            Fault::None | Fault::Held => write.await,
            Fault::NotStored => Err(failed()),
            Fault::Stored => write.await.and_then(|_| Err(failed())),
        }
    }
}

/// A store with faults.
pub struct FaultyStore {
    store: Arc<dyn Store>,
    faults: Faults,
}

impl FaultyStore {
    /// Over a real store.
    #[must_use]
    pub fn over(store: Arc<dyn Store>, faults: Faults) -> FaultyStore {
        FaultyStore { store, faults }
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    async fn maintain(&self, now: Timestamp) -> Result<(), StoreError> {
        self.store.maintain(now).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }

    async fn failed(&self) {
        self.store.failed().await;
    }
}

#[async_trait]
impl Requests for FaultyStore {
    async fn create(&self, new: Create) -> Result<Created, StoreError> {
        self.faults.apply(self.store.create(new)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.faults.apply(self.store.commit(commit)).await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        self.store.request(id).await
    }

    async fn idempotent(
        &self,
        key: &Digest,
        now: Timestamp,
    ) -> Result<Option<(Digest, Request)>, StoreError> {
        self.store.idempotent(key, now).await
    }

    async fn lineage(&self, lineage: RequestId, from: u32, limit: usize) -> Result<Vec<Request>, StoreError> {
        self.store.lineage(lineage, from, limit).await
    }

    async fn newest_of_lineage(&self, lineage: RequestId) -> Result<Option<Request>, StoreError> {
        self.store.newest_of_lineage(lineage).await
    }

    async fn recent_in_lineage(
        &self,
        lineage: RequestId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timestamp>, StoreError> {
        self.store.recent_in_lineage(lineage, since, limit).await
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestId)>,
        limit: usize,
    ) -> Result<Due, StoreError> {
        self.store.due(now, after, limit).await
    }

    async fn next_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.store.next_due(after).await
    }
}

#[async_trait]
impl Salts for FaultyStore {
    async fn salts(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, WrappedSalt)>, StoreError> {
        self.store.salts(after, limit).await
    }

    async fn replace_salts(&self, replacements: Vec<NewSalt>) -> Result<usize, StoreError> {
        self.store.replace_salts(replacements).await
    }
}

#[async_trait]
impl Outbox for FaultyStore {
    async fn ready_outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<ReadyEntry>, StoreError> {
        self.store.ready_outbox(now, limit).await
    }

    async fn claim_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<OutboxEntry>, StoreError> {
        self.store.claim_outbox(request, effect, now, until).await
    }

    async fn finish_outbox(&self, entry: &OutboxEntry, delivered: u64) -> Result<(), StoreError> {
        self.store.finish_outbox(entry, delivered).await
    }

    async fn retry_outbox(&self, entry: &OutboxEntry, at: Timestamp, failed: bool) -> Result<(), StoreError> {
        self.store.retry_outbox(entry, at, failed).await
    }
}

#[async_trait]
impl Messages for FaultyStore {
    async fn slack_post(&self, request: RequestId, slot: Slot) -> Result<Option<SlackPost>, StoreError> {
        self.store.slack_post(request, slot).await
    }

    async fn keep_slack_post(&self, keep: KeepPost) -> Result<Committed, StoreError> {
        self.store.keep_slack_post(keep).await
    }

    async fn stale_slack_posts(&self, now: Timestamp, limit: usize) -> Result<Vec<StalePost>, StoreError> {
        self.store.stale_slack_posts(now, limit).await
    }
}

#[async_trait]
impl Policies for FaultyStore {
    async fn pin(&self, entries: Vec<PolicyEntry>, modules: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.store.pin(entries, modules).await
    }

    async fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        self.store.policy_entry(hash).await
    }

    async fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.module(digest).await
    }

    async fn modules(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        self.store.modules().await
    }

    async fn keep_signatures(&self, signatures: Vec<(Digest, Signature)>) -> Result<(), StoreError> {
        self.store.keep_signatures(signatures).await
    }

    async fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        self.store.signatures(digest).await
    }

    async fn keep_policy_set(&self, set: StoredSet, document: String) -> Result<(), StoreError> {
        self.store.keep_policy_set(set, document).await
    }

    async fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        self.store.policy_set(hash).await
    }

    async fn policy_document(&self, hash: Digest) -> Result<Option<String>, StoreError> {
        self.store.policy_document(hash).await
    }

    async fn policy_sets(&self) -> Result<Vec<StoredSet>, StoreError> {
        self.store.policy_sets().await
    }

    async fn change_policy(&self, change: ChangePolicy) -> Result<Committed, StoreError> {
        self.store.change_policy(change).await
    }

    async fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        self.store.policy_in_force().await
    }

    async fn policy_changes(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<(u64, PolicyChange)>, StoreError> {
        self.store.policy_changes(before, limit).await
    }

    async fn open_policies(&self) -> Result<Vec<OpenPolicy>, StoreError> {
        self.store.open_policies().await
    }
}

#[async_trait]
impl Guards for FaultyStore {
    async fn claim_nonce(&self, nonce: Digest, now: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
        self.store.claim_nonce(nonce, now, until).await
    }

    async fn has_nonce(&self, nonce: &Digest, now: Timestamp) -> Result<bool, StoreError> {
        self.store.has_nonce(nonce, now).await
    }
}

#[async_trait]
impl Documents for FaultyStore {
    async fn keep(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        self.store.keep(key, value).await
    }

    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.recall(key).await
    }
}

#[async_trait]
impl Audit for FaultyStore {
    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError> {
        self.store.append(audit, counts).await
    }

    async fn append_once(
        &self,
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        nonce: Nonce,
    ) -> Result<bool, StoreError> {
        self.faults.apply(self.store.append_once(audit, counts, nonce)).await
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        self.store.audit(after, limit).await
    }
}

#[async_trait]
impl Statistics for FaultyStore {
    async fn counters(&self) -> Result<BTreeMap<Counter, u64>, StoreError> {
        self.store.counters().await
    }

    async fn open_requests(&self) -> Result<Vec<OpenRequests>, StoreError> {
        self.store.open_requests().await
    }

    async fn waiting_personas(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.store.waiting_personas().await
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth, StoreError> {
        self.store.outbox_depth().await
    }
}
