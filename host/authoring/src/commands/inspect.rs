//! `countersign policy inspect`: shows a module's metadata, configuration schema, reason codes and size.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use countersign_core::lifecycle::Digest;
use countersign_policy::{Cost, Engine, Module, ModuleError, ReasonDoc};
use serde::Serialize;
use serde_json::Value;

use crate::shown::plain;
use crate::table::{cell, columns};
use crate::{Answer, file};
use countersign_console::Progress;

/// The minimum length of a digest's prefix that names a module.
const MIN_DIGITS: usize = 8;

/// Show a module's metadata, configuration schema, reason codes and size.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The module: a file, its digest, or at least the first eight digits of its digest.
    #[arg(value_name = "FILE|DIGEST")]
    module: String,
    /// The policy set whose folder `modules` is searched for a digest.
    #[arg(long, value_name = "DIR", default_value = ".")]
    policies: PathBuf,
    /// The output format.
    #[arg(long, default_value = "text")]
    format: Format,
}

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text and tables.
    Text,
    /// One JSON document.
    Json,
    /// The digest alone, as a policy set pins it.
    Digest,
}

pub(crate) fn run(inspect: &Inspect, engine: &Engine) -> Result<Answer> {
    let (path, bytes) = find(&inspect.module, &inspect.policies, engine.limits().module_bytes)?;
    let _progress = Progress::start("checking the module");
    let inspection = Inspection::of(engine, &path, &bytes);
    let good = inspection.loaded.is_ok();
    match inspect.format {
        Format::Text => Ok(Answer::lines(&inspection.text(), good)),
        Format::Json => inspection.json(good),
        Format::Digest => match &inspection.loaded {
            Ok(_) => Ok(Answer::lines(&format!("sha256:{}\n", inspection.digest), good)),
            // A module that cannot be loaded must not be pinned.
            Err(error) => bail!("`{}` is not a policy module: {error}", path.display()),
        },
    }
}

/// Reads the file of this name, or the policy set's module with this digest.
fn find(name: &str, policies: &Path, limit: usize) -> Result<(PathBuf, Vec<u8>)> {
    let path = PathBuf::from(name);
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let is_digest = digits.len() <= 64
        && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
    if path.exists() || !is_digest {
        let bytes = file::bytes(&path, limit).with_context(|| format!("cannot read `{name}`"))?;
        return Ok((path, bytes));
    }
    if digits.len() < MIN_DIGITS {
        bail!("`{name}` is not a file, and a digest needs at least {MIN_DIGITS} digits");
    }
    let folder = policies.join("modules");
    let listed = std::fs::read_dir(&folder);
    let listed = listed.with_context(|| format!("cannot search `{}` for `{name}`", folder.display()))?;
    let mut found: Vec<(Digest, PathBuf, Vec<u8>)> = Vec::new();
    for entry in listed {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let bytes = file::bytes(&path, limit).with_context(|| format!("cannot read `{}`", path.display()))?;
        let digest = Digest::of(&bytes);
        if digest.to_string().starts_with(digits) && found.iter().all(|(other, ..)| *other != digest) {
            found.push((digest, path, bytes));
        }
    }
    match (found.pop(), found.pop()) {
        (Some((_, path, bytes)), None) => Ok((path, bytes)),
        (None, _) => bail!("no module in `{}` has the digest `{name}`", folder.display()),
        (Some((one, ..)), Some((other, ..))) => {
            bail!(
                "the digests of several modules in `{}` start with `{name}`: {one}, {other}",
                folder.display()
            )
        }
    }
}

/// A module that was loaded or refused, with its size and the time it took to compile.
pub(super) struct Inspection<'a> {
    path: &'a Path,
    digest: Digest,
    bytes: usize,
    compile: Duration,
    loaded: Result<(Arc<Module>, Cost), ModuleError>,
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

    /// The same module at another path.
    pub(super) fn at(self, path: &'a Path) -> Inspection<'a> {
        Inspection { path, ..self }
    }

    /// Whether the module can be loaded.
    pub(super) fn good(&self) -> bool {
        self.loaded.is_ok()
    }

    /// File, digest, size, and why the module is refused, if it is. `policy build` prints this part too.
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
            let _ = writeln!(text, "\nrefused: {}", plain(&error.to_string()));
        }
        text
    }

    fn text(&self) -> String {
        let Ok((module, cost)) = &self.loaded else { return self.summary() };
        let descriptor = module.descriptor();
        let mut text = format!(
            "{} {}\n{}\n\n",
            plain(&descriptor.name),
            plain(&descriptor.version),
            plain(&descriptor.summary)
        );
        text.push_str(&self.summary());
        let _ = writeln!(text, "describe  {} units of fuel", cost.fuel);
        let _ = writeln!(text, "\nconfiguration schema");
        for line in format!("{:#}", without_header(&descriptor.config_schema)).lines() {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "\nreasons");
        let reason = |doc: &ReasonDoc| vec![cell(&doc.code), cell(&doc.help)];
        text.push_str(&columns(2, &descriptor.reasons.iter().map(reason).collect::<Vec<_>>()));
        text
    }

    fn json(&self, good: bool) -> Result<Answer> {
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
                let reason = |doc: &ReasonDoc| ReasonView { code: doc.code.clone(), help: doc.help.clone() };
                view.reasons = Some(descriptor.reasons.iter().map(reason).collect());
            }
            Err(error) => {
                view.refused = Some(error.to_string());
                if let ModuleError::Imports(imports) = error {
                    view.imports = Some(imports.clone());
                }
            }
        }
        Answer::json(&view, good)
    }
}

/// Without the fields that are unknown for a refused module.
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

/// A schema without the keywords that say nothing about a configuration.
fn without_header(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(keywords) = schema.as_object_mut() {
        keywords.retain(|keyword, _| !matches!(keyword.as_str(), "$schema" | "$id" | "title"));
    }
    schema
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::disallowed_methods, reason = "measures how long a module takes to compile; decides nothing")]
fn now() -> Instant {
    Instant::now()
}
