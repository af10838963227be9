//! The order of calls, and their rate.

use futures_util::future::join_all;

use super::*;
use crate::fake::{Call, Fate};

fn times(calls: &[Call], method: &str, channel: &str) -> Vec<u64> {
    let calls = calls.iter().filter(|call| call.method == method && call.body["channel"] == channel);
    calls.map(|call| call.at - START.as_millis()).collect()
}

#[tokio::test]
async fn each_channel_has_one_post_a_second() {
    let mut harness = Harness::new().await;
    for number in 0..10 {
        harness.create(number, if number % 5 == 0 { "C2" } else { "C1" }).await;
    }
    harness.pass(20 * SECOND).await;
    let calls = harness.slack.calls();
    assert_eq!(times(&calls, "chat.postMessage", "C1"), [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]);
    assert_eq!(times(&calls, "chat.postMessage", "C2"), [0, 1000]);
}

#[tokio::test]
async fn ended_and_new_requests_come_before_changed_ones() {
    let mut harness = Harness::with(1, 0.1).await;
    for number in 0..6 {
        harness.create(number, if number % 2 == 0 { "C1" } else { "C2" }).await;
    }
    harness.deliver(5 * MINUTE).await;
    harness.pass(5 * MINUTE).await;
    harness.slack.forget_calls();
    for number in 0..5 {
        harness.change(number).await;
        harness.clock.advance(1);
    }
    harness.end(5).await;
    harness.end(4).await;
    harness.create(7, "C3").await;
    harness.deliver(5 * MINUTE).await;
    let shown: Vec<String> =
        harness.slack.calls().iter().map(|call| call.body["text"].as_str().unwrap().to_owned()).collect();
    let order: Vec<&str> = shown.iter().map(|text| text.split(',').next().unwrap()).collect();
    let changed = ["deploy v2 awaiting_personas"; 4];
    // Request 7 has a channel, and so a rate limit, of its own; 4 has waited for longer than 5.
    assert_eq!(order[..3], ["deploy v1 awaiting_personas", "deploy v3 approved", "deploy v2 approved"]);
    assert_eq!(order[3..], changed);
}

#[tokio::test]
async fn refreshes_use_what_the_rate_limit_leaves() {
    let mut harness = Harness::new().await;
    join_all((0..120).map(|number| harness.create(number, ["C1", "C2", "C3"][number as usize % 3]))).await;
    harness.deliver(5 * MINUTE).await;
    harness.pass(3 * MINUTE).await;
    // 120 messages are due for a refresh each minute, and the rate limit allows 50 updates.
    harness.slack.forget_calls();
    harness.pass(2 * MINUTE).await;
    let refreshes = harness.count("chat.update");
    assert!((80..=100).contains(&refreshes), "{refreshes}");
    // Changes are sent at once all the same.
    for number in 0..10 {
        harness.change(number).await;
        let took = harness.deliver(MINUTE).await;
        assert!(took <= 300, "{took}, of which 250 for further changes");
        harness.pass(3 * SECOND).await;
    }
    // No refresh waits for long.
    let oldest = harness.slack.messages().into_iter().map(|message| {
        let left = message.text.split(", ").nth(1).unwrap().split(' ').next().unwrap();
        left.parse::<u64>().unwrap()
    });
    let (least, most) = (oldest.clone().min().unwrap(), oldest.max().unwrap());
    assert!(most - least <= 5, "{least} {most}");
}

#[tokio::test]
async fn retry_after_is_respected() {
    let mut harness = Harness::new().await;
    for (number, channel) in [(1, "C1"), (2, "C2")] {
        harness.create(number, channel).await;
    }
    let mut refused = false;
    harness.slack.decide(move |_, body| {
        if body["channel"] == "C1" && !std::mem::replace(&mut refused, true) {
            return Fate::Limited(30);
        }
        Fate::Done
    });
    harness.pass(MINUTE).await;
    let calls = harness.slack.calls();
    assert_eq!(times(&calls, "chat.postMessage", "C1"), [0, 30_000]);
    assert_eq!(times(&calls, "chat.postMessage", "C2"), [0], "another channel is not affected");

    harness.slack.forget_calls();
    harness.slack.decide(|method, _| if method == "chat.update" { Fate::Limited(20) } else { Fate::Done });
    harness.change(1).await;
    harness.change(2).await;
    harness.pass(SECOND).await;
    // Some may be under way when the first one is answered.
    let first = harness.count("chat.update");
    assert!((1..=2).contains(&first), "{first}");
    harness.create(3, "C3").await;
    harness.pass(18 * SECOND).await;
    assert_eq!(harness.count("chat.update"), first, "the whole method is affected");
    assert_eq!(harness.count("chat.postMessage"), 1, "and no other");
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(MINUTE).await;
    // A rate limit is not a failure.
    assert_eq!(harness.state(), HealthState::Ok);
    assert_eq!(harness.audited().await, []);
}

#[tokio::test]
async fn a_burst_of_new_requests_does_not_hold_up_another_channel() {
    let mut harness = Harness::new().await;
    join_all((0..700).map(|number| harness.create(number, "C1"))).await;
    harness.pass(SECOND).await;
    harness.create(1000, "C2").await;
    harness.end(0).await;
    harness.pass(SECOND).await;
    assert_eq!(harness.message(0).text, "deploy v2 approved");
    assert_eq!(harness.messages(1000, Slot::Main).len(), 1);
    let posts = harness.messages(1, Slot::Main).len() + harness.messages(2, Slot::Main).len();
    assert_eq!(posts, 2, "its own channel goes on in order");
}

#[tokio::test]
async fn a_flood_of_new_requests_does_not_silence_another_channel() {
    let mut harness = Harness::new().await;
    join_all((0..3_000).map(|number| harness.create(number, "C1"))).await;
    harness.pass(SECOND).await;
    harness.create(3_000, "C2").await;
    harness.work().await;
    assert_eq!(harness.messages(3_000, Slot::Main).len(), 1, "without any time passing");
    // And the other way round: many channels do not hide one.
    harness.create(3_001, "C3").await;
    harness.create(3_002, "#one").await;
    harness.work().await;
    for number in [3_001, 3_002] {
        assert_eq!(harness.messages(number, Slot::Main).len(), 1, "{number}");
    }
}

#[tokio::test]
async fn what_is_live_comes_before_what_ended_unseen() {
    let mut harness = Harness::new().await;
    // The one post of this second.
    harness.create(0, "C1").await;
    harness.work().await;
    harness.slack.forget_calls();
    join_all((1..=100).map(|number| harness.create(number, "C1"))).await;
    harness.create(101, "C1").await;
    join_all((1..=100).map(|number| harness.end(number))).await;
    harness.end(0).await;
    harness.work().await;
    assert_eq!(harness.slack.methods(), ["chat.update"], "what people can press comes first");
    assert_eq!(harness.message(0).text, "deploy v2 approved");
    harness.deliver(MINUTE).await;
    assert_eq!(harness.slack.methods(), ["chat.update", "chat.postMessage"]);
    assert_eq!(harness.messages(101, Slot::Main).len(), 1);
    assert_eq!(harness.skipped().await, 100);
}

#[tokio::test]
async fn a_blocked_channel_costs_the_others_nothing() {
    let mut harness = Harness::new().await;
    join_all((0..200).map(|number| harness.create(number, "C1"))).await;
    harness.slack.decide(|_, body| if body["channel"] == "C1" { Fate::Limited(600) } else { Fate::Done });
    harness.work().await;
    for number in 200..220 {
        harness.create(number, "C2").await;
    }
    harness.pass(19 * SECOND).await;
    let posted = (200..220).filter(|number| harness.messages(*number, Slot::Main).len() == 1).count();
    assert_eq!(posted, 20);
    assert_eq!(times(&harness.slack.calls(), "chat.postMessage", "C1"), [0]);
}

/// The channels of the calls of `chat.update`, in their order.
fn updated(harness: &Harness) -> Vec<String> {
    let calls = harness.slack.calls().into_iter().filter(|call| call.method == "chat.update");
    calls.map(|call| call.body["channel"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn channels_take_turns_at_updates() {
    let mut harness = Harness::with(1, 0.1).await;
    let most = 60 * MINUTE;
    for number in 0..60 {
        harness.create(number, "C1").await;
    }
    harness.create(60, "C2").await;
    harness.create(61, "C3").await;
    harness.deliver(most).await;
    harness.slack.forget_calls();
    // The flood waits for longer, and all are as urgent.
    join_all((0..60).map(|number| harness.end(number))).await;
    harness.pass(SECOND).await;
    harness.end(60).await;
    harness.end(61).await;
    harness.pass(MINUTE).await;
    let mut first: Vec<_> = updated(&harness).into_iter().take(6).collect();
    first.sort();
    first.dedup();
    assert_eq!(first, ["C1", "C2", "C3"]);
}

#[tokio::test]
async fn urgent_updates_of_two_channels_do_not_silence_a_third() {
    let mut harness = Harness::with(1, 0.1).await;
    for number in 0..60 {
        harness.create(number, if number % 2 == 0 { "C1" } else { "C2" }).await;
    }
    harness.create(60, "C3").await;
    harness.deliver(60 * MINUTE).await;
    harness.slack.forget_calls();
    join_all((0..60).map(|number| harness.end(number))).await;
    harness.change(60).await;
    harness.pass(2 * MINUTE).await;
    let updated = updated(&harness);
    assert!((6..=10).contains(&updated.len()), "{updated:?}");
    let turn = updated.iter().position(|channel| channel == "C3");
    assert!(turn.is_some_and(|turn| (1..=URGENT).contains(&turn)), "one that ended comes first: {updated:?}");
}

/// After how many urgent updates a less urgent one has its turn at the latest; some are started before it is due.
const URGENT: usize = 6;

#[tokio::test]
async fn refreshes_of_a_full_channel_do_not_hold_up_those_of_another() {
    let mut harness = Harness::new().await;
    join_all((0..300).map(|number| harness.create(number, "C1"))).await;
    harness.deliver(10 * MINUTE).await;
    harness.create(300, "C2").await;
    harness.deliver(MINUTE).await;
    // Of 301 messages that are due each minute 50 can be updated, and the last one takes its turn.
    let before = harness.message(300).updates;
    harness.pass(3 * MINUTE).await;
    let updates = harness.message(300).updates - before;
    assert!((2..=3).contains(&updates), "{updates}");
}

#[tokio::test]
async fn slow_calls_for_one_channel_leave_room_for_others() {
    let mut harness = Harness::with(1, 100.0).await;
    harness.slack.decide(|_, body| if body["channel"] == "C1" { Fate::Hangs } else { Fate::Done });
    for number in 0..20 {
        harness.create(number, "C1").await;
    }
    // At 100 posts a second, all of them could be started within 200 ms.
    for _ in 0..20 {
        harness.worker.turn().await;
        harness.clock.advance(10);
    }
    harness.create(20, "C2").await;
    harness.worker.turn().await;
    while harness.messages(20, Slot::Main).is_empty() {
        harness.worker.turn().await;
        tokio::task::yield_now().await;
    }
    harness.kill_and_restart();
}

#[tokio::test]
async fn a_request_has_one_call_at_a_time() {
    let mut harness = Harness::new().await;
    for number in [1, 2] {
        harness.create(number, "C1").await;
    }
    harness.pass(5 * SECOND).await;
    harness.slack.forget_calls();
    let called = Arc::new(Notify::new());
    let notify = Arc::clone(&called);
    harness.slack.decide(move |_, body| match body["metadata"]["event_payload"]["slot"].as_str() {
        Some("escalation_channel") => {
            notify.notify_one();
            Fate::Hangs
        }
        _ => Fate::Done,
    });
    harness.escalate(1).await;
    harness.clock.advance(SECOND);
    harness.worker.turn().await;
    called.notified().await;
    // The request's message is outdated too, and waits; another request does not.
    harness.end(2).await;
    while harness.message(2).updates == 0 {
        harness.worker.turn().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.message(1).updates, 0);
    harness.kill_and_restart();
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(2 * MINUTE).await;
    assert_eq!(harness.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    assert_eq!(harness.messages(1, Slot::EscalationChannel).len(), 1);
}
