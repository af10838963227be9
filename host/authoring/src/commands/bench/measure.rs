//! Makes the calls of scenarios many times over, and takes their time and fuel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_core::lifecycle::Verdict;
use countersign_policy::{Cost, Module, NotAdmitted};
use serde::{Deserialize, Serialize};

use crate::scenario::{Calls, Played};
use crate::synthetic;
use countersign_console::Progress;

/// What one module costs: the content of the file that `--save` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Figures {
    /// The version of this format.
    pub(super) version: u32,
    pub(super) module: String,
    pub(super) digest: String,
    /// The number of times each call was made.
    pub(super) calls: u32,
    pub(super) functions: BTreeMap<Function, Figure>,
}

/// A function that a module exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Function {
    Describe,
    CheckConfig,
    Admit,
    Judge,
}

/// What one function costs, over all the calls that the scenarios make to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Figure {
    pub(super) p50_us: f64,
    pub(super) p95_us: f64,
    pub(super) p99_us: f64,
    /// The fuel of each call, by the call's name.
    pub(super) fuel: BTreeMap<String, u64>,
}

impl Function {
    pub(super) fn name(self) -> &'static str {
        match self {
            Function::Describe => "describe",
            Function::CheckConfig => "check-config",
            Function::Admit => "admit",
            Function::Judge => "judge",
        }
    }
}

impl Figure {
    pub(super) fn max_fuel(&self) -> u64 {
        self.fuel.values().copied().max().unwrap_or_default()
    }
}

/// Makes each call of the scenarios `calls` times.
pub(super) fn measure(
    module: &Arc<Module>,
    scenarios: &[Played],
    calls: u32,
    progress: &Progress,
) -> Result<Figures> {
    let mut samples = Samples { calls, progress, by_function: BTreeMap::new() };
    samples.take(Function::Describe, "the module", || Ok(module.describe_again()))?;
    for played in scenarios {
        let Some(Calls { policy, admission, judged }) = &played.calls else { continue };
        let name = format!("`{}`", played.name);
        samples.take(Function::CheckConfig, &name, || {
            let faults = policy.config_faults().pop().context("there is no policy")?;
            Ok(faults.1)
        })?;
        if let Some((submission, params)) = admission {
            samples.take(Function::Admit, &name, || {
                let id = synthetic::request_id(synthetic::SUBMITTED_AT);
                let (admitted, mut costs) = policy.admit_at_cost(id, submission, params, |_| None);
                match admitted {
                    Err(NotAdmitted::Failed(failure)) => bail!("{failure}"),
                    _ => costs.pop().context("there is no policy"),
                }
            })?;
        }
        for (index, (request, event)) in judged.iter().enumerate() {
            let name = format!("{name}, event {index} ({})", event.act.name());
            samples.take(Function::Judge, &name, || {
                match policy.judge_at_cost(request, event).pop().context("there is no policy")? {
                    (Verdict::Failed(failure), _) => bail!("{failure}"),
                    (_, cost) => Ok(cost),
                }
            })?;
        }
    }
    let functions = samples.by_function.into_iter();
    Ok(Figures {
        version: 1,
        module: module.descriptor().name.clone(),
        digest: format!("sha256:{}", module.digest()),
        calls,
        functions: functions.map(|(function, sample)| (function, sample.figure())).collect(),
    })
}

struct Samples<'a> {
    calls: u32,
    progress: &'a Progress,
    by_function: BTreeMap<Function, Sample>,
}

/// The times and the fuel of one function's calls.
#[derive(Default)]
struct Sample {
    times: Vec<Duration>,
    fuel: BTreeMap<String, u64>,
}

impl Samples<'_> {
    /// Makes one call again and again, after a tenth as many to warm up.
    fn take(&mut self, function: Function, name: &str, mut call: impl FnMut() -> Result<Cost>) -> Result<()> {
        let sample = self.by_function.entry(function).or_default();
        let warm_up = self.calls / 10;
        for index in 0..self.calls + warm_up {
            self.progress.one_more();
            let cost = call().with_context(|| format!("`{}` of {name}", function.name()))?;
            if index >= warm_up {
                sample.times.push(cost.time);
            }
            let first = *sample.fuel.entry(name.to_owned()).or_insert(cost.fuel);
            ensure!(
                first == cost.fuel,
                "`{}` of {name} used {first} units of fuel, then {}",
                function.name(),
                cost.fuel
            );
        }
        Ok(())
    }
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

#[cfg(test)]
impl Figures {
    /// One call to `judge` with these figures.
    pub(super) fn example(fuel: u64, p50_us: f64, p95_us: f64) -> Figures {
        let fuel = BTreeMap::from([("`a`".to_owned(), fuel)]);
        Figures {
            version: 1,
            module: "m".to_owned(),
            digest: "sha256:00".to_owned(),
            calls: 10,
            functions: BTreeMap::from([(Function::Judge, Figure { p50_us, p95_us, p99_us: 99.0, fuel })]),
        }
    }
}
