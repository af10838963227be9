//! Promises of the port `Dispatches`.

use std::sync::Arc;

use countersign_core::lifecycle::{AuditEntry, Request, RequestId, Timestamp};

use super::Backend;
use super::harness::{at_once, opened};
use crate::fixtures::*;
use crate::{
    Claim, Commit, Committed, Create, Created, DeadLetter, Dispatch, DispatchDepth, LONGEST_PAUSE_MS,
    NewDispatch, Removal, RemovedRequest, Settled, Store,
};

fn to(target: &str, position: u32) -> NewDispatch {
    NewDispatch { target: target.into(), position }
}

async fn create(store: &dyn Store, request: &Request, targets: &[&str]) {
    let dispatches = targets.iter().map(|target| to(target, 0)).collect();
    assert_eq!(store.create(Create { dispatches, ..new(request) }).await.unwrap(), Created::New);
}

async fn commit(store: &dyn Store, request: &Request, dispatches: Vec<NewDispatch>) -> Committed {
    store.commit(Commit { dispatches, ..change(request) }).await.unwrap()
}

async fn claimed(store: &dyn Store, number: u64, target: &str, now: u64) -> Option<Dispatch> {
    store.claim_dispatch(id(number), target, claim(at(now), at(now + 10))).await.unwrap()
}

async fn ready(store: &dyn Store, now: u64, limit: usize) -> Vec<(RequestId, String)> {
    let mut ready = store.ready_dispatches(at(now), limit).await.unwrap();
    ready.sort();
    ready
}

fn audited(number: u64) -> AuditEntry {
    audit(&request(number), "webhook_resent")
}

fn told(position: u32, version: u64, complete: bool) -> Settled {
    Settled::Told { position, version, complete }
}

pub(crate) async fn a_target_is_told_of_everything_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1), &["webhook:a"]).await;
    let ended = next(&request(1), at(2), |request| request.state = approved(at(2)));
    assert_eq!(commit(&*store, &ended, vec![to("webhook:a", 1)]).await, Committed::Done);

    let first = claimed(&*store, 1, "webhook:a", 3).await.unwrap();
    let expected = Dispatch {
        request: id(1),
        target: "webhook:a".into(),
        position: 0,
        attempts: 0,
        since: at(0),
        claim: first.claim,
    };
    assert_eq!(first, expected, "an entry that is there keeps its place");
    store.settle_dispatch(&first, at(3), told(1, 2, false)).await.unwrap();
    let second = claimed(&*store, 1, "webhook:a", 3).await.unwrap();
    assert_eq!((second.position, second.attempts), (1, 0));
    store.settle_dispatch(&second, at(3), told(2, 2, true)).await.unwrap();
    assert_eq!(ready(&*store, 1_000, 9).await, []);
    assert_eq!(store.dispatch_depth().await.unwrap(), []);

    // What comes later begins where it says.
    let used = consumed(&ended, at(9));
    assert_eq!(commit(&*store, &used, vec![to("webhook:a", 2)]).await, Committed::Done);
    assert_eq!(claimed(&*store, 1, "webhook:a", 9).await.unwrap().position, 2);
}

pub(crate) async fn a_dispatch_is_the_claimers_alone<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1), &["a", "b"]).await;
    let lost = claimed(&*store, 1, "a", 0).await.unwrap();
    assert_eq!(claimed(&*store, 1, "a", 9).await, None);
    assert_eq!(ready(&*store, 9, 9).await, [(id(1), "b".to_owned())]);
    for (number, target) in [(1, "c"), (2, "a")] {
        assert_eq!(claimed(&*store, number, target, 9).await, None);
    }
    // The claim ends, and whoever had it touches nothing any more.
    let taken = claimed(&*store, 1, "a", 10).await.unwrap();
    for settled in [
        told(1, 1, true),
        Settled::Retry { at: at(90) },
        Settled::Released { at: at(90) },
        Settled::Held { position: 1, version: 1, until: at(90) },
        Settled::Dead { failure: "late".into() },
        Settled::Dropped,
    ] {
        store.settle_dispatch(&lost, at(11), settled).await.unwrap();
    }
    assert_eq!(claimed(&*store, 1, "a", 12).await, None, "it is claimed");
    store.settle_dispatch(&taken, at(12), Settled::Dropped).await.unwrap();
    assert_eq!(ready(&*store, 1_000, 9).await, [(id(1), "b".to_owned())]);
}

pub(crate) async fn a_claim_of_a_dispatch_is_renewed_by_its_holder<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1), &["a", "b"]).await;
    let renew = async |target: &str, id: u64, now: u64, until: u64| {
        let claim = Claim { id, now: at(now), until: at(until) };
        store.renew_dispatch(request(1).id, target, claim).await.unwrap()
    };
    assert!(!renew("a", 7, 0, 90).await, "nobody has claimed it");
    let held = claimed(&*store, 1, "a", 0).await.unwrap();
    assert!(renew("a", held.claim, 5, 15).await);
    assert!(!renew("a", held.claim ^ 1, 6, 90).await, "another claim");
    assert!(!renew("b", held.claim, 6, 90).await, "another target");
    assert_eq!(claimed(&*store, 1, "a", 14).await, None);
    let both = ["a", "b"].map(|target| (id(1), target.to_owned()));
    assert_eq!(ready(&*store, 15, 9).await, both, "it ends if it is not renewed again");
    // As long as nobody has taken it, it is the holder's.
    assert!(renew("a", held.claim, 16, 26).await);
    assert_eq!(ready(&*store, 25, 9).await, both[1..]);
    let taken = claimed(&*store, 1, "a", 26).await.unwrap();
    assert!(!renew("a", held.claim, 27, 90).await, "another worker has it");
    for (settled, why) in [
        (Settled::Retry { at: at(30) }, "it is given back"),
        (Settled::Dead { failure: "no".into() }, "it is dead"),
    ] {
        let claim = claimed(&*store, 1, "a", 31).await.map_or(taken.claim, |it| it.claim);
        let dispatch = Dispatch { claim, ..taken.clone() };
        store.settle_dispatch(&dispatch, at(28), settled).await.unwrap();
        assert!(!renew("a", claim, 29, 90).await, "{why}");
    }
    let last = claimed(&*store, 1, "b", 31).await.unwrap();
    store.settle_dispatch(&last, at(31), Settled::Dropped).await.unwrap();
    assert!(!renew("b", last.claim, 32, 90).await, "it is gone");
    assert_eq!(ready(&*store, 100_000, 9).await, []);
}

pub(crate) async fn what_is_new_while_a_target_is_told_is_told_next<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1), &["a"]).await;
    let first = claimed(&*store, 1, "a", 0).await.unwrap();
    let ended = next(&request(1), at(2), |request| request.state = denied(at(2)));
    commit(&*store, &ended, vec![to("a", 1)]).await;
    assert_eq!(claimed(&*store, 1, "a", 3).await, None, "it stays claimed");
    store.settle_dispatch(&first, at(3), told(1, 1, true)).await.unwrap();
    let second = claimed(&*store, 1, "a", 3).await.unwrap();
    assert_eq!(second.position, 1);
    // A version that does not concern the target is no reason to keep it.
    store.settle_dispatch(&second, at(3), told(2, 9, true)).await.unwrap();
    assert_eq!(store.dispatch_depth().await.unwrap(), []);
}

pub(crate) async fn a_failed_dispatch_keeps_its_schedule_and_a_held_one_does_not<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in [1, 2, 3] {
        create(&*store, &request(number), &["a"]).await;
    }
    let settle = async |number, settled| {
        let dispatch = claimed(&*store, number, "a", 0).await.unwrap();
        store.settle_dispatch(&dispatch, at(0), settled).await.unwrap();
    };
    settle(1, Settled::Retry { at: at(300) }).await;
    settle(2, Settled::Held { position: 1, version: 1, until: at(300) }).await;
    settle(3, Settled::Released { at: at(300) }).await;
    assert_eq!(ready(&*store, 299, 9).await, []);
    for number in [1, 2] {
        let changed = next(&request(number), at(2), |_| {});
        commit(&*store, &changed, vec![to("a", 1)]).await;
    }
    let all = [1, 2, 3].map(|number| (id(number), "a".to_owned()));
    assert_eq!(ready(&*store, 299, 9).await, all[1..2]);
    assert_eq!(ready(&*store, 300, 9).await, all);
    let attempts = async |number| claimed(&*store, number, "a", 300).await.unwrap().attempts;
    assert_eq!([attempts(1).await, attempts(2).await, attempts(3).await], [1, 0, 0]);
}

pub(crate) async fn no_target_hides_another<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in 0..30 {
        create(&*store, &request(number), &["a"]).await;
    }
    create(&*store, &request(30), &["b"]).await;
    for number in 0..5 {
        let dispatch = claimed(&*store, number, "a", 0).await.unwrap();
        store.settle_dispatch(&dispatch, at(0), Settled::Retry { at: at(5) }).await.unwrap();
    }
    let some = ready(&*store, 5, 2).await;
    let of = |target: &str| some.iter().filter(|(_, of)| of == target).count();
    assert_eq!((of("a"), of("b")), (4, 1), "two that failed, two that are new, and the other's");
    assert!(some.contains(&(id(0), "a".to_owned())), "{some:?}");
    let depth = [
        DispatchDepth { target: "a".into(), waiting: 30, oldest: Some(at(0)), dead: 0 },
        DispatchDepth { target: "b".into(), waiting: 1, oldest: Some(at(0)), dead: 0 },
    ];
    assert_eq!(store.dispatch_depth().await.unwrap(), depth);
}

pub(crate) async fn a_dispatch_waits_no_longer_than_the_longest_pause<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1), &["a"]).await;
    let later = at(0).plus(2 * LONGEST_PAUSE_MS);
    let take =
        async |now: Timestamp, until| store.claim_dispatch(id(1), "a", claim(now, until)).await.unwrap();
    let dispatch = take(later, later.plus(30_000)).await.unwrap();
    let end = later.plus(LONGEST_PAUSE_MS);
    store.settle_dispatch(&dispatch, later, Settled::Retry { at: end }).await.unwrap();
    assert_eq!(store.ready_dispatches(later, 9).await.unwrap(), []);
    assert_eq!(take(later, later).await, None);
    let set_back = later.minus(1);
    assert_eq!(store.ready_dispatches(set_back, 9).await.unwrap().len(), 1);
    assert!(take(set_back, later).await.is_some());
}

pub(crate) async fn a_dead_letter_waits_until_it_is_revived<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in [1, 2] {
        create(&*store, &request(number), &["a"]).await;
        let dispatch = claimed(&*store, number, "a", number).await.unwrap();
        store.settle_dispatch(&dispatch, at(number), Settled::Retry { at: at(number) }).await.unwrap();
        let dispatch = claimed(&*store, number, "a", number + 1).await.unwrap();
        let failure = format!("status {number}");
        store.settle_dispatch(&dispatch, at(10 + number), Settled::Dead { failure }).await.unwrap();
    }
    let letter = |number| DeadLetter {
        request: id(number),
        target: "a".into(),
        position: 0,
        since: at(0),
        died_at: at(10 + number),
        failure: format!("status {number}"),
    };
    assert_eq!(store.dead_letters("a", 9).await.unwrap(), [letter(1), letter(2)]);
    assert_eq!(store.dead_letters("a", 1).await.unwrap(), [letter(1)]);
    assert_eq!(store.dead_letters("b", 9).await.unwrap(), []);
    let depth = DispatchDepth { target: "a".into(), waiting: 0, oldest: None, dead: 2 };
    assert_eq!(store.dispatch_depth().await.unwrap(), [depth]);

    // What happens later waits behind it.
    let ended = next(&request(1), at(20), |request| request.state = denied(at(20)));
    commit(&*store, &ended, vec![to("a", 1)]).await;
    assert_eq!(ready(&*store, 100_000, 9).await, []);
    assert_eq!(claimed(&*store, 1, "a", 100_000).await, None);

    let entries = async || super::harness::Seen::of(&*store).await.audit.len();
    let before = entries().await;
    assert!(store.revive_dispatch(id(1), "a", at(30), audited(1)).await.unwrap());
    assert!(!store.revive_dispatch(id(1), "a", at(30), audited(1)).await.unwrap());
    assert!(!store.revive_dispatch(id(2), "b", at(30), audited(2)).await.unwrap());
    assert_eq!(entries().await, before + 1);
    let revived = claimed(&*store, 1, "a", 30).await.unwrap();
    assert_eq!((revived.position, revived.attempts, revived.since), (0, 0, at(30)));
    assert_eq!(store.dead_letters("a", 9).await.unwrap(), [letter(2)]);
    store.settle_dispatch(&revived, at(30), told(1, 1, true)).await.unwrap();
    assert_eq!(claimed(&*store, 1, "a", 30).await.unwrap().position, 1);
}

pub(crate) async fn dispatches_of_a_target_are_dropped<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in 0..5 {
        create(&*store, &request(number), &["a", "b"]).await;
    }
    let dispatch = claimed(&*store, 0, "a", 0).await.unwrap();
    store.settle_dispatch(&dispatch, at(1), Settled::Dead { failure: "no".into() }).await.unwrap();
    assert_eq!(store.drop_dispatches("a", 3).await.unwrap(), 3);
    assert_eq!(store.drop_dispatches("a", 3).await.unwrap(), 2);
    assert_eq!(store.drop_dispatches("a", 3).await.unwrap(), 0);
    let left = DispatchDepth { target: "b".into(), waiting: 5, oldest: Some(at(0)), dead: 0 };
    assert_eq!(store.dispatch_depth().await.unwrap(), [left]);
    assert_eq!(store.dead_letters("a", 9).await.unwrap(), []);
}

pub(crate) async fn a_conflict_enqueues_no_dispatch<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1), &[]).await;
    let mut wrong = next(&request(1), at(1), |_| {});
    wrong.version += 1;
    assert_eq!(commit(&*store, &wrong, vec![to("a", 0)]).await, Committed::Conflict);
    let again = Create { dispatches: vec![to("a", 0)], ..new(&request(1)) };
    assert_eq!(store.create(again).await.unwrap(), Created::LineageConflict);
    assert_eq!(store.dispatch_depth().await.unwrap(), []);
}

pub(crate) async fn claimers_at_once_share_the_dispatches<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in 0..20 {
        create(&*store, &request(number), &["a"]).await;
    }
    let taken = at_once(8, |_| {
        let store = Arc::clone(&store);
        async move {
            let mut taken = Vec::new();
            for (request, target) in store.ready_dispatches(at(1), 50).await.unwrap() {
                let claim = claim(at(1), at(50));
                taken.extend(store.claim_dispatch(request, &target, claim).await.unwrap());
            }
            taken
        }
    });
    let mut taken: Vec<_> = taken.await.into_iter().flatten().map(|dispatch| dispatch.request).collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..20).map(id).collect::<Vec<_>>());
}

pub(crate) async fn reopening_keeps_the_dispatches<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    for number in [1, 2] {
        create(&*store, &request(number), &["a"]).await;
    }
    let dead = claimed(&*store, 1, "a", 0).await.unwrap();
    store.settle_dispatch(&dead, at(1), Settled::Dead { failure: "no".into() }).await.unwrap();
    let held = claimed(&*store, 2, "a", 0).await.unwrap();
    store.settle_dispatch(&held, at(1), told(1, 1, false)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.dead_letters("a", 9).await.unwrap().len(), 1);
    assert_eq!(claimed(&*store, 2, "a", 1).await.unwrap().position, 1);
}

pub(crate) async fn a_removed_request_has_no_dispatches<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1), &["a", "b", "c"]).await;
    create(&*store, &request(2), &["a", "b"]).await;
    let ended = next(&request(1), at(2), |request| request.state = denied(at(2)));
    commit(&*store, &ended, vec![]).await;
    let is_undelivered =
        async || store.removable(ended.id, 10).await.unwrap().iter().any(|it| it.is_undelivered);
    for (target, settled) in [
        ("a", Settled::Dead { failure: "gone".into() }),
        ("b", told(2, 2, true)),
        ("c", Settled::Dead { failure: "gone".into() }),
    ] {
        assert!(is_undelivered().await, "`{target}` waits");
        let claimed = claimed(&*store, 1, target, 3).await.unwrap();
        store.settle_dispatch(&claimed, at(3), settled).await.unwrap();
    }
    assert!(!is_undelivered().await, "dead letters are not delivered by themselves");
    let removal = Removal {
        lineage: ended.id,
        newest: ended.id,
        requests: vec![RemovedRequest::of(&ended)],
        counts: vec![],
    };
    assert_eq!(store.remove(vec![removal], None).await.unwrap(), [true]);
    assert_eq!(store.dead_letters("a", 9).await.unwrap(), []);
    let waits =
        |target: &str| DispatchDepth { target: target.into(), waiting: 1, oldest: Some(at(0)), dead: 0 };
    let mut depth = store.dispatch_depth().await.unwrap();
    depth.sort_by(|one, other| one.target.cmp(&other.target));
    assert_eq!(depth, [waits("a"), waits("b")], "those of another request stay");
}
