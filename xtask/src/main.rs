//! What people run: `cargo xtask COMMAND`. One file a command.

mod demo;
mod links;
mod policies;
mod test;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, runs and tests Countersign")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the gateway on the embedded store with the sample policies, and say what to try
    Demo(demo::Arguments),
    /// Run everything that must pass before a change lands
    Test,
    /// Build the policies to WebAssembly, with a sample policy set that is pinned to their digests
    Policies(policies::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test => test::run(),
        Command::Policies(arguments) => policies::run(&arguments),
    }
}

/// The workspace's folder.
fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.map(Path::to_owned).ok_or_else(|| anyhow::anyhow!("xtask is a folder of the workspace"))
}
