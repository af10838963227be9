//! Promises of the port `Guards`.

use std::sync::Arc;

use countersign_core::lifecycle::{Count, Digest, Request};

use super::Backend;
use super::harness::{Seen, at_once, create, opened};
use crate::fixtures::*;
use crate::{Commit, Committed, Create, Created, MostOpen, Nonce, Store};

/// That of the nonces, and of the requests that are written with them.
const SHARD: u16 = 0;

pub(crate) async fn a_nonce_is_claimed_once<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
    assert!(store.claim_nonce(SHARD, one, at(0), at(10)).await.unwrap());
    assert!(!store.claim_nonce(SHARD, one, at(0), at(99)).await.unwrap());
    assert!(
        !store.claim_nonce(SHARD, one, at(9), at(99)).await.unwrap(),
        "a replay does not make it last longer"
    );
    assert!(store.claim_nonce(SHARD, other, at(9), at(19)).await.unwrap());
    assert!(store.claim_nonce(SHARD, one, at(10), at(20)).await.unwrap());
    drop(store);
    let store = backend.open().await;
    assert!(!store.claim_nonce(SHARD, one, at(19), at(30)).await.unwrap());
    assert!(store.claim_nonce(SHARD, other, at(19), at(30)).await.unwrap());

    let claims = at_once(50, |_| {
        let store = Arc::clone(&store);
        async move { store.claim_nonce(SHARD, Digest::of(b"third"), at(40), at(50)).await.unwrap() }
    });
    assert_eq!(claims.await.into_iter().filter(|claimed| *claimed).count(), 1);
    for number in 0..30_u8 {
        let (made, nonce) = (u64::from(number) + 100, Digest::of(&[number]));
        assert!(store.claim_nonce(SHARD, nonce, at(made), at(made + 1)).await.unwrap());
    }
}

fn changing_with(request: &Request, nonce: Nonce) -> Commit {
    Commit { nonce: Some(nonce), ..change(request) }
}

fn creating_with(request: &Request, nonce: Nonce) -> Create {
    Create { nonce: Some(nonce), ..new(request) }
}

async fn append_with(store: &dyn Store, nonce: Nonce) -> bool {
    let counts = vec![Count::one("appended_total", &[])];
    store.append_once(vec![audit(&request(0), "refused")], counts, nonce).await.unwrap()
}

/// A write of each kind with a nonce is stored whole; the same nonce again, with whatever write, stores nothing.
pub(crate) async fn a_nonce_is_stored_with_its_write<B: Backend>() {
    let (backend, mut store) = opened::<B>().await;
    let first = request(1);
    let second = next(&first, at(1), |_| {});
    assert!(!store.has_nonce(SHARD, &key(1), at(0)).await.unwrap());
    assert_eq!(store.create(creating_with(&first, nonce(1, 10))).await.unwrap(), Created::New);
    assert_eq!(store.commit(changing_with(&second, nonce(2, 10))).await.unwrap(), Committed::Done);
    assert!(append_with(&*store, nonce(3, 10)).await);
    let seen = Seen::of(&*store).await;
    assert_eq!((seen.audit.len(), seen.counter("appended_total")), (3, 1));

    let third = next(&second, at(2), |_| {});
    for reopened in [false, true] {
        if reopened {
            drop(store);
            store = backend.open().await;
        }
        for number in 1..=3 {
            assert!(store.has_nonce(SHARD, &key(number), at(9)).await.unwrap(), "{number}");
            assert!(!store.has_nonce(SHARD, &key(number), at(10)).await.unwrap(), "{number} has expired");
            assert!(!store.has_nonce(SHARD, &key(number + 100), at(0)).await.unwrap(), "{number}");
            // The nonce is looked at first: a repeated write is no conflict, whatever version it is of.
            for request in [&second, &third] {
                let repeated = store.commit(changing_with(request, nonce(number, 99))).await.unwrap();
                assert_eq!(repeated, Committed::Repeated, "{number}");
            }
            let repeated = store.create(creating_with(&request(7), nonce(number, 99))).await.unwrap();
            assert_eq!(repeated, Created::Repeated, "{number}");
            assert!(!append_with(&*store, nonce(number, 99)).await, "{number}");
            assert!(!store.claim_nonce(SHARD, key(number), at(9), at(99)).await.unwrap(), "{number}");
        }
        assert_eq!(store.request(first.id).await.unwrap().as_ref(), Some(&second));
        assert_eq!(store.request(id(7)).await.unwrap(), None);
        assert_eq!(Seen::of(&*store).await, seen);
    }
    // Once it has expired it can be used again.
    let later = Nonce { at: at(10), ..nonce(2, 20) };
    assert_eq!(store.commit(changing_with(&third, later)).await.unwrap(), Committed::Done);
    assert!(store.has_nonce(SHARD, &key(2), at(19)).await.unwrap());
}

pub(crate) async fn what_stores_nothing_uses_no_nonce_up<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    assert_eq!(store.create(with_key(&first, 7, at(100))).await.unwrap(), Created::New);
    let too_far = next(&next(&first, at(1), |_| {}), at(2), |_| {});
    assert_eq!(store.commit(changing_with(&too_far, nonce(1, 10))).await.unwrap(), Committed::Conflict);
    let taken = store.create(creating_with(&first, nonce(1, 10))).await.unwrap();
    assert_eq!(taken, Created::LineageConflict);
    let known = Create { nonce: Some(nonce(1, 10)), ..with_key(&request(2), 7, at(100)) };
    assert!(matches!(store.create(known).await.unwrap(), Created::Known(..)));
    let crowded = Create {
        most_open: MostOpen { in_all: Some(0), of_action: None },
        ..creating_with(&by_caller(request(3)), nonce(1, 10))
    };
    assert_eq!(store.create(crowded).await.unwrap(), Created::TooManyOpen);

    assert!(!store.has_nonce(SHARD, &key(1), at(0)).await.unwrap());
    let second = next(&first, at(1), |_| {});
    assert_eq!(store.commit(changing_with(&second, nonce(1, 10))).await.unwrap(), Committed::Done);
}

fn by_caller(mut request: Request) -> Request {
    Arc::make_mut(&mut request.submission).caller = Some("ci".into());
    request
}

pub(crate) async fn a_nonce_is_used_by_one_of_many_writes<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in 0..60 {
        create(&*store, &request_in(SHARD, number)).await;
    }
    let before = Seen::of(&*store).await.audit.len();
    // Each write would be stored without the others.
    let stored = at_once(90, |number| {
        let store = Arc::clone(&store);
        async move {
            let nonce = nonce(7, 10);
            match number % 3 {
                0 => {
                    let changed = next(&request_in(SHARD, number / 3), at(1), |_| {});
                    store.commit(changing_with(&changed, nonce)).await.unwrap() == Committed::Done
                }
                1 => {
                    let new = creating_with(&request_in(SHARD, 100 + number), nonce);
                    store.create(new).await.unwrap() == Created::New
                }
                _ => append_with(&*store, nonce).await,
            }
        }
    });
    assert_eq!(stored.await.into_iter().filter(|stored| *stored).count(), 1);
    assert_eq!(Seen::of(&*store).await.audit.len(), before + 1);
}

/// An event counts or is refused: what was stored as the one is not stored as the other later.
pub(crate) async fn one_of_two_outcomes_is_stored<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let refused = |of: Nonce| Nonce { digest: of.excluded_by, excluded_by: of.digest, ..of };
    let second = next(&first, at(1), |_| {});
    let counted = nonce(1, 10);
    assert_eq!(store.commit(changing_with(&second, counted)).await.unwrap(), Committed::Done);
    assert!(!append_with(&*store, refused(counted)).await);

    let other = nonce(2, 10);
    assert!(append_with(&*store, refused(other)).await);
    let third = next(&second, at(2), |_| {});
    assert_eq!(store.commit(changing_with(&third, other)).await.unwrap(), Committed::Repeated);
    assert_eq!(store.create(creating_with(&request(2), other)).await.unwrap(), Created::Repeated);
    assert_eq!(store.request(first.id).await.unwrap(), Some(second));
    assert!(!store.has_nonce(SHARD, &other.digest, at(0)).await.unwrap());
    assert!(store.has_nonce(SHARD, &other.excluded_by, at(0)).await.unwrap());
}
