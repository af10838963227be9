//! What only one person is told.

use super::*;
use crate::fake::Fate;
use crate::{Ephemerals, SlackClient};

struct Counter {
    clock: Arc<ManualClock>,
    slack: FakeSlack,
    ephemerals: Ephemerals,
}

impl Counter {
    async fn new() -> Counter {
        let clock = Arc::new(ManualClock::at(START));
        let slack = FakeSlack::start(Arc::<ManualClock>::clone(&clock)).await;
        let client: Arc<SlackClient> = Arc::new(slack.client());
        let ephemerals =
            Ephemerals::with_rng(client, Arc::<ManualClock>::clone(&clock), 1.0, fastrand::Rng::with_seed(1));
        Counter { clock, slack, ephemerals }
    }

    /// Lets time pass until nobody waits; says how much it was.
    async fn told(&self) -> u64 {
        while self.ephemerals.waiting() > 0 {
            tokio::task::yield_now().await;
            // Everybody waits for time to pass, and nobody for an answer.
            if self.clock.sleeping() == self.ephemerals.waiting() {
                self.clock.advance(100);
            }
        }
        self.clock.now().since(START)
    }
}

#[tokio::test]
async fn a_person_is_told_where_they_are() {
    let counter = Counter::new().await;
    counter.ephemerals.send("C1", "U1", Some("1.2"), "no".into());
    counter.told().await;
    let [call] = counter.slack.calls().try_into().unwrap();
    assert_eq!(call.method, "chat.postEphemeral");
    assert_eq!((&call.body["user"], &call.body["thread_ts"]), (&"U1".into(), &"1.2".into()));
}

#[tokio::test]
async fn it_is_tried_a_few_times() {
    for (fate, tries) in [
        (Fate::Failed(500), 5),
        (Fate::Limited(3), 5),
        (Fate::Limited(900), 1),
        (Fate::Refused("user_not_in_channel"), 1),
    ] {
        let counter = Counter::new().await;
        counter.slack.decide(move |_, _| fate);
        counter.ephemerals.send("C1", "U1", None, "no".into());
        let took = counter.told().await;
        assert_eq!(counter.slack.calls().len(), tries, "{fate:?}");
        assert!(took < 5 * MINUTE, "{fate:?}: {took}");
    }
}

#[tokio::test]
async fn many_are_told_within_the_budget_and_too_many_are_not() {
    let counter = Counter::new().await;
    for number in 0..2_000 {
        counter.ephemerals.send("C1", &format!("U{number}"), None, "no".into());
    }
    assert_eq!(counter.ephemerals.waiting(), 1_000);
    counter.told().await;
    let calls = counter.slack.calls();
    // Nobody is told what no longer matters.
    assert!((400..=500).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().all(|call| call.at <= START.plus(5 * MINUTE).as_millis()));
    for window in calls.windows(101) {
        assert!(window[100].at - window[0].at >= MINUTE - 100, "no more than 100 a minute");
    }
}
