//! `cargo xtask simulate`: runs schedules of the simulation (docs/SIMULATION.md) in an optimised build.

use anyhow::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many schedules to run
    #[arg(long, default_value_t = 100_000)]
    schedules: u64,
    /// The seed of the first one; each further one has the next seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (schedules, seed) = (arguments.schedules.to_string(), arguments.seed.to_string());
    crate::cargo(
        &crate::root()?,
        &[
            "test",
            "--profile",
            "simulation",
            "--package",
            "countersign",
            "--lib",
            "--",
            "--exact",
            "--ignored",
            "--nocapture",
            "simulated::simulate",
        ],
        &[("COUNTERSIGN_SIMULATE_SCHEDULES", &schedules), ("COUNTERSIGN_SIMULATE_SEED", &seed)],
    )
}
