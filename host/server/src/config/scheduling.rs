//! How often the scheduler runs.

use clap::Args;

/// How often the scheduler runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scheduler")]
pub struct Scheduling {
    /// The longest time between two runs of the scheduler, in milliseconds.
    #[arg(long = "scheduler-interval-ms", value_name = "SCHEDULER_INTERVAL_MS", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub interval_ms: u64,
}
