//! Promises of a store that several instances have open at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::lifecycle::{Digest, Effect, Request, RequestId, Timestamp};
use tokio::sync::broadcast::Receiver;

use super::SharedBackend;
use super::harness::{Seen, at_once, commit, create, take};
use crate::fixtures::*;
use crate::{
    ARCHIVAL_CLAIM_MS, Change, Commit, Committed, Created, MostOpen, Rate, Removal, RemovedRequest, Shared,
    Store,
};

/// Two instances.
async fn both<B: SharedBackend>() -> (B, [Arc<dyn Store>; 2]) {
    let backend = B::fresh().await;
    let stores = [backend.open().await, backend.open().await];
    (backend, stores)
}

fn shared(store: &Arc<dyn Store>) -> &dyn Shared {
    store.shared().unwrap()
}

pub(crate) async fn what_one_stores_the_other_reads<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    let first = request(1);
    create(&*one, &first).await;
    assert_eq!(other.request(first.id).await.unwrap(), Some(first.clone()));
    let voted = next(&first, at(1), |_| {});
    commit(&*other, &voted).await;
    assert_eq!(one.commit(change(&voted)).await.unwrap(), Committed::Conflict);
    assert_eq!(one.request(first.id).await.unwrap(), Some(voted));
    assert_eq!(Seen::of(&*one).await, Seen::of(&*other).await);
}

pub(crate) async fn instances_at_once_decide_once<B: SharedBackend>() {
    let (_backend, stores) = both::<B>().await;
    let of = |number: u64| Arc::clone(&stores[usize::try_from(number % 2).unwrap()]);
    for number in 0..40 {
        create(&*of(number), &request(number)).await;
    }
    let taken = at_once(20, |number| {
        let store = of(number);
        async move { take(&*store, at(1), at(50), 40).await }
    });
    let taken: Vec<_> = taken.await.into_iter().flatten().map(|entry| entry.request).collect();
    assert_eq!(taken.len(), 40);
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>().len(), 40);

    let committed = at_once(40, |number| {
        let (store, changed) = (of(number), next(&request(7), at(number), |_| {}));
        let nonce = Some(nonce(number % 4, 10));
        async move { store.commit(Commit { nonce, ..change(&changed) }).await.unwrap() }
    });
    assert_eq!(committed.await.into_iter().filter(|made| *made == Committed::Done).count(), 1);

    let most_open = MostOpen { in_all: Some(5), of_action: None };
    let created = at_once(20, |number| {
        let (store, request) = (of(number), request(100 + number));
        async move { store.create(crate::Create { most_open, ..caller_new(request) }).await.unwrap() }
    });
    assert_eq!(created.await.into_iter().filter(|made| *made == Created::New).count(), 5);
}

fn caller_new(mut request: countersign_core::lifecycle::Request) -> crate::Create {
    Arc::make_mut(&mut request.submission).caller = Some("pipeline".into());
    new(&request)
}

pub(crate) async fn instances_have_one_clock<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    let mut before = shared(&one).now().await.unwrap();
    // It is a time of this century.
    assert!(before > Timestamp::from_millis(1_700_000_000_000), "{before}");
    for store in [&other, &one, &other] {
        let now = shared(store).now().await.unwrap();
        assert!(now >= before && now.since(before) < 60_000, "{before} {now}");
        before = now;
    }
}

pub(crate) async fn changes_of_others_are_heard<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    let (mut heard_by_one, mut heard_by_other) = (shared(&one).changes(), shared(&other).changes());
    // Whether an instance listens already shows when it hears something.
    hears(&mut heard_by_other, &one, "access:one").await;
    hears(&mut heard_by_one, &other, "access:other").await;

    let first = request(1);
    create(&*one, &first).await;
    expect(&mut heard_by_other, Change::Request { id: first.id, version: 1 }).await;
    let ended = next(&first, at(1), |request| request.state = approved(at(1)));
    commit(&*other, &ended).await;
    expect(&mut heard_by_one, Change::Request { id: first.id, version: 2 }).await;
    assert_eq!(other.commit(change(&ended)).await.unwrap(), Committed::Conflict);
    let put = change_of(1, None, Digest::of(b"set"));
    other.change_policy(changing(&put)).await.unwrap();
    expect(&mut heard_by_one, Change::PolicyInForce).await;
    other.keep("key:last", vec![]).await.unwrap();
    // Nothing else was announced, and an instance does not hear of itself.
    expect(&mut heard_by_one, Change::Document { key: "key:last".into() }).await;
    one.keep("key:last", vec![]).await.unwrap();
    expect(&mut heard_by_other, Change::Document { key: "key:last".into() }).await;
}

/// Stores a document until another instance hears of it, and hears of nothing more.
async fn hears(receiver: &mut Receiver<Change>, writer: &Arc<dyn Store>, key: &str) {
    let heard = Change::Document { key: key.into() };
    loop {
        writer.keep(key, vec![1]).await.unwrap();
        if let Ok(Ok(change)) = tokio::time::timeout(Duration::from_millis(20), receiver.recv()).await
            && change == heard
        {
            break;
        }
    }
    // Those that were stored before are heard late.
    writer.keep("key:end", vec![]).await.unwrap();
    while receiver.recv().await.unwrap() != (Change::Document { key: "key:end".into() }) {}
}

async fn expect(receiver: &mut Receiver<Change>, change: Change) {
    let heard = tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await;
    assert_eq!(heard.ok().and_then(Result::ok), Some(change));
}

pub(crate) async fn a_lease_has_one_holder<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    let (one, other) = (shared(&one), shared(&other));
    assert!(one.lease("sender", 1, 60_000).await.unwrap());
    assert!(!other.lease("sender", 2, 60_000).await.unwrap());
    assert!(one.lease("sender", 1, 60_000).await.unwrap(), "its holder renews it");
    assert!(other.lease("another", 2, 60_000).await.unwrap());
    other.release("sender", 2).await.unwrap();
    assert!(!other.lease("sender", 2, 60_000).await.unwrap(), "only its holder gives it back");
    one.release("sender", 1).await.unwrap();
    assert!(other.lease("sender", 2, 60_000).await.unwrap());
    // Once it has ended, another one takes it.
    assert!(other.lease("sender", 2, 30).await.unwrap());
    while !one.lease("sender", 1, 60_000).await.unwrap() {}
    assert!(!other.lease("sender", 2, 60_000).await.unwrap());
}

pub(crate) async fn instances_know_of_each_other<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    let (one, other) = (shared(&one), shared(&other));
    assert_eq!(one.announce(u64::MAX, 60_000).await.unwrap(), [u64::MAX]);
    assert_eq!(other.announce(9, 60_000).await.unwrap(), [9, u64::MAX]);
    assert_eq!(one.announce(u64::MAX, 60_000).await.unwrap(), [9, u64::MAX]);
    assert_eq!(other.announce(10, 20).await.unwrap(), [9, 10, u64::MAX]);
    while one.announce(u64::MAX, 60_000).await.unwrap() != [9, u64::MAX] {}
    assert_eq!(other.announce(9, 0).await.unwrap(), [u64::MAX], "it is forgotten at once");
}

pub(crate) async fn a_bucket_is_shared<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    let (one, other) = (shared(&one), shared(&other));
    let slow = Rate { capacity: 3, per_sec: 0.001 };
    for store in [one, other, one] {
        assert_eq!(store.take("web", slow).await.unwrap(), None);
    }
    for store in [one, other] {
        let wait = store.take("web", slow).await.unwrap().unwrap();
        assert!((900_000..=1_000_000).contains(&wait), "{wait}");
    }
    assert_eq!(other.take("nightly", slow).await.unwrap(), None, "another one");
    let quick = Rate { capacity: 1, per_sec: 20.0 };
    assert_eq!(one.take("quick", quick).await.unwrap(), None);
    let wait = other.take("quick", quick).await.unwrap().unwrap();
    assert!((1..=50).contains(&wait), "{wait}");
    while one.take("quick", quick).await.unwrap().is_some() {}
    let never = Rate { capacity: 0, per_sec: 0.0 };
    assert!(one.take("never", never).await.unwrap().is_some());
}

/// What one instance enqueues and leaves behind, another delivers.
pub(crate) async fn another_instance_goes_on<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    create(&*one, &request(1)).await;
    let lost = one.claim_outbox(id(1), Effect::ShowRequest, claim(at(0), at(10))).await.unwrap().unwrap();
    drop(one);
    assert_eq!(other.ready_outbox(at(9), 10).await.unwrap(), []);
    let taken = take(&*other, at(10), at(20), 10).await;
    assert_eq!(taken.iter().map(|entry| (entry.request, entry.revision)).collect::<Vec<_>>(), [(id(1), 1)]);
    // Its claim is another one, although it may have been made for the same time.
    other.retry_outbox(&lost, at(11), at(11), true).await.unwrap();
    assert_eq!(other.ready_outbox(at(12), 10).await.unwrap(), []);
    other.finish_outbox(&taken[0], 1).await.unwrap();
    assert_eq!(other.outbox_depth().await.unwrap().entries, 0);
}

/// Of several archives at once, each request is claimed by one. Whoever has a claim can claim again, and remove.
pub(crate) async fn requests_are_claimed_for_one_archive<B: SharedBackend>() {
    let (_backend, stores) = both::<B>().await;
    let made: Vec<Request> = (0..40)
        .map(|number| {
            let mut made = request(number);
            made.state = denied(at(0));
            made
        })
        .collect();
    for request in &made {
        create(&*stores[0], request).await;
    }
    let ids: Vec<RequestId> = made.iter().map(|request| request.id).collect();
    let claimed = at_once(2, |which| {
        let (store, ids) = (Arc::clone(&stores[which as usize]), ids.clone());
        async move { (which, store.claim_archival(&ids, which, at(0)).await.unwrap()) }
    });
    let mut claimed = claimed.await;
    claimed.sort_unstable_by_key(|(which, _)| *which);
    let claimed: Vec<Vec<RequestId>> = claimed.into_iter().map(|(_, own)| own).collect();
    let mut all = claimed.concat();
    all.sort_unstable();
    assert_eq!(all, ids);

    let again = stores[0].claim_archival(&ids, 0, at(1)).await.unwrap();
    let sorted = |mut ids: Vec<RequestId>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(again), sorted(claimed[0].clone()));
    let removals = made.iter().map(|request| Removal {
        lineage: request.id,
        newest: request.id,
        requests: vec![RemovedRequest::of(request)],
        counts: vec![],
    });
    let removals: Vec<Removal> = removals.collect();
    let nobody = stores[0].remove(removals.clone(), None).await.unwrap();
    assert!(nobody.iter().all(|done| !done));
    let removed = stores[0].remove(removals.clone(), Some(0)).await.unwrap();
    assert_eq!(removed.iter().filter(|done| **done).count(), claimed[0].len());
    // An archive that is not heard of for a day has lost what it claimed.
    let left = sorted(claimed[1].clone());
    let soon = stores[0].claim_archival(&left, 0, at(ARCHIVAL_CLAIM_MS - 1)).await.unwrap();
    assert_eq!(soon, []);
    let later = stores[0].claim_archival(&left, 0, at(ARCHIVAL_CLAIM_MS)).await.unwrap();
    assert_eq!(sorted(later), left);
    assert_eq!(stores[1].claim_archival(&left, 1, at(ARCHIVAL_CLAIM_MS)).await.unwrap(), []);
}

pub(crate) async fn instances_know_how_far_their_audit_files_are<B: SharedBackend>() {
    let (_backend, [one, other]) = both::<B>().await;
    let (one, other) = (shared(&one), shared(&other));
    assert_eq!(one.audit_files().await.unwrap(), [] as [Vec<u64>; 0]);
    one.announce_audit_file(u64::MAX, &[], FOREVER).await.unwrap();
    other.announce_audit_file(2, &[4, 0, u64::MAX], FOREVER).await.unwrap();
    let seen = async || {
        let mut files = one.audit_files().await.unwrap();
        files.sort_unstable();
        files
    };
    assert_eq!(seen().await, [vec![], vec![4, 0, u64::MAX]]);
    // The last word counts, for as long as it was said to.
    one.announce_audit_file(u64::MAX, &[1, 2, 3], FOREVER).await.unwrap();
    assert_eq!(seen().await, [[1, 2, 3], [4, 0, u64::MAX]]);
    other.announce_audit_file(2, &[9, 9, 9], 0).await.unwrap();
    assert_eq!(seen().await, [[1, 2, 3]]);
}

/// Longer than any test takes, in milliseconds.
const FOREVER: u64 = 1_000_000_000;
