//! How failures of Slack are handled.

use std::sync::atomic::{AtomicBool, Ordering};

use countersign_core::directory::Directory;
use countersign_store::faulty::{Faulty, FaultyStore};
use countersign_store::{StoreError, StoreFault};

use super::*;
use crate::Message;
use crate::fake::Fate;

/// The first `times` calls of the method are answered so, every other call is carried out.
fn failing(
    method: &'static str,
    fate: Fate,
    mut times: usize,
) -> impl FnMut(&str, &serde_json::Value) -> Fate {
    move |called, _| {
        if called == method && times > 0 {
            times -= 1;
            return fate;
        }
        Fate::Done
    }
}

/// Each attempt would fail in the same way: without a pause it would be made thousands of times a second.
#[tokio::test]
async fn a_store_that_fails_is_tried_again_after_growing_pauses() {
    let mut harness = Harness::new().await;
    for number in 1..=3 {
        harness.create(number, "C1").await;
    }
    // It can still be read.
    harness.store.close().await.unwrap();
    let (begun, mut pauses) = (harness.now(), Vec::new());
    while harness.now() < begun.plus(5 * MINUTE) {
        let next = harness.work().await;
        pauses.push(next.since(harness.clock.monotonic()));
        harness.advance_to(next);
    }
    // Some of them wait for a rate limit, too.
    assert!(pauses.len() < 30 && pauses.iter().all(|pause| *pause <= 37_500), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause > 20_000), "{pauses:?}");
    assert_eq!(
        harness.slack.methods(),
        Vec::<String>::new(),
        "nothing is sent whose outcome cannot be stored"
    );
}

#[tokio::test]
async fn an_unanswered_post_is_searched_for_before_it_is_repeated() {
    for (fate, posts) in [
        (Fate::DoneAndCut, 1),
        (Fate::DoneAndGarbled, 1),
        (Fate::Cut, 2),
        (Fate::Failed(500), 2),
        (Fate::Refused("internal_error"), 2),
    ] {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.slack.decide(failing("chat.postMessage", fate, 1));
        harness.deliver(MINUTE).await;
        assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas, 60 min left", "{fate:?}");
        assert_eq!(harness.count("chat.postMessage"), posts, "{fate:?}");
        assert_eq!(harness.count("conversations.history"), 1, "{fate:?}");
        // The message that was found or posted again is updated from then on.
        harness.end(1).await;
        harness.deliver(MINUTE).await;
        assert_eq!(harness.message(1).text, "deploy v2 approved", "{fate:?}");
        assert_eq!(harness.state(), HealthState::Ok);
    }
}

#[tokio::test]
async fn an_unanswered_post_is_found_among_many_later_ones() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.slack.decide(failing("chat.postMessage", Fate::DoneAndCut, 1));
    harness.pass(0).await;
    for number in 2..12 {
        harness.create(number, "C1").await;
    }
    harness.slack.decide(|method, _| match method {
        "conversations.history" => Fate::Refused("internal_error"),
        _ => Fate::Done,
    });
    harness.pass(20 * SECOND).await;
    harness.slack.decide(|_, _| Fate::Done);
    harness.slack.forget_calls();
    harness.deliver(3 * MINUTE).await;
    assert!(harness.count("conversations.history") >= 5, "two messages a page");
    assert_eq!(harness.count("chat.postMessage"), 0);
    assert_eq!(harness.message(1).ts, harness.slack.messages()[0].ts);
}

#[tokio::test]
async fn without_permission_to_search_it_posts_again_and_reports_that() {
    for code in ["missing_scope", "channel_not_found", "unknown_method"] {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        let mut lost = failing("chat.postMessage", Fate::DoneAndCut, 1);
        harness.slack.decide(move |method, body| match method {
            "conversations.history" => Fate::Refused(code),
            _ => lost(method, body),
        });
        harness.deliver(MINUTE).await;
        assert_eq!(harness.messages(1, Slot::Main).len(), 2, "{code}");
        assert_eq!(harness.state(), HealthState::Degraded, "{code}");
        assert_eq!(harness.health.report(harness.clock.monotonic()).lookup_refused.as_deref(), Some(code));
    }
}

#[tokio::test]
async fn a_channel_given_by_name_is_updated_by_id_and_cannot_be_searched() {
    let mut harness = Harness::new().await;
    harness.create(1, "#one").await;
    harness.deliver(MINUTE).await;
    harness.escalate(1).await;
    harness.deliver(MINUTE).await;
    assert_eq!(harness.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    assert_eq!(harness.post(1, Slot::Main).await.unwrap().channel, "C0ONE");
    assert_eq!(harness.messages(1, Slot::EscalationThread)[0].channel, "C0ONE");

    harness.slack.decide(failing("chat.postMessage", Fate::DoneAndCut, 1));
    harness.create(2, "#one").await;
    harness.deliver(MINUTE).await;
    assert_eq!(harness.messages(2, Slot::Main).len(), 2);
    assert_eq!(
        harness.health.report(harness.clock.monotonic()).lookup_refused.as_deref(),
        Some("channel_not_found")
    );
    harness.end(2).await;
    harness.deliver(MINUTE).await;
    let texts: Vec<_> = harness.messages(2, Slot::Main).into_iter().map(|message| message.text).collect();
    assert_eq!(texts, ["deploy v1 awaiting_personas, 60 min left", "deploy v2 approved"]);
}

#[tokio::test]
async fn an_unanswered_update_is_repeated_at_once_and_later() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.slack.decide(failing("chat.update", Fate::Cut, 1));
    harness.end(1).await;
    harness.worker.turn().await;
    harness.worker.finish().await;
    let post = harness.post(1, Slot::Main).await.unwrap();
    assert_eq!((post.unsure, post.looks), (true, None), "what it shows is unknown");
    harness.deliver(MINUTE).await;
    assert_eq!((harness.count("chat.update"), harness.message(1).updates), (2, 1));
    // The update without an answer may have been carried out last.
    harness.pass(2 * MINUTE).await;
    assert_eq!((harness.count("chat.update"), harness.message(1).updates), (3, 2));
    harness.pass(10 * MINUTE).await;
    assert_eq!(harness.count("chat.update"), 3);
}

/// A store that does not take a message's state, once, when a test says so.
struct Unkept(Arc<AtomicBool>);

impl Faulty for Unkept {
    async fn write<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if name == "keep_slack_post" && self.0.swap(false, Ordering::Relaxed) {
            let detail = "as the test says".to_owned();
            return Err(StoreError::Unavailable { backend: "faulty", fault: StoreFault::Other, detail });
        }
        call.await
    }
}

#[tokio::test]
async fn an_unanswered_update_is_repeated_later_if_the_store_does_not_take_that_it_was_not_answered() {
    let mut harness = Harness::new().await;
    let fails = Arc::new(AtomicBool::new(false));
    let store = Arc::clone(&harness.store);
    harness.store = Arc::new(FaultyStore { store, faults: Unkept(Arc::clone(&fails)) });
    harness.kill_and_restart();
    // Whatever the first worker has sent is over.
    harness.pass(2 * MINUTE).await;
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.slack.decide(failing("chat.update", Fate::Cut, 1));
    harness.clock.advance(1);
    harness.end(1).await;
    fails.store(true, Ordering::Relaxed);
    harness.deliver(5 * MINUTE).await;
    assert!(!fails.load(Ordering::Relaxed), "the store has failed");
    assert_eq!((harness.count("chat.update"), harness.message(1).updates), (2, 1));
    // The update without an answer may have been carried out last.
    harness.pass(2 * MINUTE).await;
    assert_eq!((harness.count("chat.update"), harness.message(1).updates), (3, 2));
    harness.pass(10 * MINUTE).await;
    assert_eq!(harness.count("chat.update"), 3);
}

#[tokio::test]
async fn what_a_process_that_died_may_have_sent_is_overwritten_later() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.create(2, "C2").await;
    harness.deliver(MINUTE).await;
    harness.create_approved(4, "C1").await;
    harness.clock.advance(1);
    harness.kill_and_restart();
    harness.create(3, "C3").await;
    harness.deliver(MINUTE).await;
    for number in [1, 3] {
        harness.end(number).await;
    }
    harness.deliver(MINUTE).await;
    let updates = |harness: &Harness| [1, 3].map(|number| harness.message(number).updates);
    assert_eq!(updates(&harness), [1, 1]);
    // An update of the first process may have been carried out last, but none of a request that it did not know.
    harness.pass(2 * MINUTE).await;
    assert_eq!(updates(&harness), [2, 1]);
    harness.pass(10 * MINUTE).await;
    assert_eq!(updates(&harness), [2, 1]);
    assert_eq!(harness.message(4).updates, 0, "it was posted by the second process, and never updated");
    // By now nothing of the first process is still on its way.
    let before = harness.message(2).updates;
    harness.end(2).await;
    harness.deliver(MINUTE).await;
    harness.pass(2 * MINUTE).await;
    assert_eq!(harness.message(2).updates, before + 1);
}

#[tokio::test]
async fn few_calls_are_made_while_slack_does_not_answer() {
    let mut harness = Harness::new().await;
    for number in 0..20 {
        harness.create(number, ["C1", "C2", "C3"][number as usize % 3]).await;
    }
    harness.slack.decide(|_, _| Fate::Failed(503));
    harness.pass(30 * MINUTE).await;
    assert_eq!(harness.state(), HealthState::Down);
    assert_eq!(harness.waiting().await, 20);
    let calls = harness.slack.calls().len();
    assert!((20..80).contains(&calls), "{calls}: some at first, and then one about each minute");
    harness.slack.forget_calls();
    harness.pass(10 * MINUTE).await;
    let calls = harness.slack.calls();
    assert!((5..=15).contains(&calls.len()), "{}", calls.len());
    assert!(calls.windows(2).all(|pair| pair[1].at > pair[0].at + 30 * SECOND), "one at a time");

    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(10 * MINUTE).await;
    harness.pass(0).await;
    assert_eq!(harness.state(), HealthState::Ok);
    for number in 0..20 {
        assert!(harness.message(number).text.starts_with("deploy v1"));
    }
}

#[tokio::test]
async fn recovery_is_noticed_with_an_empty_outbox() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.slack.decide(|_, _| Fate::Cut);
    for _ in 0..5 {
        harness.change(1).await;
        harness.pass(2 * SECOND).await;
    }
    assert_eq!(harness.state(), HealthState::Down);
    // Another worker finishes everything that waits.
    for ready in harness.store.ready_outbox(harness.now().plus(MINUTE), 10).await.unwrap() {
        let now = harness.now().plus(MINUTE);
        let claim = harness
            .store
            .claim_outbox(ready.request, ready.effect, fixtures::claim(now, now.plus(1)))
            .await
            .unwrap()
            .unwrap();
        harness.store.finish_outbox(&claim, u64::MAX).await.unwrap();
    }
    harness.slack.decide(|_, _| Fate::Done);
    harness.pass(3 * MINUTE).await;
    assert_eq!(harness.state(), HealthState::Ok);
}

#[tokio::test]
async fn a_refused_token_stops_delivery_until_it_is_accepted() {
    for code in ["invalid_auth", "token_revoked", "account_inactive", "missing_scope"] {
        let mut harness = Harness::new().await;
        for (number, channel) in [(1, "C1"), (2, "C2"), (3, "C3")] {
            harness.create(number, channel).await;
        }
        harness.slack.decide(move |_, _| Fate::Refused(code));
        harness.pass(20 * MINUTE).await;
        let report = harness.health.report(harness.clock.monotonic());
        assert_eq!((report.state, report.refused.as_deref()), (HealthState::Unauthorized, Some(code)));
        let (posts, asks) = (harness.count("chat.postMessage"), harness.count("auth.test"));
        assert!((1..=3).contains(&posts), "{code}: {posts}, which were under way");
        assert!((4..=12).contains(&asks), "{code}: {asks}");
        assert_eq!(harness.audited().await, [("slack_delivery_failed".to_owned(), code.to_owned())]);
        assert_eq!(harness.waiting().await, 3);

        harness.slack.decide(|_, _| Fate::Done);
        harness.deliver(10 * MINUTE).await;
        harness.pass(0).await;
        assert_eq!(harness.state(), HealthState::Ok);
        assert_eq!(harness.slack.messages().len(), 3);
        assert_eq!(harness.count("conversations.history"), 0, "the refused posts are known not to exist");
    }
}

#[tokio::test]
async fn a_missing_scope_is_reported_once() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    // Slack accepts the token, and refuses everything else.
    harness.slack.decide(|method, _| match method {
        "auth.test" => Fate::Done,
        _ => Fate::Refused("missing_scope"),
    });
    harness.pass(20 * MINUTE).await;
    assert_eq!(harness.audited().await.len(), 1);
    let posts = harness.count("chat.postMessage");
    assert!((10..=45).contains(&posts), "{posts}");
}

#[tokio::test]
async fn a_failing_channel_is_tried_rarely_and_holds_up_no_other() {
    for code in ["channel_not_found", "not_in_channel", "is_archived", "restricted_action_read_only_channel"]
    {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.create(2, "C2").await;
        harness.slack.decide(
            move |_, body| {
                if body["channel"] == "C1" { Fate::Refused(code) } else { Fate::Done }
            },
        );
        harness.pass(60 * MINUTE - SECOND).await;
        assert_eq!(harness.message(2).text, "deploy v1 awaiting_personas, 1 min left");
        let tries = harness.count("chat.postMessage") - 1;
        assert!((5..=10).contains(&tries), "{code}: {tries}");
        assert_eq!(harness.audited().await, [("slack_delivery_failed".to_owned(), code.to_owned())]);
        let counters = harness.store.counters().await.unwrap();
        let counted = counters.iter().find(|(counter, _)| counter.metric == "slack_delivery_failures_total");
        assert_eq!(counted.unwrap().1, &1);
        let report = harness.health.report(harness.clock.monotonic());
        assert_eq!((report.state, report.channels["C1"].code.as_str()), (HealthState::Degraded, code));

        // Neither a change nor a restart reports it again.
        harness.change(1).await;
        harness.pass(MINUTE).await;
        harness.kill_and_restart();
        harness.pass(MINUTE).await;
        assert_eq!(harness.audited().await.len(), 1);

        harness.slack.decide(|_, _| Fate::Done);
        harness.deliver(20 * MINUTE).await;
        harness.pass(0).await;
        assert!(harness.message(1).text.starts_with("deploy v2"));
        assert_eq!(harness.state(), HealthState::Ok);
    }
}

#[tokio::test]
async fn refused_content_is_sent_in_its_minimal_form() {
    for code in ["msg_too_long", "msg_blocks_too_long", "invalid_blocks"] {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.slack.decide(move |_, body| match body["text"].as_str() {
            Some(text) if !text.ends_with("(minimal)") && !text.contains("v3") => Fate::Refused(code),
            _ => Fate::Done,
        });
        harness.deliver(MINUTE).await;
        assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas (minimal)", "{code}");
        assert_eq!(harness.audited().await, [("slack_message_shortened".to_owned(), code.to_owned())]);
        harness.pass(5 * MINUTE).await;
        assert_eq!(harness.count("chat.update"), 0, "the full form of the same version is not tried again");
        harness.change(1).await;
        harness.deliver(MINUTE).await;
        assert_eq!(harness.message(1).text, "deploy v2 awaiting_personas (minimal)");
        assert!(harness.post(1, Slot::Main).await.unwrap().was_refused());
        harness.end(1).await;
        harness.deliver(MINUTE).await;
        assert_eq!(harness.message(1).text, "deploy v3 approved");
        assert!(!harness.post(1, Slot::Main).await.unwrap().was_refused(), "Slack took all of it");
    }
}

#[tokio::test]
async fn content_that_is_refused_in_every_form_is_tried_rarely() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.slack.decide(|_, _| Fate::Refused("invalid_blocks"));
    harness.pass(60 * MINUTE).await;
    let posts = harness.count("chat.postMessage");
    assert!((5..=12).contains(&posts), "{posts}");
    assert_eq!(harness.audited().await.len(), 2, "once for the minimal form, and once for its refusal");
}

#[tokio::test]
async fn a_message_that_cannot_be_updated_is_posted_again_while_its_request_is_open() {
    for code in ["cant_update_message", "edit_window_closed"] {
        let mut harness = Harness::new().await;
        for number in [1, 2] {
            harness.create(number, "C1").await;
        }
        harness.pass(5 * SECOND).await;
        let first = harness.message(1).ts;
        harness.slack.decide(failing("chat.update", Fate::Refused(code), 1));
        harness.change(1).await;
        harness.deliver(MINUTE).await;
        assert_eq!(harness.messages(1, Slot::Main).len(), 2);
        assert_ne!(harness.post(1, Slot::Main).await.unwrap().ts(), Some(first.as_str()));
        harness.slack.decide(failing("chat.update", Fate::Refused(code), 1));
        harness.end(2).await;
        harness.deliver(MINUTE).await;
        assert_eq!(harness.messages(2, Slot::Main).len(), 1);
        assert_eq!(harness.audited().await, [("slack_delivery_failed".to_owned(), code.to_owned())]);
    }
}

#[tokio::test]
async fn if_no_message_can_be_updated_each_change_posts_one() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.slack.decide(|method, _| match method {
        "chat.update" => Fate::Refused("edit_window_closed"),
        _ => Fate::Done,
    });
    harness.pass(20 * MINUTE).await;
    assert_eq!(harness.messages(1, Slot::Main).len(), 1);
    harness.change(1).await;
    harness.pass(20 * MINUTE).await;
    assert_eq!(harness.messages(1, Slot::Main).len(), 2);
    assert!(harness.count("chat.update") <= 4, "{}", harness.count("chat.update"));
}

#[tokio::test]
async fn an_unknown_code_is_retried_a_few_times_before_it_is_reported() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.slack.decide(failing("chat.postMessage", Fate::Refused("strange"), 4));
    harness.deliver(2 * MINUTE).await;
    assert_eq!(harness.audited().await, []);
    assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas, 60 min left");

    harness.create(2, "C1").await;
    // Of request 1 only a refresh is refused, which is not reported.
    harness.slack.decide(|_, _| Fate::Refused("strange"));
    harness.pass(60 * MINUTE).await;
    assert_eq!(harness.audited().await, [("slack_delivery_failed".to_owned(), "strange".to_owned())]);
}

#[tokio::test]
async fn a_process_that_dies_between_the_call_and_its_answer_posts_once() {
    for fate in [Fate::Hangs, Fate::DoneAndCut] {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        let called = Arc::new(Notify::new());
        let notify = Arc::clone(&called);
        harness.slack.decide(move |_, _| {
            notify.notify_one();
            fate
        });
        harness.worker.turn().await;
        called.notified().await;
        harness.kill_and_restart();
        harness.slack.decide(|_, _| Fate::Done);
        harness.deliver(2 * MINUTE).await;
        assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas, 60 min left", "{fate:?}");
        assert_eq!(harness.count("conversations.history"), 1);
    }
}

#[tokio::test]
async fn a_request_whose_message_breaks_the_gateway_keeps_no_other_from_being_delivered() {
    let mut harness = Harness::new().await;
    let breaks: fn(&Request, &PolicyEntry, &Directory, Timestamp) -> Message =
        |request, entry, directory, now| {
            assert_ne!(request.id, id(1), "broken on purpose");
            (plain_rendering::PLAIN.message)(request, entry, directory, now)
        };
    harness.render(Rendering { message: breaks, ..plain_rendering::PLAIN });
    for number in 1..=3 {
        harness.create(number, "C1").await;
    }
    harness.pass(3 * MINUTE).await;
    assert_eq!(harness.waiting().await, 1, "that one waits");
    for number in 2..=3 {
        assert!(harness.message(number).text.starts_with("deploy v1 "), "{}", harness.message(number).text);
    }
}

/// The calls of `method` are not answered any more; the returned one is notified of each.
fn hanging(harness: &Harness, method: &'static str) -> Arc<Notify> {
    let called = Arc::new(Notify::new());
    let notify = Arc::clone(&called);
    harness.slack.decide(move |is_called, _| {
        if is_called != method {
            return Fate::Done;
        }
        notify.notify_one();
        Fate::Hangs
    });
    called
}

#[tokio::test]
async fn what_another_gateway_that_died_may_have_sent_is_overwritten_later() {
    let mut harness = Harness::new().await;
    let mut other = harness.take_worker();
    // Whatever earlier processes have sent is over.
    harness.pass(2 * MINUTE).await;
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.clock.advance(1);
    harness.end(1).await;
    let called = hanging(&harness, "chat.update");
    other.turn().await;
    called.notified().await;
    drop(other);
    harness.slack.decide(|_, _| Fate::Done);
    let took = harness.deliver(MINUTE).await;
    assert!(took <= 16 * SECOND, "{took} ms: the claim has ended after ten seconds");
    assert_eq!((harness.count("chat.update"), harness.message(1).updates), (2, 1));
    harness.pass(2 * MINUTE).await;
    assert_eq!((harness.count("chat.update"), harness.message(1).updates), (3, 2));
    harness.pass(10 * MINUTE).await;
    assert_eq!(harness.count("chat.update"), 3);
}

#[tokio::test]
async fn what_another_gateway_that_died_may_have_posted_is_searched_for() {
    for (fate, posts) in [(Fate::DoneAndCut, 1), (Fate::Hangs, 2)] {
        let mut harness = Harness::new().await;
        let mut other = harness.take_worker();
        harness.pass(2 * MINUTE).await;
        harness.create(1, "C1").await;
        let called = Arc::new(Notify::new());
        let notify = Arc::clone(&called);
        harness.slack.decide(move |_, _| {
            notify.notify_one();
            fate
        });
        other.turn().await;
        called.notified().await;
        drop(other);
        harness.slack.decide(|_, _| Fate::Done);
        let took = harness.deliver(MINUTE).await;
        assert!(took <= 20 * SECOND, "{fate:?}: {took} ms");
        assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas, 60 min left", "{fate:?}");
        let calls = (harness.count("conversations.history"), harness.count("chat.postMessage"));
        assert_eq!(calls, (1, posts), "{fate:?}");
    }
}

#[tokio::test]
async fn a_call_that_takes_long_keeps_its_claim() {
    let mut harness = Harness::new().await;
    let mut slow = harness.take_worker();
    harness.create(1, "C1").await;
    let called = hanging(&harness, "chat.postMessage");
    slow.turn().await;
    called.notified().await;
    for _ in 0..8 {
        harness.clock.advance(3 * SECOND);
        // Once it is renewed, it lasts ten seconds from now.
        while !harness.store.ready_outbox(harness.now().plus(9 * SECOND), 10).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        harness.worker.turn().await;
        harness.worker.finish().await;
    }
    assert_eq!(harness.slack.methods(), ["chat.postMessage"], "the other worker calls nobody");
}

#[tokio::test]
async fn a_call_is_given_up_once_its_claim_may_be_lost() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    let called = hanging(&harness, "chat.postMessage");
    harness.worker.turn().await;
    called.notified().await;
    let revision = harness.post(1, Slot::Main).await.unwrap().revision;
    // The process stands still for longer than it may.
    harness.clock.advance(8 * SECOND);
    harness.worker.finish().await;
    let post = harness.post(1, Slot::Main).await.unwrap();
    assert_eq!(post.revision, revision, "nothing is stored");
    assert_eq!(harness.waiting().await, 1);
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(MINUTE).await;
    assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas, 60 min left");
    assert_eq!((harness.count("conversations.history"), harness.count("chat.postMessage")), (1, 2));
}
