//! `cargo xtask load`: 200 requests open at once and 50 event streams, on either store, with the program as it is shipped.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::policies::{self, Pins};
use crate::step::step;
use crate::{bench, packages};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The seed of the times after which requests are decided
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many requests each of the 200 callers makes
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Also write the figures to a folder, as sqlite.json and redis.json
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = crate::root()?;
    step("the programs that this starts", packages::ensure)?;
    step("policies to WebAssembly", || policies::build(&root.join("target/policies"), true, Pins::Report))?;
    bench::build(&root)?;
    let (seed, rounds) = (arguments.seed.to_string(), arguments.rounds.to_string());
    for store in ["sqlite", "redis"] {
        let file = arguments.save.as_ref().map(|folder| folder.join(format!("{store}.json")));
        let mut words = vec!["--load", "--seed", &seed, "--rounds", &rounds];
        if let Some(file) = &file {
            words.extend(["--save", file.to_str().context("the folder's name is not UTF-8")?]);
        }
        println!();
        bench::run_program(&root, "target/release/bench", &words, &[("COUNTERSIGN_TEST_STORE", store)])?;
    }
    Ok(())
}
