//! Two gateways over one store.

use countersign_store::Change;

use super::*;
use crate::{Seen, Share};

/// Another instance over the store and the clock of `house`.
async fn beside(house: &House) -> Arc<Gateway> {
    let (engine, folder) = (engine(), tempfile::tempdir().expect("a folder"));
    let set = PolicySet::load(&policies(folder.path(), ACTIONS), &engine).expect("the set is sound");
    let store = Arc::clone(house.gateway.store());
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&house.clock);
    let tokens = Tokens::new([7; 32], Vec::new());
    let policies = Arc::new(Policies::new(engine, set));
    let other = Gateway::new(store, policies, clock, tokens, SaltKeys::fixed()).numbered(2);
    Arc::new(other)
}

#[tokio::test]
async fn watchers_hear_of_what_another_instance_stores() {
    let house = House::ready().await;
    let other = beside(&house).await;
    let request = house.ask("double").await.request;
    let mut watch = house.gateway.watchers().watch(request.id);
    watch.read(request.version);
    let voted = other.act(request.id, "U1", &Intent::approve()).await.expect("counts");
    let change = Change::Request { id: request.id, version: voted.version };
    for _ in 0..2 {
        house.gateway.hear(&change);
    }
    let Seen::Version(seen) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!(seen.version, voted.version);

    // Several at once are one: the newest. What this instance stores after it comes next, and at once.
    other.act(request.id, "U1", &Intent::Withdraw).await.expect("counts");
    let newest = other.act(request.id, "U2", &Intent::approve()).await.expect("counts");
    house.gateway.hear(&Change::Request { id: request.id, version: newest.version - 1 });
    let Seen::Version(seen) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!(seen.version, newest.version);
    house.gateway.hear(&Change::Request { id: request.id, version: newest.version });
    let ended = house.approve(request.id, "U3").await.expect("counts");
    let Seen::Version(seen) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!((seen.version, seen.status()), (ended.version, Status::Approved));

    // If hints were lost, everybody reads again; a request that nobody watches is not read.
    house.gateway.hear(&Change::Missed);
    assert!(matches!(watch.next().await, Seen::Lagged));
    house.gateway.hear(&Change::Request { id: RequestId::new(START, 1, 1), version: 9 });
}

#[tokio::test]
async fn what_another_instance_looks_after_is_left_to_it_for_a_moment() {
    let house = House::ready().await;
    let mut requests = Vec::new();
    for _ in 0..20 {
        requests.push(house.ask("single").await.request);
    }
    house.gateway.instances_live(&[0, 2]);
    let share = Share::of(0, &[0, 2]);
    assert_eq!(house.gateway.share(), share);
    let mine = requests.iter().filter(|request| share.has(request.id)).count();
    let expired = async || house.events().await.iter().filter(|event| *event == "expired").count();
    house.clock.advance(10 * MINUTE);
    let now = house.clock.now();
    let next = house.turn().await;
    assert_eq!(expired().await, mine);
    if mine < requests.len() {
        assert_eq!(next, now.plus(300), "and then it looks whether the other one has done it");
    }
    house.clock.advance(300);
    house.turn().await;
    assert_eq!(expired().await, requests.len());

    // Both at the same moment: each request expires once.
    let again = house.ask("single").await.request;
    let other = beside(&house).await;
    house.clock.advance(11 * MINUTE);
    let (mut one, mut two) =
        (Scheduler::new(Arc::clone(&house.gateway), 1000), Scheduler::new(Arc::clone(&other), 1000));
    tokio::join!(one.turn(), two.turn());
    assert_eq!(expired().await, requests.len() + 1);
    assert_eq!(house.gateway.request(again.id).await.expect("it is there").status(), Status::Expired);
}
