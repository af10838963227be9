//! How long it takes to make a receipt, and to check one.
//!
//! `cargo run --release -p countersign-gateway --example receipt_latency [-- CALLS]`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use countersign_core::lifecycle::Timestamp;
use countersign_gateway::receipts::{ReceiptKeys, SigningKey, verify};
use countersign_store::fixtures;

fn main() -> anyhow::Result<()> {
    let calls: usize = std::env::args().nth(1).map_or(Ok(20_000), |calls| calls.parse())?;
    let key = SigningKey::new(Timestamp::EPOCH, &[1; 32])?;
    let keys = ReceiptKeys::new(vec![key], Vec::new()).context("no key")?;
    let (published, entry) = (keys.published(), fixtures::policy_entry("deploy"));
    let decided = fixtures::next(&fixtures::request(1), fixtures::at(5), |request| {
        request.state = fixtures::approved(fixtures::at(5));
    });
    let receipt = keys.receipt(&decided, &entry).context("it has ended")?;
    println!("a receipt of {} bytes", receipt.len());
    measure("make", calls, || keys.receipt(&decided, &entry).is_some_and(|made| made == receipt))?;
    measure("verify", calls, || verify(&receipt, &published).is_ok())
}

fn measure(what: &str, calls: usize, call: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut times = Vec::with_capacity(calls);
    for number in 0..calls + calls / 10 {
        let started = now();
        let is_good = call();
        let time = started.elapsed();
        ensure!(is_good, "{what} failed");
        // The first tenth warms up.
        if number >= calls / 10 {
            times.push(time);
        }
    }
    times.sort();
    let micros = |per_mille: usize| {
        let time = times.get(times.len().saturating_sub(1) * per_mille / 1000).copied();
        time.unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
    };
    println!("{what:<16} p50 {:>6.1}  p95 {:>6.1}  p99 {:>6.1} µs", micros(500), micros(950), micros(990));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn now() -> Instant {
    Instant::now()
}
