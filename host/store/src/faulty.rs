//! A store whose calls go wrong on demand, for tests of what the gateway does then. It passes everything on to a real one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use countersign_core::lifecycle::{
    AuditEntry, Count, Counter, Digest, Effect, Request, RequestId, Timestamp, WrappedSalt,
};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature, SlackPost, Slot};
use tokio::sync::watch;

use crate::*;

/// What becomes of the calls of a [`FaultyStore`]. `name` is that of the method.
pub trait Faulty: Send + Sync + 'static {
    /// A call that only reads.
    fn read<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        let _ = name;
        call
    }

    /// A call that writes.
    fn write<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;

    /// The store was asked to store a version of a request, and has (`stored`) or has not.
    fn version(&self, request: &Request, audit: &[AuditEntry], stored: bool) {
        let _ = (request, audit, stored);
    }

    /// The store has stored that something was refused.
    fn refused(&self, audit: &[AuditEntry]) {
        let _ = audit;
    }
}

/// A store with faults.
pub struct FaultyStore<F> {
    /// The one without.
    pub store: Arc<dyn Store>,
    /// What goes wrong.
    pub faults: F,
}

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

/// The fault that a test has set.
#[derive(Clone, Debug)]
pub struct Faults {
    fault: Arc<watch::Sender<Fault>>,
    unreadable: Arc<AtomicBool>,
    corrupt: Arc<Mutex<Option<&'static str>>>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            fault: Arc::new(watch::Sender::new(Fault::None)),
            unreadable: Arc::default(),
            corrupt: Arc::default(),
        }
    }
}

impl Faults {
    /// Every write has this fault from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Whether every read fails from now on.
    pub fn set_unreadable(&self, unreadable: bool) {
        self.unreadable.store(unreadable, Ordering::Relaxed);
    }

    /// The next read by the method of this name finds a value that cannot be read.
    pub fn corrupt_next(&self, name: &'static str) {
        *self.corrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
    }

    fn is_corrupt(&self, name: &'static str) -> bool {
        let mut corrupt = self.corrupt.lock().unwrap_or_else(PoisonError::into_inner);
        corrupt.take_if(|next| *next == name).is_some()
    }
}

fn failed(detail: String) -> StoreError {
    StoreError::Unavailable { backend: "faulty", fault: StoreFault::Other, detail }
}

impl Faulty for Faults {
    async fn read<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if self.is_corrupt(name) {
            let detail = "it is broken".to_owned();
            return Err(StoreError::Corrupt {
                table: name,
                column: "value",
                key: "a key".to_owned(),
                detail,
            });
        }
        if self.unreadable.load(Ordering::Relaxed) { Err(failed(name.to_owned())) } else { call.await }
    }

    async fn write<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if !matches!(name, "create" | "commit" | "append" | "append_once") {
            return call.await;
        }
        let mut faults = self.fault.subscribe();
        let fault = faults.wait_for(|fault| *fault != Fault::Held).await.map_or(Fault::None, |fault| *fault);
        match fault {
            Fault::None | Fault::Held => call.await,
            Fault::NotStored => Err(failed(format!("{fault:?}"))),
            Fault::Stored => call.await.and_then(|_| Err(failed(format!("{fault:?}")))),
        }
    }
}

macro_rules! passed_on {
    ($($port:ident { $($kind:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)* } $({ $($own:tt)* })?)*) => {$(
        #[async_trait]
        impl<F: Faulty> $port for FaultyStore<F> {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$result, StoreError> {
                self.faults.$kind(stringify!($name), self.store.$name($($argument),*)).await
            })*
            $($($own)*)?
        }
    )*};
}

passed_on! {
    Audit {
        write append(audit: Vec<AuditEntry>, counts: Vec<Count>) -> ();
        read audit_log(range: AuditRange, after: &AuditCursor, limit: usize) -> LogPage;
        read audit(after: &AuditCursor, limit: usize) -> AuditPage;
        read audit_sizes() -> Vec<u64>;
        read audit_entries_at(numbers: &[u64]) -> Option<Vec<Option<LogEntry>>>;
        read audit_before(place: &AuditCursor) -> Vec<LogEntry>;
        write append_to(partition: u16, entry: AuditEntry) -> u64;
        write remove_audit(partition: u16, through: u64) -> ();
        read audit_checkpoint() -> Option<KeptCheckpoint>;
        write keep_audit_checkpoint(checkpoint: KeptCheckpoint) -> Committed;
    } {
        async fn append_once(
            &self,
            audit: Vec<AuditEntry>,
            counts: Vec<Count>,
            nonce: Nonce,
        ) -> Result<bool, StoreError> {
            let entries = audit.clone();
            let append = async {
                let appended = self.store.append_once(audit, counts, nonce).await;
                if let Ok(true) = appended {
                    self.faults.refused(&entries);
                }
                appended
            };
            self.faults.write("append_once", append).await
        }
    }
    Dispatches {
        read ready_dispatches(now: Timestamp, limit: usize) -> Vec<(RequestId, String)>;
        write claim_dispatch(request: RequestId, target: &str, claim: Claim) -> Option<Dispatch>;
        write renew_dispatch(request: RequestId, target: &str, claim: Claim) -> bool;
        write settle_dispatch(dispatch: &Dispatch, now: Timestamp, settled: Settled) -> ();
        read dead_letters(target: &str, limit: usize) -> Vec<DeadLetter>;
        write revive_dispatch(request: RequestId, target: &str, now: Timestamp, audit: AuditEntry) -> bool;
        write drop_dispatches(target: &str, limit: usize) -> u64;
        read dispatch_depth() -> Vec<DispatchDepth>;
    }
    Documents {
        write keep(key: &str, value: Vec<u8>) -> ();
        write replace(key: &str, before: Option<Vec<u8>>, value: Vec<u8>) -> bool;
        read recall(key: &str) -> Option<Vec<u8>>;
    }
    Guards {
        write claim_nonce(shard: u16, nonce: Digest, now: Timestamp, until: Timestamp) -> bool;
        read has_nonce(shard: u16, nonce: &Digest, now: Timestamp) -> bool;
    }
    Messages {
        read slack_post(request: RequestId, slot: Slot) -> Option<SlackPost>;
        write keep_slack_post(keep: KeepPost) -> Committed;
        read stale_slack_posts(now: Timestamp, limit: usize) -> Vec<StalePost>;
        write claim_refresh(request: RequestId, slot: Slot, now: Timestamp, until: Timestamp) -> bool;
    }
    Outbox {
        read ready_outbox(now: Timestamp, limit: usize) -> Vec<ReadyEntry>;
        write claim_outbox(request: RequestId, effect: Effect, claim: Claim) -> Option<OutboxEntry>;
        write renew_outbox(request: RequestId, effect: Effect, claim: Claim) -> bool;
        write finish_outbox(entry: &OutboxEntry, delivered: u64) -> ();
        write retry_outbox(entry: &OutboxEntry, now: Timestamp, at: Timestamp, failed: bool) -> ();
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
        write remove_policy_set(removal: RemovePolicySet) -> Committed;
        read open_policies() -> Vec<OpenPolicy>;
    }
    Requests {
        read request(id: RequestId) -> Option<Request>;
        read idempotent(shard: u16, key: &Digest, now: Timestamp) -> Option<(Digest, Request)>;
        read lineage(lineage: RequestId, from: u32, limit: usize) -> Vec<Request>;
        read newest_of_lineage(lineage: RequestId) -> Option<Request>;
        read recent_in_lineage(lineage: RequestId, since: Timestamp, limit: usize) -> Vec<Timestamp>;
        read due(now: Timestamp, after: Option<(Timestamp, RequestId)>, limit: usize) -> Due;
        read next_due(after: Timestamp) -> Option<Timestamp>;
        read newest(before: Option<RequestId>, limit: usize) -> Vec<RequestId>;
        read with_supersede_key(key: &Digest, request: Option<RequestId>) -> Vec<RequestId>;
    } {
        async fn create(&self, new: Create) -> Result<Created, StoreError> {
            let (request, audit) = (new.request.clone(), new.audit.clone());
            let create = async {
                let created = self.store.create(new).await;
                self.faults.version(&request, &audit, matches!(created, Ok(Created::New)));
                created
            };
            self.faults.write("create", create).await
        }

        async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
            let (request, audit) = (commit.request.clone(), commit.audit.clone());
            let commit = async {
                let committed = self.store.commit(commit).await;
                self.faults.version(&request, &audit, matches!(committed, Ok(Committed::Done)));
                committed
            };
            self.faults.write("commit", commit).await
        }
    }
    Retention {
        read ended(until: Timestamp, limit: usize) -> Vec<RequestId>;
        write put_off(requests: Vec<(RequestId, Timestamp)>) -> ();
        read removable(lineage: RequestId, limit: usize) -> Vec<Removable>;
        write claim_archival(requests: &[RequestId], archive: u64, now: Timestamp) -> Vec<RequestId>;
        write remove(removals: Vec<Removal>, archive: Option<u64>) -> Vec<bool>;
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
    Store {
        write ping() -> ();
        write maintain(now: Timestamp) -> ();
        write close() -> ();
    } {
        fn backend(&self) -> &'static str {
            self.store.backend()
        }

        fn shared(&self) -> Option<&dyn Shared> {
            self.store.shared()
        }

        async fn failed(&self) {
            self.store.failed().await;
        }
    }
}
