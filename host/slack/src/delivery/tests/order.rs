//! What comes first, and how fast.

use futures_util::future::join_all;

use super::*;
use crate::fake::{Call, Fate};

fn times(calls: &[Call], method: &str, channel: &str) -> Vec<u64> {
    let calls = calls.iter().filter(|call| call.method == method && call.body["channel"] == channel);
    calls.map(|call| call.at - START.as_millis()).collect()
}

#[tokio::test]
async fn each_channel_has_one_post_a_second() {
    let mut desk = Desk::new().await;
    for number in 0..10 {
        desk.create(number, if number % 5 == 0 { "C2" } else { "C1" }).await;
    }
    desk.pass(20 * SECOND).await;
    let calls = desk.slack.calls();
    assert_eq!(times(&calls, "chat.postMessage", "C1"), [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]);
    assert_eq!(times(&calls, "chat.postMessage", "C2"), [0, 1000]);
}

#[tokio::test]
async fn what_has_ended_and_what_is_new_comes_before_what_has_changed() {
    let mut desk = Desk::with(1, 0.1).await;
    for number in 0..6 {
        desk.create(number, if number % 2 == 0 { "C1" } else { "C2" }).await;
    }
    desk.deliver(5 * MINUTE).await;
    desk.pass(5 * MINUTE).await;
    desk.slack.forget_calls();
    for number in 0..5 {
        desk.change(number).await;
        desk.clock.advance(1);
    }
    desk.end(5).await;
    desk.end(4).await;
    desk.create(7, "C3").await;
    desk.deliver(5 * MINUTE).await;
    let shown: Vec<String> =
        desk.slack.calls().iter().map(|call| call.body["text"].as_str().unwrap().to_owned()).collect();
    let order: Vec<&str> = shown.iter().map(|text| text.split(',').next().unwrap()).collect();
    let changed = ["deploy v2 awaiting_personas"; 4];
    // Request 7 has a budget of its own; 4 has waited for longer than 5.
    assert_eq!(order[..3], ["deploy v1 awaiting_personas", "deploy v3 approved", "deploy v2 approved"]);
    assert_eq!(order[3..], changed);
}

#[tokio::test]
async fn what_nobody_waits_for_is_sent_when_there_is_room() {
    let mut desk = Desk::new().await;
    join_all((0..120).map(|number| desk.create(number, ["C1", "C2", "C3"][number as usize % 3]))).await;
    desk.deliver(5 * MINUTE).await;
    desk.pass(3 * MINUTE).await;
    // 120 messages want to be refreshed each minute, and 50 can be.
    desk.slack.forget_calls();
    desk.pass(2 * MINUTE).await;
    let refreshes = desk.count("chat.update");
    assert!((80..=100).contains(&refreshes), "{refreshes}");
    // What people do comes through at once all the same.
    for number in 0..10 {
        desk.change(number).await;
        let took = desk.deliver(MINUTE).await;
        assert!(took <= 300, "{took}, of which it waits 250 for more");
        desk.pass(3 * SECOND).await;
    }
    // And nothing is forgotten for long.
    let oldest = desk.slack.messages().into_iter().map(|message| {
        let left = message.text.split(", ").nth(1).unwrap().split(' ').next().unwrap();
        left.parse::<u64>().unwrap()
    });
    let (least, most) = (oldest.clone().min().unwrap(), oldest.max().unwrap());
    assert!(most - least <= 5, "{least} {most}");
}

#[tokio::test]
async fn slack_is_called_again_when_it_said() {
    let mut desk = Desk::new().await;
    for (number, channel) in [(1, "C1"), (2, "C2")] {
        desk.create(number, channel).await;
    }
    let mut refused = false;
    desk.slack.decide(move |_, body| {
        if body["channel"] == "C1" && !std::mem::replace(&mut refused, true) {
            return Fate::Limited(30);
        }
        Fate::Done
    });
    desk.pass(MINUTE).await;
    let calls = desk.slack.calls();
    assert_eq!(times(&calls, "chat.postMessage", "C1"), [0, 30_000]);
    assert_eq!(times(&calls, "chat.postMessage", "C2"), [0], "another channel is not concerned");

    desk.slack.forget_calls();
    desk.slack.decide(|method, _| if method == "chat.update" { Fate::Limited(20) } else { Fate::Done });
    desk.change(1).await;
    desk.change(2).await;
    desk.pass(SECOND).await;
    // Some may be under way when Slack says so.
    let first = desk.count("chat.update");
    assert!((1..=2).contains(&first), "{first}");
    desk.create(3, "C3").await;
    desk.pass(18 * SECOND).await;
    assert_eq!(desk.count("chat.update"), first, "the whole method is concerned");
    assert_eq!(desk.count("chat.postMessage"), 1, "and no other");
    desk.slack.decide(|_, _| Fate::Done);
    desk.deliver(MINUTE).await;
    // Being held back is no failure.
    assert_eq!(desk.state(), HealthState::Ok);
    assert_eq!(desk.audited().await, []);
}

#[tokio::test]
async fn a_burst_of_new_requests_does_not_hold_up_another_channel() {
    let mut desk = Desk::new().await;
    join_all((0..700).map(|number| desk.create(number, "C1"))).await;
    desk.pass(SECOND).await;
    desk.create(1000, "C2").await;
    desk.end(0).await;
    desk.pass(SECOND).await;
    assert_eq!(desk.message(0).text, "deploy v2 approved");
    assert_eq!(desk.messages(1000, Slot::Main).len(), 1);
    let posts = desk.messages(1, Slot::Main).len() + desk.messages(2, Slot::Main).len();
    assert_eq!(posts, 2, "its own channel goes on in order");
}

#[tokio::test]
async fn a_request_has_one_call_at_a_time() {
    let mut desk = Desk::new().await;
    for number in [1, 2] {
        desk.create(number, "C1").await;
    }
    desk.pass(5 * SECOND).await;
    desk.slack.forget_calls();
    let called = Arc::new(Notify::new());
    let told = Arc::clone(&called);
    desk.slack.decide(move |_, body| match body["metadata"]["event_payload"]["slot"].as_str() {
        Some("escalation_channel") => {
            told.notify_one();
            Fate::Hangs
        }
        _ => Fate::Done,
    });
    desk.escalate(1).await;
    desk.clock.advance(SECOND);
    desk.worker.turn().await;
    called.notified().await;
    // Its message is stale too, and waits; another request does not.
    desk.end(2).await;
    while desk.message(2).updates == 0 {
        desk.worker.turn().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.message(1).updates, 0);
    desk.killed();
    desk.slack.decide(|_, _| Fate::Done);
    desk.deliver(2 * MINUTE).await;
    assert_eq!(desk.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    assert_eq!(desk.messages(1, Slot::EscalationChannel).len(), 1);
}
