//! Fills an embedded store with audit entries and signs them, to measure what export and verify take:
//! `cargo run --release -p countersign-gateway --example audit_log -- FILE ENTRIES`. Prints the public key.
#![expect(clippy::disallowed_methods, reason = "this measures time")]

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use countersign_core::lifecycle::AuditEntry;
use countersign_gateway::audit::{AuditKeys, AuditSigner};
use countersign_store::fixtures::{at, audit, object, request_in};
use countersign_store::{AuditCursor, AuditRange, SqliteStore, Store};
use serde_json::json;

/// How many entries are stored at once.
const BATCH: u64 = 500;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("name the file")?;
    let entries: u64 = arguments.next().context("say how many entries")?.parse()?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(file.as_ref())?);
    let started = Instant::now();
    for batch in 0..entries / BATCH {
        let request = request_in(u16::try_from(batch % 16)?, batch);
        let entry = |number: u64| AuditEntry {
            at: at(batch * BATCH + number),
            detail: object(json!({
                "decision": "approved",
                "approvers": ["U0ALICE", "U0BOB"],
                "modules": { "quorum": "sha256:5e0c2b7d4b2d0f7f1c1f6a0b9d8e7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e0d" },
                "number": number,
            })),
            ..audit(&request, "approved")
        };
        store.append((0..BATCH).map(entry).collect(), vec![]).await?;
    }
    println!("stored in {:.1} s", started.elapsed().as_secs_f64());

    let keys = AuditKeys::new([&[7; 32]])?;
    let started = Instant::now();
    let signed = AuditSigner::new(Arc::clone(&store), keys, 7, None).sign(at(entries)).await?;
    println!("signed {} entries in {:.1} s", signed.checkpoint.entries(), started.elapsed().as_secs_f64());

    let request = request_in(3, entries / BATCH / 2 / 16 * 16 + 3).id;
    let hour = (at(entries / 2), at(entries / 2 + 1000));
    for range in [
        AuditRange { request: Some(request), period: None },
        AuditRange { request: None, period: Some(hour) },
    ] {
        let started = Instant::now();
        let page = store.audit_log(range, &AuditCursor::default(), 100).await?;
        println!("{} entries of {range:?} in {} µs", page.entries.len(), started.elapsed().as_micros());
    }
    let keys = AuditKeys::new([&[7; 32]])?;
    for key in keys.public(&signed.checkpoint.origin) {
        println!("{key}");
    }
    store.close().await?;
    Ok(())
}
