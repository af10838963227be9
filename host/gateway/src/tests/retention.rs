//! Which ended requests can go.

use countersign_store::faulty::{Faults, FaultyStore};
use countersign_store::fixtures;

use super::*;
use crate::receipts::SigningKey;

const RETENTION: u64 = 10 * MINUTE;

async fn passed(house: &House) -> Vec<Vec<RequestId>> {
    let found = house.gateway.passed(RETENTION, 10).await.expect("the store is there");
    house.gateway.store().put_off(found.put_off).await.expect("the store is there");
    let ids = |it: &crate::retention::Passed| it.requests.iter().map(|request| request.id).collect();
    found.passed.iter().map(ids).collect()
}

#[tokio::test]
async fn a_request_goes_when_its_time_is_over_and_is_looked_at_no_sooner() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    house.approve(request.id, "U1").await.expect("it counts");
    house.clock.advance(RETENTION - 1);
    assert_eq!(passed(&house).await, [] as [Vec<RequestId>; 0]);
    house.clock.advance(1);
    assert_eq!(passed(&house).await, [[request.id]]);
    let line = house.gateway.archive_line(&request).await.expect("the store is there");
    let line: Value = serde_json::from_slice(&line).expect("it is JSON");
    assert_eq!((&line["archived_request"], &line["request"]["id"]), (&json!(1), &json!(request.id)));
    assert_eq!(line["audit"].as_array().expect("places").len(), 3);
}

#[tokio::test]
async fn a_lineage_stays_as_long_as_one_of_its_requests() {
    let house = House::ready().await;
    let first = house.ask("double").await.request;
    house.gateway.act(first.id, "U1", &Intent::Deny { reason: None }).await.expect("it counts");
    house.clock.advance(5 * MINUTE);
    let actor = Party { id: "U4".into(), source: "slack".into(), display: None };
    let again = Again { who: Who::of(&actor), party: actor };
    let again = house.gateway.rerequest(first.id, again, None, MostOpen::default(), None);
    let again = again.await.expect("it is allowed");
    house.clock.advance(5 * MINUTE);
    assert_eq!(passed(&house).await, [] as [Vec<RequestId>; 0], "the newest one is open");
    let denied = Intent::Deny { reason: None };
    house.gateway.act(again.request.id, "U1", &denied).await.expect("it counts");
    // Once that one may go, it is looked at together with the first.
    house.clock.advance(RETENTION - 1);
    assert_eq!(passed(&house).await, [] as [Vec<RequestId>; 0]);
    house.clock.advance(1);
    assert_eq!(passed(&house).await, [[first.id, again.request.id]]);
}

#[tokio::test]
async fn a_long_lineage_goes_in_parts() {
    let house = House::ready().await;
    let store = house.gateway.store();
    let first = fixtures::request_at(1, START);
    let mut all = Vec::new();
    for depth in 0..250_u32 {
        let mut request = match depth {
            0 => first.clone(),
            depth => fixtures::again(&first, 1000 + u64::from(depth), depth),
        };
        request.state = fixtures::denied(START);
        store.create(fixtures::new(&request)).await.expect("it is stored");
        all.push(request.id);
    }
    house.clock.advance(RETENTION);
    for part in [&all[..100], &all[100..]] {
        let found = house.gateway.passed(RETENTION, 1).await.expect("the store is there");
        let [lineage] = &found.passed[..] else { panic!("one lineage: {found:?}") };
        assert_eq!(lineage.requests.iter().map(|request| request.id).collect::<Vec<_>>(), part);
        assert_eq!(lineage.newest, all[249]);
        let removal = lineage.removal(false).expect("it has requests");
        assert_eq!(store.remove(vec![removal], None).await.expect("the store is there"), [true]);
    }
    assert_eq!(passed(&house).await, [] as [Vec<RequestId>; 0]);
}

/// What belongs to a line and cannot be read now is read later: the line is written once.
#[tokio::test]
async fn no_line_is_made_without_the_receipt_that_belongs_to_it() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let request = house.approve(request.id, "U1").await.expect("it counts");
    // The rules of the request are not in force any more, so they are read from the store.
    let House { folder, clock, gateway } = house;
    drop(gateway);
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&folder.path().join("store.db")).expect("the store opens"));
    let faults = Faults::default();
    let store = Arc::new(FaultyStore { store, faults: faults.clone() });
    let set = policies(folder.path(), &ACTIONS.replace("One of two", "One of the two"));
    let set = PolicySet::load(&set, &engine()).expect("the set is sound");
    let policies = Arc::new(Policies::new(engine(), set));
    let (tokens, salts) = (Tokens::new([7; 32], Vec::new()), SaltKeys::fixed());
    let key = SigningKey::new(Timestamp::EPOCH, &[1; 32]).expect("a key");
    let gateway = Gateway::new(store, policies, clock, tokens, salts);
    let gateway = gateway.signing(ReceiptKeys::new(vec![key], Vec::new()).expect("a key"));

    faults.corrupt_next("policy_entry");
    gateway.archive_line(&request).await.expect_err("it would have no receipt");
    let line = gateway.archive_line(&request).await.expect("the store is there");
    let line: Value = serde_json::from_slice(&line).expect("it is JSON");
    assert!(line["receipt"].is_string(), "{line}");
}
