//! Measures the real gateway against its budgets, over HTTP, on this machine: `cargo xtask bench`.
//!
//! The load comes from one thread, which shares the machine with the gateway as callers on the same host would.
//! What a judgement costs inside the gateway is measured by its own example `judge_latency`.

mod creates;

mod clicks;

mod open_requests;

mod idle_streams;

mod retention;

mod starts;

mod swaps;

mod redis;

mod load;

mod machine;
mod report;
mod sample;
mod setup;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use report::Report;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures the gateway against its budgets")]
struct Arguments {
    /// Run each measurement briefly: the figures are rough
    #[arg(long)]
    quick: bool,
    /// Also write the figures to this file, for `--compare`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Say what became better and worse since the figures in this file were saved
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Measure creates of the service at this address in turns with the gateway's: one with the same call
    #[arg(long, value_name = "HOST:PORT")]
    beside: Option<SocketAddr>,
    /// Measure only this; may be repeated
    #[arg(long, value_name = "WHAT", value_enum)]
    only: Vec<What>,
    /// Measure instead how it holds with many requests and streams at once
    #[arg(long, conflicts_with_all = ["quick", "compare", "beside", "only"])]
    load: bool,
    /// The seed of the times after which requests are decided
    #[arg(long, default_value_t = 1, requires = "load")]
    seed: u64,
    /// How many requests each caller makes
    #[arg(long, default_value_t = 10, requires = "load")]
    rounds: usize,
}

/// What is measured, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Creates,
    Clicks,
    OpenRequests,
    IdleStreams,
    Retention,
    Starts,
    Swaps,
    /// Over a Redis that is started for it; not measured unless it is asked for
    Redis,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let quick = arguments.quick;
    if arguments.load {
        let mut report =
            Report::new(&format!("cargo xtask load --seed {} --rounds {}", arguments.seed, arguments.rounds));
        load::measure(&mut report, arguments.seed, arguments.rounds).await?;
        print!("{}", report.text());
        return arguments.save.map_or(Ok(()), |file| report.save(&file));
    }
    let mut report = Report::new(if quick { "cargo xtask bench --quick" } else { "cargo xtask bench" });
    for what in What::value_variants() {
        let wanted = match arguments.only.as_slice() {
            [] => *what != What::Redis,
            only => only.contains(what),
        };
        if !wanted {
            continue;
        }
        match what {
            What::Creates => creates::measure(&mut report, quick, arguments.beside).await?,
            What::Clicks => clicks::measure(&mut report, quick).await?,
            What::OpenRequests => open_requests::measure(&mut report, quick).await?,
            What::IdleStreams => idle_streams::measure(&mut report, quick).await?,
            What::Retention => retention::measure(&mut report, quick).await?,
            What::Starts => starts::measure(&mut report, quick).await,
            What::Swaps => swaps::measure(&mut report, quick).await?,
            What::Redis => redis::measure(&mut report, quick).await?,
        }
    }
    let text = report.text();
    print!("{text}");
    if let Some(file) = arguments.compare {
        println!("\n{}", report.comparison(&file)?);
    }
    if let Some(file) = arguments.save {
        report.save(&file)?;
    }
    Ok(())
}
