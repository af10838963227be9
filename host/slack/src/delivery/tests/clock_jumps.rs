//! The wall clock is set ahead or back while the gateway runs: delivery goes on as if nothing had happened.

use std::time::Duration;

use countersign_core::lifecycle::Count;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::fake::Fate;

const HOUR: u64 = 60 * MINUTE;

/// How far the wall clock is set, in milliseconds.
const JUMPS: [i64; 4] = [-3_600_000, -20_000, 20_000, 3_600_000];

impl Harness {
    /// Asserts that everything is delivered within this many milliseconds.
    async fn is_delivered_within(&mut self, most: u64, context: impl std::fmt::Debug) {
        let took = self.deliver(most.max(1)).await;
        assert!(took <= most, "{context:?}: it took {took} ms");
    }
}

/// The first calls of the method are answered so, until somebody says otherwise.
fn always(method: &'static str, fate: Fate) -> impl FnMut(&str, &serde_json::Value) -> Fate {
    move |called, _| if called == method { fate } else { Fate::Done }
}

#[tokio::test]
async fn new_and_ended_requests_are_shown_at_once() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        for number in 1..=2 {
            harness.create(number, "C1").await;
            harness.is_delivered_within(2 * SECOND, jump).await;
        }
        // One change is stored just before the jump, the others after it.
        harness.end(1).await;
        harness.create(3, "C2").await;
        harness.clock.jump(jump);
        harness.end(2).await;
        harness.create(4, "C3").await;
        harness.is_delivered_within(2 * SECOND, jump).await;
        for number in [1, 2] {
            assert_eq!(harness.message(number).text, "deploy v2 approved", "{jump}");
        }
        for number in [3, 4] {
            assert!(harness.message(number).text.starts_with("deploy v1 awaiting_personas"), "{jump}");
        }
        assert_eq!(harness.state(), HealthState::Ok, "{jump}");
    }
}

#[tokio::test]
async fn a_burst_of_changes_waits_no_longer_than_ever() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.is_delivered_within(2 * SECOND, jump).await;
        harness.change(1).await;
        harness.clock.jump(jump);
        harness.is_delivered_within(SECOND, jump).await;
        harness.change(1).await;
        harness.is_delivered_within(SECOND, jump).await;
        assert!(harness.message(1).text.starts_with("deploy v3"), "{jump}");
    }
}

#[tokio::test]
async fn an_escalation_is_announced_and_closed() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.is_delivered_within(2 * SECOND, jump).await;
        harness.clock.jump(jump);
        harness.escalate(1).await;
        harness.is_delivered_within(5 * SECOND, jump).await;
        for slot in [Slot::EscalationThread, Slot::EscalationChannel] {
            assert_eq!(harness.messages(1, slot).len(), 1, "{jump} {slot}");
        }
        harness.clock.jump(-jump);
        harness.end_with_notices(1).await;
        harness.is_delivered_within(5 * SECOND, jump).await;
        assert_eq!(harness.message(1).text, "deploy v3 approved", "{jump}");
    }
}

#[tokio::test]
async fn a_failed_call_is_repeated_after_its_wait() {
    for jump in JUMPS {
        // The longest wait after the first failure, and no failure of a channel is repeated at once.
        for (method, fate, least, most) in [
            ("chat.postMessage", Fate::Failed(500), 0, 5 * SECOND),
            ("chat.postMessage", Fate::DoneAndCut, 0, 5 * SECOND),
            ("chat.postMessage", Fate::Limited(30), 30 * SECOND, 31 * SECOND),
            ("chat.postMessage", Fate::Refused("not_in_channel"), 45 * SECOND, 80 * SECOND),
            ("chat.update", Fate::Failed(500), 0, 3 * SECOND),
            ("chat.update", Fate::Limited(30), 30 * SECOND, 31 * SECOND),
        ] {
            let context = format!("{jump} {method} {fate:?}");
            let mut harness = Harness::new().await;
            if method == "chat.update" {
                harness.create(1, "C1").await;
                harness.is_delivered_within(2 * SECOND, &context).await;
                harness.end(1).await;
            } else {
                harness.create(1, "C1").await;
            }
            harness.slack.decide(always(method, fate));
            harness.pass(0).await;
            harness.slack.decide(|_, _| Fate::Done);
            harness.clock.jump(jump);
            let took = harness.deliver(5 * MINUTE).await;
            assert!((least..=most).contains(&took), "{context}: it took {took} ms");
            assert_eq!(harness.messages(1, Slot::Main).len(), 1, "{context}");
        }
    }
}

#[tokio::test]
async fn a_notice_that_failed_is_tried_again_after_its_wait() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.is_delivered_within(2 * SECOND, jump).await;
        harness.escalate(1).await;
        harness.slack.decide(|method, body| match (method, body["channel"].as_str()) {
            ("chat.postMessage", Some("C9")) => Fate::Refused("not_in_channel"),
            _ => Fate::Done,
        });
        harness.pass(5 * SECOND).await;
        assert_eq!(harness.messages(1, Slot::EscalationThread).len(), 1, "{jump}");
        harness.slack.decide(|_, _| Fate::Done);
        harness.clock.jump(jump);
        harness.is_delivered_within(80 * SECOND, jump).await;
        assert_eq!(harness.messages(1, Slot::EscalationChannel).len(), 1, "{jump}");
    }
}

#[tokio::test]
async fn calls_go_on_when_slack_answers_again() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        for number in 1..=5 {
            harness.create(number, "C1").await;
        }
        harness.slack.decide(|_, _| Fate::Failed(503));
        harness.pass(10 * SECOND).await;
        assert_eq!(harness.state(), HealthState::Down, "{jump}");
        harness.slack.decide(|_, _| Fate::Done);
        harness.clock.jump(jump);
        harness.is_delivered_within(3 * MINUTE, jump).await;
        assert_eq!(harness.state(), HealthState::Ok, "{jump}");
    }
}

#[tokio::test]
async fn the_remaining_time_is_updated_once_a_minute() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.pass(10 * SECOND).await;
        harness.clock.jump(jump);
        harness.slack.forget_calls();
        harness.pass(45 * SECOND).await;
        assert_eq!(harness.count("chat.update"), 0, "{jump}");
        harness.pass(4 * MINUTE).await;
        // Each minute, unless that looks the same: 20 s more are the same minute once, and an hour more leaves none.
        let updates = harness.count("chat.update");
        assert!(updates <= 5 && updates >= if jump == 3_600_000 { 1 } else { 3 }, "{jump}: {updates}");
    }
}

#[tokio::test]
async fn after_a_restart_nothing_waits_for_a_clock_that_was_set_back() {
    // A post that was not answered may be there: it is looked for, and not posted twice.
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.slack.decide(always("chat.postMessage", Fate::DoneAndCut));
    harness.pass(0).await;
    // And a call that was refused until somebody corrects the channel.
    harness.create(2, "C2").await;
    harness.slack.decide(always("chat.postMessage", Fate::Refused("not_in_channel")));
    harness.pass(0).await;
    // And a message that is up to date but for the remaining time.
    harness.slack.decide(|_, _| Fate::Done);
    harness.create(3, "C3").await;
    harness.pass(0).await;
    assert_eq!(harness.waiting().await, 2);
    harness.slack.forget_calls();
    harness.clock.advance(SECOND);
    harness.clock.jump(-i64::try_from(HOUR).unwrap());
    harness.kill_and_restart();
    harness.is_delivered_within(2 * SECOND, "restarted").await;
    assert_eq!((harness.messages(1, Slot::Main).len(), harness.messages(2, Slot::Main).len()), (1, 1));
    harness.pass(2 * SECOND).await;
    let updated = harness.slack.calls().iter().any(|call| {
        call.method == "chat.update" && call.body["ts"].as_str() == Some(harness.message(3).ts.as_str())
    });
    assert!(updated, "the remaining time is shown by the clock as it is now");
}

#[tokio::test]
async fn the_running_worker_is_woken_whatever_the_wall_clock_does() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        let worker = harness.take_worker();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(worker.run(shutdown.clone()));
        let called = Arc::new(Notify::new());
        let notify = Arc::clone(&called);
        harness.slack.decide(move |method, _| {
            if method == "chat.postMessage" {
                notify.notify_one();
            }
            Fate::Done
        });
        // It sleeps after the first look, and then until it may look again after the bell.
        for _ in 0..2 {
            while harness.clock.sleeping() == 0 {
                tokio::task::yield_now().await;
            }
            harness.notify.notify_one();
            tokio::task::yield_now().await;
        }
        harness.clock.jump(jump);
        harness.create(1, "C1").await;
        harness.notify.notify_one();
        let began = harness.clock.monotonic();
        let woken = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                tokio::select! {
                    () = called.notified() => return true,
                    () = tokio::task::yield_now() => {}
                }
                // The clock moves on only once the worker waits for that, and no sooner than the store has written what it
                // was asked to before: the worker may be waiting for the disk while something else sleeps.
                harness.store.append(Vec::new(), vec![Count::one("looks_total", &[])]).await.unwrap();
                if harness.clock.sleeping() > 0 {
                    if harness.clock.monotonic().since(began) > 2 * SECOND {
                        return false;
                    }
                    harness.clock.advance(10);
                }
            }
        });
        assert_eq!(woken.await, Ok(true), "{jump}");
        shutdown.cancel();
        running.await.unwrap();
    }
}

#[tokio::test]
async fn delivery_that_stands_still_is_reported_whatever_the_wall_clock_says() {
    for jump in JUMPS {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.is_delivered_within(2 * SECOND, jump).await;
        // Slack asks for a long pause, in which nothing can be delivered.
        harness.create(2, "C1").await;
        harness.slack.decide(always("chat.postMessage", Fate::Limited(300)));
        harness.pass(0).await;
        harness.clock.jump(jump);
        harness.pass(50 * SECOND).await;
        assert_eq!(harness.state(), HealthState::Ok, "{jump}");
        harness.pass(15 * SECOND).await;
        assert_eq!(harness.state(), HealthState::Stalled, "{jump}");
        harness.slack.decide(|_, _| Fate::Done);
        harness.is_delivered_within(5 * MINUTE, jump).await;
        harness.pass(SECOND).await;
        assert_eq!(harness.state(), HealthState::Ok, "{jump}");
        // A worker that does not look any more.
        harness.clock.advance(MINUTE);
        assert_eq!(harness.state(), HealthState::Stalled, "{jump}");
    }
}
