//! Promises that concern all ports together.

use countersign_core::lifecycle::{Digest, Effect};

use super::Backend;
use super::harness::{Seen, commit, create, opened, take};
use crate::fixtures::*;
use crate::{AuditCursor, EXPIRED_KEPT_MS};

pub(crate) async fn what_is_unknown_is_none<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let none = Digest::of(b"unknown");
    assert_eq!(store.request(id(2)).await.unwrap(), None);
    assert_eq!(store.lineage(id(2), 0, 100).await.unwrap(), []);
    assert_eq!(store.idempotent(0, &none, at(0)).await.unwrap(), None);
    assert_eq!(store.policy_entry(none).await.unwrap(), None);
    assert_eq!(store.module(none).await.unwrap(), None);
}

pub(crate) async fn it_can_be_pinged<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let before = Seen::of(&*store).await;
    store.ping().await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(Seen::of(&*store).await, before);
    assert!(!store.backend().is_empty());
}

pub(crate) async fn maintenance_removes_what_expired_long_ago_alone<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let (first, second) = (request_at(1, at(0)), request_at(2, at(0)));
    store.create(with_key(&first, 7, at(100))).await.unwrap();
    store.create(with_key(&second, 8, at(101))).await.unwrap();
    assert!(store.claim_nonce(0, Digest::of(b"one"), at(0), at(101)).await.unwrap());
    let before = Seen::of(&*store).await;
    store.maintain(at(100 + EXPIRED_KEPT_MS)).await.unwrap();
    assert_eq!(Seen::of(&*store).await, before);
    assert_eq!(store.idempotent(0, &key(8), at(100)).await.unwrap(), Some((fingerprint(&second), second)));
    assert!(!store.claim_nonce(0, Digest::of(b"one"), at(100), at(200)).await.unwrap());
    assert_eq!(store.idempotent(0, &key(7), at(0)).await.unwrap(), None, "it is gone");
}

/// A clock that was set ahead and back lets nothing through again.
pub(crate) async fn what_expired_by_a_clock_that_was_ahead_counts_again<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let (first, nonce) = (request_at(1, at(0)), Digest::of(b"one"));
    store.create(with_key(&first, 7, at(100))).await.unwrap();
    assert!(store.claim_nonce(0, nonce, at(0), at(100)).await.unwrap());
    let ahead = at(100 + EXPIRED_KEPT_MS - 1);
    assert!(!store.has_nonce(0, &nonce, ahead).await.unwrap());
    assert_eq!(store.idempotent(0, &key(7), ahead).await.unwrap(), None);
    // Each of these removes what may be removed.
    store.maintain(ahead).await.unwrap();
    store.create(with_key(&request_at(2, ahead), 8, ahead.plus(1))).await.unwrap();
    assert!(store.claim_nonce(0, Digest::of(b"other"), ahead, ahead.plus(1)).await.unwrap());

    assert!(!store.claim_nonce(0, nonce, at(99), at(200)).await.unwrap());
    assert_eq!(store.idempotent(0, &key(7), at(99)).await.unwrap(), Some((fingerprint(&first), first)));
}

pub(crate) async fn reopening_keeps_everything<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let (first, second) = (request(1), request(2));
    store.create(with_key(&first, 7, at(100))).await.unwrap();
    create(&*store, &second).await;
    create(&*store, &again(&first, 3, 1)).await;
    let voted = next(&first, at(5), |_| {});
    commit(&*store, &voted).await;
    commit(&*store, &next(&second, at(6), |request| request.state = denied(at(6)))).await;
    let entry = policy_entry("deploy");
    store.pin(vec![entry.clone()], vec![b"module".to_vec()]).await.unwrap();
    let claimed =
        store.claim_outbox(id(1), Effect::ShowRequest, claim(at(10), at(20))).await.unwrap().unwrap();
    let before = Seen::of(&*store).await;
    let end = store.audit(&AuditCursor::default(), usize::MAX).await.unwrap().next;
    drop(store);

    let store = backend.open().await;
    assert_eq!(Seen::of(&*store).await, before);
    assert_eq!(store.request(first.id).await.unwrap(), Some(voted.clone()));
    assert_eq!(store.lineage(first.id, 0, 100).await.unwrap(), [voted.clone(), again(&first, 3, 1)]);
    assert_eq!(store.idempotent(0, &key(7), at(99)).await.unwrap(), Some((fingerprint(&first), voted)));
    assert_eq!(store.policy_entry(entry.hash()).await.unwrap(), Some(entry));
    assert_eq!(store.module(Digest::of(b"module")).await.unwrap(), Some(b"module".to_vec()));
    assert_eq!(take(&*store, at(19), at(30), 10).await.len(), 2);
    store.finish_outbox(&claimed, claimed.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap().entries, 2);
    // A place in the audit log stays what it is.
    let later = audit(&first, "later");
    store.append(vec![later.clone()], vec![]).await.unwrap();
    assert_eq!(store.audit(&end, 100).await.unwrap().entries, [later]);
}
