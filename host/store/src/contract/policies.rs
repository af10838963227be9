//! Promises of the port `Policies`.

use std::sync::Arc;

use countersign_core::lifecycle::Digest;
use countersign_core::record::{ChangeFault, PolicyEntry, Signature};

use super::Backend;
use super::harness::{Seen, at_once, commit, create, opened};
use crate::fixtures::*;
use crate::{Committed, OpenPolicy, StoredSet};

pub(crate) async fn pinned_content_is_kept_by_its_hash<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let (one, other) = (policy_entry("deploy"), policy_entry("migrate"));
    let modules = [b"\0asm one".to_vec(), vec![0xff; 300_000], vec![]];
    store.pin(vec![one.clone()], modules[..1].to_vec()).await.unwrap();
    store.pin(vec![one.clone(), other.clone()], modules.to_vec()).await.unwrap();
    store.pin(vec![], vec![]).await.unwrap();
    for entry in [one, other] {
        let kept = store.policy_entry(entry.hash()).await.unwrap();
        assert_eq!(kept.as_ref().map(PolicyEntry::hash), Some(entry.hash()));
        assert_eq!(kept, Some(entry));
    }
    let mut listed: Vec<_> = modules.iter().map(|it| (Digest::of(it), it.len() as u64)).collect();
    listed.sort_unstable();
    assert_eq!(store.modules().await.unwrap(), listed);
    for bytes in modules {
        assert_eq!(store.module(Digest::of(&bytes)).await.unwrap(), Some(bytes));
    }
}

pub(crate) async fn signatures_are_kept_with_what_they_are_over<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let (module, set) = (Digest::of(b"module"), Digest::of(b"set"));
    let [one, two, three] = [1, 2, 3].map(|byte| Signature::from_bytes([byte; 64]));
    assert_eq!(store.signatures(module).await.unwrap(), []);
    store.keep_signatures(vec![]).await.unwrap();
    store.keep_signatures(vec![(module, two), (set, three)]).await.unwrap();
    store.keep_signatures(vec![(module, one), (module, two)]).await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.signatures(module).await.unwrap(), [one, two]);
    assert_eq!(store.signatures(set).await.unwrap(), [three]);
    assert_eq!(store.signatures(Digest::of(b"other")).await.unwrap(), []);
}

pub(crate) async fn policy_sets_are_kept_by_their_hash<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let none = Digest::of(b"unknown");
    assert_eq!(store.policy_sets().await.unwrap(), []);
    assert_eq!(store.policy_set(none).await.unwrap(), None);
    assert_eq!(store.policy_document(none).await.unwrap(), None);
    let (one, other) = (stored_set(&["deploy", "*"], at(1)), stored_set(&["migrate"], at(1)));
    store.keep_policy_set(one.clone(), "version: 1 # é".into()).await.unwrap();
    store.keep_policy_set(other.clone(), "other".into()).await.unwrap();
    // The same entries, from another document and later.
    let again = StoredSet { stored_at: at(9), ..one.clone() };
    store.keep_policy_set(again, "again".into()).await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.policy_set(one.hash).await.unwrap(), Some(one.clone()));
    assert_eq!(store.policy_document(one.hash).await.unwrap().as_deref(), Some("version: 1 # é"));
    assert_eq!(store.policy_sets().await.unwrap(), [other, one]);
}

pub(crate) async fn changes_of_the_set_in_force_are_kept_in_order<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    assert_eq!(store.policy_in_force().await.unwrap(), None);
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let first = change_of(1, None, a);
    assert_eq!(store.change_policy(changing(&first)).await.unwrap(), Committed::Done);
    let refused =
        change_of(2, Some(a), b).failed([ChangeFault { path: "x:1:2".into(), message: "no".into() }]);
    assert_eq!(store.change_policy(changing(&refused)).await.unwrap(), Committed::Done);
    let second = change_of(3, Some(a), b);
    assert_eq!(store.change_policy(changing(&second)).await.unwrap(), Committed::Done);
    let before = (store.policy_changes(u64::MAX, 10).await.unwrap(), Seen::of(&*store).await);

    for from in [None, Some(a), Some(Digest::of(b"c"))] {
        let late = change_of(4, from, a);
        assert_eq!(store.change_policy(changing(&late)).await.unwrap(), Committed::Conflict);
    }
    assert_eq!((store.policy_changes(u64::MAX, 10).await.unwrap(), Seen::of(&*store).await), before);
    drop(store);

    let store = backend.open().await;
    let all = store.policy_changes(u64::MAX, 10).await.unwrap();
    let changes: Vec<_> = all.iter().map(|(_, change)| change.clone()).collect();
    assert_eq!(changes, [second.clone(), refused.clone(), first]);
    let numbers: Vec<u64> = all.iter().map(|(number, _)| *number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]), "{numbers:?}");
    assert_eq!(store.policy_in_force().await.unwrap(), Some((numbers[0], second)));
    assert_eq!(store.policy_changes(numbers[0], 1).await.unwrap(), [(numbers[1], refused)]);
    assert_eq!(store.policy_changes(numbers[2], 10).await.unwrap(), []);
    let seen = Seen::of(&*store).await;
    let events: Vec<_> = seen.audit.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["policy_reloaded", "policy_reload_failed", "policy_reloaded"]);
    assert_eq!(seen.counter("policy_reloads_total"), 3);
}

pub(crate) async fn one_of_many_changes_wins<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = Digest::of(b"first");
    store.change_policy(changing(&change_of(0, None, first))).await.unwrap();
    let changed = at_once(50, |number| {
        let change = change_of(number, Some(first), key(number));
        let store = Arc::clone(&store);
        async move { store.change_policy(changing(&change)).await.unwrap() }
    });
    assert_eq!(changed.await.iter().filter(|changed| **changed == Committed::Done).count(), 1);
    assert_eq!(store.policy_changes(u64::MAX, 100).await.unwrap().len(), 2);
}

pub(crate) async fn open_requests_are_counted_by_policy<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    assert_eq!(store.open_policies().await.unwrap(), []);
    for (number, action, policy) in [(1, "a", "one"), (2, "a", "two"), (3, "a", "one"), (4, "b", "one")] {
        let mut request = request(number);
        let submission = Arc::make_mut(&mut request.submission);
        (submission.action, submission.policy_hash) = (action.into(), Digest::of(policy.as_bytes()));
        create(&*store, &request).await;
    }
    let open = |action: &str, policy: &str, count| OpenPolicy {
        policy: Digest::of(policy.as_bytes()),
        action: action.into(),
        count,
    };
    let counted = async || {
        let mut counted = store.open_policies().await.unwrap();
        counted.sort_by_key(|open| (open.action.clone(), open.count));
        counted
    };
    assert_eq!(counted().await, [open("a", "two", 1), open("a", "one", 2), open("b", "one", 1)]);
    for number in [2, 3] {
        let request = store.request(id(number)).await.unwrap().unwrap();
        let voted = next(&request, at(5), |_| {});
        commit(&*store, &voted).await;
        commit(&*store, &next(&voted, at(6), |request| request.state = approved(at(6)))).await;
    }
    assert_eq!(counted().await, [open("a", "one", 1), open("b", "one", 1)]);
}
