//! Each notice of an escalation is posted once, in its channel or thread.

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
    assert_eq!(harness.health.report().channels.keys().collect::<Vec<_>>(), ["C9"]);
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
            let is_it = body["metadata"]["event_payload"]["slot"] == slot.as_str();
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
