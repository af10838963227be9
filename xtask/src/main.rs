//! What people run: `cargo xtask COMMAND`. One file for each command.

mod arm64;
mod bench;
mod checks;
mod coverage;
mod demo;
mod deployment;
mod fuzz;
mod image;
mod links;
mod load;
mod mcp;
mod packages;
mod policies;
mod redis;
mod release;
mod reproducible;
mod schemathesis;
mod simulate;
mod step;
mod test;
mod tutorial;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, runs and tests Countersign")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a Slack simulator and the gateway with the sample policies, and print what to try
    Demo(demo::Arguments),
    /// Run everything that must pass before a change lands
    Test,
    /// Run the tutorials of docs/POLICIES.md, PIPELINES.md and AGENTS.md, each in a folder of its own
    Tutorial(tutorial::Arguments),
    /// Measure the gateway against its budgets
    Bench(bench::Arguments),
    /// Measure creation, decision and delivery with many requests and streams at once, on either store
    Load(load::Arguments),
    /// Lint, render and check all that deploys the gateway
    Deployment,
    /// Build the image from Debian packages and these sources, start it and ask it
    Image(image::Arguments),
    /// Build the gateway for arm64, and start and ask it in an emulator
    Arm64,
    /// Measure how much of each crate the unit, contract and end-to-end tests run
    Coverage,
    /// Send a gateway what its OpenAPI document allows and forbids
    Schemathesis,
    /// Make the tag of a release
    Release(release::Arguments),
    /// Have the official client of MCP wait 90 seconds for a decision, on pipes and by HTTP
    Mcp,
    /// Test with a store in Redis: the contract in a Cluster, failovers, and the end-to-end tests
    Redis,
    /// Run the simulation: random schedules of requests, presses, failures and crashes, each from a seed
    Simulate(simulate::Arguments),
    /// Run the fuzz targets: whatever comes from outside, nothing breaks
    Fuzz(fuzz::Arguments),
    /// Build the policies to WebAssembly, with a sample policy set that pins their digests
    Policies(policies::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test => test::run(),
        Task::Tutorial(arguments) => tutorial::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Load(arguments) => load::run(&arguments),
        Task::Deployment => deployment::run(),
        Task::Image(arguments) => image::run(&arguments),
        Task::Arm64 => arm64::run(),
        Task::Coverage => coverage::run(),
        Task::Schemathesis => schemathesis::run(),
        Task::Release(arguments) => release::run(&arguments),
        Task::Mcp => mcp::run(),
        Task::Redis => redis::run(),
        Task::Simulate(arguments) => simulate::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Policies(arguments) => policies::run(&arguments),
    }
}

/// The workspace's folder.
fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.map(Path::to_owned).ok_or_else(|| anyhow::anyhow!("xtask is a folder of the workspace"))
}

/// Runs cargo in the workspace, with these variables set. What it builds goes to `target/`, where the documents and the
/// tests look for it.
fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .envs(environment.iter().copied())
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "`cargo {}` failed", arguments.join(" "));
    Ok(())
}

/// How many tests of one program run at a time, if `RUST_TEST_THREADS` does not say so: end-to-end tests wait for other
/// programs, clocks and disks most of the time.
#[expect(clippy::disallowed_methods, reason = "it is a setting of the tests")]
fn test_threads() -> String {
    std::env::var("RUST_TEST_THREADS").unwrap_or_else(|_| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (3 * cores).to_string()
    })
}

/// A program of the workspace, in the debug build.
fn built(root: &Path, program: &str) -> PathBuf {
    root.join("target/debug").join(format!("{program}{}", std::env::consts::EXE_SUFFIX))
}

/// Runs the end-to-end tests whose names have one of these in them, and without any all, with this program as the gateway.
fn end_to_end(
    root: &Path,
    gateway: &Path,
    stories: &[&str],
    variables: &[(&str, &str)],
) -> anyhow::Result<()> {
    let gateway = gateway.to_str().context("the program's path is not UTF-8")?;
    // Of the whole workspace, which has been built with the features that its tests need; one package alone has fewer.
    let words = [&["test", "--workspace", "--test", "e2e", "--"], stories].concat();
    let threads = test_threads();
    let ours = [("COUNTERSIGN_BIN", gateway), ("RUST_TEST_THREADS", &threads)];
    cargo(root, &words, &[ours.as_slice(), variables].concat())
}

/// Runs the gateway's program as it was built last.
fn gateway(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let program = built(root, "countersign");
    let status = Command::new(&program)
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot run `{}`", program.display()))?;
    ensure!(status.success(), "`countersign {}` ended with {status}", arguments.join(" "));
    Ok(())
}
