//! Which stored sets are removed.

use super::super::removal::{KEPT_SETS, LEAST_RETENTION_MS};
use super::*;
use countersign_core::lifecycle::{Request, RequestId};
use countersign_store::fixtures;

const RETENTION: u64 = 4 * LEAST_RETENTION_MS;

impl House {
    async fn remove_unneeded(&self) -> u64 {
        self.sets.remove_unneeded(RETENTION).await.expect("the store is there")
    }

    async fn is_stored(&self, hash: Digest) -> bool {
        self.store.policy_set(hash).await.expect("the store is there").is_some()
    }

    /// Puts as many other sets in force, one after the other, as are kept for a rollback.
    async fn many_later(&self) {
        for minutes in 0..KEPT_SETS {
            let document = set(1).replace("timeout: 10m", &format!("timeout: {}m", 20 + minutes));
            let sent = Sent { document, schemas: BTreeMap::new(), signatures: vec![] };
            let stored = self.sets.store_set(sent, by(ChangeTrigger::Api)).await.expect("it is right");
            self.activate(stored.hash).await;
        }
    }
}

#[tokio::test]
async fn a_set_goes_some_time_after_it_was_last_used_and_its_module_with_the_last_one() {
    let house = House::new().await;
    let first = house.active();
    let never = house.stored(2).await;
    house.clock.advance(RETENTION - 1);
    assert_eq!(house.remove_unneeded().await, 0);
    house.clock.advance(1);
    assert_eq!(house.remove_unneeded().await, 1);
    assert!(!house.is_stored(never).await);
    assert!(house.is_stored(first).await);
    assert_eq!(house.store.modules().await.expect("modules").len(), 1, "the set in force has it");
    assert_eq!(house.audited().await.last().map(String::as_str), Some("policy_set_removed"));
    // It is as if it had never been stored; and it can be again.
    let gone = house.sets.activate(never, first, None, by(ChangeTrigger::Api)).await;
    assert!(matches!(gone, Err(ChangeError::Unknown(_))), "{gone:?}");
    let again = house.stored(2).await;
    assert_eq!(again, never);
    house.activate(again).await;
    assert_eq!(house.approvals(), 2);
}

#[tokio::test]
async fn the_last_ones_in_force_stay_and_older_ones_go() {
    let house = House::new().await;
    let first = house.active();
    house.many_later().await;
    house.clock.advance(RETENTION - 1);
    assert_eq!(house.remove_unneeded().await, 0, "it was in force until so long ago");
    house.clock.advance(1);
    assert_eq!(house.remove_unneeded().await, 1);
    assert!(!house.is_stored(first).await);
    house.clock.advance(100 * RETENTION);
    assert_eq!(house.remove_unneeded().await, 0);
    assert_eq!(house.store.policy_sets().await.expect("sets").len(), KEPT_SETS);
    house.sets.rollback(house.active(), by(ChangeTrigger::Api)).await.expect("the one before is there");
}

#[tokio::test]
async fn a_set_stays_while_a_request_is_stored_that_may_have_been_made_under_it() {
    let house = House::new().await;
    let first = house.active();
    let now = house.clock.now();
    let mut request = Request { id: RequestId::new(now, 0, 1), ..fixtures::request_at(1, now) };
    Arc::make_mut(&mut request.submission).lineage = request.id;
    house.store.create(fixtures::new(&request)).await.expect("it is stored");
    house.many_later().await;
    house.clock.advance(10 * RETENTION);
    assert_eq!(house.remove_unneeded().await, 0);
    let denied = fixtures::next(&request, house.clock.now(), |request| {
        request.state = fixtures::denied(house.clock.now());
    });
    house.store.commit(fixtures::change(&denied)).await.expect("it is stored");
    assert_eq!(house.remove_unneeded().await, 0, "it has ended, and is stored");
    let removal = crate::retention::Passed { requests: vec![denied], newest: request.id }.removal(false);
    let removed = house.store.remove(vec![removal.expect("a request")], None).await;
    assert_eq!(removed.expect("the store is there"), [true]);
    assert_eq!(house.remove_unneeded().await, 1);
    assert!(!house.is_stored(first).await);
}

#[tokio::test]
async fn what_is_used_or_stored_meanwhile_stays() {
    let house = House::new().await;
    let waiting = house.stored(2).await;
    house.clock.advance(RETENTION - 1);
    house.stored(2).await;
    house.clock.advance(1);
    assert_eq!(house.remove_unneeded().await, 0, "it was pushed again");
    house.clock.advance(RETENTION - 2);
    assert_eq!(house.remove_unneeded().await, 0);
    house.sets.start_shadow(waiting, by(ChangeTrigger::Api)).await.expect("it is stored");
    house.clock.advance(RETENTION);
    house.sets.keep_used().await.expect("the store is there");
    assert_eq!(house.remove_unneeded().await, 0, "it judges in the shadow");
    house.sets.stop_shadow(by(ChangeTrigger::Api)).await.expect("it can be stopped");
    house.clock.advance(RETENTION);
    // Something else is pushed at the moment: what it has in common is stored, and it itself not yet.
    let other = house.stored(3).await;
    assert_eq!(house.remove_unneeded().await, 0);
    house.clock.advance(10 * 60 * 1000);
    assert_eq!(house.remove_unneeded().await, 1);
    assert!(!house.is_stored(waiting).await && house.is_stored(other).await);
}

/// One that cannot follow goes on with what it has.
#[tokio::test]
async fn what_an_instance_judges_by_that_cannot_follow_stays() {
    let house = House::new().await;
    let first = house.active();
    let other =
        start(&house.store, &house.clock, &house.policies(), &house.registries).await.expect("starts");
    house.many_later().await;
    house.clock.advance(RETENTION);
    other.keep_used().await.expect("the store is there");
    assert_eq!(other.policies().active().hash(), first);
    assert_eq!(house.remove_unneeded().await, 0);
    assert!(house.is_stored(first).await);
}
