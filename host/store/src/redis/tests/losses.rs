//! What a failover loses of what was acknowledged, with and without `WAIT`, as a table:
//! `cargo test -p countersign-store losses -- --ignored --nocapture`

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::server::Server;
use super::{opened, options, raw};
use crate::fixtures::*;
use crate::redis::{Durability, RedisOptions};
use crate::{Created, Requests as _};

/// After how many acknowledged creates the primary is killed.
const ACKNOWLEDGED: usize = 300;

const CALLERS: usize = 16;

/// By how much a replica is behind that is.
const BEHIND: Duration = Duration::from_millis(500);

/// How far behind each replica is, how many of them a write waits for, and which takes over.
struct Failover {
    replicas: &'static [Duration],
    waits_for: u32,
    takes_over: usize,
    /// Whether docs/REDIS.md promises that nothing is lost.
    keeps_all: bool,
}

const UP_TO_DATE: &[Duration] = &[Duration::ZERO];
const LATE: &[Duration] = &[BEHIND];
const BOTH: &[Duration] = &[Duration::ZERO, BEHIND];

const FAILOVERS: [Failover; 7] = [
    Failover { replicas: UP_TO_DATE, waits_for: 0, takes_over: 0, keeps_all: false },
    Failover { replicas: LATE, waits_for: 0, takes_over: 0, keeps_all: false },
    Failover { replicas: UP_TO_DATE, waits_for: 1, takes_over: 0, keeps_all: true },
    Failover { replicas: LATE, waits_for: 1, takes_over: 0, keeps_all: true },
    Failover { replicas: BOTH, waits_for: 1, takes_over: 0, keeps_all: true },
    // Not one of those that answered.
    Failover { replicas: BOTH, waits_for: 1, takes_over: 1, keeps_all: false },
    Failover { replicas: BOTH, waits_for: 2, takes_over: 1, keeps_all: true },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "kills seven primaries under load"]
async fn what_a_failover_loses() {
    println!("| replicas, and how far each is behind | `WAIT` | takes over | acknowledged | lost |");
    println!("|---|---|---|---|---|");
    for failover in FAILOVERS {
        let (acknowledged, lost) = lost_by(&failover).await;
        let Failover { replicas, waits_for, takes_over, keeps_all } = failover;
        let behind: Vec<_> = replicas.iter().map(|behind| format!("{} ms", behind.as_millis())).collect();
        let wait = if waits_for == 0 { "–".to_owned() } else { waits_for.to_string() };
        let next = replicas[takes_over].as_millis();
        let (count, behind) = (replicas.len(), behind.join(", "));
        println!("| {count}: {behind} | {wait} | the one {next} ms behind | {acknowledged} | {lost} |");
        assert!(!keeps_all || lost == 0, "{lost} of {acknowledged} were lost");
    }
}

/// How many creates were acknowledged before the primary was killed, and how many of these the one that took over has not.
async fn lost_by(failover: &Failover) -> (usize, usize) {
    let (primary, port) = Server::on_a_port(&["--repl-diskless-sync-delay", "0"]);
    let mut replicas = Vec::new();
    for behind in failover.replicas {
        let port = if behind.is_zero() { port } else { delayed(port, *behind).await };
        let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {port}")]);
        replica.wait_for("Finished with success");
        replicas.push(replica);
    }
    let mut info = redis::cmd("INFO");
    info.arg("replication");
    loop {
        let told: String = redis::from_redis_value(raw(&primary, &info).await).unwrap();
        if told.matches("state=online").count() == replicas.len() {
            break;
        }
    }
    let durability = match failover.waits_for {
        0 => Durability::Primary,
        replicas => Durability::Replicas { replicas, timeout: 3 * BEHIND },
    };
    let options = RedisOptions { durability, ..options(&primary.url()) };
    let store = Arc::new(opened(&options).await);
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let (next, is_enough) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        let (next, is_enough) = (Arc::clone(&next), Arc::clone(&is_enough));
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                match store.create(new(&request(number))).await {
                    Ok(created) => assert_eq!(created, Created::New),
                    Err(_) => continue,
                }
                let mut acknowledged = acknowledged.lock().unwrap();
                acknowledged.push(number);
                if acknowledged.len() >= ACKNOWLEDGED {
                    is_enough.notify_one();
                }
            }
        });
    }
    is_enough.notified().await;
    // Dropping it kills it, while the others go on asking.
    tokio::task::spawn_blocking(move || drop(primary)).await.unwrap();
    callers.shutdown().await;

    let promoted = &replicas[failover.takes_over];
    let mut promote = redis::cmd("REPLICAOF");
    promote.arg(&["NO", "ONE"]);
    raw(promoted, &promote).await;
    let url = promoted.url().parse().unwrap();
    let there = opened(&RedisOptions { url, durability: Durability::Primary, ..options }).await;
    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
    let mut lost = 0;
    for number in &acknowledged {
        lost += usize::from(there.request(id(*number)).await.unwrap().is_none());
    }
    (acknowledged.len(), lost)
}

/// A port at which the server on this one answers so much later. What is under way when the server dies is lost.
async fn delayed(port: u16, behind: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((replica, _)) = listener.accept().await {
            let Ok(primary) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            tokio::spawn(pass_on(primary, replica, behind));
        }
    });
    at
}

async fn pass_on(primary: TcpStream, replica: TcpStream, behind: Duration) {
    let (mut from_primary, mut to_primary) = primary.into_split();
    let (mut from_replica, mut to_replica) = replica.into_split();
    let (sender, mut under_way) = tokio::sync::mpsc::unbounded_channel();
    let hear = async {
        let mut heard = vec![0; 65_536];
        while let Ok(length @ 1..) = from_primary.read(&mut heard).await {
            let _sent = sender.send((Instant::now() + behind, heard[..length].to_vec()));
        }
    };
    let tell = async {
        while let Some((at, bytes)) = under_way.recv().await {
            tokio::time::sleep_until(at).await;
            if to_replica.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = hear => {}
        () = tell => {}
        _ended = tokio::io::copy(&mut from_replica, &mut to_primary) => {}
    }
}
