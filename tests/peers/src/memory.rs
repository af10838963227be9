//! What a prepared engine takes of memory, measured in a process of its own, so that none shares what another has.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;

use crate::Arguments;
use crate::case::TIMED;
use crate::engine::Engine;

/// Calls before the memory is looked at, so that what an engine keeps from call to call is there.
const CALLS: usize = 100;

/// By how many bytes the memory of a process grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// What is resident, with the code that was read from the program's file.
    pub(crate) resident: u64,
    /// What of that is no file's.
    pub(crate) anonymous: u64,
}

/// Starts this program once more to prepare an engine alone.
pub(crate) fn of(engine: Engine, arguments: &Arguments) -> Result<Growth> {
    let name = engine.to_possible_value().context("the engine has no name")?;
    let output = Command::new(std::env::current_exe()?)
        .args([&arguments.module, &arguments.cache])
        .args(["--memory", name.get_name()])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout)?;
    let (resident, anonymous) = output.trim().split_once(' ').context("two numbers were expected")?;
    Ok(Growth { resident: resident.parse()?, anonymous: anonymous.parse()? })
}

/// Prepares an engine, and prints by how much that made this process grow.
pub(crate) fn print(engine: Engine, arguments: &Arguments) -> Result<()> {
    let before = Growth::since_start()?;
    let mut judge = engine.prepare(&arguments.module, &arguments.cache)?;
    judge.take(TIMED)?;
    for _ in 0..CALLS {
        judge.judge()?;
    }
    let after = Growth::since_start()?;
    let resident = after.resident.saturating_sub(before.resident);
    println!("{resident} {}", after.anonymous.saturating_sub(before.anonymous));
    Ok(())
}

impl Growth {
    fn since_start() -> Result<Growth> {
        let status = fs::read_to_string("/proc/self/status")?;
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("the process has no {field}"))
        };
        Ok(Growth { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
    }
}
