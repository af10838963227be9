//! `countersign policy bench`: what each call of a module costs, in time and in fuel.
//!
//! The calls are those of its scenarios. Fuel is the same on every machine, so a comparison takes it exactly; time is
//! this machine's, and is compared with a tolerance, by its median and its 95th percentile. The 99th is shown and not
//! compared: on a machine that does other things, those decide on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::scenario::{self, Calls, Played, Scenario};
use super::table::{cell, columns};
use super::{Answer, Format, file, load, words};
use countersign_core::lifecycle::Verdict;
use countersign_policy::{Cost, Engine, Module, NotAdmitted};

const MAX_SAVED_BYTES: usize = 4 << 20;

/// A module to measure.
#[derive(Debug, Args)]
pub struct Bench {
    /// The module.
    #[arg(value_name = "FILE.wasm")]
    module: PathBuf,
    /// Its scenarios, whose calls are measured; a story that is made up where they are not said.
    #[arg(value_name = "SCENARIOS.yaml")]
    scenarios: Option<PathBuf>,
    /// How often each call is made.
    #[arg(long, default_value = "2000", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    calls: u32,
    /// Keep the figures in this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with figures of this module that were kept. Exits with 1 where a call uses more fuel or takes longer
    /// than before, or is not made any more.
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
    /// Lines for people, or JSON.
    #[arg(long, default_value = "text")]
    format: Format,
}

pub(super) fn run(bench: &Bench, engine: &Engine) -> Result<Answer> {
    let before = bench.compare.as_deref().map(read).transpose()?;
    let module = load(engine, &bench.module)?;
    if let (Some(figures), Some(path)) = (&before, &bench.compare) {
        let name = &module.descriptor().name;
        ensure!(
            figures.module == *name,
            "`{}` has figures of the module `{}`, and `{}` is the module `{name}`: they cannot be compared",
            path.display(),
            figures.module,
            bench.module.display()
        );
    }
    let stories = match &bench.scenarios {
        Some(path) => {
            let scenarios = scenario::read(path)?;
            let played: Vec<Played> = scenarios.iter().map(|told| scenario::play(told, &module)).collect();
            if let Some(wrong) = played.iter().find(|played| !played.mismatches.is_empty()) {
                bail!("the scenario `{}` does not hold; see `countersign policy test`", wrong.name);
            }
            played
        }
        None => vec![scenario::play(&Scenario::made_up(&module), &module)],
    };
    let figures = measure(&module, &stories, bench.calls)?;
    let comparison = before.as_ref().map(|before| compare(before, &figures, bench)).unwrap_or_default();
    if let Some(path) = &bench.save {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let text = match bench.format {
        Format::Text => text(&figures, before.as_ref(), &comparison),
        Format::Json => {
            let view = View { figures: &figures, compared: before.is_some(), comparison: &comparison };
            serde_json::to_string_pretty(&view)? + "\n"
        }
    };
    Ok(Answer { text, good: comparison.good() })
}

/// What a module was measured to cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Figures {
    /// Of the format.
    version: u32,
    module: String,
    digest: String,
    /// How often each call was made.
    calls: u32,
    /// By the function that is called.
    functions: BTreeMap<Function, Figure>,
}

/// What a module exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Function {
    Describe,
    CheckConfig,
    Admit,
    Judge,
}

/// What one function costs, over all the calls that the scenarios make of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Figure {
    p50_us: f64,
    p95_us: f64,
    p99_us: f64,
    /// The fuel of each call, by what it is.
    fuel: BTreeMap<String, u64>,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Function::Describe => "describe",
            Function::CheckConfig => "check-config",
            Function::Admit => "admit",
            Function::Judge => "judge",
        }
    }
}

impl Figure {
    fn most_fuel(&self) -> u64 {
        self.fuel.values().copied().max().unwrap_or_default()
    }
}

/// The times and the fuel of one function's calls.
#[derive(Default)]
struct Sample {
    times: Vec<Duration>,
    fuel: BTreeMap<String, u64>,
}

fn measure(module: &Arc<Module>, stories: &[Played], calls: u32) -> Result<Figures> {
    let mut samples: BTreeMap<Function, Sample> = BTreeMap::new();
    let mut each = |function: Function, what: &str, call: &mut dyn FnMut() -> Result<Cost>| -> Result<()> {
        let sample = samples.entry(function).or_default();
        // The first tenth warms up.
        for index in 0..calls + calls / 10 {
            let cost = call().with_context(|| format!("`{}` of {what}", function.name()))?;
            if index >= calls / 10 {
                sample.times.push(cost.time);
            }
            let first = *sample.fuel.entry(what.to_owned()).or_insert(cost.fuel);
            ensure!(
                first == cost.fuel,
                "`{}` of {what} used {first} units of fuel, then {}",
                function.name(),
                cost.fuel
            );
        }
        Ok(())
    };
    each(Function::Describe, "the module", &mut || Ok(module.describe_again()))?;
    for story in stories {
        let Some(Calls { policy, admission, judged }) = &story.calls else { continue };
        let what = format!("`{}`", story.name);
        each(Function::CheckConfig, &what, &mut || {
            let faults = policy.config_faults().pop().context("there is no policy")?;
            Ok(faults.1)
        })?;
        if let Some((submission, params)) = admission {
            each(Function::Admit, &what, &mut || {
                let id = super::synthetic::request_id();
                let (admitted, mut costs) = policy.admit_at_cost(id, submission, params, |_| None);
                match admitted {
                    Err(NotAdmitted::Failed(failure)) => bail!("{failure}"),
                    _ => costs.pop().context("there is no policy"),
                }
            })?;
        }
        for (index, (request, event)) in judged.iter().enumerate() {
            let what = format!("{what}, event {index} ({})", event.act.name());
            each(Function::Judge, &what, &mut || match policy
                .judge_at_cost(request, event)
                .pop()
                .context("there is no policy")?
            {
                (Verdict::Failed(failure), _) => bail!("{failure}"),
                (_, cost) => Ok(cost),
            })?;
        }
    }
    let functions = samples.into_iter().map(|(function, sample)| (function, sample.figure())).collect();
    Ok(Figures {
        version: 1,
        module: module.descriptor().name.clone(),
        digest: format!("sha256:{}", module.digest()),
        calls,
        functions,
    })
}

impl Sample {
    fn figure(mut self) -> Figure {
        self.times.sort_unstable();
        let at = |percent: usize| {
            let index = self.times.len().saturating_sub(1) * percent / 100;
            let micros = self.times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e6;
            (micros * 10.0).round() / 10.0
        };
        Figure { p50_us: at(50), p95_us: at(95), p99_us: at(99), fuel: self.fuel }
    }
}

/// What a comparison has to complain of.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Comparison {
    worse: Vec<Worse>,
    missing: Vec<Missing>,
}

impl Comparison {
    fn good(&self) -> bool {
        self.worse.is_empty() && self.missing.is_empty()
    }
}

/// A call that was measured before and is not made now, so that nothing is known of what it costs.
#[derive(Debug, PartialEq, Serialize)]
struct Missing {
    function: Function,
    call: String,
}

/// One figure that is worse than it was.
#[derive(Debug, PartialEq, Serialize)]
struct Worse {
    function: Function,
    /// `fuel of …`, `p50` or `p95`.
    figure: String,
    before: f64,
    now: f64,
}

/// Everything that is worse than before, beyond what is tolerated, and everything that cannot be told for want of a call.
fn compare(before: &Figures, now: &Figures, bench: &Bench) -> Comparison {
    let over = |before: f64, now: f64, percent: u32| now > before * (1.0 + f64::from(percent) / 100.0);
    let mut worse = Vec::new();
    for (function, figure) in &now.functions {
        let Some(earlier) = before.functions.get(function) else { continue };
        for (call, fuel) in &figure.fuel {
            let Some(used) = earlier.fuel.get(call) else { continue };
            if fuel > used && over(exact(*used), exact(*fuel), bench.fuel_tolerance) {
                let figure = format!("fuel of {call}");
                worse.push(Worse { function: *function, figure, before: exact(*used), now: exact(*fuel) });
            }
        }
        let times = [("p50", earlier.p50_us, figure.p50_us), ("p95", earlier.p95_us, figure.p95_us)];
        for (name, before, now) in times {
            if over(before, now, bench.tolerance) {
                worse.push(Worse { function: *function, figure: name.to_owned(), before, now });
            }
        }
    }
    Comparison { worse, missing: missing(before, now) }
}

/// The calls that were measured before and are not made now: a scenario that has another name takes its calls along.
fn missing(before: &Figures, now: &Figures) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (function, earlier) in &before.functions {
        let made = now.functions.get(function);
        for call in earlier.fuel.keys() {
            if !made.is_some_and(|figure| figure.fuel.contains_key(call)) {
                missing.push(Missing { function: *function, call: call.clone() });
            }
        }
    }
    missing
}

/// Fuel as it is compared and written: far below what a double holds exactly.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a call has ten million units at the most"
)]
fn exact(fuel: u64) -> f64 {
    fuel as f64
}

fn text(figures: &Figures, before: Option<&Figures>, comparison: &Comparison) -> String {
    let mut text = format!(
        "{}  {}\neach call made {} times, in a fresh sandbox\n\n",
        figures.module, figures.digest, figures.calls
    );
    let mut heading = vec!["call", "p50 µs", "p95 µs", "p99 µs", "most fuel"];
    if before.is_some() {
        heading.extend(["p50 before", "p95 before", "fuel before"]);
    }
    let mut rows = vec![heading.into_iter().map(cell).collect::<Vec<_>>()];
    for (function, figure) in &figures.functions {
        let Figure { p50_us, p95_us, p99_us, .. } = figure;
        let mut row = vec![
            cell(function.name()),
            cell(format!("{p50_us:.1}")),
            cell(format!("{p95_us:.1}")),
            cell(format!("{p99_us:.1}")),
            cell(figure.most_fuel().to_string()),
        ];
        if let Some(before) = before.and_then(|before| before.functions.get(function)) {
            row.push(cell(format!("{:.1}", before.p50_us)));
            row.push(cell(format!("{:.1}", before.p95_us)));
            row.push(cell(before.most_fuel().to_string()));
        }
        rows.push(row);
    }
    text.push_str(&columns(2, &rows));
    if let Some(before) = before {
        let (fewer, compared) = fuel_below(before, figures);
        let _ = writeln!(
            text,
            "\nof {} measured before, {compared} could be compared, and {fewer} of those used less fuel",
            words::count(compared + comparison.missing.len(), "call")
        );
    }
    if !figures.functions.contains_key(&Function::Judge) {
        text.push_str("\nno request could be made up: give it scenarios to measure the other calls\n");
    }
    for Worse { function, figure, before, now } in &comparison.worse {
        let _ = writeln!(text, "WORSE    {}: {figure} was {before}, and is {now}", function.name());
    }
    for Missing { function, call } in &comparison.missing {
        let _ =
            writeln!(text, "MISSING  {}: {call} was measured before, and is not made now", function.name());
    }
    text
}

/// How many calls use less fuel than before, of how many that were made then, too.
fn fuel_below(before: &Figures, now: &Figures) -> (usize, usize) {
    let pairs = now.functions.iter().flat_map(|(function, figure)| {
        let earlier = before.functions.get(function);
        figure.fuel.iter().filter_map(move |(call, fuel)| Some((earlier?.fuel.get(call)?, fuel)))
    });
    let pairs: Vec<_> = pairs.collect();
    (pairs.iter().filter(|(before, now)| now < before).count(), pairs.len())
}

fn read(path: &Path) -> Result<Figures> {
    let shown = path.display();
    let text = file::text(path, MAX_SAVED_BYTES).with_context(|| format!("cannot read `{shown}`"))?;
    let figures: Figures =
        serde_json::from_str(&text).with_context(|| format!("`{shown}` has no figures of `--save`"))?;
    ensure!(figures.version == 1, "`{shown}` is of version {}, and only 1 is known", figures.version);
    Ok(figures)
}

#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    figures: &'a Figures,
    compared: bool,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(fuel: u64, p50_us: f64, p95_us: f64) -> Figures {
        let figure =
            Figure { p50_us, p95_us, p99_us: 99.0, fuel: BTreeMap::from([("`a`".to_owned(), fuel)]) };
        Figures {
            version: 1,
            module: "m".to_owned(),
            digest: "sha256:00".to_owned(),
            calls: 10,
            functions: BTreeMap::from([(Function::Judge, figure)]),
        }
    }

    #[test]
    fn fuel_is_compared_exactly_and_time_with_a_tolerance() {
        let bench = |tolerance, fuel_tolerance| Bench {
            module: PathBuf::new(),
            scenarios: None,
            calls: 10,
            save: None,
            compare: None,
            tolerance,
            fuel_tolerance,
            format: Format::Text,
        };
        let before = figures(1000, 10.0, 20.0);
        for (now, bench, worse) in [
            (figures(1000, 10.0, 20.0), bench(0, 0), &[][..]),
            (figures(1001, 10.0, 20.0), bench(50, 0), &["fuel of `a`"]),
            (figures(1001, 10.0, 20.0), bench(50, 1), &[]),
            (figures(999, 15.0, 30.0), bench(50, 0), &[]),
            (figures(999, 15.1, 30.1), bench(50, 0), &["p50", "p95"]),
        ] {
            let comparison = compare(&before, &now, &bench);
            let found: Vec<&str> = comparison.worse.iter().map(|worse| worse.figure.as_str()).collect();
            assert_eq!(found, worse, "{now:?}");
            assert_eq!(comparison.good(), worse.is_empty(), "{now:?}");
        }
        let none = Figures { functions: BTreeMap::new(), ..figures(1, 1.0, 1.0) };
        // What is new has nothing to be compared with; what is gone might be worse.
        assert!(compare(&none, &before, &bench(0, 0)).good());
        let gone = compare(&before, &none, &bench(10_000, 10_000));
        assert_eq!(gone.missing, [Missing { function: Function::Judge, call: "`a`".to_owned() }]);
        assert!(!gone.good());
    }

    #[test]
    fn what_is_shown() {
        let (before, now) = (figures(1000, 10.0, 20.0), figures(1200, 8.0, 41.5));
        let comparison = Comparison {
            worse: vec![
                Worse {
                    function: Function::Judge,
                    figure: "fuel of `a`".to_owned(),
                    before: 1000.0,
                    now: 1200.0,
                },
                Worse { function: Function::Judge, figure: "p95".to_owned(), before: 20.0, now: 41.5 },
            ],
            missing: vec![Missing { function: Function::Admit, call: "`b`".to_owned() }],
        };
        insta::assert_snapshot!(text(&now, Some(&before), &comparison), @"
    m  sha256:00
    each call made 10 times, in a fresh sandbox

      call   p50 µs  p95 µs  p99 µs  most fuel  p50 before  p95 before  fuel before
      judge  8.0     41.5    99.0    1200       10.0        20.0        1000

    of 2 calls measured before, 1 could be compared, and 0 of those used less fuel
    WORSE    judge: fuel of `a` was 1000, and is 1200
    WORSE    judge: p95 was 20, and is 41.5
    MISSING  admit: `b` was measured before, and is not made now
    ");
    }
}
