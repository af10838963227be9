//! A write counts once replicas have it, and is told to nobody else before.

use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::broadcast::Receiver;

use super::server::Server;
use super::{opened, options};
use crate::fixtures::*;
use crate::redis::{Durability, RedisOptions, RedisStore};
use crate::{
    Audit as _, AuditCursor, Change, Committed, Created, Requests as _, Shared as _, Store as _, StoreFault,
};

/// A primary, and a replica that has caught up.
pub(super) async fn servers() -> (Server, Server) {
    let (primary, port) = Server::on_a_port(&[]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {port}")]);
    replica.wait_for("Finished with success");
    let mut info = redis::cmd("INFO");
    info.arg("replication");
    // The primary counts it once it has answered.
    loop {
        let told: String = redis::from_redis_value(super::raw(&primary, &info).await).unwrap();
        if told.contains("state=online") {
            return (primary, replica);
        }
    }
}

fn waiting(primary: &Server) -> RedisOptions {
    let timeout = Duration::from_millis(50);
    RedisOptions {
        durability: Durability::Replicas { replicas: 1, timeout },
        deadline: Duration::from_millis(400),
        ..options(&primary.url())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_has_is_told_to_nobody() {
    let (primary, replica) = servers().await;
    let options = waiting(&primary);
    let (writer, reader) = (opened(&options).await, opened(&options).await);
    let mut heard = reader.changes();
    let first = with_key(&request(1), 7, at(100));
    assert_eq!(writer.create(first).await.unwrap(), Created::New);
    assert_eq!(reader.request(id(1)).await.unwrap(), Some(request(1)));
    let voted = next(&request(1), at(1), |_| {});

    replica.signal(Signal::STOP);
    let error = writer.commit(change(&voted)).await.unwrap_err();
    assert_eq!(error.fault(), Some(StoreFault::Slow));
    assert!(error.to_string().contains("it is stored, and not confirmed"), "{error}");
    for error in [
        reader.request(id(1)).await.unwrap_err(),
        reader.idempotent(0, &key(7), at(0)).await.unwrap_err(),
        reader.lineage(id(1), 0, 10).await.unwrap_err(),
        reader.newest_of_lineage(id(1)).await.unwrap_err(),
        reader.audit(&AuditCursor::default(), 10).await.unwrap_err(),
        reader.create(with_key(&request(2), 7, at(100))).await.unwrap_err(),
        reader.ping().await.unwrap_err(),
    ] {
        assert_eq!(error.fault(), Some(StoreFault::Slow), "{error}");
    }
    assert!(requests_heard(&mut heard).iter().all(|version| *version == 1), "it is not announced either");

    replica.signal(Signal::CONT);
    let told = loop {
        match reader.request(id(1)).await {
            Ok(told) => break told,
            Err(error) => assert_eq!(error.fault(), Some(StoreFault::Slow), "{error}"),
        }
    };
    assert_eq!(told, Some(voted.clone()));
    assert_eq!(writer.commit(change(&voted)).await.unwrap(), Committed::Conflict, "it was stored");
    let ended = next(&voted, at(2), |request| request.state = approved(at(2)));
    assert_eq!(writer.commit(change(&ended)).await.unwrap(), Committed::Done);
    assert_eq!(reader.request(id(1)).await.unwrap(), Some(ended));
}

/// The versions of requests that were announced.
fn requests_heard(receiver: &mut Receiver<Change>) -> Vec<u64> {
    let mut heard = Vec::new();
    while let Ok(change) = receiver.try_recv() {
        if let Change::Request { version, .. } = change {
            heard.push(version);
        }
    }
    heard
}

/// What was acknowledged with `WAIT 1` is on the replica: it is all there after the primary was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_on_the_replica() {
    let (primary, replica) = servers().await;
    let options = waiting(&primary);
    let store = std::sync::Arc::new(opened(&options).await);
    let mut creating = tokio::task::JoinSet::new();
    for number in 0..200 {
        let store = std::sync::Arc::clone(&store);
        creating.spawn(async move { (number, store.create(new(&request(number))).await) });
    }
    let (mut acknowledged, mut primary) = (Vec::new(), Some(primary));
    while let Some(created) = creating.join_next().await {
        let (number, created) = created.unwrap();
        if created.is_ok() {
            acknowledged.push(number);
        }
        if acknowledged.len() == 60 {
            // Dropping it kills it.
            drop(primary.take());
        }
    }
    let mut promote = redis::cmd("REPLICAOF");
    promote.arg(&["NO", "ONE"]);
    super::raw(&replica, &promote).await;
    let url = replica.url().parse().unwrap();
    let there = RedisStore::open(RedisOptions { url, durability: Durability::Primary, ..options });
    let there = there.await.unwrap();
    assert!(acknowledged.len() >= 60);
    for number in acknowledged {
        assert_eq!(there.request(id(number)).await.unwrap(), Some(request(number)));
    }
}
