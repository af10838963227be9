//! Measures the real gateway against its budgets, over HTTP, on this machine: `cargo xtask bench`.
//!
//! The load comes from one thread, which shares the machine with the gateway as callers on the same host would.
//! What a judgement costs inside the gateway is measured by its own example `judge_latency`.

mod creates;

mod clicks;

mod open_requests;

mod idle_streams;

mod starts;

mod swaps;

mod machine;
mod report;
mod sample;
mod setup;

use std::path::PathBuf;

use clap::Parser;

use report::Report;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures the gateway against its budgets")]
struct Arguments {
    /// Short runs, to see that it works; the figures are rough
    #[arg(long)]
    quick: bool,
    /// Also write the report to this file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let quick = arguments.quick;
    let mut report = Report::new(quick);
    creates::measure(&mut report, quick).await?;
    clicks::measure(&mut report, quick).await?;
    open_requests::measure(&mut report, quick).await?;
    idle_streams::measure(&mut report, quick).await?;
    starts::measure(&mut report, quick).await;
    swaps::measure(&mut report, quick).await?;
    let text = report.text();
    print!("{text}");
    if let Some(file) = arguments.save {
        std::fs::write(file, text)?;
    }
    Ok(())
}
