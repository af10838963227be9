//! `cargo xtask bench`: measures the gateway against its budgets, in release builds, and prints the report.
//!
//! Two programs measure: the example `judge_latency` what a judgement costs inside the gateway, and `bench` of the
//! tests' crate what callers see of a gateway that runs as it would in production.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Pins};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Short runs, to see that it works; the figures are rough
    #[arg(long)]
    quick: bool,
    /// Also write the report of what callers see to this file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = crate::root()?;
    println!("building; a release build takes some minutes");
    policies::build(&root.join("target/policies"), true, Pins::Tell)?;
    let packages =
        ["--package", "countersign", "--package", "countersign-policy", "--package", "countersign-tests"];
    let what = ["build", "--release", "--bins", "--example", "judge_latency"];
    crate::cargo(&root, &[&what[..], &packages[..]].concat(), &[])?;

    println!("\none judgement, in a fresh sandbox for each policy");
    let calls = if arguments.quick { "2000" } else { "20000" };
    run_program(&root, "target/release/examples/judge_latency", &["target/policies", calls])?;
    println!();

    let mut flags: Vec<&str> = Vec::new();
    if arguments.quick {
        flags.push("--quick");
    }
    let save = arguments.save.as_deref().map(|file| file.to_str().context("the file's name is not UTF-8"));
    if let Some(file) = save.transpose()? {
        flags.extend(["--save", file]);
    }
    run_program(&root, "target/release/bench", &flags)
}

fn run_program(root: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let path = root.join(format!("{program}{}", std::env::consts::EXE_SUFFIX));
    let status = Command::new(&path)
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start `{}`", path.display()))?;
    ensure!(status.success(), "`{program}` ended with {status}");
    Ok(())
}
