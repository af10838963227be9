//! Ephemeral messages.

use super::*;
use crate::fake::Fate;
use crate::{Ephemerals, SlackClient};

struct EphemeralHarness {
    clock: Arc<ManualClock>,
    slack: FakeSlack,
    ephemerals: Ephemerals,
}

impl EphemeralHarness {
    async fn new() -> EphemeralHarness {
        let clock = Arc::new(ManualClock::at(START));
        let slack = FakeSlack::start(Arc::<ManualClock>::clone(&clock)).await;
        let client: Arc<SlackClient> = Arc::new(slack.client());
        let ephemerals =
            Ephemerals::with_rng(client, Arc::<ManualClock>::clone(&clock), 1.0, fastrand::Rng::with_seed(1));
        EphemeralHarness { clock, slack, ephemerals }
    }

    /// Lets time pass until no message is waiting, and returns how many milliseconds passed.
    async fn drain(&self) -> u64 {
        let began = self.clock.monotonic();
        while self.ephemerals.waiting() > 0 {
            tokio::task::yield_now().await;
            // All messages wait for the clock, and none for an answer.
            if self.clock.sleeping() == self.ephemerals.waiting() {
                self.clock.advance(100);
            }
        }
        self.clock.monotonic().since(began)
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_changes_no_wait() {
    for jump in [-3_600_000, -20_000, 20_000, 3_600_000] {
        let harness = EphemeralHarness::new().await;
        harness.slack.decide(|_, _| Fate::Limited(3));
        harness.ephemerals.send(None, "C1", "U1", None, "no".into());
        while harness.clock.sleeping() == 0 {
            tokio::task::yield_now().await;
        }
        harness.clock.jump(jump);
        let took = harness.drain().await;
        assert_eq!(harness.slack.calls().len(), 5, "{jump}");
        assert!((12 * SECOND..=14 * SECOND).contains(&took), "{jump}: {took}");
    }
}

#[tokio::test]
async fn a_message_is_sent_to_a_thread() {
    let harness = EphemeralHarness::new().await;
    harness.ephemerals.send(None, "C1", "U1", Some("1.2"), "no".into());
    harness.drain().await;
    let [call] = harness.slack.calls().try_into().unwrap();
    assert_eq!(call.method, "chat.postEphemeral");
    assert_eq!((&call.body["user"], &call.body["thread_ts"]), (&"U1".into(), &"1.2".into()));
}

#[tokio::test]
async fn a_failed_message_is_tried_a_few_times() {
    for (fate, tries) in [
        (Fate::Failed(500), 5),
        (Fate::Limited(3), 5),
        (Fate::Limited(900), 1),
        (Fate::Refused("user_not_in_channel"), 1),
    ] {
        let harness = EphemeralHarness::new().await;
        harness.slack.decide(move |_, _| fate);
        harness.ephemerals.send(None, "C1", "U1", None, "no".into());
        let took = harness.drain().await;
        assert_eq!(harness.slack.calls().len(), tries, "{fate:?}");
        assert!(took < 5 * MINUTE, "{fate:?}: {took}");
    }
}

#[tokio::test]
async fn the_rate_limit_is_kept_and_the_queue_is_bounded() {
    let harness = EphemeralHarness::new().await;
    for number in 0..2_000 {
        harness.ephemerals.send(None, "C1", &format!("U{number}"), None, "no".into());
    }
    assert_eq!(harness.ephemerals.waiting(), 1_000);
    harness.drain().await;
    let calls = harness.slack.calls();
    // The others have expired.
    assert!((400..=500).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().all(|call| call.at <= START.plus(5 * MINUTE).as_millis()));
    for window in calls.windows(101) {
        assert!(window[100].at - window[0].at >= MINUTE - 100, "no more than 100 a minute");
    }
}

#[tokio::test]
async fn one_person_does_not_use_up_what_all_share() {
    let harness = EphemeralHarness::new().await;
    for _ in 0..2_000 {
        harness.ephemerals.send(None, "C1", "U1", None, "no".into());
    }
    harness.ephemerals.send(None, "C1", "U2", None, "no".into());
    assert_eq!(harness.ephemerals.waiting(), 21);
    harness.drain().await;
    let calls = harness.slack.calls();
    let told = |user: &str| calls.iter().filter(|call| call.body["user"] == user).count();
    assert_eq!((told("U1"), told("U2")), (20, 1));
    harness.ephemerals.send(None, "C1", "U1", None, "no".into());
    assert_eq!(harness.ephemerals.waiting(), 1, "the places are free again");
}
