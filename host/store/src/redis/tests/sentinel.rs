//! A failover by Sentinels, with real processes:
//! `cargo test -p countersign-store sentinel -- --ignored`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::options;
use super::server::Server;
use crate::fixtures::*;
use crate::redis::{Durability, RedisOptions, RedisStore};
use crate::{Change, Commit, Committed, Created, Documents as _, Requests as _, Shared as _, Store as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes some seconds, and starts five servers"]
async fn what_was_acknowledged_outlives_a_failover() {
    let (primary, port) = Server::on_a_port(&[]);
    let (replica, _) = Server::on_a_port(&["--replicaof", &format!("127.0.0.1 {port}")]);
    replica.wait_for("Finished with success");
    let sentinels: Vec<_> = (0..3).map(|_| Server::sentinel(port)).collect();
    for (sentinel, _) in &sentinels {
        sentinel.wait_for("+slave");
        for _ in 0..2 {
            sentinel.wait_for("+sentinel sentinel");
        }
    }
    let hosts: Vec<_> = sentinels.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    let url = format!("redis+sentinel://{}/main", hosts.join(","));
    let waits = Durability::Replicas { replicas: 1, timeout: Duration::from_millis(100) };
    let options = RedisOptions { durability: waits, ..options(&url) };
    let store = Arc::new(RedisStore::open(options.clone()).await.unwrap());
    let other = RedisStore::open(options.clone()).await.unwrap();
    let mut heard = other.changes();

    let (next_number, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, next_number, ended) = (Arc::clone(&store), Arc::clone(&next_number), Arc::clone(&ended));
        writing.spawn(async move {
            let mut acknowledged = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let first = request(next_number.fetch_add(1, Ordering::Relaxed));
                if store.create(new(&first)).await.is_ok_and(|created| created == Created::New) {
                    let voted = next(&first, at(1), |_| {});
                    let commit = Commit { effects: vec![], ..change(&voted) };
                    let version = match store.commit(commit).await {
                        Ok(Committed::Done) => 2,
                        _ => 1,
                    };
                    acknowledged.push((first.id, version));
                }
            }
            acknowledged
        });
    }
    while next_number.load(Ordering::Relaxed) < 200 {
        tokio::task::yield_now().await;
    }
    drop(primary);
    replica.wait_for("MASTER MODE enabled");
    // There is no replica any more, so nothing new is confirmed; until there is one.
    let (third, _) = Server::on_a_port(&["--replicaof", &format!("127.0.0.1 {}", port_of(&replica).await)]);
    third.wait_for("Finished with success");
    let before = next_number.load(Ordering::Relaxed);
    while next_number.load(Ordering::Relaxed) < before + 100 {
        tokio::task::yield_now().await;
    }
    ended.store(true, Ordering::Relaxed);
    let acknowledged = writing.join_all().await.concat();
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
    for (id, version) in acknowledged {
        let stored = other.request(id).await.unwrap().map(|request| request.version);
        assert!(stored.is_some_and(|stored| stored >= version), "{id}: {stored:?} of {version}");
    }
    other.ping().await.unwrap();
    // The subscription was made again.
    loop {
        store.keep("key:after", vec![]).await.unwrap();
        let change = tokio::time::timeout(Duration::from_millis(20), heard.recv()).await;
        if let Ok(Ok(Change::Document { .. })) = change {
            break;
        }
    }
}

async fn port_of(server: &Server) -> String {
    let mut get = redis::cmd("CONFIG");
    get.arg(&["GET", "port"]);
    let pair: Vec<String> = redis::from_redis_value(super::raw(server, &get).await).unwrap();
    pair[1].clone()
}
