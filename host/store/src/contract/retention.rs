//! Retention: what is listed, and what is removed.

use std::sync::Arc;

use countersign_core::lifecycle::{Count, Request, RequestId, Timestamp};
use countersign_core::record::{SlackPost, Slot};

use super::Backend;
use super::harness::{Seen, at_once, commit, create, opened};
use crate::fixtures::{again, approved, at, consumed, denied, new, next, request, with_key};
use crate::{Committed, Created, KeepPost, Removal, RemovedRequest, Store};

/// Creates a request, and denies it at a time.
async fn ended(store: &dyn Store, made: &Request, when: u64) -> Request {
    create(store, made).await;
    let ended = next(made, at(when), |request| request.state = denied(at(when)));
    commit(store, &ended).await;
    ended
}

fn removal(requests: &[&Request]) -> Removal {
    Removal {
        lineage: requests[0].submission.lineage,
        newest: requests[requests.len() - 1].id,
        requests: requests.iter().map(|request| RemovedRequest::of(request)).collect(),
        counts: vec![Count::of("purged_requests_total", &[], requests.len() as u64)],
    }
}

pub(crate) async fn what_has_ended_is_listed_by_when_it_ended<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let open = request(1);
    create(&*store, &open).await;
    let (late, early, approved_one) = (request(2), request(20), request(3));
    ended(&*store, &late, 30).await;
    ended(&*store, &early, 10).await;
    create(&*store, &approved_one).await;
    let decided = next(&approved_one, at(20), |request| request.state = approved(at(20)));
    commit(&*store, &decided).await;
    // What is done with its approval does not change when it ended.
    commit(&*store, &consumed(&decided, at(25))).await;

    let listed = async |until, limit| store.ended(at(until), limit).await.unwrap();
    assert_eq!(listed(9, 10).await, [] as [RequestId; 0]);
    assert_eq!(listed(100, 10).await, [early.id, approved_one.id, late.id]);
    assert_eq!(listed(100, 2).await, [early.id, approved_one.id]);
    store.put_off(vec![(early.id, at(200)), (open.id, at(1)), (request(7).id, at(1))]).await.unwrap();
    assert_eq!(listed(100, 10).await, [approved_one.id, late.id]);
    assert_eq!(listed(200, 10).await, [approved_one.id, late.id, early.id]);
    // A request can have ended as it was made.
    let mut at_once = request(4);
    at_once.state = denied(at(0));
    create(&*store, &at_once).await;
    assert_eq!(listed(5, 10).await, [at_once.id]);
}

pub(crate) async fn what_is_removed_is_gone_with_all_that_belongs_to_it<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let other = ended(&*store, &request(2), 5).await;
    let before = Seen::of(&*store).await;
    let first = ended(&*store, &request(1), 10).await;
    let second = ended(&*store, &again(&request(1), 9, 1), 20).await;
    for slot in [Slot::Main, Slot::EscalationThread, Slot::EscalationChannel, Slot::Replaced(0)] {
        let mut post = SlackPost::new("C1");
        (post.revision, post.refresh_at) = (1, Some(at(50)));
        let keep = KeepPost { request: second.id, slot, post, audit: vec![], counts: vec![] };
        assert_eq!(store.keep_slack_post(keep).await.unwrap(), Committed::Done);
    }
    let found = store.removable(first.id, 10).await.unwrap();
    let found: Vec<_> = found.iter().map(|it| (&it.request.id, it.key_until, it.is_undelivered)).collect();
    let none = Some(Timestamp::EPOCH);
    assert_eq!(found, [(&first.id, none, false), (&second.id, none, true)]);
    assert_eq!(store.removable(first.id, 10).await.unwrap()[1].request.state, second.state);

    let audit = Seen::of(&*store).await.audit;
    assert_eq!(store.remove(vec![removal(&[&first, &second])], None).await.unwrap(), [true]);
    let after = Seen::of(&*store).await;
    assert_eq!((after.depth, &after.due, &after.open), (before.depth, &before.due, &before.open));
    assert_eq!(after.counter("purged_requests_total"), 2);
    assert_eq!(after.audit, audit, "the audit log stays");
    assert_eq!(store.request(first.id).await.unwrap(), None);
    assert_eq!(store.lineage(first.id, 0, 10).await.unwrap(), []);
    assert_eq!(store.newest_of_lineage(first.id).await.unwrap(), None);
    assert_eq!(store.newest(None, 10).await.unwrap(), [other.id]);
    assert_eq!(store.ended(at(100), 10).await.unwrap(), [other.id]);
    assert_eq!(store.stale_slack_posts(at(100), 10).await.unwrap(), []);
    assert_eq!(store.slack_post(second.id, Slot::Replaced(0)).await.unwrap(), None);
    let ready = store.ready_outbox(at(100), 10).await.unwrap();
    assert_eq!(ready.iter().map(|entry| entry.request).collect::<Vec<_>>(), [other.id]);
    // Doing it again does nothing, and leaves the counter alone.
    assert_eq!(store.remove(vec![removal(&[&first, &second])], None).await.unwrap(), [false]);
    assert_eq!(Seen::of(&*store).await, after);
}

pub(crate) async fn what_has_changed_is_not_removed<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let open = request(2);
    create(&*store, &open).await;
    let made = request(1);
    create(&*store, &made).await;
    let decided = next(&made, at(10), |request| request.state = approved(at(10)));
    commit(&*store, &decided).await;
    let used = consumed(&decided, at(20));
    let first = ended(&*store, &request(3), 10).await;
    let stays = async |removal: Removal| {
        let before = Seen::of(&*store).await;
        assert_eq!(store.remove(vec![removal], None).await.unwrap(), [false]);
        assert_eq!(Seen::of(&*store).await, before);
    };
    stays(removal(&[&open])).await;
    stays(removal(&[&used])).await;
    commit(&*store, &used).await;
    stays(removal(&[&decided])).await;
    create(&*store, &again(&first, 30, 1)).await;
    stays(removal(&[&first])).await;
    // Of several each is looked at by itself.
    let removals = vec![removal(&[&first]), removal(&[&used])];
    assert_eq!(store.remove(removals, None).await.unwrap(), [false, true]);
    assert_eq!(store.request(made.id).await.unwrap(), None);
    assert!(store.request(first.id).await.unwrap().is_some());
}

pub(crate) async fn the_oldest_of_a_lineage_go_first<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = ended(&*store, &request(1), 10).await;
    let second = ended(&*store, &again(&request(1), 9, 1), 20).await;
    let third = ended(&*store, &again(&request(1), 10, 2), 30).await;
    let found = store.removable(first.id, 2).await.unwrap();
    assert_eq!(found.iter().map(|it| it.request.id).collect::<Vec<_>>(), [first.id, second.id]);
    let part = Removal { newest: third.id, ..removal(&[&first, &second]) };
    assert_eq!(store.remove(vec![part], None).await.unwrap(), [true]);
    let left = store.removable(first.id, 9).await.unwrap();
    assert_eq!(left.iter().map(|it| it.request.id).collect::<Vec<_>>(), [third.id]);
    assert_eq!(store.newest_of_lineage(first.id).await.unwrap(), Some(third.clone()));
    create(&*store, &again(&request(1), 11, 3)).await;
    assert_eq!(store.remove(vec![removal(&[&third])], None).await.unwrap(), [false]);
}

/// Whoever makes a request again has read the one before it; it may be gone by the time that the new one is stored.
pub(crate) async fn a_removed_lineage_is_not_gone_on_with<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = ended(&*store, &request(1), 10).await;
    let second = again(&request(1), 9, 1);
    assert_eq!(
        store.create(new(&again(&first, 12, 2))).await.unwrap(),
        Created::LineageConflict,
        "a depth is left out"
    );
    assert_eq!(store.remove(vec![removal(&[&first])], None).await.unwrap(), [true]);
    assert_eq!(store.create(new(&second)).await.unwrap(), Created::LineageConflict);
    assert_eq!(store.lineage(first.id, 0, 10).await.unwrap(), []);

    // Whichever comes first, no lineage lacks its beginning.
    for number in 20..40 {
        let first = ended(&*store, &request(number), 10).await;
        let (one, other) = (Arc::clone(&store), Arc::clone(&store));
        let (gone, next) = (removal(&[&first]), again(&first, 1000 + number, 1));
        let done = at_once(2, |which| {
            let (one, other) = (Arc::clone(&one), Arc::clone(&other));
            let (gone, next) = (gone.clone(), next.clone());
            async move {
                match which {
                    0 => one.remove(vec![gone], None).await.unwrap() == [true],
                    _ => other.create(new(&next)).await.unwrap() == Created::New,
                }
            }
        });
        assert_eq!(done.await.into_iter().filter(|done| *done).count(), 1);
    }
}

pub(crate) async fn it_is_known_until_when_an_idempotency_key_counts<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let keyed = request(1);
    store.create(with_key(&keyed, 5, at(70))).await.unwrap();
    create(&*store, &request(2)).await;
    let until = async |request: &Request| store.removable(request.id, 2).await.unwrap()[0].key_until;
    assert_eq!(until(&keyed).await, Some(at(70)));
    assert_eq!(until(&request(2)).await, Some(Timestamp::EPOCH));
}
