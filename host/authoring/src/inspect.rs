//! `countersign policy inspect`: what a module is, what it says of itself, and what it costs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::table::{cell, columns};
use super::{Answer, file, schema_text};
use countersign_core::lifecycle::Digest;
use countersign_policy::{Cost, Engine, Module, ModuleError};

/// The fewest digits of a digest that may stand for all of it.
const FEWEST_DIGITS: usize = 8;

/// A module.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The module: a file, or its digest, or the first eight digits of it or more.
    #[arg(value_name = "FILE|DIGEST")]
    module: String,
    /// The policy set whose `modules` are searched for a digest.
    #[arg(long, value_name = "DIR", default_value = ".")]
    policies: PathBuf,
    /// Words for people, JSON, or the digest alone as a policy set pins it.
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Digest,
}

pub(super) fn run(inspect: &Inspect, engine: &Engine) -> Result<Answer> {
    let (path, bytes) = find(&inspect.module, &inspect.policies, engine.limits().module_bytes)?;
    let inspection = Inspection::of(engine, &path, &bytes);
    let good = inspection.loaded.is_ok();
    let text = match inspect.format {
        Format::Text => inspection.text(),
        Format::Json => inspection.json()?,
        Format::Digest => match &inspection.loaded {
            Ok(_) => format!("sha256:{}\n", inspection.digest),
            // What cannot be loaded must not be pinned.
            Err(error) => bail!("`{}` is no policy module: {error}", path.display()),
        },
    };
    Ok(Answer { text, good })
}

/// The file that is named, or the one of the policy set that has the digest.
fn find(name: &str, policies: &Path, most: usize) -> Result<(PathBuf, Vec<u8>)> {
    let path = PathBuf::from(name);
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let looks_like_one = digits.len() <= 64
        && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
    if path.exists() || !looks_like_one {
        let bytes = file::bytes(&path, most).with_context(|| format!("cannot read `{name}`"))?;
        return Ok((path, bytes));
    }
    if digits.len() < FEWEST_DIGITS {
        bail!("`{name}` is no file, and a digest is named by its first {FEWEST_DIGITS} digits or more");
    }
    let folder = policies.join("modules");
    let listed = std::fs::read_dir(&folder);
    let listed = listed.with_context(|| format!("cannot look for `{name}` in `{}`", folder.display()))?;
    let mut found: Vec<(Digest, PathBuf, Vec<u8>)> = Vec::new();
    for entry in listed {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let bytes = file::bytes(&path, most).with_context(|| format!("cannot read `{}`", path.display()))?;
        let digest = Digest::of(&bytes);
        if digest.to_string().starts_with(digits) && found.iter().all(|(other, ..)| *other != digest) {
            found.push((digest, path, bytes));
        }
    }
    match (found.pop(), found.pop()) {
        (Some((_, path, bytes)), None) => Ok((path, bytes)),
        (None, _) => bail!("no module in `{}` has the digest `{name}`", folder.display()),
        (Some((one, ..)), Some((other, ..))) => {
            bail!("several modules in `{}` have a digest that begins so: {one}, {other}", folder.display())
        }
    }
}

/// Everything there is to say of a module.
pub(super) struct Inspection<'a> {
    path: &'a Path,
    digest: Digest,
    bytes: usize,
    compile: Duration,
    loaded: Result<(std::sync::Arc<Module>, Cost), ModuleError>,
}

impl<'a> Inspection<'a> {
    pub(super) fn of(engine: &Engine, path: &'a Path, bytes: &[u8]) -> Inspection<'a> {
        let started = now();
        let loaded = engine.load(bytes, &[]);
        let compile = started.elapsed();
        let loaded = loaded.map(|module| {
            let cost = module.describe_again();
            (module, cost)
        });
        Inspection { path, digest: Digest::of(bytes), bytes: bytes.len(), compile, loaded }
    }

    /// The same of the same bytes in another file.
    pub(super) fn at(self, path: &'a Path) -> Inspection<'a> {
        Inspection { path, ..self }
    }

    /// Whether it is a policy module.
    pub(super) fn good(&self) -> bool {
        self.loaded.is_ok()
    }

    /// File, digest, size, and whether it may be loaded: the part that a build prints, too.
    pub(super) fn summary(&self) -> String {
        let mut rows = vec![
            vec![cell("file"), cell(self.path.display().to_string())],
            vec![cell("digest"), cell(format!("sha256:{}", self.digest))],
            vec![cell("size"), cell(format!("{} bytes", self.bytes))],
        ];
        match &self.loaded {
            Ok(_) => rows.extend([
                vec![cell("imports"), cell("none")],
                vec![cell("compiles"), cell(format!("in {:.0} ms", millis(self.compile)))],
            ]),
            Err(ModuleError::Imports(imports)) => {
                rows.push(vec![cell("imports"), imports.clone()]);
            }
            Err(_) => {}
        }
        let mut text = columns(0, &rows);
        if let Err(error) = &self.loaded {
            let _ = writeln!(text, "\nit is refused: {error}");
        }
        text
    }

    fn text(&self) -> String {
        let Ok((module, cost)) = &self.loaded else { return self.summary() };
        let descriptor = module.descriptor();
        let mut text = format!("{} {}\n{}\n\n", descriptor.name, descriptor.version, descriptor.summary);
        text.push_str(&self.summary());
        let _ = writeln!(text, "describe  {} units of fuel", cost.fuel);
        let _ = writeln!(text, "\nconfiguration");
        for line in schema_text::render(&descriptor.config_schema).lines() {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "\nreasons");
        let reason = |doc: &countersign_policy::ReasonDoc| vec![cell(&doc.code), cell(&doc.help)];
        text.push_str(&columns(2, &descriptor.reasons.iter().map(reason).collect::<Vec<_>>()));
        text
    }

    fn json(&self) -> Result<String> {
        let mut view = View {
            file: self.path.display().to_string(),
            digest: format!("sha256:{}", self.digest),
            bytes: self.bytes,
            ..View::default()
        };
        match &self.loaded {
            Ok((module, cost)) => {
                let descriptor = module.descriptor();
                view.name = Some(&descriptor.name);
                view.version = Some(&descriptor.version);
                view.summary = Some(&descriptor.summary);
                view.config_schema = Some(&descriptor.config_schema);
                view.imports = Some(Vec::new());
                view.compile_ms = Some((millis(self.compile) * 10.0).round() / 10.0);
                view.describe_fuel = Some(cost.fuel);
                let reason = |doc: &'_ countersign_policy::ReasonDoc| ReasonView {
                    code: doc.code.clone(),
                    help: doc.help.clone(),
                };
                view.reasons = Some(descriptor.reasons.iter().map(reason).collect());
            }
            Err(error) => {
                view.refused = Some(error.to_string());
                if let ModuleError::Imports(imports) = error {
                    view.imports = Some(imports.clone());
                }
            }
        }
        Ok(serde_json::to_string_pretty(&view)? + "\n")
    }
}

/// What is not known of a module that is refused is left out.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'a str>,
    file: String,
    digest: String,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imports: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compile_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    describe_fuel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<ReasonView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_schema: Option<&'a Value>,
}

#[derive(Serialize)]
struct ReasonView {
    code: String,
    help: String,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::disallowed_methods, reason = "measures how long a module takes to compile; decides nothing")]
fn now() -> Instant {
    Instant::now()
}
