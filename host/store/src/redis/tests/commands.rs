//! How many commands Redis carries out for what a gateway asks of it most. One more for each create is felt by every caller.

use std::collections::BTreeMap;

use countersign_core::lifecycle::Request;
use futures_util::future::join_all;

use super::{options, raw, server};
use crate::fixtures::*;
use crate::redis::{PURGED_AT_ONCE, RedisStore};
use crate::{
    Commit, Committed, Create, Created, Guards as _, MostOpen, Nonce, Rate, Requests as _, Shared as _,
    Store as _,
};

/// How often each command was carried out, those of scripts included, but for what a store says to itself now and then.
async fn carried_out(server: &server::Server) -> BTreeMap<String, u64> {
    let info = raw(server, redis::cmd("INFO").arg("commandstats")).await;
    let text: String = redis::from_redis_value(info).unwrap();
    let counted = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    counted
        .filter(|(name, _)| !matches!(name.as_str(), "info" | "spublish" | "ssubscribe" | "hello"))
        .collect()
}

fn since(before: &BTreeMap<String, u64>, after: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let new = after.into_iter().map(|(name, calls)| {
        let more = calls - before.get(&name).copied().unwrap_or_default();
        (name, more)
    });
    new.filter(|(_, calls)| *calls > 0).collect()
}

fn sum(calls: &BTreeMap<String, u64>) -> u64 {
    calls.values().sum()
}

/// Without the message that announces a version. One of those for each is a look for a policy entry, which is not there.
#[tokio::test]
async fn a_write_takes_few_commands() {
    let server = server::Server::start(&[]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    // From now on Redis knows the scripts, and the connection is there.
    let first = next(&request(1), at(1), |_| {});
    let limited =
        |number| Create { most_open: MostOpen { in_all: None, of_action: Some(9) }, ..new(&request(number)) };
    assert_eq!(store.create(limited(1)).await.unwrap(), Created::New);
    assert_eq!(store.commit(change(&first)).await.unwrap(), Committed::Done);

    let before = carried_out(&server).await;
    assert_eq!(store.create(new(&request(2))).await.unwrap(), Created::New);
    let created = since(&before, carried_out(&server).await);
    assert_eq!(sum(&created), 22, "{created:?}");

    let before = carried_out(&server).await;
    assert_eq!(store.create(limited(3)).await.unwrap(), Created::New);
    let limited = since(&before, carried_out(&server).await);
    assert_eq!(sum(&limited), sum(&created) + 4, "{limited:?}");

    let before = carried_out(&server).await;
    let voted = next(&request(2), at(2), |_| {});
    let nonce = Nonce { shard: id(2).shard(), digest: key(1), excluded_by: key(2), at: at(2), until: at(9) };
    let audit = vec![audit(&voted, "voted"), audit(&voted, "changed")];
    let vote = Commit { nonce: Some(nonce), audit, ..change(&voted) };
    assert_eq!(store.commit(vote).await.unwrap(), Committed::Done);
    let voted = since(&before, carried_out(&server).await);
    assert_eq!(sum(&voted), 26, "{voted:?}");
}

#[tokio::test]
async fn what_a_crowd_asks_of_one_caller_or_bucket_is_one_script() {
    let server = server::Server::start(&[]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    let scripts = async || {
        let calls = carried_out(&server).await;
        ["eval", "evalsha"].iter().filter_map(|name| calls.get(*name)).sum::<u64>()
    };
    let rate = Rate { capacity: 20, per_sec: 0.001 };
    assert_eq!(store.take("one", rate).await.unwrap(), None);
    let before = scripts().await;
    let taken = join_all((0..30).map(|_| store.take("one", rate))).await;
    let taken: Vec<Option<u64>> = taken.into_iter().map(Result::unwrap).collect();
    assert_eq!(taken.iter().filter(|wait| wait.is_none()).count(), 19, "{taken:?}");
    assert!(taken.iter().flatten().all(|wait| (900_000..=1_000_000).contains(wait)), "{taken:?}");
    assert_eq!(scripts().await - before, 1);
}

/// On one server. In a Cluster the places of a caller may be on another one than the request.
#[tokio::test]
async fn a_request_takes_and_gives_back_its_place_with_its_own_writes() {
    let server = server::Server::start(&[]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    let scripts = async || {
        let calls = carried_out(&server).await;
        ["eval", "evalsha"].iter().filter_map(|name| calls.get(*name)).sum::<u64>()
    };
    let places = async || -> u64 {
        let keys: Vec<String> =
            redis::from_redis_value(raw(&server, redis::cmd("KEYS").arg("*:quota:*")).await).unwrap();
        match &*keys {
            [] => 0,
            [one] => redis::from_redis_value(raw(&server, redis::cmd("HLEN").arg(one)).await).unwrap(),
            more => panic!("one caller, and {more:?}"),
        }
    };
    let most_open = MostOpen { in_all: Some(5), of_action: None };
    let limited = |number| store.create(Create { most_open, ..new(&request(number)) });
    assert_eq!(limited(0).await.unwrap(), Created::New);
    let first = next(&request(0), at(1), |_| {});
    assert_eq!(store.commit(change(&first)).await.unwrap(), Committed::Done);

    let before = scripts().await;
    let created = join_all((1..=4).map(limited)).await;
    assert!(created.into_iter().all(|created| created.unwrap() == Created::New));
    assert_eq!(scripts().await - before, 4, "one for each request");
    assert_eq!(places().await, 5);

    let created = join_all((5..=9).map(limited)).await;
    assert!(created.into_iter().all(|created| created.unwrap() == Created::TooManyOpen));
    assert_eq!(limited(2).await.unwrap(), Created::LineageConflict, "it is there");
    assert_eq!(places().await, 5, "who was refused has no place, and who has one keeps it");

    let before = scripts().await;
    assert_eq!(
        store.commit(change(&next(&first, at(2), |it| it.state = denied(at(2))))).await.unwrap(),
        Committed::Done
    );
    assert_eq!(scripts().await - before, 1);
    assert_eq!(places().await, 4);
    assert_eq!(limited(5).await.unwrap(), Created::New, "the place is free at once");
}

#[tokio::test]
async fn what_has_expired_is_removed_at_once_however_much_it_is() {
    let server = server::Server::start(&[]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    let keys =
        async || -> u64 { redis::from_redis_value(raw(&server, &redis::cmd("DBSIZE")).await).unwrap() };
    let claims = (0..2 * PURGED_AT_ONCE + 1).map(|number| store.claim_nonce(0, key(number), at(0), at(10)));
    assert!(join_all(claims).await.into_iter().all(|claimed| claimed.unwrap()));
    let before = keys().await;
    store.maintain(at(2 * 86_400_000)).await.unwrap();
    // Each of them, and the set that had them by when they expire.
    assert_eq!(before - keys().await, 2 * PURGED_AT_ONCE + 2);
}

/// As after a failover to a server whose clock is behind.
#[tokio::test]
async fn a_place_from_the_future_is_one_that_was_just_taken() {
    let server = server::Server::start(&[]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    let most_open = MostOpen { in_all: Some(1), of_action: None };
    let limited = |number| store.create(Create { most_open, ..new(&request(number)) });
    assert_eq!(limited(1).await.unwrap(), Created::New);
    let keys: Vec<String> =
        redis::from_redis_value(raw(&server, redis::cmd("KEYS").arg("*:quota:*")).await).unwrap();
    let place = format!("{} deploy", u32::MAX);
    raw(&server, redis::cmd("HSET").arg(&keys[0]).arg(id(1).to_string()).arg(place)).await;
    assert_eq!(limited(2).await.unwrap(), Created::TooManyOpen);
}

/// What is decided as it is made is not open.
#[tokio::test]
async fn a_request_that_ends_as_it_is_made_takes_no_place() {
    let server = server::Server::start(&[]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    let most_open = MostOpen { in_all: Some(1), of_action: None };
    for number in 0..3 {
        let ended = Request { state: approved(at(0)), ..request(number) };
        let created = store.create(Create { most_open, ..new(&ended) }).await.unwrap();
        assert_eq!(created, Created::New);
    }
    assert_eq!(store.create(Create { most_open, ..new(&request(9)) }).await.unwrap(), Created::New);
}
