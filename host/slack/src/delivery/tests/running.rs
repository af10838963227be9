//! The worker by itself: woken, and ended.

use std::time::Duration;

use super::*;
use crate::fake::Fate;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn it_hears_of_what_is_stored_and_ends_what_is_under_way() {
    let mut harness = Harness::new().await;
    let replacement =
        worker(&harness.store, &harness.clock, &harness.slack, &harness.health, &harness.notify, (9, 1.0));
    let worker = std::mem::replace(&mut harness.worker, replacement);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));

    let called = Arc::new(Notify::new());
    let told = Arc::clone(&called);
    harness.slack.decide(move |_, _| {
        told.notify_one();
        Fate::Done
    });
    harness.create(1, "C1").await;
    harness.notify.notify_one();
    // It does not look again at once, so that it is not woken for each of many; a little time must pass.
    let woken = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            tokio::select! {
                () = called.notified() => return,
                () = tokio::task::yield_now() => harness.clock.advance(1),
            }
        }
    });
    woken.await.expect("it was woken");
    // The call has been made; the shutdown must not keep its answer from being stored.
    shutdown.cancel();
    running.await.unwrap();
    assert!(harness.post(1, Slot::Main).await.unwrap().ts().is_some());
    assert_eq!(harness.waiting().await, 0);

    // Nothing is begun after that.
    harness.create(2, "C2").await;
    let replacement = super::worker(
        &harness.store,
        &harness.clock,
        &harness.slack,
        &harness.health,
        &harness.notify,
        (9, 1.0),
    );
    std::mem::replace(&mut harness.worker, replacement).run(shutdown).await;
    assert_eq!((harness.waiting().await, harness.slack.messages().len()), (1, 1));
}
