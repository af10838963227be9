//! `cargo xtask redis`: what is tested with a store in Redis, beyond what every test run does.
//!
//! The store's contract in a Cluster, failovers of Sentinels and of a Cluster under load, what a failover loses, every
//! end-to-end story that is not about the embedded store, and outages that last.

use std::path::Path;

use anyhow::Result;

use crate::step::{Stopwatch, step};
use crate::{built, cargo, checks, end_to_end, packages};

/// What callers and people do, from the first request to the decision.
const SPINE: [&str; 15] = [
    "single_approver::",
    "quorum::",
    "personas::",
    "denial::",
    "cancellation::",
    "withdrawal::",
    "expiry::",
    "wake_up::",
    "rerequest::",
    "idempotency::",
    "overrides::",
    "redaction::",
    "streams::",
    "simultaneous_clicks::",
    "usage::",
];

/// The stories that are told on Redis besides.
const STORIES: [&str; 19] = [
    "asking::",
    "hooks::",
    "mcp::",
    "bad_weather::",
    "slack::",
    "restart::",
    "shutdown::",
    "receipts::a_library_of_another_language_agrees",
    "receipts::a_receipt_is_checked_offline",
    "access::",
    "admins::",
    "rate_limit::",
    "signatures::",
    "hidden_values::",
    "bad_input::",
    "tokens::",
    "tls::",
    "misbehaving_policies::",
    "webhooks::",
];

/// The tests of the store that start many servers.
const STORE: [&str; 5] = ["test", "--package", "countersign-store", "--", "--ignored"];

/// The one that prints a table.
const LOSSES: &str = "losses::";

pub(crate) fn run() -> Result<()> {
    let watch = Stopwatch::start();
    let root = crate::root()?;
    step("the programs that the tests start", packages::ensure)?;
    step("the contract in a Cluster, and failovers", || {
        cargo(&root, &[STORE.as_slice(), &["--skip", LOSSES]].concat(), &[])
    })?;
    step("what a failover loses", || {
        cargo(&root, &[STORE.as_slice(), &["--nocapture", LOSSES]].concat(), &[])
    })?;
    step("the gateway and its tools", || cargo(&root, &["build", "--workspace", "--exclude", "xtask"], &[]))?;
    step("end-to-end tests on Redis", || on_redis(&root, &[SPINE.as_slice(), &STORIES].concat(), &[]))?;
    let lasting = [("COUNTERSIGN_OUTAGE_SEC", "30")];
    step("outages of 30 seconds", || on_redis(&root, &["outages::", "--test-threads", "1"], &lasting))?;
    println!("\neverything passed in {}", watch.elapsed());
    checks::passed(&root, "redis")
}

/// The end-to-end tests of the spine, on Redis. The gateway must have been built.
pub(crate) fn spine(root: &Path) -> Result<()> {
    on_redis(root, &SPINE, &[])
}

fn on_redis(root: &Path, stories: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let variables = [&[("COUNTERSIGN_TEST_STORE", "redis")], variables].concat();
    end_to_end(root, &built(root, "countersign"), stories, &variables)
}
