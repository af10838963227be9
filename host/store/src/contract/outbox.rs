//! Promises of the port `Outbox`.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::lifecycle::{Effect, Request, RequestId, Timestamp};
use countersign_core::record::{PolicyEntry, SlackPost, Slot};

use super::Backend;
use super::harness::{at_once, commit, create, opened, take};
use crate::fixtures::*;
use crate::{
    Claim, Commit, Committed, KeepPost, LONGEST_WAIT_MS, OutboxDepth, OutboxEntry, ReadyEntry, Store, Urgency,
};

pub(crate) async fn a_claimed_entry_is_the_claimers_alone<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let ready = ReadyEntry {
        request: id(1),
        effect: Effect::ShowRequest,
        urgency: Urgency::First,
        channel: String::new(),
        revision: 1,
        since: at(0),
    };
    assert_eq!(store.ready_outbox(at(0), 10).await.unwrap(), [ready]);
    let mine = claim(at(0), at(10));
    let claimed = store.claim_outbox(id(1), Effect::ShowRequest, mine).await.unwrap();
    let expected = OutboxEntry {
        request: id(1),
        effect: Effect::ShowRequest,
        revision: 1,
        attempts: 0,
        since: at(0),
        claim: mine.id,
        taken_over: false,
    };
    assert_eq!(claimed, Some(expected));
    assert_eq!(store.ready_outbox(at(9), 10).await.unwrap(), []);
    for (request, effect) in
        [(id(1), Effect::ShowRequest), (id(1), Effect::NotifyEscalation), (id(2), Effect::ShowRequest)]
    {
        assert_eq!(store.claim_outbox(request, effect, claim(at(9), at(20))).await.unwrap(), None);
    }
    let depth = OutboxDepth { entries: 1, oldest: Some(at(0)) };
    assert_eq!(store.outbox_depth().await.unwrap(), depth, "a claimed entry still waits");
}

pub(crate) async fn a_claim_runs_out<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let [lost] = claimed(&*store, at(0), at(10)).await;
    let [taken] = claimed(&*store, at(10), at(20)).await;
    assert_eq!(taken, OutboxEntry { claim: taken.claim, taken_over: true, ..lost });
    assert_ne!(taken.claim, lost.claim);
}

pub(crate) async fn a_claim_is_renewed_by_its_holder<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let renew = async |id: u64, now: u64, until: u64| {
        let claim = Claim { id, now: at(now), until: at(until) };
        store.renew_outbox(request(1).id, Effect::ShowRequest, claim).await.unwrap()
    };
    assert!(!renew(7, 0, 90).await, "nobody has claimed it");
    let [held] = claimed(&*store, at(0), at(10)).await;
    assert!(renew(held.claim, 5, 15).await);
    assert!(!renew(held.claim ^ 1, 6, 90).await, "another claim");
    assert_eq!(ready(&*store, 14, 10).await, []);
    assert_eq!(ready(&*store, 15, 10).await, [id(1)], "it ends if it is not renewed again");
    // As long as nobody has taken it, it is the holder's.
    assert!(renew(held.claim, 16, 26).await);
    assert_eq!(ready(&*store, 25, 10).await, []);
    let [taken] = claimed(&*store, at(26), at(36)).await;
    assert!(taken.taken_over);
    assert!(!renew(held.claim, 27, 90).await, "another worker has it");
    // One that was enqueued again stays with its holder.
    commit(&*store, &next(&request(1), at(28), |_| {})).await;
    assert!(renew(taken.claim, 29, 40).await);
    assert_eq!(ready(&*store, 39, 10).await, []);
    store.retry_outbox(&taken, at(30), at(31), false).await.unwrap();
    assert!(!renew(taken.claim, 30, 90).await, "it is given back");
    let [last] = claimed(&*store, at(31), at(41)).await;
    assert!(!last.taken_over, "what was begun is known");
    store.finish_outbox(&last, last.revision).await.unwrap();
    assert!(!renew(last.claim, 32, 90).await, "it is gone");
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
}

pub(crate) async fn what_has_waited_for_longest_comes_first<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for (number, made) in [(1, 3), (2, 1), (3, 2)] {
        create(&*store, &request_at(number, at(made))).await;
    }
    let early = store.claim_outbox(id(2), Effect::ShowRequest, claim(at(1), at(50))).await.unwrap().unwrap();
    assert_eq!(ready(&*store, 10, 3).await, [id(3), id(1)]);
    store.retry_outbox(&early, at(1), at(9), true).await.unwrap();
    assert_eq!(ready(&*store, 8, 3).await, [id(3), id(1)]);
    assert_eq!(ready(&*store, 10, 3).await, [id(2), id(3), id(1)]);
    assert_eq!(ready(&*store, 10, 1).await.len(), 2, "one that was tried before, and one that was not");
    let last = store.claim_outbox(id(2), Effect::ShowRequest, claim(at(10), at(50))).await.unwrap().unwrap();
    assert_eq!((last.request, last.since), (id(2), at(1)));
}

pub(crate) async fn an_entry_is_ready_whatever_the_clock_said_when_it_was_stored<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for (number, made) in [(1, 20), (2, 3_600)] {
        create(&*store, &request_at(number, at(0).plus(made * 1000))).await;
    }
    let [first, second] = claimed(&*store, at(0), at(10)).await;
    // Delivered or not, what is asked for again by a clock that is ahead is ready at once, too.
    let ahead = |request, effects| Commit { effects, ..change(request) };
    let changed = next(&request_at(1, at(0).plus(20_000)), at(0).plus(7_200_000), |_| {});
    let committed = store.commit(ahead(&changed, vec![Effect::ShowRequest])).await.unwrap();
    assert_eq!(committed, Committed::Done);
    store.finish_outbox(&first, first.revision).await.unwrap();
    store.retry_outbox(&second, at(0), at(5), true).await.unwrap();
    assert_eq!(ready(&*store, 1, 10).await, [id(1)]);
    assert_eq!(ready(&*store, 5, 10).await, [id(1), id(2)]);
}

pub(crate) async fn an_entry_waits_no_longer_than_the_longest_wait<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let later = at(0).plus(3_600_000);
    let is_ready = async |now| !store.ready_outbox(now, 10).await.unwrap().is_empty();
    let take = async |now: Timestamp, until| {
        store.claim_outbox(id(1), Effect::ShowRequest, claim(now, until)).await.unwrap()
    };
    let claimed = take(later, later.plus(30_000)).await.unwrap();
    let end = later.plus(30_000);
    assert!(!is_ready(later).await && take(later, end).await.is_none());
    let set_back = end.minus(LONGEST_WAIT_MS + 1);
    assert!(is_ready(set_back).await, "the claim ends further ahead than any does");

    // Its holder is not hindered, unless somebody else has claimed it since.
    store.retry_outbox(&claimed, later, end, true).await.unwrap();
    let held_off = end.minus(LONGEST_WAIT_MS);
    assert!(!is_ready(held_off).await && take(held_off, end).await.is_none());
    assert!(is_ready(set_back).await);
    let taken = take(set_back, set_back.plus(30_000)).await.unwrap();
    assert_eq!(taken.attempts, 1);
    assert!(!is_ready(set_back).await, "it is claimed");
}

pub(crate) async fn each_urgency_has_its_own_place<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    // 1 and 2 are new; 3 and 4 have changed since they were delivered; 5 has ended before it was delivered.
    for number in 1..=5 {
        create(&*store, &request(number)).await;
    }
    let delivered = async |number| {
        let entry =
            store.claim_outbox(id(number), Effect::ShowRequest, claim(at(0), at(9))).await.unwrap().unwrap();
        store.finish_outbox(&entry, entry.revision).await.unwrap();
    };
    keep_main_post(&*store, 5).await;
    for number in [3, 4] {
        keep_main_post(&*store, number).await;
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
    assert_eq!(urgencies(10).await, all, "a new request stays so until it is delivered");
    let some = urgencies(1).await;
    let each = [Urgency::Ended, Urgency::First, Urgency::Changed];
    assert_eq!(some.iter().map(|it| it.0).collect::<Vec<_>>(), each);

    // Ending a request raises the urgency of its waiting entry; a notice has the urgency of a new request.
    let escalated = next(&store.request(id(3)).await.unwrap().unwrap(), at(2), |_| {});
    let effects = vec![Effect::NotifyEscalation, Effect::NotifyReplaced];
    store.commit(Commit { effects, ..change(&escalated) }).await.unwrap();
    let ended = next(&store.request(id(4)).await.unwrap().unwrap(), at(2), |it| it.state = denied(at(2)));
    commit(&*store, &ended).await;
    let now = urgencies(10).await;
    assert!(now.contains(&show(Urgency::Ended, 4)), "{now:?}");
    for effect in [Effect::NotifyEscalation, Effect::NotifyReplaced] {
        assert!(now.contains(&(Urgency::First, id(3), effect)), "{now:?}");
    }
}

pub(crate) async fn each_channel_has_its_own_place<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let (escalating, other) =
        (entry_with_channels(), PolicyEntry { channel: Some("C2".into()), ..policy_entry("deploy") });
    store.pin(vec![escalating.clone(), other.clone()], vec![]).await.unwrap();
    let in_channel = |number, entry: &PolicyEntry| {
        let mut request = request(number);
        Arc::make_mut(&mut request.submission).policy_hash = entry.hash();
        request
    };
    for number in 0..50 {
        create(&*store, &in_channel(number, &escalating)).await;
    }
    create(&*store, &in_channel(50, &other)).await;
    create(&*store, &request(51)).await;
    let mut effects = vec![Effect::NotifyEscalation, Effect::NotifyReplaced];
    let escalated = next(&in_channel(49, &escalating), at(1), |_| {});
    store.commit(Commit { effects: effects.clone(), ..change(&escalated) }).await.unwrap();

    let places = async |now, limit| -> Vec<(String, RequestId, Effect)> {
        let ready = store.ready_outbox(at(now), limit).await.unwrap();
        assert!(ready.iter().all(|entry| entry.urgency == Urgency::First), "{ready:?}");
        ready.into_iter().map(|entry| (entry.channel, entry.request, entry.effect)).collect()
    };
    let show = |channel: &str, number| (channel.to_owned(), id(number), Effect::ShowRequest);
    let notice = ("C9".to_owned(), id(49), Effect::NotifyEscalation);
    let expected = [show("", 51), show("C1", 0), show("C1", 1), show("C2", 50), notice.clone()];
    let mut some = places(1, 2).await;
    some.sort();
    assert_eq!(some, expected, "a notice of an escalation waits in its own channel");
    let replaced = ("C1".to_owned(), id(49), Effect::NotifyReplaced);
    assert!(places(1, 100).await.contains(&replaced), "others wait in that of the request");

    // A channel whose first entries are claimed shows the next ones, and one whose entries are all claimed shows none.
    for number in [0, 1, 50] {
        store.claim_outbox(id(number), Effect::ShowRequest, claim(at(1), at(9))).await.unwrap().unwrap();
    }
    let mut some = places(1, 2).await;
    some.sort();
    assert_eq!(some, [show("", 51), show("C1", 2), show("C1", 3), notice]);

    // An entry that is enqueued again stays in its channel.
    effects.truncate(1);
    let again = next(&escalated, at(2), |_| {});
    store.commit(Commit { effects, ..change(&again) }).await.unwrap();
    let notices = places(2, 100).await.into_iter().filter(|(channel, ..)| channel == "C9").count();
    assert_eq!(notices, 1);
}

pub(crate) async fn what_ended_before_it_was_posted_comes_last<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    for number in 1..=4 {
        create(&*store, &request(number)).await;
    }
    let end = async |number| {
        commit(&*store, &next(&request(number), at(1), |it| it.state = denied(at(1)))).await;
    };
    // 1 was not posted; 2 was, or may have been; 3 is about to be posted. 5 ended as it was made, so it is to be posted.
    create(&*store, &Request { state: approved(at(0)), ..request(5) }).await;
    keep_main_post(&*store, 2).await;
    let claimed = store.claim_outbox(id(3), Effect::ShowRequest, claim(at(0), at(9))).await.unwrap().unwrap();
    for number in 1..=3 {
        end(number).await;
    }
    store.retry_outbox(&claimed, at(1), at(1), false).await.unwrap();
    let mut urgencies: Vec<_> =
        store.ready_outbox(at(1), 10).await.unwrap().iter().map(|it| (it.request, it.urgency)).collect();
    urgencies.sort_unstable();
    let expected = [
        (id(1), Urgency::Unseen),
        (id(2), Urgency::Ended),
        (id(3), Urgency::Ended),
        (id(4), Urgency::First),
        (id(5), Urgency::Changed),
    ];
    assert_eq!(urgencies, expected);
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
    let [entry] = claimed(&*store, at(0), at(10)).await;
    store.finish_outbox(&entry, entry.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
    assert_eq!(store.ready_outbox(at(99), 10).await.unwrap(), []);
    // Finishing it twice, or releasing it afterwards, creates no entry.
    store.finish_outbox(&entry, entry.revision).await.unwrap();
    store.retry_outbox(&entry, at(10), at(20), true).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
}

pub(crate) async fn an_entry_given_back_waits<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    for attempt in 0..3 {
        let now = u64::from(attempt) * 10;
        let [entry] = claimed(&*store, at(now), at(1000)).await;
        assert_eq!((entry.attempts, entry.since), (attempt, at(0)));
        store.retry_outbox(&entry, at(now), at(now + 10), true).await.unwrap();
        assert_eq!(store.ready_outbox(at(now + 9), 10).await.unwrap(), []);
    }
    // A release without a failure does not count as an attempt.
    let [entry] = claimed(&*store, at(30), at(1000)).await;
    store.retry_outbox(&entry, at(30), at(30), false).await.unwrap();
    let [entry] = claimed(&*store, at(30), at(1000)).await;
    assert_eq!(entry.attempts, 3);
}

pub(crate) async fn an_entry_asked_for_again_is_one_entry<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [entry] = claimed(&*store, at(0), at(10)).await;
    store.retry_outbox(&entry, at(0), at(1000), true).await.unwrap();
    let second = next(&first, at(5), |_| {});
    commit(&*store, &second).await;
    commit(&*store, &next(&second, at(6), |_| {})).await;
    let [entry] = claimed(&*store, at(6), at(10)).await;
    assert_eq!((entry.revision, entry.attempts, entry.since), (3, 0, at(0)));
}

pub(crate) async fn an_entry_stale_again_is_delivered_again<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [old] = claimed(&*store, at(0), at(100)).await;
    let second = next(&first, at(5), |_| {});
    commit(&*store, &second).await;
    assert_eq!(store.ready_outbox(at(6), 10).await.unwrap(), [], "two workers would write one message");
    store.finish_outbox(&old, old.revision).await.unwrap();
    let [fresh] = claimed(&*store, at(6), at(50)).await;
    assert_eq!((fresh.revision, fresh.attempts), (2, 0));

    // If it is released instead, the delay applies although there is a newer version.
    commit(&*store, &next(&second, at(7), |_| {})).await;
    store.retry_outbox(&fresh, at(7), at(20), true).await.unwrap();
    assert_eq!(store.ready_outbox(at(19), 10).await.unwrap(), []);
    let [newest] = claimed(&*store, at(20), at(50)).await;
    assert_eq!((newest.revision, newest.attempts), (3, 1));
    store.finish_outbox(&newest, newest.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
}

pub(crate) async fn a_late_worker_does_not_touch_a_later_claim<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [late] = claimed(&*store, at(0), at(10)).await;
    commit(&*store, &next(&first, at(5), |_| {})).await;
    let [current] = claimed(&*store, at(10), at(20)).await;
    store.retry_outbox(&late, at(10), at(11), true).await.unwrap();
    store.finish_outbox(&late, late.revision).await.unwrap();
    assert_eq!(store.ready_outbox(at(12), 10).await.unwrap(), []);
    store.finish_outbox(&current, current.revision).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());
}

pub(crate) async fn a_late_worker_does_not_remove_a_later_entry<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let first = request(1);
    create(&*store, &first).await;
    let [late] = claimed(&*store, at(0), at(10)).await;
    let [current] = claimed(&*store, at(10), at(20)).await;
    store.finish_outbox(&current, current.revision).await.unwrap();
    commit(&*store, &next(&first, at(15), |_| {})).await;
    store.finish_outbox(&late, late.revision).await.unwrap();
    let [fresh] = claimed(&*store, at(15), at(30)).await;
    assert_eq!((fresh.revision, fresh.since), (2, at(15)));
}

pub(crate) async fn what_was_delivered_newer_than_asked_for_is_gone<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    create(&*store, &request(1)).await;
    let [entry] = claimed(&*store, at(0), at(10)).await;
    let second = next(&request(1), at(5), |_| {});
    commit(&*store, &second).await;
    // The worker has delivered the newest version.
    store.finish_outbox(&entry, second.version).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap(), OutboxDepth::default());

    commit(&*store, &next(&second, at(6), |_| {})).await;
    store.finish_outbox(&entry, second.version).await.unwrap();
    assert_eq!(store.outbox_depth().await.unwrap().entries, 1, "an entry of a later version stays");
}

async fn claimed<const N: usize>(store: &dyn Store, now: Timestamp, until: Timestamp) -> [OutboxEntry; N] {
    take(store, now, until, 10).await.try_into().unwrap()
}

/// Stores that the main message of this request may exist.
async fn keep_main_post(store: &dyn Store, number: u64) {
    let post = SlackPost { revision: 1, ..SlackPost::new("C1") };
    let keep = KeepPost { request: id(number), slot: Slot::Main, post, audit: vec![], counts: vec![] };
    assert_eq!(store.keep_slack_post(keep).await.unwrap(), Committed::Done);
}

/// The requests that have a ready entry.
async fn ready(store: &dyn Store, now: u64, limit: usize) -> Vec<RequestId> {
    store.ready_outbox(at(now), limit).await.unwrap().iter().map(|entry| entry.request).collect()
}
