//! The database in trouble: a full disk, a file with two names, a file system that cannot be written to.
//!
//! These tests mount file systems for the gateway alone. If this machine does not allow that, they say so and end.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use countersign_tests::{Ask, Call, Gateway, Home, countersign_mounted, deploy, may_mount};
use serde_json::Value;

/// The gateway's data, as the gateway sees it.
fn data(gateway: &Gateway, file: &str) -> PathBuf {
    let path = gateway.home().path("data").join(file);
    PathBuf::from(format!("/proc/{}/root{}", gateway.pid(), path.display()))
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_recovers_by_itself() {
    let Some(home) = Home::new(&deploy(1)).with_mounts("mount -t tmpfs -o size=8m tmpfs data") else {
        return;
    };
    let gateway = home.start().await;
    let mut stored = Vec::new();
    for _ in 0..20 {
        stored.push(gateway.open("deploy").await);
    }

    // Another file takes all the space.
    let filler = data(&gateway, "filler");
    let mut file =
        OpenOptions::new().create_new(true).append(true).open(&filler).expect("there is space yet");
    while file.write_all(&[0; 4096]).is_ok() {}
    let refused = loop {
        match gateway.create(&Ask::new("deploy")).await {
            Ok(receipt) => stored.push(receipt),
            Err(problem) => break problem,
        }
        assert!(stored.len() < 10_000, "the disk does not get full");
    };
    assert_eq!(refused.is(), (503, "store_full"));
    gateway.logged("database or disk is full", 1).await;
    gateway.logged("not ready: store unavailable", 1).await;
    let ready = gateway.send(&Call::get("/readyz")).await;
    assert_eq!((ready.status(), &ready.json()["storeFault"]), (503, &Value::from("full")));
    // What is there can be read.
    for receipt in &stored {
        assert_eq!(gateway.look(&receipt.token).await["status"], "ready_for_approval");
    }

    drop(file);
    std::fs::remove_file(&filler).expect("it is there");
    gateway.logged("the store can be written to again", 1).await;
    stored.push(gateway.open("deploy").await);
    for receipt in &stored {
        assert_eq!(gateway.status(&receipt.id).await["status"], "ready_for_approval");
    }
    assert_eq!(gateway.send(&Call::get("/readyz")).await.status(), 200);
}

/// A bind mount gives the file another name, as a volume of a container that is one file does.
#[tokio::test]
async fn a_second_gateway_is_refused_under_a_bind_mount_too() {
    let gateway = Home::new(&deploy(1)).start().await;
    let database = gateway.home().path("data/countersign.db");
    let mounts =
        format!("touch data/countersign.db && mount --bind '{}' data/countersign.db", database.display());
    let Some(second) = Home::new(&deploy(1)).with_mounts(&mounts) else { return };
    let failure = second.fail_to_start().await;
    assert!(failure.stderr.contains("is in use by another gateway"), "{}", failure.stderr);
    gateway.open("deploy").await;
    let _first = gateway.stop().await;
    // One after the other they may.
    let _ = second.start().await;
}

/// A snapshot, say, that is mounted without the right to write.
#[tokio::test]
async fn a_database_that_cannot_be_written_to_is_read_whole_or_not_at_all() {
    if !may_mount() {
        return;
    }
    let gateway = Home::new(&deploy(1)).start().await;
    gateway.open("deploy").await;
    let home = gateway.kill();
    let index = home.path("data/countersign.db-shm");
    // The log holds the request, and its index is gone, as in a copy of the two files.
    std::fs::remove_file(&index).expect("the gateway was killed");
    let report = replay(&home);
    assert!(report.contains("\"requests\": 1"), "{report}");
    assert!(!index.exists(), "something was written");

    // Without the log the request would be missing.
    let log = home.path("data/countersign.db-wal");
    let moved = home.path("log");
    std::fs::rename(&log, &moved).expect("the gateway was killed");
    let refused = replay(&home);
    assert!(refused.contains("is not whole") && refused.contains("countersign.db-wal"), "{refused}");
    std::fs::rename(&moved, &log).expect("it is there");

    // After a clean end nothing is missing without it.
    let home = home.start().await.stop().await;
    for file in [&log, &index] {
        let _ = std::fs::remove_file(file);
    }
    let report = replay(&home);
    assert!(report.contains("\"requests\": 1"), "{report}");
}

/// What a replay of the database prints if nothing can be written to its folder.
fn replay(home: &Home) -> String {
    let arguments =
        "policy replay --since 1d --set policies --format json --store sqlite:data/countersign.db";
    let mounts = "mount --bind data data && mount -o remount,bind,ro data";
    let output = countersign_mounted(&home.path("."), mounts, arguments.split(' '));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
