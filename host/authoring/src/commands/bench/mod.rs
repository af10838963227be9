//! `countersign policy bench`: measures the time and fuel that each call of a module uses.
//!
//! The calls are those that its scenarios make.

mod compare;
mod measure;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use countersign_policy::{Engine, Module};

use self::compare::{Tolerance, compare};
use self::measure::{Figures, measure};
use crate::scenario::{self, Played, Scenario};
use crate::{Answer, Format, file, load};
use countersign_console::Progress;

const MAX_SAVED_BYTES: usize = 4 << 20;

/// Measure the time and fuel that each function of a module uses.
#[derive(Debug, Args)]
pub struct Bench {
    /// The module.
    #[arg(value_name = "FILE.wasm")]
    module: PathBuf,
    /// The scenarios whose calls are measured [default: one synthetic scenario].
    #[arg(value_name = "SCENARIOS.yaml")]
    scenarios: Option<PathBuf>,
    /// The number of times each call is made.
    #[arg(long, default_value = "2000", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    calls: u32,
    /// Save the figures to this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with figures that were saved for this module. Exits with 1 if a call uses more fuel or takes longer
    /// than before, or is no longer made.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// How much longer a call may take than before, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "50", requires = "compare")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    tolerance: u32,
    /// How much more fuel a call may use than before, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "0", requires = "compare")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    fuel_tolerance: u32,
    /// The output format.
    #[arg(long, default_value = "text")]
    format: Format,
}

pub(crate) fn run(bench: &Bench, engine: &Engine) -> Result<Answer> {
    let before = bench.compare.as_deref().map(read).transpose()?;
    let progress = Progress::start("checking the module");
    let module = load(engine, &bench.module)?;
    if let (Some(figures), Some(path)) = (&before, &bench.compare) {
        ensure_same_module(figures, path, &module, &bench.module)?;
    }
    let played = match &bench.scenarios {
        Some(path) => {
            let scenarios = scenario::read(path)?;
            let played: Vec<Played> =
                scenarios.iter().map(|scenario| scenario::play(scenario, &module)).collect();
            if let Some(failed) = played.iter().find(|played| !played.mismatches.is_empty()) {
                bail!("the scenario `{}` fails; see `countersign policy test`", failed.name);
            }
            played
        }
        None => vec![scenario::play(&Scenario::synthetic(&module), &module)],
    };
    progress.next("measuring calls");
    let figures = measure(&module, &played, bench.calls, &progress)?;
    let tolerance = Tolerance { time_percent: bench.tolerance, fuel_percent: bench.fuel_tolerance };
    let comparison = before.as_ref().map(|before| compare(before, &figures, tolerance)).unwrap_or_default();
    if let Some(path) = &bench.save {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    match bench.format {
        Format::Text => {
            Ok(Answer::lines(&report::text(&figures, before.as_ref(), &comparison), comparison.good()))
        }
        Format::Json => report::json(&figures, before.is_some(), &comparison),
    }
}

fn ensure_same_module(figures: &Figures, saved: &Path, module: &Module, file: &Path) -> Result<()> {
    let name = &module.descriptor().name;
    ensure!(
        figures.module == *name,
        "`{}` has figures of the module `{}`, but `{}` is the module `{name}`: they cannot be compared",
        saved.display(),
        figures.module,
        file.display()
    );
    Ok(())
}

/// Reads the figures that `--save` wrote.
fn read(path: &Path) -> Result<Figures> {
    let shown = path.display();
    let text = file::text(path, MAX_SAVED_BYTES).with_context(|| format!("cannot read `{shown}`"))?;
    let figures: Figures = serde_json::from_str(&text)
        .with_context(|| format!("`{shown}` is not a file that `--save` wrote"))?;
    ensure!(figures.version == 1, "`{shown}` has version {}; only version 1 is supported", figures.version);
    Ok(figures)
}
