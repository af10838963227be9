//! Promises of the port `Salts`.

use std::sync::Arc;

use countersign_core::lifecycle::{PayloadHashVersion, Request, WrappedSalt};

use super::Backend;
use super::harness::{Seen, commit, create, opened};
use crate::NewSalt;
use crate::fixtures::*;

/// As it was before there were salts.
fn without_salt(number: u64) -> Request {
    let mut request = request(number);
    let submission = Arc::make_mut(&mut request.submission);
    (submission.payload_hash_version, submission.salt) = (PayloadHashVersion::One, None);
    request
}

/// The salt of a fixture, under another key.
fn other_salt(number: u64) -> WrappedSalt {
    WrappedSalt { key: "other".into(), ..wrapped_salt(number + 1000) }
}

fn replacement(number: u64) -> NewSalt {
    NewSalt { request: id(number), from: wrapped_salt(number), to: other_salt(number) }
}

pub(crate) async fn salts_are_read_in_pages<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    for number in [4, 2, 5, 1] {
        create(&*store, &request(number)).await;
    }
    create(&*store, &without_salt(3)).await;
    let ended = next(&request(2), at(5), |request| request.state = approved(at(5)));
    commit(&*store, &ended).await;
    drop(store);
    let store = backend.open().await;
    let expected = [1, 2, 4, 5].map(|number| (id(number), wrapped_salt(number)));
    assert_eq!(store.salts(None, 10).await.unwrap(), expected);
    assert_eq!(store.salts(None, 2).await.unwrap(), expected[..2]);
    assert_eq!(store.salts(Some(id(2)), 2).await.unwrap(), expected[2..]);
    assert_eq!(store.salts(Some(id(5)), 2).await.unwrap(), []);
    assert_eq!(store.request(id(3)).await.unwrap(), Some(without_salt(3)));
    assert_eq!(store.request(id(2)).await.unwrap(), Some(ended));
}

pub(crate) async fn a_salt_is_replaced_while_it_is_what_it_was<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in [1, 2, 3] {
        create(&*store, &request(number)).await;
    }
    create(&*store, &without_salt(4)).await;
    let ended = next(&request(2), at(5), |request| request.state = approved(at(5)));
    commit(&*store, &ended).await;
    let before = Seen::of(&*store).await;
    let stale = NewSalt { from: other_salt(3), ..replacement(3) };
    let renamed = NewSalt { from: WrappedSalt { key: "other".into(), ..wrapped_salt(3) }, ..replacement(3) };
    let all = vec![replacement(1), replacement(2), stale, renamed, replacement(4), replacement(99)];
    assert_eq!(store.replace_salts(all.clone()).await.unwrap(), 2);
    assert_eq!(store.replace_salts(all).await.unwrap(), 0, "they are no longer what they were");
    let expected = [(id(1), other_salt(1)), (id(2), other_salt(2)), (id(3), wrapped_salt(3))];
    assert_eq!(store.salts(None, 10).await.unwrap(), expected);
    let mut replaced = ended;
    Arc::make_mut(&mut replaced.submission).salt = Some(other_salt(2));
    assert_eq!(store.request(id(2)).await.unwrap(), Some(replaced), "nothing else has changed");
    assert_eq!(Seen::of(&*store).await, before);
}

/// A gateway may have read the request before the salt was replaced.
pub(crate) async fn a_commit_leaves_the_salt_as_it_is_stored<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let read_before = request(1);
    create(&*store, &read_before).await;
    assert_eq!(store.replace_salts(vec![replacement(1)]).await.unwrap(), 1);
    let mut voted = next(&read_before, at(5), |_| {});
    commit(&*store, &voted).await;
    Arc::make_mut(&mut voted.submission).salt = Some(other_salt(1));
    assert_eq!(store.request(id(1)).await.unwrap(), Some(voted));
}
