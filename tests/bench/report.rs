//! The report: what was measured, against which budget, on which machine; and what became worse since an earlier one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::machine;
use crate::sample::Sample;

/// By how much a figure must differ from that of an earlier report to be called better or worse. Runs of one program
/// differ by as much.
const NOISE: f64 = 0.1;

/// Rows, in the order in which they were measured.
pub(crate) struct Report {
    /// What measures.
    command: String,
    rows: String,
    figures: BTreeMap<String, Figure>,
}

/// A number that can be compared with that of another run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    value: f64,
    unit: &'static str,
    /// Whether more is better.
    more: bool,
}

/// A figure of which less is better.
pub(crate) fn cost(value: f64, unit: &'static str) -> Figure {
    Figure { value, unit, more: false }
}

/// A figure of which more is better.
pub(crate) fn rate(value: f64, unit: &'static str) -> Figure {
    Figure { value, unit, more: true }
}

impl Report {
    pub(crate) fn new(command: &str) -> Report {
        eprintln!("measuring; other work on this machine makes the figures worse");
        Report { command: command.to_owned(), rows: String::new(), figures: BTreeMap::new() }
    }

    /// A row with a budget, and whether it was kept.
    pub(crate) fn judged(&mut self, what: &str, budget: &str, measured: &str, kept: bool) {
        self.row(what, budget, measured, if kept { "yes" } else { "**no**" });
    }

    /// A row without a budget, for comparison.
    pub(crate) fn compared(&mut self, what: &str, measured: &str) {
        self.row(what, "", measured, "");
    }

    /// A number for [`Report::save`] and [`Report::comparison`].
    pub(crate) fn figure(&mut self, name: &str, figure: Figure) {
        self.figures.insert(name.to_owned(), figure);
    }

    /// The p50 and the p99 of a sample, as figures.
    pub(crate) fn latency(&mut self, name: &str, sample: &mut Sample) {
        for percent in [50, 99] {
            let value = sample.percentile(percent).as_secs_f64() * 1e3;
            self.figure(&format!("{name}, p{percent}"), cost(value, "ms"));
        }
    }

    /// All that [`Sample::percentiles`] shows, as figures.
    pub(crate) fn percentiles(&mut self, name: &str, sample: &mut Sample) {
        for percent in [50, 95, 99] {
            let value = sample.percentile(percent).as_secs_f64() * 1e3;
            self.figure(&format!("{name}, p{percent}"), cost(value, "ms"));
        }
    }

    fn row(&mut self, what: &str, budget: &str, measured: &str, kept: &str) {
        eprintln!("  {what}: {measured}");
        writeln!(self.rows, "| {what} | {budget} | {measured} | {kept} |")
            .expect("a String takes all that is written to it");
    }

    /// Markdown.
    pub(crate) fn text(&self) -> String {
        format!(
            "Measured by `{}` on {}.\n\n\
             | what | budget | measured | kept |\n|---|---|---|---|\n{}",
            self.command,
            machine::description(),
            self.rows
        )
    }

    /// Writes the figures to a file, as JSON.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let figures = self.figures.iter().map(|(name, figure)| {
            (
                name.clone(),
                json!({ "value": figure.value, "unit": figure.unit, "more_is_better": figure.more }),
            )
        });
        let saved = json!({ "machine": machine::description(), "figures": Value::Object(figures.collect()) });
        fs::write(file, format!("{saved:#}\n")).with_context(|| format!("cannot write `{}`", file.display()))
    }

    /// What became better and worse since the figures in a file were saved, the worst first.
    pub(crate) fn comparison(&self, file: &Path) -> Result<String> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        let saved: Value = serde_json::from_str(&text)
            .with_context(|| format!("`{}` was not written by `--save`", file.display()))?;
        let before = |name: &str| saved.get("figures")?.get(name)?.get("value")?.as_f64();
        let mut lines: Vec<(f64, String)> = Vec::new();
        for (name, figure) in &self.figures {
            let Some(before) = before(name).filter(|before| *before > 0.0) else { continue };
            let worse = if figure.more { before / figure.value } else { figure.value / before };
            let verdict = if worse > 1.0 + NOISE {
                "**worse**"
            } else if worse < 1.0 / (1.0 + NOISE) {
                "better"
            } else {
                ""
            };
            let Figure { value, unit, .. } = figure;
            let ratio = value / before;
            let line =
                format!("| {name} | {before:.2} {unit} | {value:.2} {unit} | {ratio:.2} × | {verdict} |");
            lines.push((worse, line));
        }
        lines.sort_by(|one, other| other.0.total_cmp(&one.0));
        let machine = saved.get("machine").and_then(Value::as_str).unwrap_or("an unknown machine");
        let lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
        Ok(format!(
            "Compared with what was measured on {machine}:\n\n\
             | figure | before | now | ratio | |\n|---|---|---|---|---|\n{}\n",
            lines.join("\n")
        ))
    }
}
