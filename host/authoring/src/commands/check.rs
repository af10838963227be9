//! `countersign policy check`: validates a policy set as a gateway does when it loads one.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_gateway::fetch;
use countersign_policy::settings::Loading;
use countersign_policy::yaml::error::{LoadError, LoadErrors};
use countersign_policy::{ActionPolicy, Engine, Limits, PolicySet, Source, Trust};
use serde::Serialize;

use crate::people::People;
use crate::table::{cell, columns};
use crate::{Answer, Format, words};
use countersign_console::Progress;

/// Validate a policy set as a gateway does when it loads one.
#[derive(Debug, Args)]
pub struct Check {
    /// The policy set: its folder, or the `policy-set.yaml` in it.
    #[arg(value_name = "SET")]
    set: PathBuf,
    /// Exit with 1 if there are warnings, as with errors.
    #[arg(long)]
    deny_warnings: bool,
    /// The output format.
    #[arg(long, default_value = "text")]
    format: Format,
    #[command(flatten)]
    people: People,
    #[command(flatten)]
    loading: Loading,
}

impl Check {
    /// The trusted keys and limits to load the set with.
    pub(crate) fn engine(&self) -> Result<(Trust, Limits)> {
        Ok((self.loading.supply.trust()?, self.loading.limits.limits()))
    }
}

pub(crate) fn run(check: &Check, engine: &Engine) -> Result<Answer> {
    let file = Source::folder(&check.set).join("policy-set.yaml");
    ensure!(file.exists(), "there is no policy set at `{}`", file.display());
    let _progress = Progress::start("loading the policy set");
    let loaded = fetch::load(Source::folder(&check.set), engine, &check.loading.supply.registries())?;
    let directory = check.people.directory()?;
    let warnings = loaded.as_ref().map(|set| set.warnings(&directory, SystemClock.now())).unwrap_or_default();
    let denied = check.deny_warnings && !warnings.is_empty();
    let good = loaded.is_ok() && !denied;
    match (check.format, &loaded) {
        (Format::Text, Ok(set)) => Ok(Answer::lines(&valid(set, &warnings, denied), good)),
        (Format::Text, Err(errors)) => Ok(Answer::lines(&invalid(errors), good)),
        (Format::Json, loaded) => Answer::json(&View::of(loaded, warnings), good),
    }
}

fn valid(set: &PolicySet, warnings: &[String], denied: bool) -> String {
    let mut text = String::new();
    let row = |policy: &ActionPolicy| {
        let entry = policy.entry();
        let policies = words::names(entry.policies.iter().map(|used| &used.name));
        vec![cell(&entry.action), cell(policies), cell(policy.hash().to_string())]
    };
    let rows: Vec<_> = set.policies().map(|policy| row(policy)).collect();
    let tried = set.policies().filter(|policy| policy.synthetic_request().is_ok()).count();
    let tried = match tried {
        0 => "none".to_owned(),
        all if all == rows.len() => "each".to_owned(),
        some => format!("{some} of them"),
    };
    let actions = words::count(rows.len(), "action");
    let _ = writeln!(text, "sound: {actions}, {tried} tried with a synthetic request\n");
    let heading = vec![cell("action"), cell("policies"), cell("policy hash")];
    text.push_str(&columns(2, &[vec![heading], rows].concat()));
    let _ = writeln!(text, "\nhash of the set: {}", set.hash());
    for warning in warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if denied {
        let warnings = words::count(warnings.len(), "warning");
        let _ = writeln!(text, "\n{warnings} found, and `--deny-warnings` lets none pass");
    }
    text
}

fn invalid(errors: &LoadErrors) -> String {
    format!(
        "{errors}\n\n{} found; a gateway would not load this set\n",
        words::count(errors.0.len(), "error")
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    sound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    actions: Vec<ActionView<'a>>,
    warnings: Vec<String>,
    errors: Vec<ErrorView<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActionView<'a> {
    action: &'a str,
    policy_hash: String,
    policies: Vec<PolicyView<'a>>,
}

#[derive(Serialize)]
struct PolicyView<'a> {
    #[serde(rename = "use")]
    name: &'a str,
    digest: String,
}

#[derive(Serialize)]
struct ErrorView<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    message: &'a str,
}

impl<'a> View<'a> {
    fn of(loaded: &'a Result<PolicySet, LoadErrors>, warnings: Vec<String>) -> View<'a> {
        match loaded {
            Ok(set) => View {
                sound: true,
                hash: Some(set.hash().to_string()),
                actions: set.policies().map(|policy| ActionView::of(policy)).collect(),
                warnings,
                errors: Vec::new(),
            },
            Err(errors) => View {
                sound: false,
                hash: None,
                actions: Vec::new(),
                warnings: Vec::new(),
                errors: errors.0.iter().map(ErrorView::of).collect(),
            },
        }
    }
}

impl<'a> ActionView<'a> {
    fn of(policy: &'a ActionPolicy) -> ActionView<'a> {
        let entry = policy.entry();
        let policies = entry
            .policies
            .iter()
            .map(|used| PolicyView { name: &used.name, digest: format!("sha256:{}", used.digest) });
        ActionView {
            action: &entry.action,
            policy_hash: policy.hash().to_string(),
            policies: policies.collect(),
        }
    }
}

impl<'a> ErrorView<'a> {
    fn of(error: &'a LoadError) -> ErrorView<'a> {
        let (line, column) = error.place.unzip();
        ErrorView {
            file: &error.file,
            line,
            column,
            pointer: error.pointer.as_deref(),
            message: &error.message,
        }
    }
}
