//! One rule in three engines, measured side by side: `cargo xtask bench --peers`.
//!
//! The rule: two of three people approve, whoever made the request excluded, and one of them can deny it. It is in
//! `rule/`, once for each engine, and all must give the same answers before any is timed.
//! Countersign judges in a new sandbox for each call. The others keep their engine from call to call, and isolate nothing.

mod case;

mod cedar;
mod countersign;
mod rego;

mod engine;
mod memory;
mod time;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum as _};

use engine::Engine;

/// The gateway's, for all of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "countersign-peers", about = "Measures one rule in several policy engines")]
struct Arguments {
    /// The policy `quorum` as WebAssembly
    module: PathBuf,
    /// The folder for compiled policies
    cache: PathBuf,
    /// How many calls of each engine to measure
    #[arg(long, default_value_t = 50_000)]
    calls: usize,
    /// Print only how much memory this engine takes: two numbers of bytes
    #[arg(long)]
    memory: Option<Engine>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(engine) = arguments.memory {
        return memory::print(engine, &arguments);
    }
    let mut judges = Vec::new();
    for engine in Engine::value_variants() {
        let mut judge = engine.prepare(&arguments.module, &arguments.cache)?;
        engine.check(judge.as_mut())?;
        judges.push(judge);
    }
    println!("{} engines give the same answers to {} cases", judges.len(), case::CASES.len());
    let times = time::measure(&mut judges, arguments.calls)?;
    drop(judges);

    println!(
        "\n| engine | p50 / ours | p50 | p95 | p99 | calls a second | CPU of a call | memory | of that anonymous |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut ours = None;
    for (engine, mut times) in Engine::value_variants().iter().zip(times) {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| times.percentile(percent));
        let ratio = p50 / *ours.get_or_insert(p50);
        let (rate, cpu) = (times.rate()?, times.cpu()?);
        let memory = memory::of(*engine, &arguments)?;
        println!(
            "| {} | {ratio:.2} × | {p50:.1} µs | {p95:.1} µs | {p99:.1} µs | {rate:.0} | {cpu:.1} µs | {} | {} |",
            engine.name(),
            mib(memory.resident),
            mib(memory.anonymous),
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the report has two digits")]
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
