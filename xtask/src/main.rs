//! What people run: `cargo xtask COMMAND`. One file a command.

mod bench;
mod demo;
mod links;
mod packages;
mod policies;
mod reproducible;
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
    /// Start a Slack simulator and the gateway with the sample policies, and say what to try
    Demo(demo::Arguments),
    /// Run everything that must pass before a change lands
    Test,
    /// Do what the tutorial of docs/POLICIES.md says, in an empty folder
    Tutorial(tutorial::Arguments),
    /// Measure the gateway against its budgets
    Bench(bench::Arguments),
    /// Build the policies to WebAssembly, with a sample policy set that is pinned to their digests
    Policies(policies::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test => test::run(),
        Task::Tutorial(arguments) => tutorial::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Policies(arguments) => policies::run(&arguments),
    }
}

/// The workspace's folder.
fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.map(Path::to_owned).ok_or_else(|| anyhow::anyhow!("xtask is a folder of the workspace"))
}

/// Runs cargo in the workspace, with these variables set.
fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "`cargo {}` failed", arguments.join(" "));
    Ok(())
}

/// Runs the gateway's program as it was built last.
fn gateway(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let program = root.join("target/debug").join(format!("countersign{}", std::env::consts::EXE_SUFFIX));
    let status = Command::new(&program)
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot run `{}`", program.display()))?;
    ensure!(status.success(), "`countersign {}` ended with {status}", arguments.join(" "));
    Ok(())
}
