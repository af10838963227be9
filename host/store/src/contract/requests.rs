//! Promises of the port `Requests`.

use std::sync::Arc;

use countersign_core::lifecycle::{
    Count, Digest, Effect, Escalation, Gate, Open, Request, RequestId, State, StatusCheck, SupersedeKey,
    parameter_digests,
};
use serde_json::json;

use super::Backend;
use super::harness::{Seen, at_once, commit, create, opened};
use crate::fixtures::*;
use crate::{Commit, Committed, Create, Created, MostOpen, OutboxDepth};

pub(crate) async fn a_created_request_can_be_read<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let mut request = request(1);
    let submission = Arc::make_mut(&mut request.submission);
    submission.justification = "naïve \"quotes\" \u{0} 🎉 \n".into();
    submission.params = object(json!({ "float": 0.1 + 0.2, "tiny": 5e-324, "big": u64::MAX, "null": null }));
    submission.digests = parameter_digests(&submission.params);
    create(&*store, &request).await;
    assert_eq!(store.request(request.id).await.unwrap(), Some(request.clone()));
    assert_eq!(store.lineage(request.id, 0, 100).await.unwrap(), [request]);
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

    // The result is the newest version of the request.
    let voted = next(&first, at(5), |_| {});
    commit(&*store, &voted).await;
    let known = store.idempotent(0, &key(7), at(5)).await.unwrap();
    assert_eq!(known, Some((fingerprint(&first), voted)));
}

pub(crate) async fn an_idempotency_key_runs_out<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request_at(1, at(0));
    assert_eq!(store.create(with_key(&first, 7, at(100))).await.unwrap(), Created::New);
    assert!(store.idempotent(0, &key(7), at(99)).await.unwrap().is_some());
    assert!(store.idempotent(0, &key(7), at(100)).await.unwrap().is_none());
    let second = request_at(2, at(100));
    assert_eq!(store.create(with_key(&second, 7, at(200))).await.unwrap(), Created::New);
    let known = store.idempotent(0, &key(7), at(199)).await.unwrap();
    assert_eq!(known, Some((fingerprint(&second), second)));
    assert_eq!(store.request(first.id).await.unwrap(), Some(first), "only the key has expired");

    // Storing many keys that expire soon deletes no valid key.
    for number in 10..30 {
        let request = request_at(number, at(number));
        assert_eq!(store.create(with_key(&request, number, at(number + 1))).await.unwrap(), Created::New);
    }
    assert!(store.idempotent(0, &key(7), at(199)).await.unwrap().is_some());
}

pub(crate) async fn one_of_many_repeated_creates_counts<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let made = at_once(50, |number| {
        let store = Arc::clone(&store);
        async move { store.create(with_key(&request_in(0, number), 7, at(100))).await.unwrap() }
    });
    let made = made.await;
    assert_eq!(made.iter().filter(|made| **made == Created::New).count(), 1);
    let seen = Seen::of(&*store).await;
    assert_eq!((seen.audit.len(), seen.depth.entries), (1, 1));
    let (_, first) = store.idempotent(0, &key(7), at(0)).await.unwrap().unwrap();
    let known = Created::Known(fingerprint(&first), Box::new(first));
    assert!(made.iter().all(|made| *made == Created::New || *made == known));
}

pub(crate) async fn a_lineage_is_kept_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    // The order of the ids differs from the order of the depths.
    let chain = [first.clone(), again(&first, 9, 1), again(&first, 8, 2), again(&first, 10, 3)];
    for request in &chain {
        create(&*store, request).await;
    }
    create(&*store, &request(11)).await;
    assert_eq!(store.lineage(first.id, 0, 100).await.unwrap(), chain);
    assert_eq!(
        store.lineage(chain[1].id, 0, 100).await.unwrap(),
        [],
        "a lineage has the id of its first request"
    );

    let before = Seen::of(&*store).await;
    let twice = with_key(&again(&first, 12, 2), 5, at(100));
    assert_eq!(store.create(twice).await.unwrap(), Created::LineageConflict);
    assert_eq!(store.request(again(&first, 12, 2).id).await.unwrap(), None);
    assert_eq!(store.idempotent(0, &key(5), at(0)).await.unwrap(), None);
    assert_eq!(Seen::of(&*store).await, before);

    let made = at_once(20, |number| {
        let (store, request) = (Arc::clone(&store), again(&first, 20 + number, 4));
        async move { store.create(new(&request)).await.unwrap() }
    });
    assert_eq!(made.await.iter().filter(|made| **made == Created::New).count(), 1);
    assert_eq!(store.lineage(first.id, 0, 100).await.unwrap().len(), 5);
}

pub(crate) async fn a_lineage_is_read_in_parts<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request_at(1, at(0));
    create(&*store, &first).await;
    assert_eq!(store.newest_of_lineage(first.id).await.unwrap(), Some(first.clone()));
    let mut chain = vec![first.clone()];
    for depth in 1..=4_u32 {
        let mut request = again(&first, 10 - u64::from(depth), depth);
        Arc::make_mut(&mut request.submission).submitted_at = at(u64::from(depth) * 10);
        create(&*store, &request).await;
        chain.push(request);
    }
    create(&*store, &request_at(20, at(99))).await;
    for (from, limit) in [(0, 5), (0, 2), (1, 1), (2, 100), (4, 1), (5, 10), (0, 0), (u32::MAX, 10)] {
        let part = store.lineage(first.id, from, limit).await.unwrap();
        let begin = chain.len().min(from as usize);
        let end = chain.len().min(begin.saturating_add(limit));
        assert_eq!(part, chain[begin..end], "from {from}, at most {limit}");
    }
    assert_eq!(store.newest_of_lineage(first.id).await.unwrap(), chain.last().cloned());
    assert_eq!(store.newest_of_lineage(chain[1].id).await.unwrap(), None, "it is no lineage");
    assert_eq!(store.newest_of_lineage(id(50)).await.unwrap(), None);
    let recent = async |since, limit| store.recent_in_lineage(first.id, at(since), limit).await.unwrap();
    assert_eq!(recent(20, 10).await, [at(40), at(30)]);
    assert_eq!(recent(9, 3).await, [at(40), at(30), at(20)]);
    assert_eq!(recent(40, 3).await, []);
    assert_eq!(recent(0, 10).await, [40, 30, 20, 10].map(at));
    assert_eq!(recent(0, 0).await, []);
    assert_eq!(store.recent_in_lineage(id(20), at(98), 5).await.unwrap(), [at(99)], "the first one counts");
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

pub(crate) async fn open_requests_are_limited_by_caller_and_action<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let of = |number, caller: Option<&str>, action: &str| {
        let mut request = request(number);
        let submission = Arc::make_mut(&mut request.submission);
        (submission.caller, submission.action) = (caller.map(str::to_owned), action.to_owned());
        request
    };
    let limited = async |request: &Request, in_all, of_action| {
        let most_open = MostOpen { in_all, of_action };
        store.create(Create { most_open, ..new(request) }).await.unwrap()
    };
    for (start, caller) in [(0, None), (100, Some("web"))] {
        for number in [start, start + 1] {
            assert_eq!(limited(&of(number, caller, "deploy"), None, Some(2)).await, Created::New);
        }
        // One that has changed and is still open counts once.
        commit(&*store, &next(&of(start + 1, caller, "deploy"), at(1), |_| {})).await;
        let third = of(start + 2, caller, "deploy");
        assert_eq!(limited(&third, None, Some(2)).await, Created::TooManyOpen, "{caller:?}");
        assert_eq!(store.request(third.id).await.unwrap(), None);
        let other = of(start + 3, caller, "scale");
        assert_eq!(limited(&other, Some(2), None).await, Created::TooManyOpen, "{caller:?}: in all");
        assert_eq!(limited(&other, Some(3), Some(1)).await, Created::New, "{caller:?}: another action");
        assert_eq!(limited(&third, Some(9), Some(2)).await, Created::TooManyOpen, "{caller:?}");
        assert_eq!(limited(&third, Some(3), Some(9)).await, Created::TooManyOpen, "{caller:?}: in all");

        // Only open ones count.
        let first = of(start, caller, "deploy");
        commit(&*store, &next(&first, at(1), |request| request.state = denied(at(1)))).await;
        assert_eq!(limited(&third, Some(3), Some(2)).await, Created::New, "{caller:?}");
    }
    assert_eq!(limited(&of(200, Some("cli"), "deploy"), Some(1), Some(1)).await, Created::New);
    assert_eq!(limited(&of(201, Some("zero"), "deploy"), None, Some(0)).await, Created::TooManyOpen);
}

pub(crate) async fn one_of_many_creates_is_the_last_that_may_be_open<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let most_open = MostOpen { in_all: None, of_action: Some(7) };
    let created = at_once(20, |number| {
        let store = Arc::clone(&store);
        async move { store.create(Create { most_open, ..new(&request(number)) }).await.unwrap() }
    });
    let created = created.await;
    assert_eq!(created.iter().filter(|it| **it == Created::New).count(), 7);
    assert_eq!(created.iter().filter(|it| **it == Created::TooManyOpen).count(), 13);
}

pub(crate) async fn a_commit_is_stored_whole<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let approved = next(&first, at(5), |request| request.state = approved(at(5)));
    let audit = vec![audit(&approved, "approve"), audit(&approved, "approved")];
    let counts = vec![Count::one("approvals_total", &[("action", "deploy")])];
    let effects = vec![Effect::ShowRequest, Effect::NotifyEscalation];
    let all = Commit {
        request: approved.clone(),
        nonce: None,
        audit: audit.clone(),
        effects,
        dispatches: vec![],
        counts,
    };
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
    let ended = next(&request(2), at(1), |request| {
        request.state = State::Expired { at: at(1), by: None, reason: None }
    });
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

/// It is a version of the ended request like any other, and opens it for nobody.
pub(crate) async fn what_was_done_with_an_approval_is_stored<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(2)).await;
    let first = request(1);
    create(&*store, &first).await;
    let ended = next(&first, at(1), |request| request.state = approved(at(1)));
    commit(&*store, &ended).await;
    let before = Seen::of(&*store).await;

    let used = consumed(&ended, at(2));
    for (what, request) in [
        ("the stored version", ended.clone()),
        ("a version too far", consumed(&used, at(3))),
        ("an open state", Request { state: open(1), ..used.clone() }),
        ("another end", Request { state: denied(at(1)), ..used.clone() }),
        (
            "yet another end",
            Request { state: State::Expired { at: at(2), by: None, reason: None }, ..used.clone() },
        ),
    ] {
        assert_eq!(store.commit(change(&request)).await.unwrap(), Committed::Conflict, "{what}");
        assert_eq!(Seen::of(&*store).await, before, "{what}");
    }
    commit(&*store, &used).await;
    assert_eq!(store.request(first.id).await.unwrap(), Some(used.clone()));
    let after = Seen::of(&*store).await;
    assert_eq!((after.due, after.open, after.waiting), (before.due, before.open, before.waiting));
    assert_eq!(after.audit.len(), before.audit.len() + 1);
    assert_eq!(after.depth.entries, before.depth.entries);
    assert_eq!(store.commit(change(&used)).await.unwrap(), Committed::Conflict, "once");
}

pub(crate) async fn one_of_many_consumers_wins<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let ended = next(&first, at(1), |request| request.state = approved(at(1)));
    commit(&*store, &ended).await;
    let used = at_once(100, |number| {
        let (store, request) = (Arc::clone(&store), consumed(&ended, at(2 + number)));
        async move { (store.commit(change(&request)).await.unwrap(), request) }
    });
    let won: Vec<_> = used.await.into_iter().filter(|(made, _)| *made == Committed::Done).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(store.request(first.id).await.unwrap(), Some(won[0].1.clone()));
    assert_eq!(Seen::of(&*store).await.audit.len(), 3);
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
    let due = async |now, limit| store.due(at(now), None, limit).await.unwrap().requests;
    assert_eq!(due(9, 10).await, []);
    assert_eq!(due(10, 10).await, [(id(2), at(10))]);
    assert_eq!(due(39, 10).await, [(id(2), at(10)), (id(3), at(20)), (id(1), at(30))]);
    assert_eq!(due(39, 2).await, [(id(2), at(10)), (id(3), at(20))]);
    assert_eq!(due(39, 0).await, []);
    assert_eq!(store.next_due(at(0)).await.unwrap(), Some(at(10)));
    assert_eq!(store.next_due(at(10)).await.unwrap(), Some(at(20)));
    assert_eq!(store.next_due(at(40)).await.unwrap(), None);

    // The due time is the earliest of wake-up, escalation and expiry, and changes with the request.
    let mut moved = store.request(id(2)).await.unwrap().unwrap();
    moved = next(&moved, at(1), |request| {
        Arc::make_mut(&mut request.submission).expires_at = at(90);
        request.state = State::Open(Open { escalation: Escalation::At(at(35)), ..Open::default() });
    });
    commit(&*store, &moved).await;
    assert_eq!(due(39, 10).await, [(id(3), at(20)), (id(1), at(30)), (id(2), at(35))]);
}

pub(crate) async fn what_is_due_comes_page_by_page<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    // Several at one time, and not in the order of their ids.
    let times = [(5, 10), (1, 20), (9, 20), (3, 20), (7, 20), (2, 30)];
    for (number, due) in times {
        let mut request = request(number);
        Arc::make_mut(&mut request.submission).expires_at = at(due);
        create(&*store, &request).await;
    }
    let mut expected = times.map(|(number, due)| (at(due), id(number)));
    expected.sort_unstable();
    for size in 1..=times.len() {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.due(at(30), after, size).await.unwrap().requests;
            assert!(page.len() <= size, "{page:?}");
            seen.extend(page.iter().map(|(id, due)| (*due, *id)));
            if page.len() < size {
                break;
            }
            after = seen.last().copied();
        }
        assert_eq!(seen, expected, "pages of {size}");
    }
}

/// Ended ones too, whatever the order in which they were stored.
pub(crate) async fn all_requests_are_listed_newest_first<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let mut expected = Vec::new();
    for number in [5, 0, 3, 7, 1, 6, 2, 4] {
        let first = request(number);
        create(&*store, &first).await;
        if number % 2 == 0 {
            commit(&*store, &next(&first, at(1), |request| request.state = denied(at(1)))).await;
        }
        expected.push(first.id);
    }
    expected.sort_unstable();
    expected.reverse();
    for size in [1, 3, 8, 100] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = store.newest(before, size).await.unwrap();
            seen.extend(&page);
            if page.len() < size {
                break;
            }
            before = seen.last().copied();
        }
        assert_eq!(seen, expected, "pages of {size}");
    }
}

pub(crate) async fn what_is_terminal_is_never_due<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let cancelled = State::Cancelled { at: at(1), reason: None, successor: None, by: None };
    for (number, state) in
        [approved(at(1)), denied(at(1)), State::Expired { at: at(1), by: None, reason: None }, cancelled]
            .into_iter()
            .enumerate()
    {
        let first = request(number as u64);
        create(&*store, &first).await;
        commit(&*store, &next(&first, at(1), |request| request.state = state)).await;
    }
    // A request that is approved at creation.
    let mut unattended = request(9);
    unattended.state = approved(at(0));
    create(&*store, &unattended).await;
    let seen = Seen::of(&*store).await;
    assert_eq!((seen.due, seen.open, seen.waiting), (vec![], vec![], vec![]));
    assert_eq!(store.next_due(at(0)).await.unwrap(), None);
}

/// Also of creates that are committed together; and whoever has no caller is one caller.
pub(crate) async fn a_caller_has_so_many_open_and_no_more<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let made = |number: u64, caller: Option<&str>, action: &str| {
        let mut request = request(number);
        let submission = Arc::make_mut(&mut request.submission);
        submission.caller = caller.map(str::to_owned);
        submission.action = action.to_owned();
        request
    };
    let create = |request: Request, in_all, of_action| {
        let (store, most_open) = (Arc::clone(&store), MostOpen { in_all, of_action });
        async move {
            let created = store.create(Create { most_open, ..new(&request) }).await.unwrap();
            (request, created)
        }
    };
    for caller in [None, Some("pipeline")] {
        let base = if caller.is_some() { 100 } else { 0 };
        let created = at_once(20, |n| create(made(base + n, caller, "deploy"), None, Some(3))).await;
        let new: Vec<_> = created.iter().filter(|(_, made)| *made == Created::New).collect();
        let refused = created.iter().filter(|(_, made)| *made == Created::TooManyOpen).count();
        assert_eq!((new.len(), refused), (3, 17), "{created:?}");

        let other = made(base + 20, caller, "migrate");
        assert_eq!(create(other.clone(), Some(3), Some(3)).await.1, Created::TooManyOpen, "three in all");
        assert_eq!(create(other, Some(4), Some(3)).await.1, Created::New, "another action");
        let (ended, _) = new.first().unwrap();
        commit(&*store, &next(ended, at(1), |request| request.state = approved(at(1)))).await;
        let again = made(base + 21, caller, "deploy");
        assert_eq!(create(again, Some(4), Some(3)).await.1, Created::New, "one has ended");
        let too_many = made(base + 22, caller, "deploy");
        assert_eq!(create(too_many, None, Some(3)).await.1, Created::TooManyOpen);
    }
}

/// A request in this shard that supersedes others with this key.
fn superseding(shard: u16, number: u64, supersede: u64) -> Request {
    let mut request = request_in(shard, number);
    let supersede = SupersedeKey { by: vec!["ref".into()], key: key(supersede), earlier: Vec::new() };
    Arc::make_mut(&mut request.submission).supersede = Some(supersede);
    request
}

/// A request that is refused for those that it would end would leave them standing.
pub(crate) async fn what_gives_way_does_not_count_towards_the_limit<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let made = |number: u64, supersede: u64, caller: &str, action: &str| {
        let mut request = superseding(u16::try_from(number).unwrap(), number, supersede);
        let submission = Arc::make_mut(&mut request.submission);
        (submission.caller, submission.action) = (Some(caller.to_owned()), action.to_owned());
        request
    };
    let limited = async |request: &Request, in_all, of_action| {
        let most_open = MostOpen { in_all, of_action };
        store.create(Create { most_open, ..new(request) }).await.unwrap()
    };
    let first = made(1, 7, "web", "deploy");
    assert_eq!(limited(&first, Some(1), Some(1)).await, Created::New);
    // Neither another key, another caller, none at all, nor one that ended as it was made.
    let mut approved_as_made = made(3, 7, "web", "deploy");
    approved_as_made.state = approved(at(0));
    let mut plain = request(4);
    Arc::make_mut(&mut plain.submission).caller = Some("web".to_owned());
    for other in [made(2, 8, "web", "deploy"), approved_as_made, plain] {
        assert_eq!(limited(&other, Some(1), None).await, Created::TooManyOpen);
        assert_eq!(limited(&other, None, Some(1)).await, Created::TooManyOpen);
    }
    assert_eq!(limited(&made(5, 9, "cli", "deploy"), Some(1), None).await, Created::New);
    assert_eq!(limited(&made(6, 7, "cli", "deploy"), Some(1), None).await, Created::TooManyOpen);
    assert_eq!(limited(&made(7, 7, "web", "deploy"), Some(0), None).await, Created::TooManyOpen);

    let second = made(8, 7, "web", "deploy");
    assert_eq!(limited(&second, Some(1), Some(1)).await, Created::New);
    assert_eq!(store.with_supersede_key(&key(7), None).await.unwrap(), [first.id, second.id]);
    // Both count for others until the older one has ended.
    assert_eq!(limited(&made(9, 8, "web", "deploy"), Some(2), None).await, Created::TooManyOpen);
    commit(&*store, &next(&first, at(1), |request| request.state = denied(at(1)))).await;
    assert_eq!(limited(&made(9, 8, "web", "deploy"), Some(2), None).await, Created::New);
    assert_eq!(
        limited(&made(10, 7, "web", "deploy"), Some(1), None).await,
        Created::TooManyOpen,
        "two stand"
    );
}

pub(crate) async fn open_requests_are_found_by_their_supersede_key<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let with = async |supersede: u64, request: Option<RequestId>| {
        store.with_supersede_key(&key(supersede), request).await.unwrap()
    };
    assert_eq!(with(7, None).await, []);
    // In the order in which they were stored, whatever their ids and shards say.
    let [first, second, third] =
        [(9, 5), (1, 9), (70, 1)].map(|(shard, number)| superseding(shard, number, 7));
    let other = superseding(1, 20, 8);
    for request in [&first, &second, &other, &third] {
        create(&*store, request).await;
    }
    create(&*store, &request(30)).await;
    let all = [first.id, second.id, third.id];
    assert_eq!(with(7, Some(second.id)).await, all);
    assert_eq!(with(7, None).await, all, "asking changes nothing");
    assert_eq!((with(8, None).await, with(9, None).await), (vec![other.id], vec![]));

    // What was not stored is not found, and what is stored again is where it was.
    assert_eq!(store.create(new(&first)).await.unwrap(), Created::LineageConflict);
    let nothing =
        Create { most_open: MostOpen { in_all: Some(0), of_action: None }, ..new(&superseding(2, 40, 7)) };
    assert_eq!(store.create(nothing).await.unwrap(), Created::TooManyOpen);
    assert_eq!(with(7, None).await, all);

    // A version that is open stays; one that ended goes.
    let changed = next(&first, at(1), |_| {});
    commit(&*store, &changed).await;
    let ended = next(&second, at(1), |request| request.state = denied(at(1)));
    commit(&*store, &ended).await;
    assert_eq!(with(7, Some(first.id)).await, [first.id, third.id]);
    commit(&*store, &next(&changed, at(2), |request| request.state = approved(at(2)))).await;
    assert_eq!(with(7, None).await, [third.id]);
    let newer = superseding(3, 2, 7);
    create(&*store, &newer).await;
    assert_eq!(with(7, Some(newer.id)).await, [third.id, newer.id]);

    // One that a gate asks for is found by what the gate's reports name as well.
    let mut gated = superseding(5, 3, 8);
    let gate = Gate::Gitlab(StatusCheck {
        project: 1,
        merge_request: 2,
        check: 3,
        sha: "0f1e2d3c".to_owned(),
        target: "main".to_owned(),
    });
    let subject = gate.subject();
    Arc::make_mut(&mut gated.submission).gate = Some(gate);
    assert_eq!(store.with_supersede_key(&subject, None).await.unwrap(), []);
    create(&*store, &gated).await;
    assert_eq!(store.with_supersede_key(&subject, Some(gated.id)).await.unwrap(), [gated.id]);
    assert_eq!(with(8, None).await, [other.id, gated.id]);
    commit(&*store, &next(&gated, at(1), |request| request.state = denied(at(1)))).await;
    assert_eq!(store.with_supersede_key(&subject, None).await.unwrap(), []);
    assert_eq!(with(8, None).await, [other.id]);
}

pub(crate) async fn of_many_with_one_supersede_key_the_last_finds_all<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let found = at_once(20, |number| {
        let store = Arc::clone(&store);
        async move {
            let request = superseding(u16::try_from(number).unwrap() * 7, number, 7);
            assert_eq!(store.create(new(&request)).await.unwrap(), Created::New);
            store.with_supersede_key(&key(7), Some(request.id)).await.unwrap()
        }
    });
    let found = found.await;
    let all = store.with_supersede_key(&key(7), None).await.unwrap();
    assert_eq!(all.len(), 20);
    assert!(found.contains(&all), "whoever asked last has seen all");
    // They agree in what comes before what.
    for found in found {
        let known = all.iter().filter(|id| found.contains(id)).copied().collect::<Vec<_>>();
        assert_eq!(found, known);
    }
}
