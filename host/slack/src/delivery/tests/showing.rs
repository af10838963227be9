//! What is stored is shown: once, soon, and as it is when it is sent.

use super::*;

#[tokio::test]
async fn a_request_is_posted_once_and_updated_from_then_on() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.pass(0).await;
    assert_eq!(desk.message(1).text, "deploy v1 awaiting_personas, 60 min left", "people see it at once");
    assert_eq!(desk.message(1).channel, "C1");
    desk.pass(5 * SECOND).await;
    desk.change(1).await;
    desk.pass(SECOND).await;
    assert_eq!(desk.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    desk.end(1).await;
    desk.pass(0).await;
    assert_eq!(desk.message(1).text, "deploy v3 approved", "what is decided is shown at once");
    assert_eq!(desk.slack.methods(), ["chat.postMessage", "chat.update", "chat.update"]);
    assert_eq!(desk.waiting().await, 0);
    desk.pass(10 * MINUTE).await;
    assert_eq!(desk.slack.calls().len(), 3, "and then nothing more");
    assert_eq!(desk.state(), HealthState::Ok);
}

#[tokio::test]
async fn changes_that_come_in_a_burst_are_one_update() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.pass(5 * SECOND).await;
    for _ in 0..5 {
        desk.change(1).await;
        desk.pass(50).await;
    }
    assert_eq!(desk.count("chat.update"), 0);
    desk.pass(250).await;
    assert_eq!(desk.count("chat.update"), 1);
    assert_eq!(desk.message(1).text, "deploy v6 awaiting_personas, 60 min left");
    assert_eq!(desk.waiting().await, 0);

    // However long it goes on, people see something.
    for _ in 0..30 {
        desk.change(1).await;
        desk.pass(100).await;
    }
    let updates = desk.count("chat.update") - 1;
    assert!((2..=4).contains(&updates), "{updates}");
}

#[tokio::test]
async fn changes_before_the_first_post_are_in_it() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.change(1).await;
    desk.change(1).await;
    desk.pass(SECOND).await;
    assert_eq!(desk.slack.methods(), ["chat.postMessage"]);
    assert_eq!(desk.message(1).text, "deploy v3 awaiting_personas, 60 min left");
    assert_eq!(desk.waiting().await, 0);
}

#[tokio::test]
async fn a_change_that_nobody_could_see_is_not_sent() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.pass(SECOND).await;
    let entry = desk.store.ready_outbox(desk.now(), 10).await.unwrap();
    assert_eq!(entry, []);
    // The same version is asked for again, as a worker that was cut off before it was finished leaves it.
    let mut post = desk.post(1, Slot::Main).await.unwrap();
    post.revision += 1;
    post.shown = 0;
    let keep =
        countersign_store::KeepPost { request: id(1), slot: Slot::Main, post, audit: vec![], counts: vec![] };
    assert_eq!(desk.store.keep_slack_post(keep).await.unwrap(), Committed::Done);
    let ask = fixtures::next(&desk.store.request(id(1)).await.unwrap().unwrap(), desk.now(), |_| {});
    let hidden = Commit { effects: vec![], ..fixtures::change(&ask) };
    desk.store.commit(hidden).await.unwrap();
    desk.pass(SECOND).await;
    assert_eq!(desk.slack.methods(), ["chat.postMessage"]);
}

#[tokio::test]
async fn what_has_nowhere_to_go_is_done() {
    let mut desk = Desk::new().await;
    desk.create(1, "").await;
    desk.change(1).await;
    desk.pass(SECOND).await;
    assert_eq!((desk.waiting().await, desk.slack.calls().len()), (0, 0));
}

#[tokio::test]
async fn what_ended_long_ago_unseen_is_let_go() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.end(1).await;
    desk.create(2, "C1").await;
    desk.clock.advance(60 * MINUTE);
    desk.end(2).await;
    desk.clock.advance(23 * 60 * MINUTE);
    desk.deliver(MINUTE).await;
    assert_eq!(desk.slack.methods(), ["chat.postMessage"]);
    assert_eq!(desk.message(2).text, "deploy v2 approved");
}

#[tokio::test]
async fn the_time_that_is_left_is_kept_up_to_date() {
    let mut desk = Desk::new().await;
    desk.create(1, "C1").await;
    desk.pass(10 * MINUTE + 2 * SECOND).await;
    assert_eq!(desk.message(1).text, "deploy v1 awaiting_personas, 50 min left");
    let updates = desk.message(1).updates;
    assert!((9..=10).contains(&updates), "{updates}");
    desk.end(1).await;
    desk.pass(10 * MINUTE).await;
    assert_eq!((desk.message(1).text.as_str(), desk.message(1).updates), ("deploy v2 approved", updates + 1));
    assert_eq!(desk.store.stale_slack_posts(desk.now(), 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_message_that_somebody_deleted_is_posted_anew_while_it_is_needed() {
    let mut desk = Desk::new().await;
    for number in [1, 2] {
        desk.create(number, "C1").await;
    }
    desk.pass(5 * SECOND).await;
    let deleted = desk.message(1).ts;
    desk.slack.delete(&deleted);
    desk.change(1).await;
    desk.pass(3 * SECOND).await;
    assert_eq!(desk.message(1).text, "deploy v2 awaiting_personas, 60 min left");
    assert_ne!(desk.message(1).ts, deleted);
    assert_eq!(desk.waiting().await, 0);

    // Nobody has to change it for that.
    desk.slack.delete(&desk.message(1).ts);
    desk.pass(2 * MINUTE).await;
    assert_eq!(desk.message(1).text, "deploy v2 awaiting_personas, 58 min left");
    assert_eq!(desk.audited().await, []);

    // What has ended is not posted again for everybody to read.
    desk.slack.delete(&desk.message(2).ts);
    desk.end(2).await;
    desk.pass(MINUTE).await;
    assert_eq!(desk.messages(2, Slot::Main), []);
    assert_eq!(desk.waiting().await, 0);
    assert_eq!(desk.audited().await, [("slack_delivery_failed".into(), "message_not_found".into())]);
}
