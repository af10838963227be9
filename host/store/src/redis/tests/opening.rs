//! What is checked when a store is opened, and what is told of a server that cannot be written to.

use rustix::process::Signal;
use std::time::Duration;

use super::server::Server;
use super::{options, raw, server};
use crate::fixtures::*;
use crate::redis::{RedisOpenError, RedisOptions, RedisStore, RedisWarning};
use crate::{Audit as _, Created, Requests as _, Store as _, StoreFault};

#[tokio::test]
async fn the_number_of_partitions_is_fixed() {
    let options = options(&server::SHARED.url());
    drop(RedisStore::open(options.clone()).await.unwrap());
    drop(RedisStore::open(options.clone()).await.unwrap());
    let other = RedisOptions { partitions: 8, ..options.clone() };
    let error = RedisStore::open(other).await.err().unwrap();
    let expected = format!(
        "the store `{}` has 16 partitions, and 8 are configured; their number is fixed when a store is made",
        options.namespace
    );
    assert_eq!(error.to_string(), expected);
}

/// An empty store that a command had made would look like one that has lost everything, and no copy would be written to it.
#[tokio::test]
async fn a_store_that_is_not_there_is_not_made() {
    let options = options(&server::SHARED.url());
    let error = RedisStore::open_existing(options.clone()).await.err().unwrap();
    assert_eq!(error.to_string(), format!("there is no store `{}`", options.namespace));
    let mut keys = redis::cmd("KEYS");
    keys.arg(format!("{{{}*", options.namespace));
    assert_eq!(raw(&server::SHARED, &keys).await, redis::Value::Array(Vec::new()));
    let few = RedisOptions { partitions: 4, ..options.clone() };
    let store = RedisStore::open(few).await.unwrap();
    assert_eq!(store.create(new(&request(1))).await.unwrap(), Created::New);
    // It has as many partitions as it was made with.
    let store = RedisStore::open_existing(options).await.unwrap();
    assert_eq!(store.request(id(1)).await.unwrap(), Some(request(1)));
    assert_eq!(store.audit_sizes().await.unwrap().len(), 5);
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let options = options(&server::SHARED.url());
    for wrong in [
        RedisOptions { partitions: 0, ..options.clone() },
        RedisOptions { namespace: "a}b".into(), ..options.clone() },
        RedisOptions { deadline: Duration::from_secs(60), ..options.clone() },
    ] {
        assert!(matches!(RedisStore::open(wrong).await.err(), Some(RedisOpenError::Option(_))));
    }
}

#[tokio::test]
async fn a_server_that_throws_values_away_is_refused() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = RedisStore::open(options(&server.url())).await.err().unwrap();
    assert!(matches!(&error, RedisOpenError::Evicts { found } if found == "allkeys-lru"), "{error}");
}

#[tokio::test]
async fn what_can_be_lost_is_told() {
    let store = RedisStore::open(options(&server::SHARED.url())).await.unwrap();
    assert_eq!(store.warnings(), [RedisWarning::NoLog, RedisWarning::NoReplicasNeeded]);
    let server = Server::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    let late = RedisWarning::LateSync("everysec".into());
    assert_eq!(store.warnings(), [late, RedisWarning::NoReplicasNeeded]);
}

#[tokio::test]
async fn a_full_server_stores_nothing_and_says_so() {
    let server = Server::start(&["--maxmemory", "8mb"]);
    let store = RedisStore::open(options(&server.url())).await.unwrap();
    assert_eq!(store.create(new(&request(1))).await.unwrap(), Created::New);
    let mut limit = redis::cmd("CONFIG");
    limit.arg(&["SET", "maxmemory", "1"]);
    raw(&server, &limit).await;
    let error = store.create(new(&request(2))).await.unwrap_err();
    assert_eq!(error.fault(), Some(StoreFault::Full), "{error}");
    assert_eq!(store.ping().await.unwrap_err().fault(), Some(StoreFault::Full));
    assert_eq!(store.request(id(1)).await.unwrap(), Some(request(1)));
    assert_eq!(store.request(id(2)).await.unwrap(), None);
    // What makes room is done all the same.
    store.maintain(at(0)).await.unwrap();
}

#[tokio::test]
async fn a_ping_finds_a_server_that_cannot_be_written_to() {
    let server = Server::start(&[]);
    let patience = Duration::from_millis(200);
    let store =
        RedisStore::open(RedisOptions { deadline: patience, ..options(&server.url()) }).await.unwrap();
    store.ping().await.unwrap();
    let mut demote = redis::cmd("REPLICAOF");
    demote.arg(&["127.0.0.1", "1"]);
    raw(&server, &demote).await;
    let error = store.ping().await.unwrap_err();
    assert_eq!(error.fault(), Some(StoreFault::ReadOnly), "{error}");
}

/// A server that does not answer is found within the deadline, and then not waited for again and again.
#[tokio::test]
async fn a_server_that_hangs_holds_nobody_up() {
    let server = Server::start(&[]);
    let timeouts = RedisOptions {
        response_timeout: Duration::from_millis(50),
        connect_timeout: Duration::from_millis(50),
        deadline: Duration::from_secs(1),
        ..options(&server.url())
    };
    let store = RedisStore::open(timeouts).await.unwrap();
    assert_eq!(store.create(new(&request(1))).await.unwrap(), Created::New);
    server.signal(Signal::STOP);
    let error = store.create(new(&request(2))).await.unwrap_err();
    assert_eq!(error.fault(), Some(StoreFault::Slow), "{error}");
    let mut others = Vec::new();
    while others.len() < 100 {
        others.push(store.request(id(1)).await.unwrap_err().to_string());
    }
    let at_once = others.iter().filter(|error| error.contains("asked again in a moment")).count();
    assert!(at_once > 90, "{others:?}");
    server.signal(Signal::CONT);
    while store.request(id(1)).await.is_err() {}
    // What was in doubt may be stored by now; sent again by its caller, it is so once.
    let again = store.create(new(&request(2))).await.unwrap();
    assert!(matches!(again, Created::New | Created::LineageConflict), "{again:?}");
    assert_eq!(store.request(id(2)).await.unwrap(), Some(request(2)));
}

#[tokio::test]
async fn what_is_closed_is_not_written_to() {
    let store = RedisStore::open(options(&server::SHARED.url())).await.unwrap();
    assert_eq!(store.create(new(&request(1))).await.unwrap(), Created::New);
    store.close().await.unwrap();
    let refused = store.create(new(&request(2))).await.unwrap_err().to_string();
    assert_eq!(refused, "the redis store is unavailable: it is closed");
    assert!(store.ping().await.is_err());
    assert!(store.request(id(1)).await.unwrap().is_some(), "it can still be read");
}
