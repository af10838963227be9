//! With random failures of Slack, and a process that is killed again and again, every message is there once in the end,
//! and shows what is stored. A request that ended before it could be posted has none.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::fake::Fate;

const REQUESTS: u64 = 24;
const CHANGES: u64 = 5;

#[tokio::test]
async fn every_message_is_posted_once_and_shows_the_final_state() {
    for seed in [1, 2] {
        random_failures(seed).await;
    }
}

async fn random_failures(seed: u64) {
    let mut harness = Harness::with(seed, 20.0).await;
    let mut fates = fastrand::Rng::with_seed(seed.wrapping_mul(977));
    harness.slack.decide(move |_, _| match fates.u64(0..100) {
        0..30 => Fate::Limited(1),
        30..40 => Fate::Failed(500),
        40..43 => Fate::Cut,
        43..45 => Fate::DoneAndCut,
        _ => Fate::Done,
    });
    let mut rng = fastrand::Rng::with_seed(seed);
    for number in 0..REQUESTS {
        harness.create(number, ["C1", "C2", "C3"][number as usize % 3]).await;
        if number % 4 == 0 {
            harness.pass(rng.u64(0..500)).await;
        }
    }
    for change in 1..=CHANGES {
        for number in 0..REQUESTS {
            match change {
                CHANGES => harness.end_with_notices(number).await,
                4 if number % 3 == 0 => harness.edit(number, "U2").await,
                3 if number % 5 == 0 => harness.escalate(number).await,
                _ => harness.change(number).await,
            };
            if number % 10 == 0 {
                harness.pass(rng.u64(0..300)).await;
            }
        }
        // Killed between two steps, or in the middle of some.
        harness.worker.turn().await;
        let _ = tokio::time::timeout(Duration::from_micros(rng.u64(0..3_000)), harness.worker.finish()).await;
        harness.kill_and_restart();
        harness.pass(rng.u64(0..3_000)).await;
    }
    let took = harness.deliver(30 * MINUTE).await;

    let mut unseen = 0;
    for number in 0..REQUESTS {
        if !harness.post(number, Slot::Main).await.is_some_and(|post| post.has_called) {
            let all = harness.slack.messages().into_iter();
            let of_it =
                all.filter(|message| message.metadata["event_payload"]["request_id"] == json!(id(number)));
            let slots: Vec<_> = of_it.map(|it| it.metadata["event_payload"]["slot"].clone()).collect();
            assert!(
                slots.iter().all(|slot| slot == "escalation_channel"),
                "seed {seed}, {number}: {slots:?}"
            );
            unseen += 1;
            continue;
        }
        let message = harness.message(number);
        assert_eq!(
            message.text,
            format!("deploy v{} approved", CHANGES + 1),
            "seed {seed}, request {number}"
        );
        for slot in [Slot::EscalationThread, Slot::EscalationChannel] {
            let notices = harness.messages(number, slot);
            assert!(notices.len() <= 1, "seed {seed}, request {number}");
            assert!(notices.iter().all(|notice| notice.text.contains("ended")), "seed {seed}: {notices:?}");
        }
        let request = harness.store.request(id(number)).await.unwrap().unwrap();
        for replacement in request.replacements() {
            let notices = harness.messages(number, Slot::Replaced(replacement.seq));
            let [notice] = &notices[..] else { panic!("seed {seed}, request {number}: {notices:?}") };
            assert!(notice.text.starts_with("approved: "), "seed {seed}, request {number}: {notice:?}");
        }
    }
    // A process that is killed after it finished an entry has not counted it.
    assert!(harness.skipped().await <= unseen && unseen < REQUESTS, "seed {seed}: {unseen} were not seen");
    let updates: usize = harness.slack.messages().iter().map(|message| message.updates).sum();
    let changes = (REQUESTS * (CHANGES + 1)) as usize;
    assert!(updates < changes, "seed {seed}: {updates} updates for {changes} changes");
    assert!(took < 10 * MINUTE, "seed {seed}: {took} ms");
}
