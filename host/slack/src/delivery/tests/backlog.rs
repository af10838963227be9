//! What was read and not begun is kept: how often the store is read for a backlog, and what others do to it meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_store::StoreError;
use countersign_store::faulty::{Faulty, FaultyStore};

use super::*;

/// Counts how often the store is asked which jobs are due.
#[derive(Clone, Default)]
struct Reads(Arc<AtomicU64>);

impl Faulty for Reads {
    async fn read<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if matches!(name, "ready_outbox" | "stale_slack_posts") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        call.await
    }

    async fn write<T: Send>(
        &self,
        _: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        call.await
    }
}

impl Harness {
    /// A worker whose reads of what is due are counted.
    async fn counting(rate_factor: f64) -> (Harness, Reads) {
        let reads = Reads::default();
        let faults = reads.clone();
        let wrap = |store| Arc::new(FaultyStore { store, faults }) as Arc<dyn Store>;
        (Harness::over(1, rate_factor, wrap).await, reads)
    }
}

#[tokio::test]
async fn a_backlog_is_read_in_batches() {
    // Slack's rate limits let a tenth of a second pass between two posts to a channel.
    for (channels, requests) in [(&["C1"][..], 400), (&["C1", "C2", "C3", "#one"], 1_000)] {
        let (mut harness, reads) = Harness::counting(10.0).await;
        for (number, channel) in (1..=requests).zip(channels.iter().cycle()) {
            harness.create(number, channel).await;
        }
        harness.deliver(10 * MINUTE).await;
        let reads = reads.0.load(Ordering::Relaxed);
        println!("{requests} messages to {} channels: {reads} reads", channels.len());
        assert_eq!(harness.slack.messages().len(), usize::try_from(requests).unwrap());
        assert!(reads * 5 < requests, "{requests} messages took {reads} reads");
    }
}

#[tokio::test]
async fn what_another_worker_has_delivered_is_dropped() {
    let mut harness = Harness::new().await;
    for number in 1..=40 {
        harness.create(number, if number % 2 == 0 { "C1" } else { "C2" }).await;
    }
    harness.work().await;
    let sent = harness.slack.messages().len();
    assert!((1..40).contains(&sent), "the rate limits leave some for later: {sent}");
    // The other one, which has rate limits of its own, takes what the first one has kept.
    let mut first = harness.take_worker();
    harness.deliver(2 * MINUTE).await;
    for _ in 0..50 {
        first.turn().await;
        first.finish().await;
        harness.clock.advance(SECOND);
    }
    assert_eq!((harness.count("chat.postMessage"), harness.slack.messages().len()), (40, 40));
}

#[tokio::test]
async fn an_urgent_message_does_not_wait_for_the_backlog() {
    let (mut harness, reads) = Harness::counting(1.0).await;
    for number in 1..=100 {
        harness.create(number, "C1").await;
    }
    harness.work().await;
    harness.pass(2 * SECOND).await;
    let before = reads.0.load(Ordering::Relaxed);
    harness.pass(2 * SECOND).await;
    assert_eq!(reads.0.load(Ordering::Relaxed), before, "what is kept suffices");
    harness.create(200, "C2").await;
    harness.work().await;
    assert!(harness.post(200, Slot::Main).await.is_some_and(|post| post.ts().is_some()));
}
