//! `countersign policy`: the tools for policy authors, from creating a crate to signing and replaying a policy set.
//!
//! Modules run in the gateway's own engine, with the gateway's limits and combination rule.
//! Nothing here talks to a running gateway.

// They panic if nobody reads: `host/console` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod commands;
mod judge;

mod event;
mod scenario;
mod synthetic;

mod file;
mod people;
mod redis_settings;
mod shown;
mod store_address;
mod table;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use countersign_console::{note, say_text};
use countersign_policy::{Engine, Limits, Module, Trust};
use serde::Serialize;

pub use self::redis_settings::Redis;
pub use self::store_address::StoreAddress;

use self::commands::{
    bench, build, check, diff, import, inspect, keygen, new, pack, push, replay, sdk, sign, test,
};

/// The subcommands of `countersign policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Create the crate of a new policy that builds and passes its tests.
    New(new::New),
    /// Replace the policy SDK in a crate with the one of this version.
    Sdk(sdk::Sdk),
    /// Build a policy's module and verify that it imports nothing.
    Build(build::Build),
    /// Show a module's metadata, configuration schema, reason codes and size.
    Inspect(inspect::Inspect),
    /// Validate a policy set as a gateway does when it loads one.
    Check(check::Check),
    /// Say what another policy set changes for people, action by action.
    Diff(diff::Diff),
    /// Generate a key pair for signing.
    Keygen(keygen::Keygen),
    /// Print a policy set's folder as the JSON document that the admin API takes.
    Pack(pack::Pack),
    /// Sign a module or a policy set.
    Sign(sign::Sign),
    /// Run scenario tests against a module, in the gateway's sandbox.
    Test(test::Test),
    /// Measure the time and fuel that each function of a module uses.
    Bench(bench::Bench),
    /// Evaluate a synthetic request and its history under a policy set.
    Judge(judge::Judge),
    /// Push a module to an OCI registry and print the line that pins it.
    Push(push::Push),
    /// Evaluate recorded requests under another policy set and report which outcomes change.
    Replay(replay::Replay),
    /// Convert the YAML of the legacy Node.js service into an equivalent policy set.
    Import(import::Import),
}

impl Policy {
    /// Takes what the command needs from the environment, and returns what is wrong there, one sentence each.
    pub fn read_variables(&mut self, environment: &BTreeMap<String, String>) -> Vec<String> {
        match self {
            Policy::Diff(diff) => diff.read_variables(environment),
            Policy::Replay(replay) => replay.read_variables(environment),
            _ => Vec::new(),
        }
    }

    /// Whether the command loads a policy set with the gateway's settings.
    #[must_use]
    pub fn loads_a_set(&self) -> bool {
        matches!(
            self,
            Policy::Check(_) | Policy::Diff(_) | Policy::Sign(_) | Policy::Judge(_) | Policy::Replay(_)
        )
    }
}

/// The output format of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text and tables.
    Text,
    /// One JSON document.
    Json,
}

/// The output of a command that ran.
struct Answer {
    /// What is printed as it is.
    text: String,
    /// Whether the command found nothing wrong. Decides between the exit codes 0 and 1.
    good: bool,
}

impl Answer {
    /// An answer in lines for people.
    fn lines(report: &str, good: bool) -> Answer {
        Answer { text: shown::lines(report), good }
    }

    /// An answer in one JSON document.
    fn json(document: &impl Serialize, good: bool) -> Result<Answer> {
        Ok(Answer { text: shown::json(document)?, good })
    }
}

/// Runs a command and prints its output.
/// Exits with 1 if the command found something wrong, and with 2 if it could not run.
#[must_use]
pub fn run(policy: &Policy) -> ExitCode {
    match answer(policy, engine) {
        Ok(Answer { text, good }) => {
            say_text(format_args!("{text}"));
            ExitCode::from(u8::from(!good))
        }
        Err(error) => {
            note!("{}", shown::lines(&format!("{error:#}")));
            ExitCode::from(2)
        }
    }
}

/// Runs a command. `engine` is called only by commands that run modules; tests pass one that is shared.
fn answer(policy: &Policy, engine: impl FnOnce((Trust, Limits)) -> Result<Engine>) -> Result<Answer> {
    // Commands for a single module accept any signer: signatures and limits are checked by the set that uses it.
    let unrestricted = (Trust::default(), Limits::default());
    match policy {
        Policy::New(new) => new::run(new),
        Policy::Sdk(sdk) => sdk::run(sdk),
        Policy::Build(build) => build::run(build, &engine(unrestricted)?),
        Policy::Inspect(inspect) => inspect::run(inspect, &engine(unrestricted)?),
        Policy::Check(check) => check::run(check, &engine(check.engine()?)?),
        Policy::Diff(diff) => diff::run(diff, &engine(diff.engine()?)?),
        Policy::Keygen(keygen) => keygen::run(keygen),
        Policy::Pack(pack) => pack::run(pack),
        Policy::Sign(sign) => sign::run(sign, &engine(sign.engine()?)?),
        Policy::Test(test) => test::run(test, &engine(unrestricted)?),
        Policy::Bench(bench) => bench::run(bench, &engine(unrestricted)?),
        Policy::Judge(judge) => judge::run(judge, &engine(judge.engine()?)?),
        Policy::Push(push) => push::run(push, &engine(unrestricted)?),
        Policy::Replay(replay) => replay::run(replay, &engine(replay.engine()?)?),
        Policy::Import(import) => import::run(import, &engine(unrestricted)?),
    }
}

/// The gateway's sandbox, except for the deadline: it depends on this machine's load, and fuel ends an endless call.
fn engine((trust, limits): (Trust, Limits)) -> Result<Engine> {
    let limits = Limits { deadline_ms: 10_000, concurrent_calls: 2, ..limits };
    Ok(Engine::new(limits, None, trust)?.naming_unlisted_codes())
}

/// Loads the module in a file.
fn load(engine: &Engine, path: &Path) -> Result<Arc<Module>> {
    let name = path.display();
    let bytes = file::bytes(path, engine.limits().module_bytes)
        .with_context(|| format!("cannot read the module `{name}`"))?;
    engine.load(&bytes, &[]).with_context(|| format!("`{name}` is not a policy module"))
}
