//! The contract in a Cluster of three primaries with a replica each, and a failover there, with real processes:
//! `cargo test -p countersign-store cluster -- --ignored`

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::server::Server;
use super::{archive, opened, options, raw};
use crate::contract::{Backend, SharedBackend, shared_contract, store_contract};
use crate::fixtures::*;
use crate::redis::{Durability, RedisOptions, RedisStore};
use crate::{Archive, Change, Committed, Created, Requests as _, Shared as _, Store};

/// Servers that know of each other. The first three are primaries.
pub(super) struct Cluster {
    servers: Vec<(Server, u16)>,
}

impl Cluster {
    fn start() -> Cluster {
        let settings =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
        let servers: Vec<_> = (0..6).map(|_| Server::on_a_port(&settings)).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(servers.iter().map(|(_, port)| format!("127.0.0.1:{port}")));
        let created = create.args(["--cluster-replicas", "1", "--cluster-yes"]).output().unwrap();
        assert!(created.status.success(), "{created:?}");
        for (server, _) in &servers[3..] {
            server.wait_for("Finished with success");
        }
        Cluster { servers }
    }

    pub(super) fn url(&self) -> String {
        let hosts: Vec<_> = self.servers.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}

pub(super) static SHARED: LazyLock<Cluster> = LazyLock::new(Cluster::start);

/// A namespace in the Cluster that tests share.
struct InCluster(RedisOptions);

impl Backend for InCluster {
    async fn fresh() -> InCluster {
        InCluster(options(&SHARED.url()))
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(RedisStore::open(self.0.clone()).await.unwrap())
    }

    fn archive(&self) -> Archive {
        archive(&self.0)
    }
}

impl SharedBackend for InCluster {}

store_contract!(
    #[ignore = "starts six servers"]
    InCluster
);
shared_contract!(
    #[ignore = "starts six servers"]
    InCluster
);

/// The same while each write waits for a replica.
struct WaitingInCluster(InCluster);

impl Backend for WaitingInCluster {
    async fn fresh() -> WaitingInCluster {
        let InCluster(options) = InCluster::fresh().await;
        WaitingInCluster(InCluster(RedisOptions { durability: one_replica(), ..options }))
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.0.open().await
    }

    fn archive(&self) -> Archive {
        self.0.archive()
    }
}

impl SharedBackend for WaitingInCluster {}

mod waiting {
    use super::*;

    store_contract!(
        #[ignore = "starts six servers"]
        WaitingInCluster
    );
    shared_contract!(
        #[ignore = "starts six servers"]
        WaitingInCluster
    );
}

pub(super) fn one_replica() -> Durability {
    Durability::Replicas { replicas: 1, timeout: Duration::from_millis(500) }
}

/// A primary is killed under load: what was acknowledged is on the replica that takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts six servers"]
async fn what_was_acknowledged_outlives_a_primary() {
    let mut cluster = Cluster::start();
    // Afterwards one primary has no replica, so what is written there is not confirmed.
    let deadline = Duration::from_secs(1);
    let options = RedisOptions { durability: one_replica(), deadline, ..options(&cluster.url()) };
    let store = Arc::new(opened(&options).await);
    let (next_number, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, next_number, ended) = (Arc::clone(&store), Arc::clone(&next_number), Arc::clone(&ended));
        writing.spawn(async move {
            let mut acknowledged = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let first = request(next_number.fetch_add(1, Ordering::Relaxed));
                if store.create(new(&first)).await.is_ok_and(|created| created == Created::New) {
                    acknowledged.push(first.id);
                }
            }
            acknowledged
        });
    }
    while next_number.load(Ordering::Relaxed) < 300 {
        tokio::task::yield_now().await;
    }
    let other = opened(&options).await;
    let mut heard = other.changes();
    drop(cluster.servers.remove(0));
    let before = next_number.load(Ordering::Relaxed);
    while next_number.load(Ordering::Relaxed) < before + 300 {
        tokio::task::yield_now().await;
    }
    ended.store(true, Ordering::Relaxed);
    let acknowledged = writing.join_all().await.concat();
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
    let reading = RedisOptions { durability: Durability::Primary, ..options };
    let there = opened(&reading).await;
    // The other instance hears of each partition again.
    let partitions = (1..).map(|number| request(10_000 + number * 8)).take(16);
    for first in partitions {
        assert_eq!(there.create(new(&first)).await.unwrap(), Created::New);
        let (mut version, mut last) = (1, first.clone());
        loop {
            match tokio::time::timeout(Duration::from_millis(200), heard.recv()).await {
                Ok(Ok(Change::Request { id, .. })) if id == first.id => break,
                Ok(_) => {}
                Err(_) => {
                    last = next(&last, at(version), |_| {});
                    version += 1;
                    assert_eq!(there.commit(change(&last)).await.unwrap(), Committed::Done);
                    assert!(version < 200, "nothing is heard of {}", first.id);
                }
            }
        }
    }
    for id in acknowledged {
        assert!(there.request(id).await.unwrap().is_some(), "{id}");
    }
}

/// As an operator moves slots from server to server. The new one has nothing of the partition until it has all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts six servers"]
async fn a_partition_that_moves_to_another_server_is_not_torn_apart() {
    let cluster = Cluster::start();
    let options = options(&cluster.url());
    let store = Arc::new(opened(&options).await);
    let first = request(1);
    let keyed = move || with_key(&request(1), 7, at(1_000_000));
    assert_eq!(store.create(keyed()).await.unwrap(), Created::New);

    let ask = async |server: usize, words: &[&str]| -> redis::Value {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        raw(&cluster.servers[server].0, &command).await
    };
    let text = |value| redis::from_redis_value::<String>(value).unwrap();
    let tag = format!("{{{}:{}}}", options.namespace, first.id.shard() % options.partitions);
    let slot: u64 = redis::from_redis_value(ask(0, &["CLUSTER", "KEYSLOT", &tag]).await).unwrap();
    let slot = slot.to_string();
    let mut holders = Vec::new();
    for server in 0..3 {
        let keys = ask(server, &["CLUSTER", "COUNTKEYSINSLOT", &slot]).await;
        if redis::from_redis_value::<u64>(keys).unwrap() > 0 {
            holders.push(server);
        }
    }
    let [from] = *holders else { panic!("{holders:?} have it") };
    let to = (from + 1) % 3;
    let from_id = text(ask(from, &["CLUSTER", "MYID"]).await);
    let to_id = text(ask(to, &["CLUSTER", "MYID"]).await);
    ask(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
    ask(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;

    let asking = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.create(keyed()).await }
    });
    while !text(ask(to, &["INFO", "errorstats"]).await).contains("TRYAGAIN") {
        assert!(!asking.is_finished(), "it was carried out while the partition moves");
    }
    let port = cluster.servers[to].1.to_string();
    loop {
        let keys = ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
        let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
        if keys.is_empty() {
            break;
        }
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.iter().map(String::as_str));
        ask(from, &migrate).await;
    }
    for server in [to, from] {
        ask(server, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
    }
    let created = asking.await.unwrap().unwrap();
    assert!(matches!(&created, Created::Known(_, request) if request.id == first.id), "{created:?}");
    assert_eq!(store.commit(change(&next(&first, at(2), |_| {}))).await.unwrap(), Committed::Done);
    assert_eq!(store.request(first.id).await.unwrap().unwrap().version, 2);
}
