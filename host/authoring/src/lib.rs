//! `countersign policy`: for people who write policies, from an empty folder to a module that is in force.
//!
//! One file a command. What judges here is what judges in the gateway: the same engine, with the same limits, and the
//! same combination rule. Nothing here talks to a gateway that runs.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod bench;
mod build;
mod check;
mod event;
mod file;
mod import;
mod inspect;
mod judge;
mod keygen;
mod lock;
mod new;
mod pack;
mod push;
mod replay;
mod scenario;
mod schema_text;
mod sdk;
mod sign;
mod synthetic;
mod table;
mod test;
mod words;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};

use self::import::Import;
use self::replay::Replay;
use countersign_policy::{Engine, Limits, Module, Trust};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Make the crate of a new policy, which works as it is.
    New(new::New),
    /// Replace a crate's policy SDK with the one of this version.
    Sdk(sdk::Sdk),
    /// Build a policy's module, and prove that it imports nothing.
    Build(build::Build),
    /// Say what a module is, what it says of itself, and what it costs.
    Inspect(inspect::Inspect),
    /// Check a policy set as a gateway would that loads it.
    Check(check::Check),
    /// Make a key to sign with.
    Keygen(keygen::Keygen),
    /// Print a policy set's folder as the one document that the admin API takes.
    Pack(pack::Pack),
    /// Vouch for a module, or for a policy set.
    Sign(sign::Sign),
    /// Tell scenarios to a module, in the gateway's sandbox.
    Test(test::Test),
    /// Measure what each call of a module costs, in time and in fuel.
    Bench(bench::Bench),
    /// Make up a request and its history, and say what a policy set makes of it.
    Judge(judge::Judge),
    /// Push a module to a registry, and say how to pin it there.
    Push(push::Push),
    /// Judge recorded requests again, under another policy set, and say what would have become of them.
    Replay(Replay),
    /// Turn the YAML of the Node.js service into a policy set that behaves the same.
    Import(Import),
}

impl Policy {
    /// Whether it loads a policy set as a gateway would, with the gateway's settings.
    #[must_use]
    pub fn loads_a_set(&self) -> bool {
        matches!(self, Policy::Check(_) | Policy::Sign(_) | Policy::Judge(_) | Policy::Replay(_))
    }
}

/// How a command says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Words and tables for people.
    Text,
    /// One JSON document.
    Json,
}

/// What a command has to say.
struct Answer {
    text: String,
    /// Whether everything is as it should be.
    good: bool,
}

/// Does it. Exits with 1 where something is not as it should be, and with 2 where that cannot be told.
#[must_use]
pub fn run(policy: &Policy) -> ExitCode {
    match answer(policy, engine) {
        Ok(Answer { text, good }) => {
            // Whoever does not want to know has closed the standard output.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::from(u8::from(!good))
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// What a command has to say; those that run modules ask for the `engine`.
fn answer(policy: &Policy, engine: impl FnOnce((Trust, Limits)) -> Result<Engine>) -> Result<Answer> {
    // Who may vouch for a module, and what it may use, is asked where a set uses it.
    let anybody = (Trust::default(), Limits::default());
    match policy {
        Policy::New(new) => new::run(new),
        Policy::Sdk(sdk) => sdk::run(sdk),
        Policy::Build(build) => build::run(build, &engine(anybody)?),
        Policy::Inspect(inspect) => inspect::run(inspect, &engine(anybody)?),
        Policy::Check(check) => check::run(check, &engine(check.engine()?)?),
        Policy::Keygen(keygen) => keygen::run(keygen),
        Policy::Pack(pack) => pack::run(pack),
        Policy::Sign(sign) => sign::run(sign, &engine(sign.engine()?)?),
        Policy::Test(test) => test::run(test, &engine(anybody)?),
        Policy::Bench(bench) => bench::run(bench, &engine(anybody)?),
        Policy::Judge(judge) => judge::run(judge, &engine(judge.engine()?)?),
        Policy::Push(push) => push::run(push, &engine(anybody)?),
        Policy::Replay(replay) => {
            let (text, good) = replay::run(replay, &engine(replay.engine()?)?)?;
            Ok(Answer { text, good })
        }
        Policy::Import(import) => Ok(Answer { text: import::run(import, &engine(anybody)?)?, good: true }),
    }
}

/// The gateway's sandbox, but for the deadline: how busy this machine is says nothing of a policy, and fuel ends what
/// would run on.
fn engine((trust, limits): (Trust, Limits)) -> Result<Engine> {
    let limits = Limits { deadline_ms: 10_000, concurrent_calls: 2, ..limits };
    Ok(Engine::new(limits, None, trust)?)
}

/// The module in a file.
fn load(engine: &Engine, path: &Path) -> Result<Arc<Module>> {
    let name = path.display();
    let bytes = file::bytes(path, engine.limits().module_bytes)
        .with_context(|| format!("cannot read the module `{name}`"))?;
    engine.load(&bytes, &[]).with_context(|| format!("`{name}` is no policy module"))
}
