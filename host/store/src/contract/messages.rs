//! Promises of the port `Messages`.

use std::sync::Arc;

use countersign_core::lifecycle::{Count, Digest, RequestId, Timestamp};
use countersign_core::record::{PostState, SlackPost, Slot};

use super::Backend;
use super::harness::{Seen, at_once, opened};
use crate::fixtures::*;
use crate::{Committed, KeepPost, LONGEST_WAIT_MS, Store};

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
    // Slots are independent.
    keep(&*store, Slot::EscalationThread, &post(2, PostState::Absent), Committed::Conflict).await;
    let others = [Slot::EscalationThread, Slot::Replaced(1), Slot::Replaced(511)];
    for slot in others {
        keep(&*store, slot, &first, Committed::Done).await;
    }
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.slack_post(id(1), Slot::Main).await.unwrap(), Some(second));
    for slot in others {
        assert_eq!(store.slack_post(id(1), slot).await.unwrap().as_ref(), Some(&first), "{slot}");
    }
    for slot in [Slot::EscalationChannel, Slot::Replaced(2)] {
        assert_eq!(store.slack_post(id(1), slot).await.unwrap(), None, "{slot}");
    }
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
        (2, Slot::Replaced(7), Some(20)),
        (3, Slot::Main, None),
    ] {
        refreshed(number, slot, 1, refresh_at).await;
    }
    let stale = async |now, limit| -> Vec<(RequestId, Slot)> {
        let stale = store.stale_slack_posts(at(now), limit).await.unwrap();
        stale.into_iter().map(|it| (it.request, it.slot)).collect()
    };
    let [first, second, third] = [(id(2), Slot::Main), (id(2), Slot::Replaced(7)), (id(1), Slot::Main)];
    assert_eq!(stale(9, 10).await, []);
    assert_eq!(stale(10, 10).await, [first]);
    assert_eq!(stale(40, 10).await, [first, second, third]);
    assert_eq!(stale(40, 2).await, [first, second]);
    refreshed(2, Slot::Main, 2, Some(50)).await;
    refreshed(1, Slot::Main, 2, None).await;
    refreshed(3, Slot::Main, 2, Some(5)).await;
    assert_eq!(stale(60, 10).await, [(id(3), Slot::Main), second, first]);
}

pub(crate) async fn each_channel_has_its_stale_posts<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let refreshed = async |number, channel: &str, revision, refresh_at| {
        let post = SlackPost {
            refresh_at: Some(at(refresh_at)),
            channel: channel.into(),
            ..post(revision, PostState::Absent)
        };
        let keep = KeepPost { request: id(number), ..keeping(Slot::Main, &post) };
        assert_eq!(store.keep_slack_post(keep).await.unwrap(), Committed::Done);
    };
    for number in 0..50 {
        refreshed(number, "C1", 1, number).await;
    }
    refreshed(50, "#two", 1, 70).await;
    let stale = async || -> Vec<(String, RequestId, Timestamp)> {
        let stale = store.stale_slack_posts(at(90), 2).await.unwrap();
        stale.into_iter().map(|it| (it.channel, it.request, it.since)).collect()
    };
    let of = |channel: &str, number, since| (channel.to_owned(), id(number), at(since));
    let mut found = stale().await;
    found.sort();
    assert_eq!(found, [of("#two", 50, 70), of("C1", 0, 0), of("C1", 1, 1)]);
    // Slack says which channel it is.
    refreshed(50, "C2", 2, 80).await;
    let mut found = stale().await;
    found.sort();
    assert_eq!(found, [of("C1", 0, 0), of("C1", 1, 1), of("C2", 50, 80)]);
}

pub(crate) async fn a_post_waits_no_longer_than_the_longest_wait<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let refresh_at = at(0).plus(3_600_000);
    let post = SlackPost { refresh_at: Some(refresh_at), ..post(1, PostState::Absent) };
    keep(&*store, Slot::Main, &post, Committed::Done).await;
    let is_stale = async |now| !store.stale_slack_posts(now, 10).await.unwrap().is_empty();
    assert!(!is_stale(refresh_at.minus(1)).await);
    assert!(!is_stale(refresh_at.minus(LONGEST_WAIT_MS)).await);
    assert!(is_stale(refresh_at.minus(LONGEST_WAIT_MS + 1)).await, "the clock was set back");
}

pub(crate) async fn a_refresh_is_claimed_once<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let due = SlackPost { refresh_at: Some(at(10)), ..post(1, PostState::Absent) };
    keep(&*store, Slot::Main, &due, Committed::Done).await;
    let claim = async |now, until| store.claim_refresh(id(1), Slot::Main, at(now), at(until)).await.unwrap();
    let stale = async |now| store.stale_slack_posts(at(now), 10).await.unwrap().len();
    assert!(!claim(9, 20).await, "it is not due");
    let claims = at_once(20, |_| {
        let store = Arc::clone(&store);
        async move { store.claim_refresh(id(1), Slot::Main, at(10), at(30)).await.unwrap() }
    });
    assert_eq!(claims.await.into_iter().filter(|claimed| *claimed).count(), 1);
    assert_eq!(stale(29).await, 0);
    assert!(!claim(29, 50).await);
    assert_eq!(stale(30).await, 1, "the claim has ended");
    // What is kept of the message is as it was, and is stored over the claim.
    assert_eq!(store.slack_post(id(1), Slot::Main).await.unwrap().as_ref(), Some(&due));
    assert!(claim(30, 50).await);
    let refreshed = SlackPost { refresh_at: Some(at(40)), ..post(2, PostState::Absent) };
    keep(&*store, Slot::Main, &refreshed, Committed::Done).await;
    assert_eq!(stale(40).await, 1);
    for (request, slot) in [(id(2), Slot::Main), (id(1), Slot::EscalationThread)] {
        assert!(!store.claim_refresh(request, slot, at(99), at(100)).await.unwrap(), "there is none");
    }
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
