//! `countersign check-config`: reports every error in the settings and in the files that they name, without starting.
//!
//! What only an open store can show, such as keys that are not its own, is not looked at. It makes no file, listens nowhere,
//! and calls nothing but the registries that a policy set pins modules of.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use countersign_access::Access;
use countersign_console::{Progress, note, say_text};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::directory::Directory;
use countersign_gateway::fetch;
use countersign_policy::{Engine, PolicySet, Trust};
use countersign_store::{RedisOptions, StoreUrl};

use crate::access_control::{self, AccessControl};
use crate::build::StartError;
use crate::config::Config;
use crate::gates::Gates;
use crate::keys;
use crate::tls::{Tls, TlsFiles};
use crate::writable;

/// The exit code if something is wrong.
const WRONG: u8 = 2;

/// Prints what is wrong, or that nothing is. What is only doubtful goes to the standard error. Blocks.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let progress = Progress::start("checking the settings");
    let mut found = Found::default();
    found.sound("the settings");
    found.examine(config, true);
    found.places(config);
    drop(progress);
    let cautions = config.cautions();
    let warnings = config.warnings.iter().chain(&found.warnings).map(String::as_str);
    for warning in warnings.chain(cautions) {
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
        self.problems.extend(config.wrong_files().into_iter().map(StartError::Files));
        let store = &config.storage.store;
        let secrets = config.secrets.keys().map_err(StartError::Other);
        let secrets = secrets.map_err(|error| self.problems.push(error)).ok().flatten();
        self.note(keys::preview(store, secrets.as_ref()).map_err(StartError::Secrets));
        self.note(self::store(config));
        let receipts = keys::receipts::preview(store, config.storage.receipt_keys.as_deref());
        self.note(receipts.map_err(StartError::Secrets));
        self.note(spool(config));
        // Before the policies, whose warnings depend on who is who.
        let access = config.access.file.as_deref().map(|file| self.access(file)).transpose();
        let trust = config.policies.supply.trust();
        let set = policies.then(|| {
            let trusted = trust.as_ref().map_or_else(|_| Trust::default(), Clone::clone);
            self.policies(config, trusted)
        });
        if let Ok(Some(access)) = &access {
            self.warnings.extend(access_control::warnings(access, set.flatten().as_ref(), SystemClock.now()));
        }
        self.note(trust.map(drop));
        self.note(access.map(drop));
        let gates = self::gates(config, &mut self.warnings);
        self.note(gates);
        for (name, files) in config.tls.listeners() {
            self.tls(name, files);
        }
    }

    /// What a gateway starts without, and then cannot write.
    fn places(&mut self, config: &Config) {
        let files = [
            ("audit file", config.audit.audit_file.clone()),
            ("file of audit checkpoints", config.audit.checkpoint_file()),
            ("archive of requests", config.retention.archive_file.clone()),
        ];
        for (what, file) in files.into_iter().filter_map(|(what, file)| Some((what, file?))) {
            let cannot = || format!("cannot write the {what} `{}`", file.display());
            self.note(writable::file(&file).with_context(cannot));
        }
        if let Some(folder) = config.cache_dir()
            && let Err(error) = writable::folder(&folder)
        {
            // It costs time at each start, and nothing else.
            let shown = folder.display();
            self.warnings.push(format!("compiled modules cannot be kept in `{shown}`: {error:#}"));
        }
    }

    fn access(&mut self, file: &Path) -> Result<Arc<Access>, StartError> {
        let access = AccessControl::start(file)?;
        let known = access.authenticator.access();
        self.directory.set_people(Arc::clone(known.people()));
        let (callers, people) = (known.callers().count(), known.people().iter().count());
        self.sound(format_args!("the access file, with {callers} callers and {people} people"));
        Ok(known)
    }

    fn policies(&mut self, config: &Config, trust: Trust) -> Option<PolicySet> {
        let policies = &config.policies;
        if matches!(config.storage.store, StoreUrl::Redis(_)) && !policies.directory.exists() {
            self.warnings.push(format!(
                "there is no policy folder `{}`: a gateway would take the set that is in force in the store",
                policies.directory.display()
            ));
            return None;
        }
        let set = set(config, trust).map_err(|error| self.problems.push(error)).ok();
        if let Some(set) = &set {
            self.warnings.extend(set.warnings(&self.directory, SystemClock.now()));
            let actions = set.policies().count();
            self.sound(format_args!("the policy set, with {actions} actions; its hash is {}", set.hash()));
        }
        if let Some(missing) = policies.supply.registry_auth_file.as_ref().filter(|file| !file.exists()) {
            self.warnings.push(format!("the registry password file `{}` does not exist", missing.display()));
        }
        set
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

/// Whether the spool folder can be written to, or be made.
fn spool(config: &Config) -> anyhow::Result<()> {
    let Some(folder) = config.spool_dir() else { return Ok(()) };
    writable::folder(&folder).with_context(|| format!("cannot use the spool folder `{}`", folder.display()))
}

/// What can be seen of the store without opening it for writing.
fn store(config: &Config) -> anyhow::Result<()> {
    let configured = config.storage.redis.configured_here()?;
    let store = &config.storage.store;
    let cannot = || format!("cannot open the store `{store}`");
    match store {
        StoreUrl::Redis(url) => {
            let options = configured(RedisOptions::new(url.as_ref().clone()));
            options.check().with_context(cannot)
        }
        StoreUrl::Sqlite(file) => {
            if file.exists() {
                store.open_archive().map(drop).with_context(cannot)?;
            }
            writable::file(file).with_context(cannot)
        }
        StoreUrl::Memory => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::Environment;

    /// What is said of settings: what is wrong, and what is warned of.
    fn examined(variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let environment: Environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cli = Cli::read(["countersign", "check-config", "--policies", "/nowhere"], &environment).unwrap();
        let Command::CheckConfig(config) = cli.command else { panic!("{cli:?}") };
        let mut found = Found::default();
        found.examine(&config, false);
        found.places(&config);
        let warnings = config.cautions().into_iter().map(str::to_owned).chain(found.warnings).collect();
        (found.problems.iter().map(ToString::to_string).collect(), warnings)
    }

    /// In a place of the name of a file nobody can make anything, not even root.
    #[test]
    fn places_that_cannot_be_written_to_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let store = |name: &str| format!("sqlite:{}", at(name));
        assert_eq!(examined(&[("COUNTERSIGN_STORE", &store("db"))]).0, [""; 0]);
        std::fs::write(at("file"), "").unwrap();
        let (wrong, warnings) = examined(&[
            ("COUNTERSIGN_STORE", &store("none/db")),
            ("COUNTERSIGN_RECEIPT_KEYS", &at("receipts")),
            ("COUNTERSIGN_SPOOL_DIR", &at("file")),
            ("COUNTERSIGN_CACHE_DIR", &at("file")),
            ("AUDIT_FILE", &at("none/audit")),
            ("REQUEST_RETENTION_SEC", "60"),
            ("REQUEST_ARCHIVE_FILE", &at("none/archive")),
        ]);
        for what in [
            format!("cannot open the store `{}`", store("none/db")),
            format!("cannot use the spool folder `{}`", at("file")),
            format!("cannot write the audit file `{}`", at("none/audit")),
            format!("cannot write the file of audit checkpoints `{}`", at("none/audit.checkpoints")),
            format!("cannot write the archive of requests `{}`", at("none/archive")),
        ] {
            assert_eq!(wrong.iter().filter(|it| it.starts_with(&what)).count(), 1, "{what}: {wrong:?}");
        }
        let cache = format!("compiled modules cannot be kept in `{}`", at("file"));
        assert_eq!(warnings.iter().filter(|it| it.starts_with(&cache)).count(), 1, "{warnings:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was made");
    }

    #[test]
    fn what_of_an_access_file_may_not_do_what_was_meant_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.yaml");
        let ended = format!("{{ sha256: {}, until: 2020-01-31 }}", "ab".repeat(32));
        let text = format!(
            "version: 1\ncallers:\n  job: {{ keys: [{ended}], requester: machine, actions: deploy }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let (_, warnings) = examined(&[("COUNTERSIGN_ACCESS", &file), ("COUNTERSIGN_STORE", "memory")]);
        for said in ["is a machine without `owners`", "is 2020-02-01T00:00:00.000Z: make another one"] {
            let is_it = |it: &&String| it.starts_with(&format!("{file}:3:")) && it.contains(said);
            assert_eq!(warnings.iter().filter(is_it).count(), 1, "{said}: {warnings:?}");
        }
    }

    #[test]
    fn what_each_start_warns_of_is_told() {
        let anonymous = [
            ("COUNTERSIGN_INSECURE_ANONYMOUS", "true"),
            ("COUNTERSIGN_LISTEN", "0.0.0.0:8080"),
            ("COUNTERSIGN_STORE", "memory"),
        ];
        let (_, warnings) = examined(&anonymous);
        for said in ["anybody who reaches this gateway may ask", "in memory alone", "no `SLACK_BOT_TOKEN`"] {
            assert_eq!(warnings.iter().filter(|it| it.contains(said)).count(), 1, "{said}: {warnings:?}");
        }
        assert_eq!(warnings.len(), 3, "{warnings:?}");
    }
}
