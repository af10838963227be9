//! What people run: `cargo xtask COMMAND`. One file a command.

mod policies;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, runs and tests Countersign")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the policies to WebAssembly, with a sample policy set that is pinned to their digests
    Policies(policies::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Policies(arguments) => policies::run(&arguments),
    }
}
