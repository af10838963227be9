//! What Slack does, and what is made of it.

use super::*;
use crate::fake::Fate;

/// Every call of the method has this fate, the first `times` times.
fn fated(method: &'static str, fate: Fate, mut times: usize) -> impl FnMut(&str, &serde_json::Value) -> Fate {
    move |called, _| {
        if called == method && times > 0 {
            times -= 1;
            return fate;
        }
        Fate::Done
    }
}

#[tokio::test]
async fn a_post_that_was_not_answered_is_looked_for_before_it_is_posted_again() {
    for (fate, posts) in [
        (Fate::DoneAndCut, 1),
        (Fate::DoneAndGarbled, 1),
        (Fate::Cut, 2),
        (Fate::Failed(500), 2),
        (Fate::Refused("internal_error"), 2),
    ] {
        let mut desk = Desk::new().await;
        desk.create(1, "C1").await;
        desk.slack.decide(fated("chat.postMessage", fate, 1));
        desk.deliver(MINUTE).await;
        assert_eq!(desk.message(1).text, "deploy v1 awaiting_personas, 60 min left", "{fate:?}");
        assert_eq!(desk.count("chat.postMessage"), posts, "{fate:?}");
        assert_eq!(desk.count("conversations.history"), 1, "{fate:?}");
        // It is the one that is updated from then on.
        desk.end(1).await;
        desk.deliver(MINUTE).await;
        assert_eq!(desk.message(1).text, "deploy v2 approved", "{fate:?}");
        assert_eq!(desk.state(), HealthState::Ok);
    }
}

#[tokio::test]
async fn a_lost_post_is_found_however_much_was_posted_since() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.slack.decide(fated("chat.postMessage", Fate::DoneAndCut, 1));
    desk.pass(0).await;
    for number in 2..12 {
        desk.create(number, "C1").await;
    }
    desk.slack.decide(|method, _| match method {
        "conversations.history" => Fate::Refused("internal_error"),
        _ => Fate::Done,
    });
    desk.pass(20 * SECOND).await;
    desk.slack.decide(|_, _| Fate::Done);
    desk.slack.forget_calls();
    desk.deliver(3 * MINUTE).await;
    assert!(desk.count("conversations.history") >= 5, "two messages a page");
    assert_eq!(desk.count("chat.postMessage"), 0);
    assert_eq!(desk.message(1).ts, desk.slack.messages()[0].ts);
}

#[tokio::test]
async fn where_it_may_not_look_it_posts_again_and_says_so() {
    for code in ["missing_scope", "channel_not_found", "unknown_method"] {
        let mut desk = Desk::new().await;
        desk.create(1, "C1").await;
        let mut lost = fated("chat.postMessage", Fate::DoneAndCut, 1);
        desk.slack.decide(move |method, body| match method {
            "conversations.history" => Fate::Refused(code),
            _ => lost(method, body),
        });
        desk.deliver(MINUTE).await;
        assert_eq!(desk.messages(1, Slot::Main).len(), 2, "{code}");
        assert_eq!(desk.state(), HealthState::Degraded, "{code}");
        assert_eq!(desk.health.report().lookup_refused.as_deref(), Some(code));
    }
}

#[tokio::test]
async fn a_channel_that_is_given_by_its_name_is_updated_by_its_id_and_cannot_be_searched() {
    let mut desk = Desk::new().await;
    desk.create(1, "#one").await;
    desk.deliver(MINUTE).await;
    desk.escalate(1).await;
    desk.deliver(MINUTE).await;
    assert_eq!(desk.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    assert_eq!(desk.post(1, Slot::Main).await.unwrap().channel, "C0ONE");
    assert_eq!(desk.messages(1, Slot::EscalationThread)[0].channel, "C0ONE");

    desk.slack.decide(fated("chat.postMessage", Fate::DoneAndCut, 1));
    desk.create(2, "#one").await;
    desk.deliver(MINUTE).await;
    assert_eq!(desk.messages(2, Slot::Main).len(), 2);
    assert_eq!(desk.health.report().lookup_refused.as_deref(), Some("channel_not_found"));
    desk.end(2).await;
    desk.deliver(MINUTE).await;
    let texts: Vec<_> = desk.messages(2, Slot::Main).into_iter().map(|message| message.text).collect();
    assert_eq!(texts, ["deploy v1 awaiting_personas, 60 min left", "deploy v2 approved"]);
}

#[tokio::test]
async fn an_update_that_was_not_answered_is_sent_again_later_too() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.deliver(MINUTE).await;
    desk.slack.decide(fated("chat.update", Fate::Cut, 1));
    desk.end(1).await;
    desk.worker.turn().await;
    desk.worker.finish().await;
    let post = desk.post(1, Slot::Main).await.unwrap();
    assert_eq!((post.unsure, post.looks), (true, None), "nothing is taken for what it shows");
    desk.deliver(MINUTE).await;
    assert_eq!((desk.count("chat.update"), desk.message(1).updates), (2, 1));
    // The one that was cut may have been carried out last.
    desk.pass(2 * MINUTE).await;
    assert_eq!((desk.count("chat.update"), desk.message(1).updates), (3, 2));
    desk.pass(10 * MINUTE).await;
    assert_eq!(desk.count("chat.update"), 3);
}

#[tokio::test]
async fn a_slack_that_does_not_answer_is_left_alone() {
    let mut desk = Desk::new().await;
    for number in 0..20 {
        desk.create(number, ["C1", "C2", "C3"][number as usize % 3]).await;
    }
    desk.slack.decide(|_, _| Fate::Failed(503));
    desk.pass(30 * MINUTE).await;
    assert_eq!(desk.state(), HealthState::Down);
    assert_eq!(desk.waiting().await, 20);
    let calls = desk.slack.calls().len();
    assert!((20..80).contains(&calls), "{calls}: some at first, and then one about each minute");
    desk.slack.forget_calls();
    desk.pass(10 * MINUTE).await;
    let calls = desk.slack.calls();
    assert!((5..=15).contains(&calls.len()), "{}", calls.len());
    assert!(calls.windows(2).all(|pair| pair[1].at > pair[0].at + 30 * SECOND), "one at a time");

    desk.slack.decide(|_, _| Fate::Done);
    desk.deliver(10 * MINUTE).await;
    desk.pass(0).await;
    assert_eq!(desk.state(), HealthState::Ok);
    for number in 0..20 {
        assert!(desk.message(number).text.starts_with("deploy v1"));
    }
}

#[tokio::test]
async fn a_slack_that_answers_again_is_noticed_where_nothing_waits() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.deliver(MINUTE).await;
    desk.slack.decide(|_, _| Fate::Cut);
    for _ in 0..5 {
        desk.change(1).await;
        desk.pass(2 * SECOND).await;
    }
    assert_eq!(desk.state(), HealthState::Down);
    // The action is withdrawn from Slack: somebody else finishes what waits.
    for ready in desk.store.ready_outbox(desk.now().plus(MINUTE), 10).await.unwrap() {
        let now = desk.now().plus(MINUTE);
        let claim =
            desk.store.claim_outbox(ready.request, ready.effect, now, now.plus(1)).await.unwrap().unwrap();
        desk.store.finish_outbox(&claim, u64::MAX).await.unwrap();
    }
    desk.slack.decide(|_, _| Fate::Done);
    desk.pass(3 * MINUTE).await;
    assert_eq!(desk.state(), HealthState::Ok);
}

#[tokio::test]
async fn a_token_that_is_refused_stops_all_until_it_is_not() {
    for code in ["invalid_auth", "token_revoked", "account_inactive", "missing_scope"] {
        let mut desk = Desk::new().await;
        for (number, channel) in [(1, "C1"), (2, "C2"), (3, "C3")] {
            desk.create(number, channel).await;
        }
        desk.slack.decide(move |_, _| Fate::Refused(code));
        desk.pass(20 * MINUTE).await;
        let report = desk.health.report();
        assert_eq!((report.state, report.refused.as_deref()), (HealthState::Unauthorized, Some(code)));
        let (posts, asks) = (desk.count("chat.postMessage"), desk.count("auth.test"));
        assert!((1..=3).contains(&posts), "{code}: {posts}, which were under way");
        assert!((4..=12).contains(&asks), "{code}: {asks}");
        assert_eq!(desk.audited().await, [("slack_delivery_failed".to_owned(), code.to_owned())]);
        assert_eq!(desk.waiting().await, 3);

        desk.slack.decide(|_, _| Fate::Done);
        desk.deliver(10 * MINUTE).await;
        desk.pass(0).await;
        assert_eq!(desk.state(), HealthState::Ok);
        assert_eq!(desk.slack.messages().len(), 3);
        assert_eq!(desk.count("conversations.history"), 0, "nothing was done, and that is known");
    }
}

#[tokio::test]
async fn a_scope_that_is_missing_is_news_once() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    // Slack knows us, and lets us do nothing.
    desk.slack.decide(|method, _| match method {
        "auth.test" => Fate::Done,
        _ => Fate::Refused("missing_scope"),
    });
    desk.pass(20 * MINUTE).await;
    assert_eq!(desk.audited().await.len(), 1);
    let posts = desk.count("chat.postMessage");
    assert!((10..=45).contains(&posts), "{posts}");
}

#[tokio::test]
async fn a_channel_that_refuses_is_tried_rarely_and_holds_up_no_other() {
    for code in ["channel_not_found", "not_in_channel", "is_archived", "restricted_action_read_only_channel"]
    {
        let mut desk = Desk::new().await;
        desk.create(1, "C1").await;
        desk.create(2, "C2").await;
        desk.slack.decide(
            move |_, body| {
                if body["channel"] == "C1" { Fate::Refused(code) } else { Fate::Done }
            },
        );
        desk.pass(60 * MINUTE - SECOND).await;
        assert_eq!(desk.message(2).text, "deploy v1 awaiting_personas, 1 min left");
        let tries = desk.count("chat.postMessage") - 1;
        assert!((5..=10).contains(&tries), "{code}: {tries}");
        assert_eq!(desk.audited().await, [("slack_delivery_failed".to_owned(), code.to_owned())]);
        let counters = desk.store.counters().await.unwrap();
        let counted = counters.iter().find(|(counter, _)| counter.metric == "slack_delivery_failures_total");
        assert_eq!(counted.unwrap().1, &1);
        let report = desk.health.report();
        assert_eq!((report.state, report.channels["C1"].code.as_str()), (HealthState::Degraded, code));

        // Neither a change nor a restart is news.
        desk.change(1).await;
        desk.pass(MINUTE).await;
        desk.killed();
        desk.pass(MINUTE).await;
        assert_eq!(desk.audited().await.len(), 1);

        desk.slack.decide(|_, _| Fate::Done);
        desk.deliver(20 * MINUTE).await;
        desk.pass(0).await;
        assert!(desk.message(1).text.starts_with("deploy v2"));
        assert_eq!(desk.state(), HealthState::Ok);
    }
}

#[tokio::test]
async fn a_message_that_slack_does_not_take_is_cut_down() {
    for code in ["msg_too_long", "msg_blocks_too_long", "invalid_blocks"] {
        let mut desk = Desk::new().await;
        desk.create(1, "C1").await;
        desk.slack.decide(move |_, body| match body["text"].as_str() {
            Some(text) if !text.ends_with("(minimal)") && !text.contains("v3") => Fate::Refused(code),
            _ => Fate::Done,
        });
        desk.deliver(MINUTE).await;
        assert_eq!(desk.message(1).text, "deploy v1 awaiting_personas (minimal)", "{code}");
        assert_eq!(desk.audited().await, [("slack_message_shortened".to_owned(), code.to_owned())]);
        desk.pass(5 * MINUTE).await;
        assert_eq!(desk.count("chat.update"), 0, "the same version is not tried whole again");
        desk.change(1).await;
        desk.deliver(MINUTE).await;
        assert_eq!(desk.message(1).text, "deploy v2 awaiting_personas (minimal)");
        desk.end(1).await;
        desk.deliver(MINUTE).await;
        assert_eq!(desk.message(1).text, "deploy v3 approved");
    }
}

#[tokio::test]
async fn a_message_that_slack_takes_in_no_form_is_tried_rarely() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.slack.decide(|_, _| Fate::Refused("invalid_blocks"));
    desk.pass(60 * MINUTE).await;
    let posts = desk.count("chat.postMessage");
    assert!((5..=12).contains(&posts), "{posts}");
    assert_eq!(desk.audited().await.len(), 2, "once that it is cut down, and once that that is not enough");
}

#[tokio::test]
async fn a_message_that_cannot_be_changed_is_posted_anew_while_it_is_needed() {
    for code in ["cant_update_message", "edit_window_closed"] {
        let mut desk = Desk::new().await;
        for number in [1, 2] {
            desk.create(number, "C1").await;
        }
        desk.pass(5 * SECOND).await;
        let first = desk.message(1).ts;
        desk.slack.decide(fated("chat.update", Fate::Refused(code), 1));
        desk.change(1).await;
        desk.deliver(MINUTE).await;
        assert_eq!(desk.messages(1, Slot::Main).len(), 2);
        assert_ne!(desk.post(1, Slot::Main).await.unwrap().ts(), Some(first.as_str()));
        desk.slack.decide(fated("chat.update", Fate::Refused(code), 1));
        desk.end(2).await;
        desk.deliver(MINUTE).await;
        assert_eq!(desk.messages(2, Slot::Main).len(), 1);
        assert_eq!(desk.audited().await, [("slack_delivery_failed".to_owned(), code.to_owned())]);
    }
}

#[tokio::test]
async fn where_no_message_can_be_changed_there_is_one_for_each_change_and_no_more() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.slack.decide(|method, _| match method {
        "chat.update" => Fate::Refused("edit_window_closed"),
        _ => Fate::Done,
    });
    desk.pass(20 * MINUTE).await;
    assert_eq!(desk.messages(1, Slot::Main).len(), 1);
    desk.change(1).await;
    desk.pass(20 * MINUTE).await;
    assert_eq!(desk.messages(1, Slot::Main).len(), 2);
    assert!(desk.count("chat.update") <= 4, "{}", desk.count("chat.update"));
}

#[tokio::test]
async fn an_unknown_code_may_pass_a_few_times() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.slack.decide(fated("chat.postMessage", Fate::Refused("strange"), 4));
    desk.deliver(2 * MINUTE).await;
    assert_eq!(desk.audited().await, []);
    assert_eq!(desk.message(1).text, "deploy v1 awaiting_personas, 60 min left");

    desk.create(2, "C1").await;
    // Of request 1 nothing but the time that is left is refused, which nobody need hear of.
    desk.slack.decide(|_, _| Fate::Refused("strange"));
    desk.pass(60 * MINUTE).await;
    assert_eq!(desk.audited().await, [("slack_delivery_failed".to_owned(), "strange".to_owned())]);
}

#[tokio::test]
async fn a_process_that_dies_between_the_call_and_its_answer_posts_once() {
    for fate in [Fate::Hangs, Fate::DoneAndCut] {
        let mut desk = Desk::new().await;
        desk.create(1, "C1").await;
        let called = Arc::new(Notify::new());
        let told = Arc::clone(&called);
        desk.slack.decide(move |_, _| {
            told.notify_one();
            fate
        });
        desk.worker.turn().await;
        called.notified().await;
        desk.killed();
        desk.slack.decide(|_, _| Fate::Done);
        desk.deliver(2 * MINUTE).await;
        assert_eq!(desk.message(1).text, "deploy v1 awaiting_personas, 60 min left", "{fate:?}");
        assert_eq!(desk.count("conversations.history"), 1);
    }
}
