//! Each notice is posted once, in its channel or thread, and closed once when its request has ended.

use super::*;
use crate::fake::Fate;

async fn escalated(harness: &mut Harness) {
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.pass(5 * SECOND).await;
    harness.escalate(1).await;
}

#[tokio::test]
async fn an_escalation_posts_a_notice_in_the_thread_and_in_its_channel() {
    let mut harness = Harness::new().await;
    escalated(&mut harness).await;
    harness.deliver(MINUTE).await;
    let main = harness.message(1);
    let text = format!("deploy escalated: {}", id(1));
    let [thread] = harness.messages(1, Slot::EscalationThread).try_into().unwrap();
    assert_eq!((thread.channel.as_str(), thread.thread.as_ref()), ("C1", Some(&main.ts)));
    assert_eq!(thread.text, text);
    let [channel] = harness.messages(1, Slot::EscalationChannel).try_into().unwrap();
    assert_eq!((channel.channel.as_str(), channel.thread.as_ref()), ("C9", None));
    assert_eq!(channel.text, format!("{text} https://slack.test/C1/{}", main.ts));
    harness.pass(10 * MINUTE).await;
    assert_eq!(harness.slack.messages().len(), 3);
}

#[tokio::test]
async fn a_notice_waits_for_the_message_that_it_belongs_to() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.slack.decide(
        |_, body| {
            if body["channel"] == "C1" { Fate::Refused("not_in_channel") } else { Fate::Done }
        },
    );
    harness.pass(5 * SECOND).await;
    harness.escalate(1).await;
    harness.pass(MINUTE).await;
    let [channel] = harness.messages(1, Slot::EscalationChannel).try_into().unwrap();
    assert_eq!(channel.text, format!("deploy escalated: {}", id(1)), "there is nothing to link to yet");
    assert_eq!(harness.slack.messages().len(), 1);
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(20 * MINUTE).await;
    assert_eq!(harness.messages(1, Slot::EscalationThread).len(), 1);
    assert_eq!(harness.messages(1, Slot::EscalationChannel).len(), 1);
}

/// Nothing adds it later.
#[tokio::test]
async fn a_notice_waits_a_little_for_a_link_that_could_not_be_asked_for() {
    for (failures, has_link) in [(2, true), (usize::MAX, false)] {
        let mut harness = Harness::new().await;
        let mut asked = 0;
        harness.slack.decide(move |method, _| {
            asked += usize::from(method == "chat.getPermalink");
            if method == "chat.getPermalink" && asked <= failures { Fate::Failed(500) } else { Fate::Done }
        });
        escalated(&mut harness).await;
        assert!(harness.deliver(2 * MINUTE).await < MINUTE);
        let link = format!(" https://slack.test/C1/{}", harness.message(1).ts);
        let link = if has_link { link } else { String::new() };
        let text = format!("deploy escalated: {}", id(1));
        assert_eq!(texts(&harness, &NOTICES), [text.clone(), format!("{text}{link}")]);
        harness.slack.decide(|_, _| Fate::Done);
        harness.pass(10 * MINUTE).await;
        assert_eq!(harness.slack.messages().len(), 3);
    }
}

#[tokio::test]
async fn a_notice_that_cannot_be_delivered_holds_up_no_other() {
    let mut harness = Harness::new().await;
    harness.slack.decide(
        |_, body| {
            if body["channel"] == "C9" { Fate::Refused("not_in_channel") } else { Fate::Done }
        },
    );
    escalated(&mut harness).await;
    harness.pass(5 * SECOND).await;
    assert_eq!(harness.messages(1, Slot::EscalationThread).len(), 1);
    assert_eq!(harness.audited().await, [("slack_delivery_failed".into(), "not_in_channel".into())]);
    assert_eq!(harness.health.report(harness.clock.monotonic()).channels.keys().collect::<Vec<_>>(), ["C9"]);
    harness.pass(50 * MINUTE).await;
    let tries = harness.slack.calls().iter().filter(|call| call.body["channel"] == "C9").count();
    assert!((4..=10).contains(&tries), "{tries}");
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(20 * MINUTE).await;
    assert_eq!(harness.messages(1, Slot::EscalationChannel).len(), 1);
    assert_eq!(harness.messages(1, Slot::EscalationThread).len(), 1);
}

#[tokio::test]
async fn an_unanswered_notice_is_searched_for() {
    for (slot, method) in [
        (Slot::EscalationThread, "conversations.replies"),
        (Slot::EscalationChannel, "conversations.history"),
    ] {
        let mut harness = Harness::new().await;
        let mut lost = false;
        harness.slack.decide(move |_, body| {
            let is_it = body["metadata"]["event_payload"]["slot"] == slot.to_string();
            if is_it && !std::mem::replace(&mut lost, true) { Fate::DoneAndCut } else { Fate::Done }
        });
        escalated(&mut harness).await;
        harness.deliver(MINUTE).await;
        assert_eq!(harness.messages(1, Slot::EscalationThread).len(), 1, "{slot}");
        assert_eq!(harness.messages(1, Slot::EscalationChannel).len(), 1, "{slot}");
        assert_eq!(harness.count(method), 1, "{slot}");
    }
}

#[tokio::test]
async fn an_ended_request_posts_no_notice() {
    let mut harness = Harness::new().await;
    harness.slack.decide(|_, body| match body["metadata"]["event_payload"]["slot"].as_str() {
        Some("main") | None => Fate::Done,
        Some(_) => Fate::Limited(60),
    });
    escalated(&mut harness).await;
    harness.pass(5 * SECOND).await;
    harness.end(1).await;
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(5 * MINUTE).await;
    assert_eq!(harness.slack.messages().len(), 1);
}

#[tokio::test]
async fn an_action_without_a_channel_can_escalate_to_one() {
    let mut harness = Harness::new().await;
    harness.create(1, "").await;
    harness.escalate(1).await;
    harness.deliver(MINUTE).await;
    assert_eq!(harness.messages(1, Slot::EscalationChannel).len(), 1);
    assert_eq!(harness.slack.messages().len(), 1);
}

/// The texts of a request's notices.
fn texts(harness: &Harness, slots: &[Slot]) -> Vec<String> {
    let messages = slots.iter().flat_map(|slot| harness.messages(1, *slot));
    messages.map(|message| message.text).collect()
}

const NOTICES: [Slot; 2] = [Slot::EscalationThread, Slot::EscalationChannel];

#[tokio::test]
async fn notices_are_closed_once_when_their_request_ends() {
    let mut harness = Harness::new().await;
    escalated(&mut harness).await;
    harness.deliver(MINUTE).await;
    harness.change(1).await;
    harness.deliver(MINUTE).await;
    let updates = |harness: &Harness| NOTICES.map(|slot| harness.messages(1, slot)[0].updates);
    assert_eq!(updates(&harness), [0, 0], "a change of the request is none of its notices");
    harness.end_with_notices(1).await;
    harness.deliver(MINUTE).await;
    let ended = format!("deploy escalated, ended: {}", id(1));
    let link = format!("{ended} https://slack.test/C1/{}", harness.message(1).ts);
    assert_eq!(texts(&harness, &NOTICES), [ended, link]);
    harness.pass(20 * MINUTE).await;
    assert_eq!(updates(&harness), [1, 1]);
    assert_eq!(harness.slack.messages().len(), 3);
}

#[tokio::test]
async fn each_edit_notifies_those_whom_it_replaced_once() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    // In a row, before anything is delivered: `change` is an approval by U1.
    harness.change(1).await;
    harness.edit(1, "U2").await;
    harness.edit(1, "U3").await;
    harness.deliver(MINUTE).await;
    let slots: Vec<Slot> = (0..9).map(Slot::Replaced).collect();
    let open = ["awaiting_personas: U2 replaced U1", "awaiting_personas: U3 replaced U2"];
    assert_eq!(texts(&harness, &slots), open);
    let main = harness.message(1);
    let in_thread = |message: &Shown| message.thread.as_ref() == Some(&main.ts) && message.channel == "C1";
    assert!(slots.iter().flat_map(|slot| harness.messages(1, *slot)).all(|message| in_thread(&message)));

    harness.kill_and_restart();
    harness.change(1).await;
    harness.edit(1, "U4").await;
    harness.deliver(MINUTE).await;
    assert_eq!(texts(&harness, &slots), [&open[..], &["awaiting_personas: U4 replaced U3, U1"]].concat());
    harness.end_with_notices(1).await;
    harness.deliver(MINUTE).await;
    let closed = ["U2", "U3", "U4"].map(|by| format!("approved: {by} replaced "));
    assert_eq!(texts(&harness, &slots), closed);
    harness.pass(20 * MINUTE).await;
    let updates: Vec<usize> =
        slots.iter().flat_map(|slot| harness.messages(1, *slot)).map(|message| message.updates).collect();
    assert_eq!(updates, [1, 1, 1]);
}

#[tokio::test]
async fn who_was_replaced_is_told_although_the_request_has_ended_since() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.slack.decide(|_, _| Fate::Limited(60));
    harness.change(1).await;
    let edit = harness.edit(1, "U2").await;
    harness.pass(5 * SECOND).await;
    harness.end_with_notices(1).await;
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(5 * MINUTE).await;
    let slot = Slot::Replaced(edit.history.last().unwrap().seq);
    assert_eq!(texts(&harness, &[slot]), ["approved: U2 replaced U1"]);
    harness.pass(20 * MINUTE).await;
    assert_eq!(harness.messages(1, slot)[0].updates, 0);
}

#[tokio::test]
async fn a_notice_of_a_replaced_approval_is_posted_once_whatever_is_lost() {
    // The answer to the post is lost, or the process dies at once or within the post.
    for kills in [false, true] {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.deliver(MINUTE).await;
        let mut lost = false;
        harness.slack.decide(move |_, body| {
            let slot = body["metadata"]["event_payload"]["slot"].as_str().unwrap_or_default();
            let is_it = slot.starts_with("replaced_");
            if is_it && !std::mem::replace(&mut lost, true) { Fate::DoneAndCut } else { Fate::Done }
        });
        harness.change(1).await;
        let edit = harness.edit(1, "U2").await;
        if kills {
            harness.work().await;
            harness.kill_and_restart();
        }
        harness.deliver(MINUTE).await;
        let slot = Slot::Replaced(edit.history.last().unwrap().seq);
        assert_eq!(texts(&harness, &[slot]), ["awaiting_personas: U2 replaced U1"], "{kills}");
        assert_eq!(harness.count("conversations.replies"), 1, "{kills}");
    }
}

#[tokio::test]
async fn a_notice_that_is_gone_holds_up_no_other() {
    let mut harness = Harness::new().await;
    escalated(&mut harness).await;
    harness.deliver(MINUTE).await;
    harness.slack.decide(|method, body| {
        let is_it = method == "chat.update" && body["channel"] == "C9";
        if is_it { Fate::Refused("message_not_found") } else { Fate::Done }
    });
    harness.end_with_notices(1).await;
    harness.deliver(MINUTE).await;
    let [thread] = harness.messages(1, Slot::EscalationThread).try_into().unwrap();
    assert_eq!((thread.text, thread.updates), (format!("deploy escalated, ended: {}", id(1)), 1));
    assert_eq!(harness.audited().await, [("slack_delivery_failed".into(), "message_not_found".into())]);
    let calls = harness.slack.calls();
    let tries = calls.iter().filter(|call| call.method == "chat.update" && call.body["channel"] == "C9");
    assert_eq!(tries.count(), 1);
}
