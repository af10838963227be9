//! `countersign policy test`: runs the scenarios of a file against a module, and reports those that fail.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use countersign_core::text::is_invisible;
use countersign_policy::{Engine, Module};
use serde::Serialize;

use crate::event::duration;
use crate::scenario::{self, Mismatch, Played, PlayedStep};
use crate::shown::plain;
use crate::table::{cell, columns};
use crate::{Answer, load, words};
use countersign_console::Progress;

/// Run scenario tests against a module, in the gateway's sandbox.
#[derive(Debug, Args)]
pub struct Test {
    /// The module.
    #[arg(value_name = "FILE.wasm")]
    module: PathBuf,
    /// The scenarios, in the format that docs/POLICIES.md describes.
    #[arg(value_name = "SCENARIOS.yaml")]
    scenarios: PathBuf,
    /// The output format.
    #[arg(long, default_value = "text")]
    format: Format,
}

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text and tables.
    Text,
    /// JUnit XML, for CI.
    Junit,
    /// One JSON document.
    Json,
}

pub(crate) fn run(test: &Test, engine: &Engine) -> Result<Answer> {
    let progress = Progress::start("checking the module");
    let module = load(engine, &test.module)?;
    let scenarios = scenario::read(&test.scenarios)?;
    progress.next("running scenarios");
    progress.total(scenarios.len() as u64);
    let play = |scenario| {
        let played = scenario::play(scenario, &module);
        progress.one_more();
        played
    };
    let played: Vec<Played> = scenarios.iter().map(play).collect();
    let file = test.scenarios.display().to_string();
    let report = Report { file: &file, module: &module, played: &played };
    let good = report.failed() == 0;
    match test.format {
        Format::Text => Ok(Answer::lines(&report.text(), good)),
        Format::Junit => Ok(Answer { text: report.junit(), good }),
        Format::Json => report.json(good),
    }
}

struct Report<'a> {
    file: &'a str,
    module: &'a Module,
    played: &'a [Played],
}

impl Report<'_> {
    fn failed(&self) -> usize {
        self.played.iter().filter(|played| !played.mismatches.is_empty()).count()
    }

    fn text(&self) -> String {
        let descriptor = self.module.descriptor();
        let mut text = String::new();
        let digest = self.module.digest();
        let _ =
            writeln!(text, "{} {}  sha256:{digest}\n", plain(&descriptor.name), plain(&descriptor.version));
        for played in self.played {
            if played.mismatches.is_empty() {
                let _ = writeln!(text, "ok    {}", plain(&played.name));
            } else {
                let _ = writeln!(text, "FAIL  {}\n{}", plain(&played.name), self.failure(played).trim_end());
            }
        }
        let failed = self.failed();
        let passed = words::count(self.played.len() - failed, "scenario");
        let _ = match failed {
            0 => writeln!(text, "\n{passed} passed"),
            failed => writeln!(text, "\n{passed} passed, {failed} failed"),
        };
        text
    }

    /// The events up to the failure, then what was expected and seen, side by side.
    fn failure(&self, played: &Played) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "      {}:{}", self.file, played.line);
        let row =
            |step: &PlayedStep| vec![cell(duration(step.at_ms)), cell(&step.event), cell(&step.outcome)];
        text.push_str(&columns(8, &played.steps.iter().map(row).collect::<Vec<_>>()));
        let same_event =
            |one: &Mismatch, other: &Mismatch| (one.line, &one.event) == (other.line, &other.event);
        for mismatches in played.mismatches.chunk_by(same_event) {
            if let Some(Mismatch { line, event, .. }) = mismatches.first() {
                let _ = writeln!(text, "      at {}:{line}, when {}:", self.file, plain(event));
            }
            let mut rows = vec![vec![cell(""), cell("expected"), cell("seen")]];
            rows.extend(mismatches.iter().map(|Mismatch { what, expected, seen, .. }| {
                vec![cell(*what), expected.clone(), seen.clone()]
            }));
            text.push_str(&columns(8, &rows));
        }
        text
    }

    fn json(&self, good: bool) -> Result<Answer> {
        let scenarios = self.played.iter().map(|played| ScenarioView {
            name: &played.name,
            line: played.line,
            passed: played.mismatches.is_empty(),
            steps: played.steps.iter().map(Into::into).collect(),
            mismatches: played.mismatches.iter().map(Into::into).collect(),
        });
        let view = ReportView {
            file: self.file,
            module: &self.module.descriptor().name,
            digest: format!("sha256:{}", self.module.digest()),
            passed: self.played.len() - self.failed(),
            failed: self.failed(),
            scenarios: scenarios.collect(),
        };
        Answer::json(&view, good)
    }

    fn junit(&self) -> String {
        let suite = xml(&self.module.descriptor().name);
        let (tests, failures) = (self.played.len(), self.failed());
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(text, "<testsuites tests=\"{tests}\" failures=\"{failures}\">");
        let _ = writeln!(text, "  <testsuite name=\"{suite}\" tests=\"{tests}\" failures=\"{failures}\">");
        for played in self.played {
            let (name, file) = (xml(&played.name), xml(self.file));
            let case = format!(
                "<testcase classname=\"{suite}\" name=\"{name}\" file=\"{file}\" line=\"{}\"",
                played.line
            );
            let Some(first) = played.mismatches.first() else {
                let _ = writeln!(text, "    {case}/>");
                continue;
            };
            let message = format!("expected {}, seen {}", first.expected.join("; "), first.seen.join("; "));
            let (message, failure) = (xml(&message), xml(&self.failure(played)));
            let _ = writeln!(text, "    {case}>");
            let _ =
                writeln!(text, "      <failure message=\"{message}\">{failure}</failure>\n    </testcase>");
        }
        text.push_str("  </testsuite>\n</testsuites>\n");
        text
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportView<'a> {
    file: &'a str,
    module: &'a str,
    digest: String,
    passed: usize,
    failed: usize,
    scenarios: Vec<ScenarioView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ScenarioView<'a> {
    name: &'a str,
    line: u64,
    passed: bool,
    #[serde(rename = "story")]
    steps: Vec<StepView<'a>>,
    mismatches: Vec<MismatchView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView<'a> {
    at_ms: u64,
    event: &'a str,
    outcome: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MismatchView<'a> {
    line: u64,
    event: &'a str,
    what: &'a str,
    expected: &'a [String],
    seen: &'a [String],
}

impl<'a> From<&'a PlayedStep> for StepView<'a> {
    fn from(step: &'a PlayedStep) -> StepView<'a> {
        StepView { at_ms: step.at_ms, event: &step.event, outcome: &step.outcome }
    }
}

impl<'a> From<&'a Mismatch> for MismatchView<'a> {
    fn from(mismatch: &'a Mismatch) -> MismatchView<'a> {
        let Mismatch { line, event, what, expected, seen } = mismatch;
        MismatchView { line: *line, event, what, expected, seen }
    }
}

/// Escapes text for XML, and what cannot be seen as it is, which XML may not allow.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(letter),
            letter if is_invisible(letter) => escaped.extend(letter.escape_default()),
            letter => escaped.push(letter),
        }
    }
    escaped
}
