//! `countersign policy import`: converts the YAML and the schemas of the legacy Node.js service into a policy set that
//! behaves the same, and reports what could not be carried over.
//!
//! Nothing is written unless the result loads as a valid policy set.

mod guards;
mod note;
mod schema;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use countersign_policy::yaml::document;
use countersign_policy::yaml::error::Errors;
use countersign_policy::{Engine, Kept, Module, PolicySet, Source};

use self::guards::Guards;
use self::note::Note;
use crate::shown::plain;
use crate::{Answer, words};
use countersign_console::{Progress, note};

/// Convert the YAML of the legacy Node.js service into an equivalent policy set.
#[derive(Debug, Args)]
pub struct Import {
    /// The legacy service's `guards.yml`.
    #[arg(value_name = "FILE")]
    pub guards: PathBuf,
    /// The folder with its schemas, one `ACTION.json` for each action that has one.
    #[arg(long, value_name = "DIR")]
    pub schemas: Option<PathBuf>,
    /// The folder with the policy modules, as `cargo xtask policies` writes them.
    #[arg(long, value_name = "DIR")]
    pub modules: PathBuf,
    /// The folder to write the policy set to, which must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The number of parameters that an approver may edit: `OVERRIDE_MAX_KEYS` of the legacy service.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub override_max_keys: Option<u32>,
    /// The total length of the edited values: `OVERRIDE_MAX_CHARS` of the legacy service.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub override_max_chars: Option<u32>,
}

/// How much an approver may edit. The legacy service read this from its environment.
#[derive(Clone, Copy, Debug, Default)]
struct OverrideLimits {
    keys: Option<u32>,
    chars: Option<u32>,
}

/// Imports a file, and prints notes to the standard error.
///
/// # Errors
/// If a file is invalid or unreadable, a module is missing, or the result does not load. Then nothing was written.
pub(crate) fn run(import: &Import, engine: &Engine) -> Result<Answer> {
    let Imported { set, notes } = import_set(import, engine)?;
    for note in &notes {
        note!("{}", plain(&note.message(&import.guards)));
    }
    let path = import.out.join("policy-set.yaml");
    let actions = words::count(set.actions().len(), "action");
    let text = format!("{}: {actions}, sha256:{}\n", path.display(), set.hash());
    Ok(Answer::lines(&text, true))
}

struct Imported {
    set: PolicySet,
    notes: Vec<Note>,
}

fn import_set(import: &Import, engine: &Engine) -> Result<Imported> {
    ensure!(is_free(&import.out)?, "`{}` is not empty: choose another folder", import.out.display());
    let shown = import.guards.display().to_string();
    let text = fs::read_to_string(&import.guards).with_context(|| format!("cannot read `{shown}`"))?;
    let guards = read(&shown, &text)?;

    let mut notes = Vec::new();
    let schemas = schemas(import, &guards, &mut notes)?;
    let limits = OverrideLimits { keys: import.override_max_keys, chars: import.override_max_chars };
    let body = write::body(&guards, limits, &mut notes);
    notes.sort_by_key(Note::position);

    let _progress = Progress::start("loading the converted policy set");
    let modules = modules(engine, &import.modules, &body.modules)?;
    let name = import.guards.file_name().unwrap_or_default().display().to_string();
    let source = Source {
        name: import.out.join("policy-set.yaml").display().to_string(),
        text: write::document(&name, &notes, &modules, &body),
        modules: modules.iter().map(|(name, module)| (file(name), module.bytes().to_vec())).collect(),
        schemas,
        signatures: Vec::new(),
        unfetched: BTreeMap::new(),
        kept: Kept::InFolder,
        manifest: None,
    };
    let set = PolicySet::build(&source, engine)
        .map_err(anyhow::Error::new)
        .context("the converted policy set does not load, so nothing was written")?;
    store(&import.out, &source)?;
    Ok(Imported { set, notes })
}

/// Reads `guards.yml`; every error has its place.
fn read(name: &str, text: &str) -> Result<Guards> {
    let mut errors = Errors::about(name);
    let guards = match document::parse(text) {
        Ok(document) => guards::read(&document, &mut errors),
        Err((place, message)) => {
            errors.add(place, message);
            None
        }
    };
    errors.into_result()?;
    guards.with_context(|| format!("`{name}` is empty"))
}

fn is_free(folder: &Path) -> Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot list `{}`", folder.display())),
    }
}

/// The converted schemas: action, file name and content.
fn schemas(
    import: &Import,
    guards: &Guards,
    notes: &mut Vec<Note>,
) -> Result<Vec<(String, String, Vec<u8>)>> {
    let Some(folder) = &import.schemas else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let mut schemas = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().display().to_string();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Some(action) = guards.actions.iter().find(|action| action.name == stem) else {
            notes.push(Note::of_file(
                &name,
                format!("there is no action `{stem}`, so this schema is dropped"),
            ));
            continue;
        };
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let schema = schema::convert(&name, &bytes, action, notes)
            .with_context(|| format!("the schema `{}`", path.display()))?;
        let text = serde_json::to_string_pretty(&schema)? + "\n";
        schemas.push((stem.to_owned(), name, text.into_bytes()));
    }
    Ok(schemas)
}

/// Loads the modules in `folder` that have one of these names.
fn modules(
    engine: &Engine,
    folder: &Path,
    names: &BTreeSet<&'static str>,
) -> Result<BTreeMap<&'static str, Arc<Module>>> {
    let mut modules: BTreeMap<&'static str, Arc<Module>> = BTreeMap::new();
    let mut refused = String::new();
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    paths.sort();
    for path in paths {
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let module = match engine.load(&bytes, &[]) {
            Ok(module) => module,
            Err(error) => {
                // Reported only if a module is missing.
                refused.push_str(&format!("; `{}` is refused: {error}", path.display()));
                continue;
            }
        };
        let Some(name) = names.iter().find(|name| **name == module.descriptor().name) else { continue };
        match modules.get(name) {
            Some(other) if other.digest() != module.digest() => {
                bail!("two modules in `{}` have the name `{name}`: remove one", folder.display())
            }
            _ => drop(modules.insert(name, module)),
        }
    }
    for name in names {
        ensure!(
            modules.contains_key(name),
            "no module in `{}` has the name `{name}`: build it with `cargo xtask policies`{refused}",
            folder.display()
        );
    }
    Ok(modules)
}

/// Writes the files, `policy-set.yaml` last, so that a gateway watching the folder finds the modules it names.
fn store(out: &Path, source: &Source) -> Result<()> {
    let write = |path: &Path, bytes: &[u8]| -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        }
        fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
    };
    for (file, bytes) in &source.modules {
        write(&out.join("modules").join(file), bytes)?;
    }
    for (_, file, bytes) in &source.schemas {
        write(&out.join("schemas").join(file), bytes)?;
    }
    write(&out.join("policy-set.yaml"), source.text.as_bytes())
}

fn file(module: &str) -> String {
    format!("{module}.wasm")
}

#[cfg(test)]
mod tests;
