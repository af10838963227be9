//! The loop of the worker: how it is woken, and how it ends.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::fake::Fate;

#[tokio::test]
async fn it_is_woken_by_new_entries_and_finishes_its_calls() {
    let mut harness = Harness::new().await;
    let worker = harness.take_worker();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));

    let called = Arc::new(Notify::new());
    let notify = Arc::clone(&called);
    harness.slack.decide(move |_, _| {
        notify.notify_one();
        Fate::Done
    });
    harness.create(1, "C1").await;
    harness.notify.notify_one();
    // It looks again only after `PACE_MS`, so that many new entries wake it once; the clock must advance.
    let woken = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            tokio::select! {
                () = called.notified() => return,
                () = tokio::task::yield_now() => harness.clock.advance(1),
            }
        }
    });
    woken.await.expect("it was woken");
    // The call has been made; its answer must be stored despite the shutdown.
    shutdown.cancel();
    running.await.unwrap();
    assert!(harness.post(1, Slot::Main).await.unwrap().ts().is_some());
    assert_eq!(harness.waiting().await, 0);

    // No step is started after the shutdown began.
    harness.create(2, "C2").await;
    harness.take_worker().run(shutdown).await;
    assert_eq!((harness.waiting().await, harness.slack.messages().len()), (1, 1));
}
