//! Power cuts: what was acknowledged is there afterwards, whatever of the rest the disk has kept.
//!
//! Each run works on a store, and the power is cut at several moments of it, each on a copy of the disk.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::power::{Disk, Files};
use super::{path, tamper};
use crate::sqlite::file::Database;
use crate::{Audit as _, AuditCursor, Committed, Created, Requests as _, SqliteStore, fixtures};

const RUNS: u64 = 30;

const CUTS: usize = 10;

/// An acknowledged write: the request's number and version.
type Acknowledged = Vec<(u64, u64)>;

/// What was acknowledged when the power was cut, and what was on the disk.
type Cut = (Acknowledged, Files);

/// Works on a store, with this setting of `synchronous`, and cuts the power after some of the changes on the disk, of which
/// there are about `changes`. Returns how many there were.
async fn run(seed: u64, synchronous: &str, changes: u64) -> (Vec<Cut>, u64) {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let acknowledged: Arc<Mutex<Acknowledged>> = Arc::default();
    let cuts: Arc<Mutex<Vec<Cut>>> = Arc::default();
    let moments: BTreeSet<u64> = (0..CUTS).map(|_| rng.u64(1..=changes)).collect();
    let disk = {
        let (acknowledged, cuts) = (Arc::clone(&acknowledged), Arc::clone(&cuts));
        let watch = move |files: &Files, change: u64| {
            if moments.contains(&change) {
                cuts.lock().unwrap().push((acknowledged.lock().unwrap().clone(), files.clone()));
            }
        };
        Disk::of(directory.path(), Box::new(watch))
    };
    for life in 0..2 {
        let store = Arc::new(open(&directory, synchronous));
        for round in 0..6 {
            let mut tasks = JoinSet::new();
            for task in 0..3 {
                let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
                let number = life * 100 + round * 10 + task;
                tasks.spawn(async move {
                    let request = fixtures::request(number);
                    assert_eq!(store.create(fixtures::new(&request)).await.unwrap(), Created::New);
                    acknowledged.lock().unwrap().push((number, 1));
                    let next = fixtures::next(&request, fixtures::at(1), |_| {});
                    assert_eq!(store.commit(fixtures::change(&next)).await.unwrap(), Committed::Done);
                    acknowledged.lock().unwrap().push((number, 2));
                });
            }
            if rng.u8(0..3) == 0 {
                // As the store does when the log is long.
                let mode = ["PASSIVE", "RESTART", "TRUNCATE"][rng.usize(0..3)];
                tamper(&directory, &format!("PRAGMA wal_checkpoint({mode})"));
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        }
    }
    let cuts = std::mem::take(&mut *cuts.lock().unwrap());
    (cuts, disk.changes())
}

fn open(directory: &TempDir, synchronous: &str) -> SqliteStore {
    let (database, connection) = Database::open(&path(directory)).unwrap();
    connection.pragma_update(None, "synchronous", synchronous).unwrap();
    SqliteStore::of(&path(directory), database, connection).unwrap()
}

/// Starts again after the cut; says what is missing.
async fn loss(seed: u64, (acknowledged, files): &Cut) -> Option<String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    // Nothing, everything, and any part of what was not synced.
    let kept = rng.u8(0..4) * 85;
    let directory = tempfile::tempdir().unwrap();
    let _disk = Disk::of(directory.path(), Box::new(|_, _| ()));
    files.after_power_cut(directory.path(), || rng.u8(..) < kept || kept == 255);
    let store = match SqliteStore::open(&path(&directory)) {
        Ok(store) => store,
        Err(error) => return Some(error.to_string()),
    };
    for (number, version) in acknowledged {
        match store.request(fixtures::id(*number)).await {
            Ok(Some(request)) if request.version >= *version => {}
            other => return Some(format!("request {number} at version {version}: {other:?}")),
        }
    }
    match store.audit(&AuditCursor::default(), usize::MAX).await.map(|audit| audit.entries.len()) {
        Ok(entries) if entries >= acknowledged.len() => {}
        other => return Some(format!("the audit log has {other:?} entries")),
    }
    drop(store);
    let connection = rusqlite::Connection::open(path(&directory)).unwrap();
    let sound: String = connection.query_one("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    (sound != "ok").then_some(sound)
}

/// Cuts the power again and again; returns what was lost, the number of cuts, and that of acknowledgements before them.
async fn losses(synchronous: &str, runs: u64) -> (Vec<String>, usize, usize) {
    let (_, changes) = run(0, synchronous, 1).await;
    let (mut lost, mut cuts, mut acknowledged) = (Vec::new(), 0, 0);
    for seed in 0..runs {
        let (made, _) = run(seed, synchronous, changes).await;
        for (number, cut) in made.iter().enumerate() {
            let loss = loss(seed * 100 + number as u64, cut).await;
            lost.extend(loss.map(|loss| format!("seed {seed}, cut {number}: {loss}")));
            cuts += 1;
            acknowledged += cut.0.len();
        }
    }
    (lost, cuts, acknowledged)
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let (lost, cuts, acknowledged) = losses("full", RUNS).await;
    assert_eq!(lost, Vec::<String>::new());
    assert!(
        cuts > 200 && acknowledged > 2_000,
        "{cuts} cuts, {acknowledged} acknowledged: too few to show anything"
    );
}

/// The test above can fail: without syncs acknowledged writes are lost.
#[tokio::test]
async fn without_syncs_the_same_cuts_lose_acknowledged_writes() {
    let (lost, cuts, _) = losses("off", 4).await;
    assert!(lost.len() > cuts / 4, "only {} of {cuts} cuts lost something", lost.len());
}
