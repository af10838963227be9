//! Promises of the port `Policies`.

use std::sync::Arc;

use countersign_core::lifecycle::{AuditEntry, AuditEvent, Count, Digest};
use countersign_core::record::{ChangeFault, PolicyEntry, Signature};

use super::Backend;
use super::harness::{Seen, at_once, commit, create, opened};
use crate::fixtures::*;
use crate::{Committed, OpenPolicy, RemovePolicySet, Store, StoredSet, policy_set_use};

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

const STORED: &str = "policy-set:stored";

/// Stores two sets, of which the second one is in force, and returns the removal of the first.
async fn two_sets(store: &dyn Store) -> RemovePolicySet {
    let (own, shared) = (policy_entry("deploy"), policy_entry("migrate"));
    let modules = [b"own".to_vec(), b"shared".to_vec()];
    store.pin(vec![own.clone(), shared], modules.to_vec()).await.unwrap();
    let (one, other) = (stored_set(&["deploy", "migrate"], at(1)), stored_set(&["migrate"], at(1)));
    for set in [&one, &other] {
        store.keep_policy_set(set.clone(), "document".into()).await.unwrap();
        store.keep(&policy_set_use(set.hash), b"1".to_vec()).await.unwrap();
    }
    store.keep(STORED, b"1".to_vec()).await.unwrap();
    for signed in [one.hash, other.hash, Digest::of(&modules[0]), Digest::of(&modules[1])] {
        store.keep_signatures(vec![(signed, Signature::from_bytes([7; 64]))]).await.unwrap();
    }
    store.change_policy(changing(&change_of(2, None, one.hash))).await.unwrap();
    store.change_policy(changing(&change_of(3, Some(one.hash), other.hash))).await.unwrap();
    RemovePolicySet {
        hash: one.hash,
        sets: vec![other.hash, one.hash],
        documents: vec![
            (STORED.into(), Some(b"1".to_vec())),
            (policy_set_use(one.hash), Some(b"1".to_vec())),
            ("policy-set:none".into(), None),
        ],
        entries: vec![own.hash()],
        modules: vec![Digest::of(&modules[0])],
        audit: vec![AuditEntry::of_admin(at(9), AuditEvent::PolicySetRemoved, None, Default::default())],
        counts: vec![Count::of("purged_policy_sets_total", &[], 1)],
    }
}

pub(crate) async fn a_removed_policy_set_is_gone_with_what_goes_with_it<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let removal = two_sets(&*store).await;
    assert_eq!(store.remove_policy_set(removal.clone()).await.unwrap(), Committed::Done);
    drop(store);
    let store = backend.open().await;
    let (gone, other) = (removal.hash, removal.sets[0]);
    assert_eq!(store.policy_set(gone).await.unwrap(), None);
    assert_eq!(store.policy_document(gone).await.unwrap(), None);
    assert_eq!(store.policy_sets().await.unwrap().iter().map(|set| set.hash).collect::<Vec<_>>(), [other]);
    assert_eq!(store.recall(&policy_set_use(gone)).await.unwrap(), None);
    assert_eq!(store.recall(&policy_set_use(other)).await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.policy_entry(policy_entry("deploy").hash()).await.unwrap(), None);
    assert!(store.policy_entry(policy_entry("migrate").hash()).await.unwrap().is_some());
    assert_eq!(store.module(removal.modules[0]).await.unwrap(), None);
    assert_eq!(store.modules().await.unwrap(), [(Digest::of(b"shared"), 6)]);
    for (digest, signed) in
        [(gone, false), (removal.modules[0], false), (other, true), (Digest::of(b"shared"), true)]
    {
        assert_eq!(!store.signatures(digest).await.unwrap().is_empty(), signed);
    }
    let seen = Seen::of(&*store).await;
    assert_eq!(seen.counter("purged_policy_sets_total"), 1);
    assert_eq!(
        seen.audit.last().map(|entry| entry.event.as_str()),
        Some(AuditEvent::PolicySetRemoved.as_str())
    );
    // Doing it again does nothing; and a set can come back.
    assert_eq!(store.remove_policy_set(removal).await.unwrap(), Committed::Conflict);
    assert_eq!(Seen::of(&*store).await, seen);
    let again = stored_set(&["deploy", "migrate"], at(9));
    store.keep_policy_set(again.clone(), "again".into()).await.unwrap();
    assert_eq!(store.policy_set(gone).await.unwrap(), Some(again.clone()));
    assert_eq!(store.policy_sets().await.unwrap()[0], again);
}

pub(crate) async fn a_policy_set_stays_if_anything_has_changed<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let removal = two_sets(&*store).await;
    let (one, other) = (removal.hash, removal.sets[0]);
    let stays = async |removal: RemovePolicySet| {
        let before = (store.policy_sets().await.unwrap(), store.modules().await.unwrap());
        assert_eq!(store.remove_policy_set(removal).await.unwrap(), Committed::Conflict);
        assert_eq!((store.policy_sets().await.unwrap(), store.modules().await.unwrap()), before);
        assert!(store.policy_entry(policy_entry("deploy").hash()).await.unwrap().is_some());
    };
    let sets = |sets: &[Digest]| RemovePolicySet { sets: sets.to_vec(), ..removal.clone() };
    stays(sets(&[one])).await;
    stays(sets(&[one, other, Digest::of(b"gone")])).await;
    let documents = |key: &str, value: Option<&[u8]>| RemovePolicySet {
        documents: vec![(key.to_owned(), value.map(<[u8]>::to_vec))],
        ..removal.clone()
    };
    stays(documents(STORED, None)).await;
    stays(documents(STORED, Some(b"2"))).await;
    stays(documents(STORED, Some(b""))).await;
    stays(documents("policy-set:none", Some(b""))).await;
    // The one in force, whatever else is right.
    stays(RemovePolicySet { hash: other, ..removal.clone() }).await;
    store.change_policy(changing(&change_of(4, Some(other), one))).await.unwrap();
    stays(removal.clone()).await;
    store.change_policy(changing(&change_of(5, Some(one), other))).await.unwrap();
    // Another set, which may need what would go.
    let third = stored_set(&["deploy"], at(4));
    store.keep_policy_set(third.clone(), "document".into()).await.unwrap();
    stays(removal.clone()).await;
    let removal = sets(&[one, other, third.hash]);
    assert_eq!(store.remove_policy_set(removal).await.unwrap(), Committed::Done);
}

pub(crate) async fn an_archive_reads_policy_sets_beside_the_store<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let archive = backend.archive();
    let none = Digest::of(b"unknown");
    assert_eq!(archive.policy_in_force().unwrap(), None);
    assert_eq!(archive.policy_set(none).unwrap(), None);
    assert_eq!(archive.module(none).unwrap(), None);
    assert_eq!(archive.signatures(none).unwrap(), []);
    // What is stored after it was opened is seen; what is removed is gone.
    let removal = two_sets(&*store).await;
    let in_force = archive.policy_in_force().unwrap();
    assert_eq!(in_force.as_ref().and_then(|(_, change)| change.to), Some(removal.sets[0]));
    assert_eq!(in_force, store.policy_in_force().await.unwrap());
    let set = archive.policy_set(removal.hash).unwrap().expect("a stored set");
    assert_eq!(Some(&set), store.policy_set(removal.hash).await.unwrap().as_ref());
    for entry in set.entries.into_values() {
        assert_eq!(archive.policy_entry(entry).unwrap(), store.policy_entry(entry).await.unwrap());
    }
    let own = removal.modules[0];
    assert_eq!(archive.module(own).unwrap().as_deref(), Some(&b"own"[..]));
    for signed in [removal.hash, own] {
        assert_eq!(archive.signatures(signed).unwrap(), [Signature::from_bytes([7; 64])]);
    }
    assert_eq!(store.remove_policy_set(removal.clone()).await.unwrap(), Committed::Done);
    assert_eq!(archive.policy_set(removal.hash).unwrap(), None);
    assert_eq!(archive.module(own).unwrap(), None);
    assert_eq!(archive.signatures(own).unwrap(), []);
    // The store works on, and after the archive is closed.
    drop(archive);
    store.keep("key", b"value".to_vec()).await.unwrap();
}
