//! `countersign check-config`: reports every error in the settings and in the files that they name, without starting.
//!
//! What only an open store can show, such as keys that are not its own, and folders that a start makes, are not looked at.
//! It makes no file, listens nowhere, and calls nothing but the registries that a policy set pins modules of.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use countersign_console::{Progress, note, say_text};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::directory::Directory;
use countersign_gateway::fetch;
use countersign_policy::{Engine, PolicySet, Trust};
use countersign_store::{RedisOptions, StoreUrl};

use crate::access_control::AccessControl;
use crate::build::StartError;
use crate::config::Config;
use crate::gates::Gates;
use crate::keys;
use crate::tls::{Tls, TlsFiles};

/// The exit code if something is wrong.
const WRONG: u8 = 2;

/// Prints what is wrong, or that nothing is. What is only doubtful goes to the standard error. Blocks.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let progress = Progress::start("checking the settings");
    let mut found = Found::default();
    found.sound("the settings");
    found.examine(config, true);
    drop(progress);
    for warning in config.warnings.iter().chain(&found.warnings) {
        note!("warning: {warning}");
    }
    if found.problems.is_empty() {
        say_text(format_args!("{}", found.sound));
        return ExitCode::SUCCESS;
    }
    found.problems.iter().for_each(|problem| note!("{problem}"));
    ExitCode::from(WRONG)
}

/// What else would have kept a gateway from starting that has failed with `first`. Blocks.
#[must_use]
pub fn others(config: &Config, first: &StartError) -> Vec<String> {
    let mut found = Found::default();
    // A set is checked as a whole, and the modules of a sound one may be in the store alone.
    found.examine(config, !matches!(first, StartError::Policies(_)));
    let shown = first.to_string();
    found.problems.iter().map(ToString::to_string).filter(|problem| *problem != shown).collect()
}

/// What an examination has found.
#[derive(Default)]
struct Found {
    problems: Vec<StartError>,
    warnings: Vec<String>,
    /// What is sound, a line each.
    sound: String,
    /// The people of the access file.
    directory: Directory,
}

impl Found {
    fn sound(&mut self, what: impl std::fmt::Display) {
        // A String takes all that is written to it.
        let _ = writeln!(self.sound, "sound: {what}");
    }

    fn note(&mut self, checked: Result<(), impl Into<StartError>>) {
        self.problems.extend(checked.err().map(Into::into));
    }

    /// In the order in which a start does it, so that what a start ends on comes first.
    fn examine(&mut self, config: &Config, policies: bool) {
        self.problems.extend(config.shared_files().into_iter().map(StartError::Files));
        let store = &config.storage.store;
        let secrets = config.secrets.keys().map_err(StartError::Other);
        let secrets = secrets.map_err(|error| self.problems.push(error)).ok().flatten();
        self.note(keys::preview(store, secrets.as_ref()).map_err(StartError::Secrets));
        self.note(self::store(config));
        let receipts = keys::receipts::preview(store, config.storage.receipt_keys.as_deref());
        self.note(receipts.map_err(StartError::Secrets));
        self.note(spool(config));
        // Before the policies, whose warnings depend on who is who.
        let access = config.access.file.as_deref().map(|file| self.access(file));
        let trust = config.policies.supply.trust();
        if policies {
            let trusted = trust.as_ref().map_or_else(|_| Trust::default(), Clone::clone);
            self.policies(config, trusted);
        }
        self.note(trust.map(drop));
        self.note(access.unwrap_or(Ok(())));
        let gates = self::gates(config, &mut self.warnings);
        self.note(gates);
        for (name, files) in config.tls.listeners() {
            self.tls(name, files);
        }
    }

    fn access(&mut self, file: &Path) -> Result<(), StartError> {
        let access = AccessControl::start(file)?;
        let known = access.authenticator.access();
        self.directory.set_people(Arc::clone(known.people()));
        let (callers, people) = (known.callers().count(), known.people().iter().count());
        self.sound(format_args!("the access file, with {callers} callers and {people} people"));
        Ok(())
    }

    fn policies(&mut self, config: &Config, trust: Trust) {
        let policies = &config.policies;
        if matches!(config.storage.store, StoreUrl::Redis(_)) && !policies.directory.exists() {
            self.warnings.push(format!(
                "there is no policy folder `{}`: a gateway would take the set that is in force in the store",
                policies.directory.display()
            ));
            return;
        }
        match set(config, trust) {
            Ok(set) => {
                self.warnings.extend(set.warnings(&self.directory, SystemClock.now()));
                let actions = set.policies().count();
                self.sound(format_args!(
                    "the policy set, with {actions} actions; its hash is {}",
                    set.hash()
                ));
            }
            Err(error) => self.problems.push(error),
        }
        if let Some(missing) = policies.supply.registry_auth_file.as_ref().filter(|file| !file.exists()) {
            self.warnings.push(format!("the registry password file `{}` does not exist", missing.display()));
        }
    }

    fn tls(&mut self, name: &'static str, files: TlsFiles) {
        match Tls::start(name, files) {
            Ok(_) => self.sound(format_args!("TLS of the listener for {name}")),
            Err(error) => self.problems.push(error.into()),
        }
    }
}

fn set(config: &Config, trust: Trust) -> Result<PolicySet, StartError> {
    let policies = &config.policies;
    let engine = Engine::new(policies.limits.limits(), None, trust)
        .context("cannot set up the WebAssembly sandbox")?;
    Ok(fetch::load(&policies.directory, &engine, &policies.supply.registries())??)
}

/// The gates of CI systems, with a warning for each that could be of no use.
fn gates(config: &Config, warnings: &mut Vec<String>) -> anyhow::Result<()> {
    let gates = Gates::start(config)?;
    // An access file that cannot be read is told already.
    let access = config.access.file.as_deref().and_then(|file| AccessControl::start(file).ok());
    if let Some(access) = access {
        warnings.extend(gates.doubts(&access.authenticator.access()));
    }
    Ok(())
}

/// Whether the spool folder is one, or can be made: its nearest ancestor that exists is a folder.
fn spool(config: &Config) -> anyhow::Result<()> {
    let Some(folder) = config.spool_dir() else { return Ok(()) };
    let cannot = || format!("cannot use the spool folder `{}`", folder.display());
    for found in folder.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        match found.metadata() {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => return Err(anyhow!("`{}` is no folder", found.display())).with_context(cannot),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(cannot),
        }
    }
    Ok(())
}

/// What can be seen of the store without opening it for writing.
fn store(config: &Config) -> anyhow::Result<()> {
    let configured = config.storage.redis.configured_here()?;
    let store = &config.storage.store;
    if let StoreUrl::Redis(url) = store {
        let options = configured(RedisOptions::new(url.as_ref().clone()));
        return options.check().with_context(|| format!("cannot open the store `{store}`"));
    }
    let StoreUrl::Sqlite(file) = store else { return Ok(()) };
    if file.exists() {
        let opened = store.open_archive().map(drop);
        return opened.with_context(|| format!("cannot open the store `{store}`"));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder.map(Path::metadata) {
        None => Ok(()),
        Some(Ok(folder)) if folder.is_dir() => Ok(()),
        Some(found) => {
            let why =
                found.err().map_or_else(|| "its folder is no folder".to_owned(), |error| error.to_string());
            anyhow::bail!("cannot open the store `{store}`: {why}")
        }
    }
}
