//! Messages show what is stored: each is posted once and then updated, soon, with the newest state.

use super::*;
use crate::fake::Fate;

#[tokio::test]
async fn a_request_is_posted_once_and_updated_from_then_on() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.pass(0).await;
    assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas, 60 min left", "people see it at once");
    assert_eq!(harness.message(1).channel, "C1");
    harness.pass(5 * SECOND).await;
    harness.change(1).await;
    harness.pass(SECOND).await;
    assert_eq!(harness.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    harness.end(1).await;
    harness.pass(0).await;
    assert_eq!(harness.message(1).text, "deploy v3 approved", "what is decided is shown at once");
    assert_eq!(harness.slack.methods(), ["chat.postMessage", "chat.update", "chat.update"]);
    assert_eq!(harness.waiting().await, 0);
    harness.pass(10 * MINUTE).await;
    assert_eq!(harness.slack.calls().len(), 3, "and then nothing more");
    assert_eq!(harness.state(), HealthState::Ok);
}

/// What is done with an approval is shown, and that nothing was done with it in time.
#[tokio::test]
async fn the_use_of_an_approval_is_shown() {
    let mut harness = Harness::new().await;
    let terms = UseTerms { valid_for_ms: Some(25 * MINUTE), required: true };
    for number in 1..=2 {
        harness.create_with(number, "C1", |submission| submission.terms = terms).await;
        harness.pass(5 * SECOND).await;
        harness.end(number).await;
        harness.pass(5 * SECOND).await;
        assert_eq!(harness.message(number).text, "deploy v2 approved, unused");
    }
    let (calls, approved) =
        (harness.slack.calls().len(), harness.store.request(id(1)).await.unwrap().unwrap());
    let used = fixtures::consumed(&approved, harness.now());
    harness.store_version(fixtures::change(&used)).await;
    harness.pass(5 * SECOND).await;
    assert_eq!(harness.message(1).text, "deploy v3 approved, consumed");
    harness.pass(24 * MINUTE).await;
    assert_eq!(harness.message(2).text, "deploy v2 approved, unused");
    assert_eq!(harness.slack.calls().len(), calls + 1, "nothing is sent while nothing changes");
    harness.pass(MINUTE).await;
    assert_eq!(harness.message(2).text, "deploy v2 approved, lapsed");
    harness.pass(60 * MINUTE).await;
    assert_eq!(harness.slack.calls().len(), calls + 2, "and then nothing more");
}

/// A request that ended before anybody saw it is not posted because it is used.
#[tokio::test]
async fn what_nobody_saw_is_not_posted_for_its_use() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    let approved = harness.end(1).await;
    let used = fixtures::consumed(&approved, harness.now());
    harness.store_version(fixtures::change(&used)).await;
    harness.pass(MINUTE).await;
    assert_eq!((harness.slack.calls().len(), harness.skipped().await), (0, 1));

    // But of one that ended as it was made, it is the only word, used or not.
    harness.create_approved(2, "C1").await;
    let approved = harness.store.request(id(2)).await.unwrap().unwrap();
    let used = fixtures::consumed(&approved, harness.now());
    harness.store_version(fixtures::change(&used)).await;
    harness.pass(MINUTE).await;
    assert_eq!(harness.message(2).text, "deploy v2 approved");
}

#[tokio::test]
async fn changes_that_come_in_a_burst_are_one_update() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.pass(5 * SECOND).await;
    for _ in 0..5 {
        harness.change(1).await;
        harness.pass(50).await;
    }
    assert_eq!(harness.count("chat.update"), 0);
    harness.pass(250).await;
    assert_eq!(harness.count("chat.update"), 1);
    assert_eq!(harness.message(1).text, "deploy v6 awaiting_personas, 60 min left");
    assert_eq!(harness.waiting().await, 0);

    // A burst that goes on does not delay updates for ever.
    for _ in 0..30 {
        harness.change(1).await;
        harness.pass(100).await;
    }
    let updates = harness.count("chat.update") - 1;
    assert!((2..=4).contains(&updates), "{updates}");
}

#[tokio::test]
async fn changes_before_the_first_post_are_in_it() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.change(1).await;
    harness.change(1).await;
    harness.pass(SECOND).await;
    assert_eq!(harness.slack.methods(), ["chat.postMessage"]);
    assert_eq!(harness.message(1).text, "deploy v3 awaiting_personas, 60 min left");
    assert_eq!(harness.waiting().await, 0);
}

#[tokio::test]
async fn a_message_that_would_look_the_same_is_not_updated() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.pass(SECOND).await;
    let entry = harness.store.ready_outbox(harness.now(), 10).await.unwrap();
    assert_eq!(entry, []);
    // The outbox asks for the same version again, as after a worker that died before it finished the entry.
    let mut post = harness.post(1, Slot::Main).await.unwrap();
    post.revision += 1;
    post.shown = 0;
    let keep =
        countersign_store::KeepPost { request: id(1), slot: Slot::Main, post, audit: vec![], counts: vec![] };
    assert_eq!(harness.store.keep_slack_post(keep).await.unwrap(), Committed::Done);
    let ask = fixtures::next(&harness.store.request(id(1)).await.unwrap().unwrap(), harness.now(), |_| {});
    let hidden = Commit { effects: vec![], ..fixtures::change(&ask) };
    harness.store_version(hidden).await;
    harness.pass(SECOND).await;
    assert_eq!(harness.slack.methods(), ["chat.postMessage"]);
}

#[tokio::test]
async fn entries_without_a_channel_are_finished() {
    let mut harness = Harness::new().await;
    harness.create(1, "").await;
    harness.change(1).await;
    harness.pass(SECOND).await;
    assert_eq!((harness.waiting().await, harness.slack.calls().len()), (0, 0));
}

#[tokio::test]
async fn a_request_that_ended_before_it_was_posted_is_not_posted() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.end(1).await;
    // Its notices have no message to reply to, and are not posted either.
    harness.create(2, "C1").await;
    harness.edit(2, "U2").await;
    harness.escalate(2).await;
    harness.end_with_notices(2).await;
    // An action without a channel has nothing to skip.
    harness.create(3, "").await;
    harness.end(3).await;
    harness.deliver(MINUTE).await;
    assert_eq!(harness.slack.methods(), [""; 0]);
    assert_eq!(harness.skipped().await, 2);
}

#[tokio::test]
async fn a_request_that_ended_as_it_was_made_is_posted() {
    let mut harness = Harness::new().await;
    harness.create_approved(1, "C1").await;
    harness.create(2, "C1").await;
    harness.work().await;
    assert_eq!(harness.messages(2, Slot::Main).len(), 1, "what people can press comes first");
    harness.deliver(MINUTE).await;
    assert_eq!(harness.slack.methods(), ["chat.postMessage"; 2]);
    assert_eq!(harness.message(1).text, "deploy v1 approved");
    // A day later it is no news any more.
    harness.create_approved(3, "C1").await;
    harness.clock.advance(24 * 60 * MINUTE);
    harness.deliver(MINUTE).await;
    assert_eq!((harness.messages(3, Slot::Main).len(), harness.skipped().await), (0, 1));
}

#[tokio::test]
async fn a_post_in_doubt_is_searched_when_its_request_has_ended() {
    for (exists, expected) in [(true, "chat.update"), (false, "")] {
        let mut harness = Harness::new().await;
        harness.create(1, "C1").await;
        harness.slack.decide(move |_, _| if exists { Fate::DoneAndCut } else { Fate::Cut });
        harness.worker.turn().await;
        harness.worker.finish().await;
        harness.slack.decide(|_, _| Fate::Done);
        harness.end(1).await;
        harness.deliver(MINUTE).await;
        let mut methods = vec!["chat.postMessage", "conversations.history"];
        methods.extend(Some(expected).filter(|method| !method.is_empty()));
        assert_eq!(harness.slack.methods(), methods);
        assert_eq!(harness.skipped().await, u64::from(!exists));
        if exists {
            assert_eq!(harness.message(1).text, "deploy v2 approved");
        }
    }
}

#[tokio::test]
async fn the_remaining_time_is_refreshed() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.pass(10 * MINUTE + 2 * SECOND).await;
    assert_eq!(harness.message(1).text, "deploy v1 awaiting_personas, 50 min left");
    let updates = harness.message(1).updates;
    assert!((9..=10).contains(&updates), "{updates}");
    harness.end(1).await;
    harness.pass(10 * MINUTE).await;
    assert_eq!(
        (harness.message(1).text.as_str(), harness.message(1).updates),
        ("deploy v2 approved", updates + 1)
    );
    assert_eq!(harness.store.stale_slack_posts(harness.now(), 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_deleted_message_is_posted_again_while_its_request_is_open() {
    let mut harness = Harness::new().await;
    for number in [1, 2] {
        harness.create(number, "C1").await;
    }
    harness.pass(5 * SECOND).await;
    let deleted = harness.message(1).ts;
    harness.slack.delete(&deleted);
    harness.change(1).await;
    harness.pass(3 * SECOND).await;
    assert_eq!(harness.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    assert_ne!(harness.message(1).ts, deleted);
    assert_eq!(harness.waiting().await, 0);

    // A refresh finds that it is gone, without any change.
    harness.slack.delete(&harness.message(1).ts);
    harness.pass(2 * MINUTE).await;
    assert_eq!(harness.message(1).text, "deploy v2 awaiting_personas, 58 min left");
    assert_eq!(harness.audited().await, []);

    // The message of an ended request is not posted again.
    harness.slack.delete(&harness.message(2).ts);
    harness.end(2).await;
    harness.pass(MINUTE).await;
    assert_eq!(harness.messages(2, Slot::Main), []);
    assert_eq!(harness.waiting().await, 0);
    assert_eq!(harness.audited().await, [("slack_delivery_failed".into(), "message_not_found".into())]);
}

#[tokio::test]
async fn the_message_of_a_request_that_was_made_again_leads_to_the_next_one() {
    let mut harness = Harness::new().await;
    let first = harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.end(1).await;
    harness.deliver(MINUTE).await;
    assert_eq!(harness.message(1).text, "deploy v2 approved");
    // The answer to the post is lost, so that it has to be found.
    let mut lost = false;
    harness.slack.decide(move |method, _| {
        let is_it = method == "chat.postMessage" && !std::mem::replace(&mut lost, true);
        if is_it { Fate::DoneAndCut } else { Fate::Done }
    });
    let again = fixtures::again(&first, 2, 1);
    harness.store(&again).await;
    harness.deliver(MINUTE).await;
    harness.pass(SECOND).await;
    let link = format!("https://slack.test/C1/{}", harness.message(2).ts);
    assert_eq!(harness.message(1).text, format!("deploy v2 approved again: {link}"));
    harness.kill_and_restart();
    harness.change(2).await;
    harness.deliver(MINUTE).await;
    harness.pass(20 * MINUTE).await;
    assert_eq!(harness.message(1).updates, 2, "one for its end, and one for the link");
    assert_eq!(harness.slack.messages().len(), 2);
}

/// As in the first minute after a start.
#[tokio::test]
async fn a_message_that_is_updated_once_more_later_leads_to_the_next_one_at_once() {
    let mut harness = Harness::new().await;
    let first = harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.clock.advance(1);
    harness.kill_and_restart();
    harness.end(1).await;
    harness.deliver(MINUTE).await;
    harness.pass(10 * SECOND).await;
    harness.store(&fixtures::again(&first, 2, 1)).await;
    harness.deliver(MINUTE).await;
    harness.pass(SECOND).await;
    let text = format!("deploy v2 approved again: {}", link_to(&harness, 2));
    assert_eq!((harness.message(1).text, harness.message(1).updates), (text.clone(), 2));
    // An update of the first process may have been carried out last.
    harness.pass(2 * MINUTE).await;
    assert_eq!((harness.message(1).text, harness.message(1).updates), (text, 3));
    harness.pass(10 * MINUTE).await;
    assert_eq!(harness.message(1).updates, 3);
}

/// The message of the newer request can come after that of the older one has changed for the last time.
#[tokio::test]
async fn the_message_of_a_superseded_request_leads_to_a_message_that_comes_later() {
    let mut harness = Harness::new().await;
    for number in [1, 3] {
        harness.create(number, "C1").await;
    }
    harness.deliver(MINUTE).await;
    for (number, newer) in [(1, 2), (3, 4)] {
        let at = harness.now();
        harness
            .commit(number, vec![Effect::ShowRequest], |request| {
                request.state = State::Cancelled { at, by: None, reason: None, successor: Some(id(newer)) };
            })
            .await;
    }
    harness.pass(90 * SECOND).await;
    assert_eq!(harness.message(1).text, "deploy v2 cancelled");
    // It names no request that it has superseded: nothing but time leads back to the older one.
    harness.create(2, "C1").await;
    harness.pass(2 * MINUTE).await;
    let link = format!("https://slack.test/C1/{}", harness.message(2).ts);
    assert_eq!(harness.message(1).text, format!("deploy v2 cancelled newer: {link}"));
    // The other one never comes, and is not waited for without end.
    harness.pass(8 * MINUTE).await;
    let next = harness.post(3, Slot::Main).await.expect("it was posted").refresh_at;
    assert_eq!((next, harness.message(3).text.as_str()), (None, "deploy v2 cancelled"));
}

/// Cancels a request in favour of a newer one.
async fn supersede(harness: &Harness, number: u64, newer: u64) {
    let at = harness.now();
    harness
        .commit(number, vec![Effect::ShowRequest], |request| {
            request.state = State::Cancelled { at, by: None, reason: None, successor: Some(id(newer)) };
        })
        .await;
}

fn link_to(harness: &Harness, number: u64) -> String {
    format!("https://slack.test/C1/{}", harness.message(number).ts)
}

#[tokio::test]
async fn a_link_that_could_not_be_asked_for_is_asked_for_again() {
    for fate in [
        Fate::Cut,
        Fate::Failed(500),
        Fate::Limited(1),
        Fate::Refused("internal_error"),
        Fate::Refused("odd"),
    ] {
        let mut harness = Harness::new().await;
        let first = harness.create(1, "C1").await;
        harness.create(3, "C1").await;
        harness.deliver(MINUTE).await;
        // Longer than a message is waited for that is not there.
        harness.end(1).await;
        supersede(&harness, 3, 4).await;
        harness.pass(15 * MINUTE).await;
        let mut failures = 0;
        harness.slack.decide(move |method, _| {
            failures += usize::from(method == "chat.getPermalink");
            if method == "chat.getPermalink" && failures <= 2 { fate } else { Fate::Done }
        });
        harness.store(&fixtures::again(&first, 2, 1)).await;
        let mut newer = fixtures::request_at(4, harness.now());
        Arc::make_mut(&mut newer.submission).policy_hash = entry("C1").hash();
        newer.superseded = vec![id(3)];
        harness.store(&newer).await;
        harness.deliver(MINUTE).await;
        harness.pass(3 * MINUTE).await;
        let text = format!("deploy v2 approved again: {}", link_to(&harness, 2));
        assert_eq!(harness.message(1).text, text, "{fate:?}");
        let text = format!("deploy v2 cancelled newer: {}", link_to(&harness, 4));
        assert_eq!(harness.message(3).text, text, "{fate:?}");
        let (refreshed, newer) = (harness.post(1, Slot::Main).await, harness.post(3, Slot::Main).await);
        assert_eq!([refreshed, newer].map(|post| post.unwrap().refresh_at), [None, None], "{fate:?}");
    }
}

#[tokio::test]
async fn a_link_is_not_asked_for_without_end() {
    for (fate, soon) in [(Fate::Refused("message_not_found"), 1), (Fate::Failed(500), 5)] {
        let mut harness = Harness::new().await;
        let first = harness.create(1, "C1").await;
        harness.deliver(MINUTE).await;
        harness.end(1).await;
        harness.deliver(MINUTE).await;
        harness.slack.decide(move |method, _| if method == "chat.getPermalink" { fate } else { Fate::Done });
        let mut again = fixtures::again(&first, 2, 1);
        again.state = fixtures::approved(harness.now());
        harness.store(&again).await;
        harness.pass(4 * MINUTE + 30 * SECOND).await;
        assert_eq!(harness.count("chat.getPermalink"), soon, "{fate:?}");
        harness.clock.advance(24 * 60 * MINUTE);
        harness.pass(MINUTE).await;
        assert_eq!(harness.post(1, Slot::Main).await.unwrap().refresh_at, None, "{fate:?}");
    }
}

/// Those of ended requests go first, and then the newer one is not there yet.
#[tokio::test]
async fn after_a_long_outage_the_message_of_a_superseded_request_leads_to_the_newer_one() {
    let mut harness = Harness::new().await;
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.slack.decide(|_, _| Fate::Failed(503));
    supersede(&harness, 1, 2).await;
    harness.create(2, "C1").await;
    harness.commit(2, vec![Effect::ShowRequest], |request| request.superseded = vec![id(1)]).await;
    harness.pass(15 * MINUTE).await;
    harness.slack.decide(|_, _| Fate::Done);
    harness.deliver(20 * MINUTE).await;
    harness.pass(MINUTE).await;
    let text = format!("deploy v2 cancelled newer: {}", link_to(&harness, 2));
    assert_eq!(harness.message(1).text, text);
}

/// That it has superseded others is noted later, and its message looks the same.
#[tokio::test]
async fn a_version_that_looks_the_same_still_leads_the_older_message_to_it() {
    let mut harness = Harness::new().await;
    harness.render(Rendering {
        message: |request, _, _, _| crate::Message { text: request.status().to_string(), blocks: Vec::new() },
        ..plain_rendering::PLAIN
    });
    harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    supersede(&harness, 1, 2).await;
    harness.pass(15 * MINUTE).await;
    harness.create(2, "C1").await;
    harness.deliver(MINUTE).await;
    assert_eq!(harness.message(1).text, "cancelled");
    harness.commit(2, vec![Effect::ShowRequest], |request| request.superseded = vec![id(1)]).await;
    harness.deliver(MINUTE).await;
    harness.pass(SECOND).await;
    assert_eq!(harness.message(1).text, format!("cancelled newer: {}", link_to(&harness, 2)));
    assert_eq!(harness.message(2).updates, 0);
}

#[tokio::test]
async fn a_message_that_is_posted_anew_is_led_to() {
    let mut harness = Harness::new().await;
    let first = harness.create(1, "C1").await;
    harness.deliver(MINUTE).await;
    harness.end(1).await;
    harness.store(&fixtures::again(&first, 2, 1)).await;
    harness.deliver(MINUTE).await;
    harness.pass(SECOND).await;
    let deleted = link_to(&harness, 2);
    assert_eq!(harness.message(1).text, format!("deploy v2 approved again: {deleted}"));
    harness.slack.delete(&harness.message(2).ts);
    // A refresh finds that it is gone.
    harness.pass(3 * MINUTE).await;
    assert_ne!(link_to(&harness, 2), deleted);
    assert_eq!(harness.message(1).text, format!("deploy v2 approved again: {}", link_to(&harness, 2)));
}

#[tokio::test]
async fn a_message_that_is_posted_notifies_whom_it_calls_once_and_its_update_nobody() {
    let mut harness = Harness::new().await;
    harness.render_for_people();
    for notify in [false, true] {
        let entry = PolicyEntry { notify, ..entry("C1") };
        harness.store.pin(vec![entry.clone()], vec![]).await.unwrap();
        let number = u64::from(notify) + 1;
        let mut request = fixtures::request_at(number, harness.now());
        let submission = Arc::make_mut(&mut request.submission);
        (submission.policy_hash, submission.expires_at) = (entry.hash(), harness.now().plus(60 * MINUTE));
        let State::Open(open) = &mut request.state else { panic!("it is open") };
        open.requirements.truncate(1);
        open.requirements[0].eligible = vec!["U0ANA".to_owned(), "U0BEN".to_owned()];
        harness.store(&request).await;

        harness.slack.forget_calls();
        harness.pass(0).await;
        let sent = |harness: &Harness| {
            let calls = harness.slack.calls().into_iter();
            let sent = calls.filter(|call| call.method.starts_with("chat.")).map(|call| {
                let mentions = call.body.to_string().matches("<@U0ANA>").count();
                (call.method, mentions, call.body.to_string().contains(":bell:"))
            });
            sent.collect::<Vec<_>>()
        };
        let (post, update) = (|bell| ("chat.postMessage".to_owned(), usize::from(bell), bell), "chat.update");
        assert_eq!(sent(&harness), [post(notify)]);
        // Soon after it people have their names, without being notified.
        harness.pass(5 * SECOND).await;
        assert_eq!(sent(&harness), [post(notify), (update.to_owned(), 1, false)]);

        // A message that is posted anew calls nobody a second time.
        let deleted = harness.message(number).ts;
        harness.slack.delete(&deleted);
        harness.slack.forget_calls();
        harness.pass(2 * MINUTE).await;
        let posts: Vec<_> = sent(&harness).into_iter().filter(|(method, ..)| method != update).collect();
        assert_eq!(posts, [post(false)]);
    }
}
