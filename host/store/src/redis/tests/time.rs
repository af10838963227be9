//! Claims and readiness go by the clock of Redis, whatever the clocks of instances say.

use countersign_core::lifecycle::{Effect, Timestamp};

use super::{options, server};
use crate::fixtures::*;
use crate::redis::{RedisOptions, RedisStore, StoreTime};
use crate::{Created, Outbox as _, Requests as _};

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
