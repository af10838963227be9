//! `cargo xtask bench`: measures the gateway against its budgets, with the program as it is shipped, and prints a report.
//!
//! The example `judge_latency` measures what one judgement costs inside the gateway, and `receipt_latency` receipts. The program
//! `bench` of the tests' crate measures what callers see of a gateway that runs as in production.
//!
//! With `--peers` a third one measures instead: `tests/peers`, which compares a judgement with those of other policy
//! engines. It is a workspace of its own, so that nothing else builds or downloads those.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Pins};
use crate::step::step;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run each measurement briefly: the figures are rough
    #[arg(long)]
    quick: bool,
    /// Also write the figures of what callers see to this file, for `--compare`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Say what became better and worse since the figures in this file were saved
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Measure creates of the service at this address in turns with the gateway's
    #[arg(long, value_name = "HOST:PORT")]
    beside: Option<String>,
    /// Measure instead what one judgement costs in regorus and in Cedar, in turns with the gateway's
    #[arg(long, conflicts_with_all = ["save", "compare", "beside"])]
    peers: bool,
    /// Measure instead what one gateway, and three, reach over a Redis that is started for it
    #[arg(long, conflicts_with_all = ["beside", "peers"])]
    redis: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = crate::root()?;
    step("policies to WebAssembly", || policies::build(&root.join("target/policies"), true, Pins::Report))?;
    if arguments.peers {
        return peers(&root, arguments.quick);
    }
    build(&root)?;

    let mut flags: Vec<&str> = Vec::new();
    if arguments.redis {
        flags.extend(["--only", "redis"]);
    } else {
        inside(&root, arguments.quick)?;
    }
    if arguments.quick {
        flags.push("--quick");
    }
    for (flag, file) in [("--save", &arguments.save), ("--compare", &arguments.compare)] {
        if let Some(file) = file {
            flags.extend([flag, file.to_str().context("the file name is not UTF-8")?]);
        }
    }
    if let Some(address) = &arguments.beside {
        flags.extend(["--beside", address]);
    }
    run_program(&root, "target/release/bench", &flags, &[])
}

/// The program as it is shipped, and what drives it.
pub(crate) fn build(root: &Path) -> Result<()> {
    step("the program as it is shipped", || {
        crate::cargo(root, &["build", "--profile", "dist", "--package", "countersign"], &[])
    })?;
    step("what drives it", || {
        let package = ["--package", "countersign-tests", "--bin", "bench"];
        crate::cargo(root, &[&["build", "--release"], &package[..]].concat(), &[])
    })
}

/// What is measured inside the gateway.
fn inside(root: &Path, quick: bool) -> Result<()> {
    step("what measures inside the gateway", || {
        let packages = ["--package", "countersign-policy", "--package", "countersign-gateway"];
        let examples = ["--example", "judge_latency", "--example", "receipt_latency"];
        crate::cargo(root, &[&["build", "--release"], &packages[..], &examples[..]].concat(), &[])
    })?;
    println!("\none judgement, in a fresh sandbox for each policy");
    let calls = if quick { "2000" } else { "20000" };
    run_program(root, "target/release/examples/judge_latency", &["target/policies", calls], &[])?;
    println!("\nreceipts; a verification is to take less than 1 ms");
    run_program(root, "target/release/examples/receipt_latency", &[calls], &[])?;
    println!();
    Ok(())
}

fn peers(root: &Path, quick: bool) -> Result<()> {
    step("release build, with the other engines", || {
        let target = ["--manifest-path", "tests/peers/Cargo.toml", "--target-dir", "target/peers"];
        crate::cargo(root, &[&["build", "--release"], &target[..]].concat(), &[])
    })?;
    println!("\none judgement in each engine, in turns; other work on this machine makes the figures worse");
    let files = ["target/policies/modules/quorum.wasm", "target/peers/compiled"];
    let calls = if quick { "5000" } else { "50000" };
    let flags = ["--calls", calls];
    run_program(root, "target/peers/release/countersign-peers", &[files, flags].concat(), &[])
}

/// Runs a program that measures, with these variables.
pub(crate) fn run_program(
    root: &Path,
    program: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<()> {
    let path = root.join(format!("{program}{}", std::env::consts::EXE_SUFFIX));
    let status = Command::new(&path)
        .args(arguments)
        .current_dir(root)
        .envs(variables.iter().copied())
        .env("COUNTERSIGN_BIN", root.join(format!("target/dist/countersign{}", std::env::consts::EXE_SUFFIX)))
        .status()
        .with_context(|| format!("cannot start `{}`", path.display()))?;
    ensure!(status.success(), "`{program}` ended with {status}");
    Ok(())
}
