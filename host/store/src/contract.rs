//! What every store promises, one function a promise. A backend's tests name it once, in [`store_contract`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::*;
use crate::fixtures::*;
use countersign_core::lifecycle::{Escalation, Open, RequirementKind, State, Submission, parameter_digests};
use countersign_core::record::ChangeFault;
use countersign_core::record::PostState;

/// A backend with data of its own, which last as long as the value.
pub(crate) trait Backend: Sized {
    /// One without data.
    async fn fresh() -> Self;

    /// Opens its data. Whoever opened them before has dropped that store.
    async fn open(&self) -> Arc<dyn Store>;
}

/// Makes a test of each promise.
macro_rules! store_contract {
    ($backend:ty) => {
        $crate::contract::store_contract! { $backend:
            a_created_request_can_be_read
            what_is_unknown_is_none
            a_repeated_create_gives_the_first_request
            an_idempotency_key_runs_out
            one_of_many_repeated_creates_counts
            a_lineage_is_kept_in_order
            an_id_is_used_once
            a_commit_is_stored_whole
            a_conflict_changes_nothing
            one_of_many_commits_wins
            what_is_due_comes_in_order
            what_is_terminal_is_never_due
            a_claimed_entry_is_the_claimers_alone
            a_claim_runs_out
            what_has_been_ready_for_longest_comes_first
            each_urgency_has_its_own_place
            claimers_at_once_share_the_entries
            a_delivered_entry_is_gone
            an_entry_given_back_waits
            an_entry_asked_for_again_is_one_entry
            an_entry_stale_again_is_delivered_again
            a_late_worker_does_not_touch_a_later_claim
            a_late_worker_does_not_remove_a_later_entry
            what_was_delivered_newer_than_asked_for_is_gone
            a_post_is_kept_in_order
            one_of_many_posts_wins
            a_post_is_kept_with_its_audit_entries
            stale_posts_come_in_order
            documents_are_kept_by_key
            audit_entries_stay_in_order
            pinned_content_is_kept_by_its_hash
            policy_sets_are_kept_by_their_hash
            signatures_are_kept_with_what_they_are_over
            changes_of_the_set_in_force_are_kept_in_order
            one_of_many_changes_wins
            open_requests_are_counted_by_policy
            counters_add_up
            open_requests_are_counted
            waiting_personas_are_counted
            a_nonce_is_claimed_once
            the_secret_is_kept
            it_can_be_pinged
            reopening_keeps_everything
            it_behaves_like_the_model
        }
    };
    ($backend:ty: $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::contract::$promise::<$backend>().await;
            }
        )*
    };
}
pub(crate) use store_contract;

pub(crate) async fn a_created_request_can_be_read<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let mut request = request(1);
    let submission = Arc::make_mut(&mut request.submission);
    submission.justification = "naïve \"quotes\" \u{0} 🎉 \n".into();
    submission.params = object(json!({ "float": 0.1 + 0.2, "tiny": 5e-324, "big": u64::MAX, "null": null }));
    submission.digests = parameter_digests(&submission.params);
    create(&*store, &request).await;
    assert_eq!(store.request(request.id).await.unwrap(), Some(request.clone()));
    assert_eq!(store.lineage(request.id).await.unwrap(), [request]);
}

pub(crate) async fn what_is_unknown_is_none<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let none = Digest::of(b"unknown");
    assert_eq!(store.request(id(2)).await.unwrap(), None);
    assert_eq!(store.lineage(id(2)).await.unwrap(), []);
    assert_eq!(store.idempotent(&none, at(0)).await.unwrap(), None);
    assert_eq!(store.policy_entry(none).await.unwrap(), None);
    assert_eq!(store.module(none).await.unwrap(), None);
}

pub(crate) async fn a_repeated_create_gives_the_first_request<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let (first, second) = (request(1), request(2));
    assert_eq!(store.create(with_key(&first, 7, at(100))).await.unwrap(), Created::New);
    let before = Seen::of(&*store).await;
    // Once with the same body, once with another one: the caller compares the fingerprints.
    for body in [first.id, second.id] {
        let mut again = with_key(&second, 7, at(100));
        again.idempotency.as_mut().unwrap().fingerprint = Digest::of(&body.to_bytes());
        let known = Created::Known(fingerprint(&first), Box::new(first.clone()));
        assert_eq!(store.create(again).await.unwrap(), known);
    }
    assert_eq!(store.request(second.id).await.unwrap(), None);
    assert_eq!(Seen::of(&*store).await, before);

    // What is given is the request as it stands now.
    let voted = next(&first, at(5), |_| {});
    commit(&*store, &voted).await;
    let known = store.idempotent(&key(7), at(5)).await.unwrap();
    assert_eq!(known, Some((fingerprint(&first), voted)));
}

pub(crate) async fn an_idempotency_key_runs_out<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request_at(1, at(0));
    assert_eq!(store.create(with_key(&first, 7, at(100))).await.unwrap(), Created::New);
    assert!(store.idempotent(&key(7), at(99)).await.unwrap().is_some());
    assert!(store.idempotent(&key(7), at(100)).await.unwrap().is_none());
    let second = request_at(2, at(100));
    assert_eq!(store.create(with_key(&second, 7, at(200))).await.unwrap(), Created::New);
    let known = store.idempotent(&key(7), at(199)).await.unwrap();
    assert_eq!(known, Some((fingerprint(&second), second)));
    assert_eq!(store.request(first.id).await.unwrap(), Some(first), "only the key is forgotten");

    // The place of keys that ran out is taken by others, in whatever number they come.
    for number in 10..30 {
        let request = request_at(number, at(number));
        assert_eq!(store.create(with_key(&request, number, at(number + 1))).await.unwrap(), Created::New);
    }
    assert!(store.idempotent(&key(7), at(199)).await.unwrap().is_some());
}

pub(crate) async fn one_of_many_repeated_creates_counts<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let made = at_once(50, |number| {
        let store = Arc::clone(&store);
        async move { store.create(with_key(&request(number), 7, at(100))).await.unwrap() }
    });
    let made = made.await;
    assert_eq!(made.iter().filter(|made| **made == Created::New).count(), 1);
    let seen = Seen::of(&*store).await;
    assert_eq!((seen.audit.len(), seen.depth.entries), (1, 1));
    let (_, first) = store.idempotent(&key(7), at(0)).await.unwrap().unwrap();
    let known = Created::Known(fingerprint(&first), Box::new(first));
    assert!(made.iter().all(|made| *made == Created::New || *made == known));
}

pub(crate) async fn a_lineage_is_kept_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    // Ids need not sort as the depths do.
    let chain = [first.clone(), again(&first, 9, 1), again(&first, 8, 2), again(&first, 10, 3)];
    for request in &chain {
        create(&*store, request).await;
    }
    create(&*store, &request(11)).await;
    assert_eq!(store.lineage(first.id).await.unwrap(), chain);
    assert_eq!(store.lineage(id(9)).await.unwrap(), [], "a lineage has the name of its first request");

    let before = Seen::of(&*store).await;
    let twice = with_key(&again(&first, 12, 2), 5, at(100));
    assert_eq!(store.create(twice).await.unwrap(), Created::LineageConflict);
    assert_eq!(store.request(id(12)).await.unwrap(), None);
    assert_eq!(store.idempotent(&key(5), at(0)).await.unwrap(), None);
    assert_eq!(Seen::of(&*store).await, before);

    let made = at_once(20, |number| {
        let (store, request) = (Arc::clone(&store), again(&first, 20 + number, 4));
        async move { store.create(new(&request)).await.unwrap() }
    });
    assert_eq!(made.await.iter().filter(|made| **made == Created::New).count(), 1);
    assert_eq!(store.lineage(first.id).await.unwrap().len(), 5);
}

pub(crate) async fn an_id_is_used_once<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let (first, other) = (request(1), request(2));
    create(&*store, &first).await;
    create(&*store, &other).await;
    let before = Seen::of(&*store).await;
    let mut twice = first.clone();
    Arc::make_mut(&mut twice.submission).justification = "another one".into();
    assert_eq!(store.create(new(&twice)).await.unwrap(), Created::LineageConflict);
    assert_eq!(store.create(new(&again(&other, 1, 1))).await.unwrap(), Created::LineageConflict);
    assert_eq!(store.request(first.id).await.unwrap(), Some(first));
    assert_eq!(Seen::of(&*store).await, before);
}

pub(crate) async fn a_commit_is_stored_whole<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let approved = next(&first, at(5), |request| request.state = approved(at(5)));
    let audit = vec![audit(&approved, "approve"), audit(&approved, "approved")];
    let counts = vec![Count::one("approvals_total", &[("action", "deploy")])];
    let effects = vec![Effect::ShowRequest, Effect::NotifyEscalation];
    let all = Commit { request: approved.clone(), audit: audit.clone(), effects, counts };
    assert_eq!(store.commit(all).await.unwrap(), Committed::Done);

    assert_eq!(store.request(first.id).await.unwrap(), Some(approved));
    let seen = Seen::of(&*store).await;
    assert_eq!(seen.audit[1..], audit);
    assert_eq!(seen.depth, OutboxDepth { entries: 2, oldest: Some(at(0)) });
    assert_eq!(seen.counter("approvals_total"), 1);
    assert_eq!((seen.due, seen.open), (vec![], vec![]));
}

pub(crate) async fn a_conflict_changes_nothing<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let second = next(&first, at(1), |_| {});
    commit(&*store, &second).await;
    let ended = next(&request(2), at(1), |request| request.state = State::Expired { at: at(1) });
    create(&*store, &request(2)).await;
    commit(&*store, &ended).await;

    let before = Seen::of(&*store).await;
    let third = next(&second, at(2), |_| {});
    for (what, request) in [
        ("the stored version", second.clone()),
        ("an older version", Request { version: 1, ..second.clone() }),
        ("a version too far", next(&third, at(3), |_| {})),
        ("no version", Request { version: 0, ..second.clone() }),
        ("an unknown request", next(&request(3), at(2), |_| {})),
        ("a terminal request", next(&ended, at(2), |request| request.state = open(1))),
    ] {
        assert_eq!(store.commit(change(&request)).await.unwrap(), Committed::Conflict, "{what}");
        assert_eq!(Seen::of(&*store).await, before, "{what}");
    }
    assert_eq!(store.request(first.id).await.unwrap(), Some(second));
    assert_eq!(store.request(ended.id).await.unwrap(), Some(ended));
    commit(&*store, &third).await;
}

pub(crate) async fn one_of_many_commits_wins<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let committed = at_once(100, |number| {
        let (store, request) = (Arc::clone(&store), next(&first, at(number), |_| {}));
        async move { (store.commit(change(&request)).await.unwrap(), request) }
    });
    let won: Vec<_> = committed.await.into_iter().filter(|(made, _)| *made == Committed::Done).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(store.request(first.id).await.unwrap(), Some(won[0].1.clone()));
    let seen = Seen::of(&*store).await;
    assert_eq!((seen.audit.len(), seen.counter("approval_requests_total")), (2, 1));
    assert_eq!(seen.counter("events_total"), 1);
}

pub(crate) async fn what_is_due_comes_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for (number, due) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
        let mut request = request(number);
        Arc::make_mut(&mut request.submission).expires_at = at(due);
        create(&*store, &request).await;
    }
    let due = async |now, limit| store.due(at(now), limit).await.unwrap();
    assert_eq!(due(9, 10).await, []);
    assert_eq!(due(10, 10).await, [(id(2), at(10))]);
    assert_eq!(due(39, 10).await, [(id(2), at(10)), (id(3), at(20)), (id(1), at(30))]);
    assert_eq!(due(39, 2).await, [(id(2), at(10)), (id(3), at(20))]);
    assert_eq!(due(39, 0).await, []);
    assert_eq!(store.next_due(at(0)).await.unwrap(), Some(at(10)));
    assert_eq!(store.next_due(at(10)).await.unwrap(), Some(at(20)));
    assert_eq!(store.next_due(at(40)).await.unwrap(), None);

    // The nearest of wake-up, escalation and expiry counts, and it moves with the request.
    let mut moved = store.request(id(2)).await.unwrap().unwrap();
    moved = next(&moved, at(1), |request| {
        Arc::make_mut(&mut request.submission).expires_at = at(90);
        request.state = State::Open(Open { escalation: Escalation::At(at(35)), ..Open::default() });
    });
    commit(&*store, &moved).await;
    assert_eq!(due(39, 10).await, [(id(3), at(20)), (id(1), at(30)), (id(2), at(35))]);
}

pub(crate) async fn what_is_terminal_is_never_due<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let cancelled = State::Cancelled { at: at(1), reason: None };
    for (number, state) in
        [approved(at(1)), denied(at(1)), State::Expired { at: at(1) }, cancelled].into_iter().enumerate()
    {
        let first = request(number as u64);
        create(&*store, &first).await;
        commit(&*store, &next(&first, at(1), |request| request.state = state)).await;
    }
    // One that is decided as it is made.
    let mut unattended = request(9);
    unattended.state = approved(at(0));
    create(&*store, &unattended).await;
    let seen = Seen::of(&*store).await;
    assert_eq!((seen.due, seen.open, seen.waiting), (vec![], vec![], vec![]));
    assert_eq!(store.next_due(at(0)).await.unwrap(), None);
}

pub(crate) async fn a_claimed_entry_is_the_claimers_alone<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let ready = ReadyEntry {
        request: id(1),
        effect: Effect::ShowRequest,
        urgency: Urgency::First,
        revision: 1,
        since: at(0),
    };
    assert_eq!(store.ready_outbox(at(0), 10).await.unwrap(), [ready]);
    let claimed = store.claim_outbox(id(1), Effect::ShowRequest, at(0), at(10)).await.unwrap();
    let expected = OutboxEntry {
        request: id(1),
        effect: Effect::ShowRequest,
        revision: 1,
        attempts: 0,
        since: at(0),
        claimed_until: at(10),
    };
    assert_eq!(claimed, Some(expected));
    assert_eq!(store.ready_outbox(at(9), 10).await.unwrap(), []);
    for (request, effect) in
        [(id(1), Effect::ShowRequest), (id(1), Effect::NotifyEscalation), (id(2), Effect::ShowRequest)]
    {
        assert_eq!(store.claim_outbox(request, effect, at(9), at(20)).await.unwrap(), None);
    }
    let depth = OutboxDepth { entries: 1, oldest: Some(at(0)) };
    assert_eq!(store.outbox_depth().await.unwrap(), depth, "a claimed entry still waits");
}

pub(crate) async fn a_claim_runs_out<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let [lost] = claim(&*store, at(0), at(10)).await;
    let [taken] = claim(&*store, at(10), at(20)).await;
    assert_eq!(taken, OutboxEntry { claimed_until: at(20), ..lost });
}

pub(crate) async fn what_has_been_ready_for_longest_comes_first<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for (number, made) in [(1, 3), (2, 1), (3, 2)] {
        create(&*store, &request_at(number, at(made))).await;
    }
    let [early] = claim(&*store, at(1), at(50)).await;
    assert_eq!(early.request, id(2));
    store.retry_outbox(&early, at(9), true).await.unwrap();
    assert_eq!(ready(&*store, 10, 2).await, [id(3), id(1)]);
    assert_eq!(ready(&*store, 10, 3).await, [id(3), id(1), id(2)]);
    let last = store.claim_outbox(id(2), Effect::ShowRequest, at(10), at(50)).await.unwrap().unwrap();
    assert_eq!((last.request, last.since), (id(2), at(1)));
}

pub(crate) async fn each_urgency_has_its_own_place<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    // 1 and 2 are new; 3 and 4 have changed since people saw them; 5 has ended before anybody did.
    for number in 1..=5 {
        create(&*store, &request(number)).await;
    }
    let delivered = async |number| {
        let entry = store.claim_outbox(id(number), Effect::ShowRequest, at(0), at(9)).await.unwrap().unwrap();
        store.finish_outbox(&entry, entry.revision).await.unwrap();
    };
    for number in [3, 4] {
        delivered(number).await;
        commit(&*store, &next(&request(number), at(1), |_| {})).await;
    }
    commit(&*store, &next(&request(1), at(1), |_| {})).await;
    commit(&*store, &next(&request(5), at(1), |request| request.state = approved(at(1)))).await;

    let urgencies = async |limit| {
        let ready = store.ready_outbox(at(5), limit).await.unwrap();
        let mut ready: Vec<_> = ready.iter().map(|it| (it.urgency, it.request, it.effect)).collect();
        ready.sort_unstable_by_key(|(urgency, request, _)| (*urgency, *request));
        ready
    };
    let show = |urgency, number| (urgency, id(number), Effect::ShowRequest);
    let [ended, one, two] = [show(Urgency::Ended, 5), show(Urgency::First, 1), show(Urgency::First, 2)];
    let all = [ended, one, two, show(Urgency::Changed, 3), show(Urgency::Changed, 4)];
    assert_eq!(urgencies(10).await, all, "what is new stays so until it was delivered");
    let some = urgencies(1).await;
    assert_eq!(some.iter().map(|it| it.0).collect::<Vec<_>>(), Urgency::ALL);

    // Ending makes an entry that waits more urgent, and an escalation is news.
    let escalated = next(&store.request(id(3)).await.unwrap().unwrap(), at(2), |_| {});
    let effects = vec![Effect::NotifyEscalation];
    store.commit(Commit { effects, ..change(&escalated) }).await.unwrap();
    let ended = next(&store.request(id(4)).await.unwrap().unwrap(), at(2), |it| it.state = denied(at(2)));
    commit(&*store, &ended).await;
    let now = urgencies(10).await;
    assert!(now.contains(&show(Urgency::Ended, 4)), "{now:?}");
    assert!(now.contains(&(Urgency::First, id(3), Effect::NotifyEscalation)), "{now:?}");
}

pub(crate) async fn claimers_at_once_share_the_entries<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in 0..40 {
        create(&*store, &request(number)).await;
    }
    let claimed = at_once(20, |_| {
        let store = Arc::clone(&store);
        async move { take(&*store, at(1), at(50), 40).await }
    });
    let claimed: Vec<_> = claimed.await.into_iter().flatten().map(|entry| entry.request).collect();
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 40);
}

pub(crate) async fn a_delivered_entry_is_gone<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let [entry] = claim(&*store, at(0), at(10)).await;
    store.finish_outbox(&entry, entry.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
    assert_eq!(store.ready_outbox(at(99), 10).await.unwrap(), []);
    // To say so twice, or to give it back now, makes no entry.
    store.finish_outbox(&entry, entry.revision).await.unwrap();
    store.retry_outbox(&entry, at(20), true).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
}

pub(crate) async fn an_entry_given_back_waits<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    for attempt in 0..3 {
        let now = u64::from(attempt) * 10;
        let [entry] = claim(&*store, at(now), at(1000)).await;
        assert_eq!((entry.attempts, entry.since), (attempt, at(0)));
        store.retry_outbox(&entry, at(now + 10), true).await.unwrap();
        assert_eq!(store.ready_outbox(at(now + 9), 10).await.unwrap(), []);
    }
    // To give it back for another reason is no attempt.
    let [entry] = claim(&*store, at(30), at(1000)).await;
    store.retry_outbox(&entry, at(30), false).await.unwrap();
    let [entry] = claim(&*store, at(30), at(1000)).await;
    assert_eq!(entry.attempts, 3);
}

pub(crate) async fn an_entry_asked_for_again_is_one_entry<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [entry] = claim(&*store, at(0), at(10)).await;
    store.retry_outbox(&entry, at(1000), true).await.unwrap();
    let second = next(&first, at(5), |_| {});
    commit(&*store, &second).await;
    commit(&*store, &next(&second, at(6), |_| {})).await;
    let [entry] = claim(&*store, at(6), at(10)).await;
    assert_eq!((entry.revision, entry.attempts, entry.since), (3, 0, at(0)));
}

pub(crate) async fn an_entry_stale_again_is_delivered_again<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [old] = claim(&*store, at(0), at(100)).await;
    let second = next(&first, at(5), |_| {});
    commit(&*store, &second).await;
    assert_eq!(store.ready_outbox(at(6), 10).await.unwrap(), [], "two would write one message");
    store.finish_outbox(&old, old.revision).await.unwrap();
    let [fresh] = claim(&*store, at(6), at(50)).await;
    assert_eq!((fresh.revision, fresh.attempts), (2, 0));

    // Where it is given back instead, the wait counts, whatever is new.
    commit(&*store, &next(&second, at(7), |_| {})).await;
    store.retry_outbox(&fresh, at(20), true).await.unwrap();
    assert_eq!(store.ready_outbox(at(19), 10).await.unwrap(), []);
    let [newest] = claim(&*store, at(20), at(50)).await;
    assert_eq!((newest.revision, newest.attempts), (3, 1));
    store.finish_outbox(&newest, newest.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
}

pub(crate) async fn a_late_worker_does_not_touch_a_later_claim<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [late] = claim(&*store, at(0), at(10)).await;
    commit(&*store, &next(&first, at(5), |_| {})).await;
    let [current] = claim(&*store, at(10), at(20)).await;
    store.retry_outbox(&late, at(11), true).await.unwrap();
    store.finish_outbox(&late, late.revision).await.unwrap();
    assert_eq!(store.ready_outbox(at(12), 10).await.unwrap(), []);
    store.finish_outbox(&current, current.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
}

pub(crate) async fn a_late_worker_does_not_remove_a_later_entry<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [late] = claim(&*store, at(0), at(10)).await;
    let [current] = claim(&*store, at(10), at(20)).await;
    store.finish_outbox(&current, current.revision).await.unwrap();
    commit(&*store, &next(&first, at(15), |_| {})).await;
    store.finish_outbox(&late, late.revision).await.unwrap();
    let [fresh] = claim(&*store, at(15), at(30)).await;
    assert_eq!((fresh.revision, fresh.since), (2, at(15)));
}

pub(crate) async fn what_was_delivered_newer_than_asked_for_is_gone<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let [entry] = claim(&*store, at(0), at(10)).await;
    let second = next(&request(1), at(5), |_| {});
    commit(&*store, &second).await;
    // The worker had rendered the newest state by then.
    store.finish_outbox(&entry, second.version).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());

    commit(&*store, &next(&second, at(6), |_| {})).await;
    store.finish_outbox(&entry, second.version).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap().entries, 1, "what was asked for later stays");
}

pub(crate) async fn a_post_is_kept_in_order<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    assert_eq!(store.slack_post(id(1), Slot::Main).await.unwrap(), None);
    let first = post(1, PostState::Posting { since: at(1), look_at: at(3) });
    keep(&*store, Slot::Main, &first, Committed::Done).await;
    assert_eq!(store.slack_post(id(1), Slot::Main).await.unwrap(), Some(first.clone()));
    let second = SlackPost {
        shown: 7,
        looks: Some(Digest::of(b"looks")),
        minimal: Some(7),
        unsure: true,
        failed: Some("not_in_channel".into()),
        refresh_at: Some(at(90)),
        ..post(2, PostState::Posted { ts: "1780000000.000100".into() })
    };
    keep(&*store, Slot::Main, &second, Committed::Done).await;
    for (what, revision) in [("the stored one", 2), ("an older one", 1), ("one too far", 4), ("none", 0)] {
        keep(&*store, Slot::Main, &post(revision, PostState::Absent), Committed::Conflict).await;
        assert_eq!(store.slack_post(id(1), Slot::Main).await.unwrap(), Some(second.clone()), "{what}");
    }
    // Each slot is its own.
    keep(&*store, Slot::EscalationThread, &post(2, PostState::Absent), Committed::Conflict).await;
    keep(&*store, Slot::EscalationThread, &first, Committed::Done).await;
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.slack_post(id(1), Slot::Main).await.unwrap(), Some(second));
    assert_eq!(store.slack_post(id(1), Slot::EscalationThread).await.unwrap(), Some(first));
    assert_eq!(store.slack_post(id(1), Slot::EscalationChannel).await.unwrap(), None);
    assert_eq!(store.slack_post(id(2), Slot::Main).await.unwrap(), None);
}

pub(crate) async fn one_of_many_posts_wins<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for revision in 1..=2 {
        let kept = at_once(20, |number| {
            let store = Arc::clone(&store);
            let post = SlackPost { shown: number, ..post(revision, PostState::Absent) };
            async move { (store.keep_slack_post(keeping(Slot::Main, &post)).await.unwrap(), post) }
        });
        let won: Vec<_> = kept.await.into_iter().filter(|(kept, _)| *kept == Committed::Done).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(store.slack_post(id(1), Slot::Main).await.unwrap().as_ref(), Some(&won[0].1));
    }
}

pub(crate) async fn a_post_is_kept_with_its_audit_entries<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let failed = |revision| KeepPost {
        audit: vec![audit(&request(1), "slack_delivery_failed")],
        counts: vec![Count::one("slack_delivery_failures_total", &[("code", "not_in_channel")])],
        ..keeping(Slot::Main, &post(revision, PostState::Absent))
    };
    assert_eq!(store.keep_slack_post(failed(1)).await.unwrap(), Committed::Done);
    assert_eq!(store.keep_slack_post(failed(1)).await.unwrap(), Committed::Conflict);
    let seen = Seen::of(&*store).await;
    assert_eq!(
        seen.audit.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(),
        ["slack_delivery_failed"]
    );
    assert_eq!(seen.counter("slack_delivery_failures_total"), 1);
}

pub(crate) async fn stale_posts_come_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let refreshed = async |number, slot, revision, refresh_at: Option<u64>| {
        let post = SlackPost { refresh_at: refresh_at.map(at), ..post(revision, PostState::Absent) };
        let keep = KeepPost { request: id(number), ..keeping(slot, &post) };
        assert_eq!(store.keep_slack_post(keep).await.unwrap(), Committed::Done);
    };
    for (number, slot, refresh_at) in [
        (1, Slot::Main, Some(30)),
        (2, Slot::Main, Some(10)),
        (2, Slot::EscalationChannel, Some(20)),
        (3, Slot::Main, None),
    ] {
        refreshed(number, slot, 1, refresh_at).await;
    }
    let stale = async |now, limit| store.stale_slack_posts(at(now), limit).await.unwrap();
    let [first, second, third] = [(id(2), Slot::Main), (id(2), Slot::EscalationChannel), (id(1), Slot::Main)];
    assert_eq!(stale(9, 10).await, []);
    assert_eq!(stale(10, 10).await, [first]);
    assert_eq!(stale(40, 10).await, [first, second, third]);
    assert_eq!(stale(40, 2).await, [first, second]);
    refreshed(2, Slot::Main, 2, Some(50)).await;
    refreshed(1, Slot::Main, 2, None).await;
    refreshed(3, Slot::Main, 2, Some(5)).await;
    assert_eq!(stale(60, 10).await, [(id(3), Slot::Main), second, first]);
}

pub(crate) async fn documents_are_kept_by_key<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    assert_eq!(store.recall("usergroup:S1").await.unwrap(), None);
    store.keep("usergroup:S1", b"one".to_vec()).await.unwrap();
    store.keep("usergroup:S2", vec![]).await.unwrap();
    store.keep("usergroup:S1", vec![0, 0xff]).await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.recall("usergroup:S1").await.unwrap(), Some(vec![0, 0xff]));
    assert_eq!(store.recall("usergroup:S2").await.unwrap(), Some(vec![]));
    assert_eq!(store.recall("usergroup:").await.unwrap(), None);
}

pub(crate) async fn audit_entries_stay_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let request = request(1);
    let mut written = Vec::new();
    for number in 0..7_u64 {
        let mut entry = audit(&request, &format!("event {number}"));
        // The order is that of writing, not of time.
        entry.at = at(100 - number);
        if number == 3 {
            (entry.request, entry.status, entry.actor) = (None, None, Some("U1".into()));
        }
        entry.detail.insert("approvers".into(), json!(["U1", { "deep": [1.5, null] }]));
        written.push(entry);
    }
    store.append(written[..3].to_vec(), vec![]).await.unwrap();
    store.append(vec![], vec![]).await.unwrap();
    store.append(written[3..].to_vec(), vec![]).await.unwrap();

    let all = store.audit(0, 100).await.unwrap();
    assert_eq!(all.iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>(), written);
    assert!(all.is_sorted_by(|(one, _), (other, _)| one < other), "each has a number of its own");
    let mut paged = Vec::new();
    let mut after = 0;
    loop {
        let page = store.audit(after, 2).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        assert!(page.len() <= 2);
        after = *last;
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(store.audit(0, 0).await.unwrap(), []);
}

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
    // The same rules, written otherwise and later.
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

pub(crate) async fn counters_add_up<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let one = |action| Count::one("denies_total", &[("action", action)]);
    let adding = at_once(30, |number| {
        let store = Arc::clone(&store);
        let counts = vec![one("a"), one("a"), Count::of("denies_total", &[("action", "b")], number)];
        async move { store.append(vec![], counts).await.unwrap() }
    });
    adding.await;
    store.append(vec![], vec![Count::of("plain_total", &[], 7)]).await.unwrap();
    store.append(vec![], vec![Count::one("two_total", &[("a", "x\"y"), ("b", "")])]).await.unwrap();
    let counter = |metric: &str, labels: &[(&str, &str)]| Count::one(metric, labels).counter;
    let expected = BTreeMap::from([
        (counter("denies_total", &[("action", "a")]), 60),
        (counter("denies_total", &[("action", "b")]), 435),
        (counter("plain_total", &[]), 7),
        (counter("two_total", &[("a", "x\"y"), ("b", "")]), 1),
    ]);
    assert_eq!(store.counters().await.unwrap(), expected);
    drop(store);
    assert_eq!(backend.open().await.counters().await.unwrap(), expected);
}

pub(crate) async fn open_requests_are_counted<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    assert_eq!(store.open_requests().await.unwrap(), []);
    let mut last = request(0);
    for (number, action, personas) in [(1, "b", 1), (2, "a", 0), (3, "a", 1), (4, "a", 1)] {
        last = request_at(number, at(number));
        Arc::make_mut(&mut last.submission).action = action.into();
        last.state = open(personas);
        create(&*store, &last).await;
    }
    let group = |action: &str, status, made: &[u64]| OpenRequests {
        action: action.to_owned(),
        status,
        count: made.len() as u64,
        oldest: at(made[0]),
        sum_submitted_ms: made.iter().map(|made| u128::from(at(*made).as_millis())).sum(),
    };
    let counted = async || {
        let mut groups = store.open_requests().await.unwrap();
        groups.sort_by_key(|group| (group.action.clone(), group.status));
        groups
    };
    let expected = [
        group("a", Status::AwaitingPersonas, &[3, 4]),
        group("a", Status::ReadyForApproval, &[2]),
        group("b", Status::AwaitingPersonas, &[1]),
    ];
    assert_eq!(counted().await, expected);
    commit(&*store, &next(&last, at(9), |request| request.state = open(0))).await;
    let moved = [
        group("a", Status::AwaitingPersonas, &[3]),
        group("a", Status::ReadyForApproval, &[2, 4]),
        group("b", Status::AwaitingPersonas, &[1]),
    ];
    assert_eq!(counted().await, moved);
}

pub(crate) async fn waiting_personas_are_counted<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let mut last = request(0);
    for (number, action, personas) in [(1, "a", 2), (2, "a", 1), (3, "b", 1), (4, "b", 0), (5, "a", 2)] {
        last = request(number);
        Arc::make_mut(&mut last.submission).action = action.into();
        last.state = open(personas);
        create(&*store, &last).await;
    }
    let waiting = async || {
        let mut waiting = store.waiting_personas().await.unwrap();
        waiting.sort();
        waiting
    };
    let row = |action: &str, persona: &str, count| (action.to_owned(), persona.to_owned(), count);
    assert_eq!(
        waiting().await,
        [row("a", "persona 0", 3), row("a", "persona 1", 2), row("b", "persona 0", 1)]
    );
    let acknowledged = next(&last, at(1), |request| request.state = open(1));
    commit(&*store, &acknowledged).await;
    assert_eq!(
        waiting().await,
        [row("a", "persona 0", 3), row("a", "persona 1", 1), row("b", "persona 0", 1)]
    );
    commit(&*store, &next(&acknowledged, at(2), |request| request.state = denied(at(2)))).await;
    assert_eq!(
        waiting().await,
        [row("a", "persona 0", 2), row("a", "persona 1", 1), row("b", "persona 0", 1)]
    );
}

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

pub(crate) async fn the_secret_is_kept<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let secrets = at_once(10, |number| {
        let store = Arc::clone(&store);
        async move { store.secret([number as u8; 32]).await.unwrap() }
    });
    let secrets: BTreeSet<_> = secrets.await.into_iter().collect();
    assert_eq!(secrets.len(), 1);
    drop(store);
    assert_eq!(Some(&backend.open().await.secret([99; 32]).await.unwrap()), secrets.first());
}

pub(crate) async fn it_can_be_pinged<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let before = Seen::of(&*store).await;
    store.ping().await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(Seen::of(&*store).await, before);
    assert!(!store.backend().is_empty());
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
    let claimed = store.claim_outbox(id(1), Effect::ShowRequest, at(10), at(20)).await.unwrap().unwrap();
    let before = Seen::of(&*store).await;
    drop(store);

    let store = backend.open().await;
    assert_eq!(Seen::of(&*store).await, before);
    assert_eq!(store.request(first.id).await.unwrap(), Some(voted.clone()));
    assert_eq!(store.lineage(first.id).await.unwrap(), [voted.clone(), again(&first, 3, 1)]);
    assert_eq!(store.idempotent(&key(7), at(99)).await.unwrap(), Some((fingerprint(&first), voted)));
    assert_eq!(store.policy_entry(entry.hash()).await.unwrap(), Some(entry));
    assert_eq!(store.module(Digest::of(b"module")).await.unwrap(), Some(b"module".to_vec()));
    assert_eq!(take(&*store, at(19), at(30), 10).await.len(), 2);
    store.finish_outbox(&claimed, claimed.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap().entries, 2);
    // Audit entries go on after the last one.
    store.append(vec![audit(&first, "later")], vec![]).await.unwrap();
    let last = store.audit(0, 100).await.unwrap().pop().unwrap();
    assert_eq!((last.0, last.1.event.as_str()), (before.last_audit + 1, "later"));
}

pub(crate) async fn it_behaves_like_the_model<B: Backend>() {
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let strategy = proptest::collection::vec(any_op(), 1..40);
    let runtime = tokio::runtime::Handle::current();
    let run = |ops: Vec<Op>| {
        runtime.block_on(async {
            let (backend, mut store) = opened::<B>().await;
            let mut model = Model::default();
            for op in ops {
                if op == Op::Reopen {
                    drop(store);
                    store = backend.open().await;
                } else {
                    model.apply(&*store, &op).await;
                }
                model.compare(&*store, &op).await;
            }
        });
        Ok(())
    };
    let checked = tokio::task::block_in_place(|| TestRunner::new(config).run(&strategy, run));
    checked.unwrap_or_else(|error| panic!("{error}"));
}

/// Something that is done to a store.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    /// Slots 0 to 3 are first requests; 4 and 5 both want to be the second of slot 0's lineage.
    Create {
        slot: u64,
        key: Option<u64>,
    },
    /// Leaves out `skip` versions; 0 is the only one that fits.
    Commit {
        slot: u64,
        skip: u64,
        state: u8,
        effects: u8,
    },
    Append {
        entries: usize,
        by: u64,
    },
    Claim {
        lease: u64,
    },
    /// Of the entries that were ever claimed, counted from the newest.
    Finish {
        claimed: usize,
        newer: u64,
    },
    Retry {
        claimed: usize,
        wait: u64,
        failed: bool,
    },
    Nonce {
        number: u8,
        lasts: u64,
    },
    Advance {
        by: u64,
    },
    Reopen,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..6_u64, proptest::option::of(0..3_u64)).prop_map(|(slot, key)| Op::Create { slot, key }),
        6 => (0..6_u64, prop_oneof![8 => Just(0_u64), 1 => 1..3_u64], 0..8_u8, 0..4_u8)
            .prop_map(|(slot, skip, state, effects)| Op::Commit { slot, skip, state, effects }),
        1 => (0..3_usize, 0..5_u64).prop_map(|(entries, by)| Op::Append { entries, by }),
        3 => (1..30_u64).prop_map(|lease| Op::Claim { lease }),
        3 => (0..3_usize, 0..2_u64).prop_map(|(claimed, newer)| Op::Finish { claimed, newer }),
        2 => (0..3_usize, 0..20_u64, any::<bool>())
            .prop_map(|(claimed, wait, failed)| Op::Retry { claimed, wait, failed }),
        1 => (0..3_u8, 1..20_u64).prop_map(|(number, lasts)| Op::Nonce { number, lasts }),
        3 => (1..15_u64).prop_map(|by| Op::Advance { by }),
        1 => Just(Op::Reopen),
    ]
}

/// What a store should be, in the simplest terms.
#[derive(Default)]
struct Model {
    now: u64,
    requests: BTreeMap<RequestId, Request>,
    keys: BTreeMap<u64, (Idempotency, RequestId)>,
    outbox: BTreeMap<(RequestId, Effect), Waiting>,
    claimed: Vec<OutboxEntry>,
    audit: Vec<AuditEntry>,
    counters: BTreeMap<Counter, u64>,
    nonces: BTreeMap<u8, Timestamp>,
}

struct Waiting {
    urgency: Urgency,
    revision: u64,
    attempts: u32,
    since: Timestamp,
    ready_at: Timestamp,
    claimed_until: Option<Timestamp>,
}

impl Model {
    /// Does it to the store and to the model, and compares the answers.
    async fn apply(&mut self, store: &dyn Store, op: &Op) {
        let now = at(self.now);
        match *op {
            Op::Create { slot, key } => {
                let request = self.slot(slot);
                let new = match key {
                    Some(key) => with_key(&request, key, at(self.now + 20)),
                    None => new(&request),
                };
                let expected = self.create(&new, key);
                assert_eq!(store.create(new).await.unwrap(), expected, "{op:?}");
            }
            Op::Commit { slot, skip, state, effects } => {
                let stored = self.requests.get(&id(slot)).cloned().unwrap_or_else(|| self.slot(slot));
                let changed = next(&stored, now, |request| {
                    request.version += skip;
                    request.state = match state {
                        0 => approved(now),
                        1 => State::Expired { at: now },
                        wanted => open(wanted % 3),
                    };
                });
                let wanted = [(1, Effect::ShowRequest), (2, Effect::NotifyEscalation)];
                let effects =
                    wanted.iter().filter(|(bit, _)| effects & bit != 0).map(|(_, effect)| *effect).collect();
                let commit = Commit { effects, ..change(&changed) };
                let expected = self.commit(&commit);
                assert_eq!(store.commit(commit).await.unwrap(), expected, "{op:?}");
            }
            Op::Append { entries, by } => {
                let entries = vec![audit(&request(0), "appended"); entries];
                let counts = vec![Count::of("appended_total", &[], by); usize::from(by > 0)];
                self.keep(&entries, &counts);
                store.append(entries, counts).await.unwrap();
            }
            Op::Claim { lease } => {
                let until = at(self.now + lease);
                let mut ready = store.ready_outbox(now, 100).await.unwrap();
                ready.sort_by_key(|entry| (entry.request, entry.effect));
                assert_eq!(ready, self.ready(now), "{op:?}");
                let mut claimed = take(store, now, until, 100).await;
                claimed.sort_by_key(|entry| (entry.request, entry.effect));
                assert_eq!(claimed, self.claim(now, until), "{op:?}");
                self.claimed.extend(claimed);
            }
            Op::Finish { claimed, newer } => {
                let Some(entry) = self.claimed.iter().rev().nth(claimed).cloned() else { return };
                let (key, delivered) = ((entry.request, entry.effect), entry.revision + newer);
                if self.outbox.get(&key).is_some_and(|waiting| waiting.revision <= delivered) {
                    self.outbox.remove(&key);
                } else if let Some(waiting) = self.held(&entry) {
                    (waiting.ready_at, waiting.claimed_until) = (waiting.since, None);
                }
                store.finish_outbox(&entry, delivered).await.unwrap();
            }
            Op::Retry { claimed, wait, failed } => {
                let Some(entry) = self.claimed.iter().rev().nth(claimed).cloned() else { return };
                let ready_at = at(self.now + wait);
                if let Some(waiting) = self.held(&entry) {
                    (waiting.ready_at, waiting.claimed_until) = (ready_at, None);
                    waiting.attempts += u32::from(failed);
                }
                store.retry_outbox(&entry, ready_at, failed).await.unwrap();
            }
            Op::Nonce { number, lasts } => {
                let fresh = self.nonces.get(&number).is_none_or(|until| *until <= now);
                if fresh {
                    self.nonces.insert(number, at(self.now + lasts));
                }
                let claimed = store.claim_nonce(Digest::of(&[number]), now, at(self.now + lasts)).await;
                assert_eq!(claimed.unwrap(), fresh, "{op:?}");
            }
            Op::Advance { by } => self.now += by,
            Op::Reopen => {}
        }
    }

    /// A request as it would be made now.
    fn slot(&self, slot: u64) -> Request {
        let made = request_at(slot, at(self.now));
        match slot {
            0..4 => made,
            _ => again(&request_at(0, at(self.now)), slot, 1),
        }
    }

    fn create(&mut self, new: &Create, key: Option<u64>) -> Created {
        let Create { request, idempotency, audit, effects, counts } = new;
        if let Some((known, id)) = key.and_then(|key| self.keys.get(&key))
            && known.until > request.submission.submitted_at
        {
            return Created::Known(known.fingerprint, Box::new(self.requests[id].clone()));
        }
        let place = |it: &Request| (it.submission.lineage, it.submission.depth);
        if self.requests.values().any(|other| other.id == request.id || place(other) == place(request)) {
            return Created::LineageConflict;
        }
        if let (Some(key), Some(idempotency)) = (key, idempotency) {
            self.keys.insert(key, (*idempotency, request.id));
        }
        self.keep(audit, counts);
        self.ask(request, effects);
        self.requests.insert(request.id, request.clone());
        Created::New
    }

    fn commit(&mut self, commit: &Commit) -> Committed {
        let Commit { request, audit, effects, counts } = commit;
        let fits = |stored: &Request| !stored.status().is_terminal() && stored.version + 1 == request.version;
        if !self.requests.get(&request.id).is_some_and(fits) {
            return Committed::Conflict;
        }
        self.keep(audit, counts);
        self.ask(request, effects);
        self.requests.insert(request.id, request.clone());
        Committed::Done
    }

    fn keep(&mut self, audit: &[AuditEntry], counts: &[Count]) {
        self.audit.extend_from_slice(audit);
        for count in counts {
            *self.counters.entry(count.counter.clone()).or_default() += count.by;
        }
    }

    fn ask(&mut self, request: &Request, effects: &[Effect]) {
        let asked = request.history.last().unwrap().at;
        for effect in effects {
            let urgency = Urgency::of(request, *effect);
            let waiting = self.outbox.entry((request.id, *effect)).or_insert(Waiting {
                urgency,
                revision: 0,
                attempts: 0,
                since: asked,
                ready_at: asked,
                claimed_until: None,
            });
            (waiting.revision, waiting.attempts) = (request.version, 0);
            waiting.urgency = waiting.urgency.min(urgency);
            if waiting.claimed_until.is_none() {
                waiting.ready_at = waiting.since;
            }
        }
    }

    fn ready(&self, now: Timestamp) -> Vec<ReadyEntry> {
        let ready = self.outbox.iter().filter(|(_, waiting)| waiting.ready_at <= now);
        let ready = ready.map(|(&(request, effect), waiting)| {
            let Waiting { urgency, revision, since, .. } = *waiting;
            ReadyEntry { request, effect, urgency, revision, since }
        });
        ready.collect()
    }

    fn claim(&mut self, now: Timestamp, until: Timestamp) -> Vec<OutboxEntry> {
        let ready = self.outbox.iter_mut().filter(|(_, waiting)| waiting.ready_at <= now);
        let claimed = ready.map(|(&(request, effect), waiting)| {
            (waiting.ready_at, waiting.claimed_until) = (until, Some(until));
            let Waiting { revision, attempts, since, .. } = *waiting;
            OutboxEntry { request, effect, revision, attempts, since, claimed_until: until }
        });
        claimed.collect()
    }

    /// The entry, where it is still under this claim.
    fn held(&mut self, entry: &OutboxEntry) -> Option<&mut Waiting> {
        let waiting = self.outbox.get_mut(&(entry.request, entry.effect))?;
        (waiting.claimed_until == Some(entry.claimed_until)).then_some(waiting)
    }

    /// Compares everything that can be seen.
    async fn compare(&self, store: &dyn Store, op: &Op) {
        for slot in 0..6 {
            let expected = self.requests.get(&id(slot));
            assert_eq!(store.request(id(slot)).await.unwrap().as_ref(), expected, "{op:?}");
            let mut lineage: Vec<_> =
                self.requests.values().filter(|request| request.submission.lineage == id(slot)).collect();
            lineage.sort_by_key(|request| request.submission.depth);
            assert_eq!(store.lineage(id(slot)).await.unwrap().iter().collect::<Vec<_>>(), lineage, "{op:?}");
        }
        for (key, (idempotency, request)) in &self.keys {
            let known = (at(self.now) < idempotency.until)
                .then(|| (idempotency.fingerprint, self.requests[request].clone()));
            assert_eq!(store.idempotent(&self::key(*key), at(self.now)).await.unwrap(), known, "{op:?}");
        }
        let seen = Seen::of(store).await;
        assert_eq!(seen.audit, self.audit, "{op:?}");
        assert_eq!(seen.counters, self.counters, "{op:?}");
        let oldest = self.outbox.values().map(|waiting| waiting.since).min();
        assert_eq!(seen.depth, OutboxDepth { entries: self.outbox.len() as u64, oldest }, "{op:?}");

        let open = || self.requests.values().filter(|request| !request.status().is_terminal());
        let mut due: Vec<_> = open().map(|request| (request.due_at().unwrap(), request.id)).collect();
        due.sort_unstable();
        assert_eq!(seen.due, due, "{op:?}");
        let next = due.iter().map(|(due, _)| *due).find(|due| *due > at(self.now));
        assert_eq!(store.next_due(at(self.now)).await.unwrap(), next, "{op:?}");

        let mut groups: BTreeMap<_, Vec<Timestamp>> = BTreeMap::new();
        let mut waiting: BTreeMap<(String, String), u64> = BTreeMap::new();
        for request in open() {
            let Submission { action, submitted_at, .. } = &*request.submission;
            groups.entry((action.clone(), request.status())).or_default().push(*submitted_at);
            let State::Open(Open { requirements, .. }) = &request.state else { continue };
            for missing in requirements.iter().filter(|it| it.kind == RequirementKind::Acknowledgement) {
                *waiting.entry((action.clone(), missing.label.clone())).or_default() += 1;
            }
        }
        let groups = groups.into_iter().map(|((action, status), made)| OpenRequests {
            action,
            status,
            count: made.len() as u64,
            oldest: made.iter().min().copied().unwrap(),
            sum_submitted_ms: made.iter().map(|made| u128::from(made.as_millis())).sum(),
        });
        assert_eq!(seen.open, groups.collect::<Vec<_>>(), "{op:?}");
        let waiting = waiting.into_iter().map(|((action, persona), count)| (action, persona, count));
        assert_eq!(seen.waiting, waiting.collect::<Vec<_>>(), "{op:?}");
    }
}

/// Everything about a store that can be seen without knowing what is in it.
#[derive(Debug, PartialEq)]
struct Seen {
    audit: Vec<AuditEntry>,
    last_audit: u64,
    counters: BTreeMap<Counter, u64>,
    depth: OutboxDepth,
    due: Vec<(Timestamp, RequestId)>,
    open: Vec<OpenRequests>,
    waiting: Vec<(String, String, u64)>,
}

impl Seen {
    async fn of(store: &dyn Store) -> Seen {
        let audit = store.audit(0, usize::MAX).await.unwrap();
        let due = store.due(Timestamp::from_millis(u64::MAX), usize::MAX).await.unwrap();
        assert!(due.is_sorted_by_key(|(_, due)| *due), "{due:?}");
        let mut due: Vec<_> = due.into_iter().map(|(id, due)| (due, id)).collect();
        due.sort_unstable();
        let mut open = store.open_requests().await.unwrap();
        open.sort_by_key(|group| (group.action.clone(), group.status));
        let mut waiting = store.waiting_personas().await.unwrap();
        waiting.sort();
        Seen {
            last_audit: audit.last().map_or(0, |(seq, _)| *seq),
            audit: audit.into_iter().map(|(_, entry)| entry).collect(),
            counters: store.counters().await.unwrap(),
            depth: store.outbox_depth().await.unwrap(),
            due,
            open,
            waiting,
        }
    }

    fn counter(&self, metric: &str) -> u64 {
        self.counters.iter().filter(|(counter, _)| counter.metric == metric).map(|(_, value)| value).sum()
    }
}

async fn opened<B: Backend>() -> (B, Arc<dyn Store>) {
    let backend = B::fresh().await;
    let store = backend.open().await;
    (backend, store)
}

/// Starts all at the same moment, and waits for them.
async fn at_once<T, F>(count: u64, work: impl Fn(u64) -> F) -> Vec<T>
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

async fn create(store: &dyn Store, request: &Request) {
    assert_eq!(store.create(new(request)).await.unwrap(), Created::New);
}

async fn commit(store: &dyn Store, request: &Request) {
    assert_eq!(store.commit(change(request)).await.unwrap(), Committed::Done);
}

async fn claim<const N: usize>(store: &dyn Store, now: Timestamp, until: Timestamp) -> [OutboxEntry; N] {
    take(store, now, until, 10).await.try_into().unwrap()
}

/// Claims what is ready, as far as others do not.
async fn take(store: &dyn Store, now: Timestamp, until: Timestamp, limit: usize) -> Vec<OutboxEntry> {
    let mut taken = Vec::new();
    for ReadyEntry { request, effect, .. } in store.ready_outbox(now, limit).await.unwrap() {
        taken.extend(store.claim_outbox(request, effect, now, until).await.unwrap());
    }
    taken
}

/// The requests with something ready.
async fn ready(store: &dyn Store, now: u64, limit: usize) -> Vec<RequestId> {
    store.ready_outbox(at(now), limit).await.unwrap().iter().map(|entry| entry.request).collect()
}

async fn keep(store: &dyn Store, slot: Slot, post: &SlackPost, expected: Committed) {
    assert_eq!(store.keep_slack_post(keeping(slot, post)).await.unwrap(), expected, "{post:?}");
}

fn keeping(slot: Slot, post: &SlackPost) -> KeepPost {
    KeepPost { request: id(1), slot, post: post.clone(), audit: vec![], counts: vec![] }
}

fn post(revision: u64, state: PostState) -> SlackPost {
    SlackPost { revision, state, ..SlackPost::new("C1") }
}
