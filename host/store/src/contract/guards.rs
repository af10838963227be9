//! Promises of the port `Guards`.

use std::sync::Arc;

use countersign_core::lifecycle::Digest;

use super::Backend;
use super::harness::{at_once, opened};
use crate::fixtures::*;

pub(crate) async fn a_nonce_is_claimed_once<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
    assert!(store.claim_nonce(one, at(0), at(10)).await.unwrap());
    assert!(!store.claim_nonce(one, at(0), at(99)).await.unwrap());
    assert!(!store.claim_nonce(one, at(9), at(99)).await.unwrap(), "a replay does not make it last longer");
    assert!(store.claim_nonce(other, at(9), at(19)).await.unwrap());
    assert!(store.claim_nonce(one, at(10), at(20)).await.unwrap());
    drop(store);
    let store = backend.open().await;
    assert!(!store.claim_nonce(one, at(19), at(30)).await.unwrap());
    assert!(store.claim_nonce(other, at(19), at(30)).await.unwrap());

    let claims = at_once(50, |_| {
        let store = Arc::clone(&store);
        async move { store.claim_nonce(Digest::of(b"third"), at(40), at(50)).await.unwrap() }
    });
    assert_eq!(claims.await.into_iter().filter(|claimed| *claimed).count(), 1);
    for number in 0..30_u8 {
        let (made, nonce) = (u64::from(number) + 100, Digest::of(&[number]));
        assert!(store.claim_nonce(nonce, at(made), at(made + 1)).await.unwrap());
    }
}
