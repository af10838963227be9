//! Claims and readiness go by the clock of Redis, whatever the clocks of instances say.

use countersign_core::lifecycle::{Effect, Timestamp};

use super::{options, server};
use crate::fixtures::*;
use crate::redis::{RedisOptions, RedisStore, StoreTime};
use crate::{Claim, Create, Created, Dispatches as _, NewDispatch, Outbox as _, Requests as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_do_not_matter() {
    let options = RedisOptions { time: StoreTime::Redis, ..options(&server::SHARED.url()) };
    let (one, other) =
        (RedisStore::open(options.clone()).await.unwrap(), RedisStore::open(options).await.unwrap());
    assert_eq!(one.create(new(&request(1))).await.unwrap(), Created::New);
    let (behind, ahead) = (at(0), at(0).plus(600_000));
    let is_ready = async |now: Timestamp| !other.ready_outbox(now, 10).await.unwrap().is_empty();
    let claim_of = async |now: Timestamp, millis| {
        one.claim_outbox(id(1), Effect::ShowRequest, claim(now, now.plus(millis))).await.unwrap()
    };
    assert!(is_ready(behind).await && is_ready(ahead).await);
    let claimed = claim_of(behind, 60_000).await.unwrap();
    for now in [behind, ahead, Timestamp::from_millis(0)] {
        assert!(!is_ready(now).await, "it is claimed for a minute, whatever the time is");
        assert_eq!(claim_of(now, 60_000).await, None);
    }
    // A pause counts from when it began by any clock.
    one.retry_outbox(&claimed, ahead, ahead.plus(60_000), true).await.unwrap();
    assert!(!is_ready(behind).await && !is_ready(ahead).await);
    assert_eq!(one.create(new(&request(2))).await.unwrap(), Created::New);
    let other_claim = claim(ahead, ahead.plus(30));
    assert!(one.claim_outbox(id(2), Effect::ShowRequest, other_claim).await.unwrap().is_some());
    // It ends although the clock of this instance does not get there.
    while !is_ready(behind).await {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_claim_ends_by_the_clock_of_redis() {
    let options = RedisOptions { time: StoreTime::Redis, ..options(&server::SHARED.url()) };
    let (one, other) =
        (RedisStore::open(options.clone()).await.unwrap(), RedisStore::open(options).await.unwrap());
    let dispatches = vec![NewDispatch { target: "a".into(), position: 0 }];
    assert_eq!(one.create(Create { dispatches, ..new(&request(1)) }).await.unwrap(), Created::New);
    let (behind, ahead) = (at(0), at(0).plus(600_000));
    let held = claim(behind, behind.plus(30));
    assert!(one.claim_dispatch(id(1), "a", held).await.unwrap().is_some());
    assert!(one.claim_outbox(id(1), Effect::ShowRequest, held).await.unwrap().is_some());
    let renew = async |now: Timestamp, millis| {
        let renewed = Claim { id: held.id, now, until: now.plus(millis) };
        one.renew_dispatch(id(1), "a", renewed).await.unwrap()
            && one.renew_outbox(id(1), Effect::ShowRequest, renewed).await.unwrap()
    };
    assert!(renew(ahead, 60_000).await);
    let ready = async |now| {
        let dispatches = other.ready_dispatches(now, 10).await.unwrap().len();
        (dispatches, other.ready_outbox(now, 10).await.unwrap().len())
    };
    for now in [behind, ahead, Timestamp::from_millis(0)] {
        assert_eq!(ready(now).await, (0, 0), "it is claimed for a minute, whatever the time is");
    }
    assert!(renew(ahead, 30).await);
    // It ends although the clock of this instance does not get there.
    while ready(behind).await != (1, 1) {}
}
