//! What the promises share: opening a store, observing its state, and running tasks at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::{AuditEntry, Counter, Request, RequestId, Timestamp};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::Backend;
use crate::fixtures::{change, claim, new};
use crate::{AuditCursor, Committed, Created, OpenRequests, OutboxDepth, OutboxEntry, ReadyEntry, Store};

pub(super) async fn opened<B: Backend>() -> (B, Arc<dyn Store>) {
    let backend = B::fresh().await;
    let store = backend.open().await;
    (backend, store)
}

/// Starts `count` tasks at the same moment, and waits for them.
pub(super) async fn at_once<T, F>(count: u64, work: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(count as usize));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let (barrier, work) = (Arc::clone(&barrier), work(number));
        tasks.spawn(async move {
            barrier.wait().await;
            work.await
        });
    }
    tasks.join_all().await
}

pub(super) async fn create(store: &dyn Store, request: &Request) {
    assert_eq!(store.create(new(request)).await.unwrap(), Created::New);
}

pub(super) async fn commit(store: &dyn Store, request: &Request) {
    assert_eq!(store.commit(change(request)).await.unwrap(), Committed::Done);
}

/// Claims the ready entries, except those that another worker claims first.
pub(super) async fn take(
    store: &dyn Store,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Vec<OutboxEntry> {
    let mut taken = Vec::new();
    for ReadyEntry { request, effect, .. } in store.ready_outbox(now, limit).await.unwrap() {
        taken.extend(store.claim_outbox(request, effect, claim(now, until)).await.unwrap());
    }
    taken
}

/// Everything of a store that can be observed without knowing any key.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    /// By request; what is about one is in order.
    pub(super) audit: Vec<AuditEntry>,
    pub(super) counters: BTreeMap<Counter, u64>,
    pub(super) depth: OutboxDepth,
    pub(super) due: Vec<(Timestamp, RequestId)>,
    pub(super) open: Vec<OpenRequests>,
    pub(super) waiting: Vec<(String, String, u64)>,
}

impl Seen {
    pub(super) async fn of(store: &dyn Store) -> Seen {
        let mut audit = store.audit(&AuditCursor::default(), usize::MAX).await.unwrap().entries;
        audit.sort_by_key(|entry| entry.request);
        let due = store.due(Timestamp::from_millis(u64::MAX), None, usize::MAX).await.unwrap().requests;
        assert!(due.is_sorted_by_key(|(_, due)| *due), "{due:?}");
        let mut due: Vec<_> = due.into_iter().map(|(id, due)| (due, id)).collect();
        due.sort_unstable();
        let mut open = store.open_requests().await.unwrap();
        open.sort_by_key(|group| (group.action.clone(), group.status));
        let mut waiting = store.waiting_personas().await.unwrap();
        waiting.sort();
        Seen {
            audit,
            counters: store.counters().await.unwrap(),
            depth: store.outbox_depth().await.unwrap(),
            due,
            open,
            waiting,
        }
    }

    pub(super) fn counter(&self, metric: &str) -> u64 {
        self.counters.iter().filter(|(counter, _)| counter.metric == metric).map(|(_, value)| value).sum()
    }
}
