//! The settings of `countersign serve`, one file a section; each variable is documented on its field.
//!
//! Nothing here reads the process's environment: [`crate::cli`] does, once, and hands it over.

mod access;
mod audit;
mod files;
mod gates;
mod logging;
mod network;
mod policies;
mod rate_limit;
mod retention;
mod scheduling;
pub(crate) mod secrets;
mod slack;
mod storage;
mod tls;
mod tracing;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_store::StoreUrl;

pub use access::AccessSettings;
pub use audit::Audit;
pub(crate) use files::{begins_with, open, regular};
pub use gates::Gates;
pub use logging::{LogFormat, Logging};
pub use network::Network;
pub use policies::Policies;
pub use rate_limit::RateLimit;
pub use retention::Retention;
pub use scheduling::Scheduling;
pub use secrets::Secrets;
pub use slack::Slack;
pub use storage::Storage;
pub use tls::TlsSettings;
pub use tracing::Tracing;

/// The variables of an environment, by name.
pub type Environment = BTreeMap<String, String>;

/// All settings of the gateway.
#[derive(Debug, Args)]
pub struct Config {
    /// Where the gateway listens, and how much it accepts.
    #[command(flatten)]
    pub network: Network,
    /// TLS of each listener.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// Who may ask.
    #[command(flatten)]
    pub access: AccessSettings,
    /// The policy set, and what its modules may use.
    #[command(flatten)]
    pub policies: Policies,
    /// Where requests are stored.
    #[command(flatten)]
    pub storage: Storage,
    /// What is kept of the audit log outside of the store.
    #[command(flatten)]
    pub audit: Audit,
    /// For how long what has ended is kept.
    #[command(flatten)]
    pub retention: Retention,
    /// How often a client address may make requests.
    #[command(flatten)]
    pub rate_limit: RateLimit,
    /// How often the scheduler runs.
    #[command(flatten)]
    pub scheduling: Scheduling,
    /// How Slack is called.
    #[command(flatten)]
    pub slack: Slack,
    /// Which CI systems have gates here.
    #[command(flatten)]
    pub gates: Gates,
    /// What is logged, and in which format.
    #[command(flatten)]
    pub logging: Logging,
    /// Where traces go.
    #[command(flatten)]
    pub tracing: Tracing,
    /// Secrets, which have no flags.
    #[arg(skip)]
    pub secrets: Secrets,
    /// One sentence for each variable that is set without effect.
    #[arg(skip)]
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the variables that have no flag. Returns what is wrong with them, and with settings that do not fit together,
    /// one sentence each. `malformed` are the variables of the settings whose values could not be read: nothing is said
    /// of what depends on them.
    pub(crate) fn read_variables(&mut self, environment: &Environment, malformed: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        self.warnings = Vec::new();
        self.secrets = Secrets::read(environment, &mut wrong);
        wrong.extend(self.storage.read_variables(environment));
        self.tracing.read_variables(environment, (&mut wrong, &mut self.warnings));
        if !malformed.iter().any(|name| Network::CHECKED.contains(&name.as_str())) {
            wrong.extend(self.network.check());
        }
        if !malformed.iter().any(|name| AccessSettings::CHECKED.contains(&name.as_str())) {
            wrong.extend(self.access.check(&self.network));
        }
        if !malformed.iter().any(|name| TlsSettings::is_checked(name)) {
            wrong.extend(self.tls.check(&self.network, &self.secrets));
        }
        if !malformed.iter().any(|name| Gates::CHECKED.contains(&name.as_str())) {
            wrong.extend(self.gates.check(&self.access, &self.secrets));
        }
        wrong.extend(self.retention.check());
        if !self.slack.team_ids.is_empty() && self.secrets.slack_bot.is_none() {
            let missing = "the variable `SLACK_TEAM_IDS` has no effect without `SLACK_BOT_TOKEN`: \
                           people of every workspace count";
            self.warnings.push(missing.to_owned());
        }
        wrong
    }

    /// One sentence for each thing that a gateway with these settings does without, or lets be. Each start says them, too.
    #[must_use]
    pub fn cautions(&self) -> Vec<&'static str> {
        let (store, access) = (&self.storage.store, &self.access);
        let (is_lost, is_shared) = (store.is_lost_at_exit(), store.file().is_none());
        let receipts = self.storage.receipt_keys.is_none() && is_shared && !is_lost;
        let cautions = [
            (
                is_lost,
                "`--store memory`: requests, decisions and the audit log are in memory alone, and are lost when this \
                 process ends",
            ),
            (
                receipts,
                "no receipts are signed: this store needs `COUNTERSIGN_RECEIPT_KEYS`, shared by all instances",
            ),
            (access.insecure_anonymous, "`--insecure-anonymous`: anybody who reaches this gateway may ask"),
            (
                access.file.is_none() && !access.insecure_anonymous,
                "no access file: anybody on this machine may ask, and nobody else",
            ),
            (
                self.secrets.slack_bot.is_none(),
                "no `SLACK_BOT_TOKEN`: nothing is posted to Slack, messages wait in the outbox",
            ),
            (
                self.spool_dir().is_none() && !is_lost,
                "no spool: what people do in Slack while the store is away is not recorded",
            ),
        ];
        cautions.into_iter().filter_map(|(holds, said)| holds.then_some(said)).collect()
    }

    /// The directory for compiled policy modules. A store in memory has none unless it is given: what authenticates them
    /// ends with it.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        let store = &self.storage.store;
        let given = self.policies.cache_dir.clone();
        given.or_else(|| {
            (!store.is_lost_at_exit())
                .then(|| beside(store.file().unwrap_or(Path::new("countersign")), ".modules"))
        })
    }

    /// The directory for presses that the store cannot take. An embedded store has one beside it, since its disk outlives
    /// the process.
    #[must_use]
    pub fn spool_dir(&self) -> Option<PathBuf> {
        let given = self.storage.spool_dir.clone();
        given.or_else(|| default_spool(&self.storage.store))
    }
}

/// The folder beside an embedded store in which what people do in Slack is kept while the store cannot take it.
pub(crate) fn default_spool(store: &StoreUrl) -> Option<PathBuf> {
    store.file().map(|file| beside(file, ".spool"))
}

/// The file's path with something added to its name.
pub(crate) fn beside(file: &Path, added: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(added);
    file.with_file_name(name)
}
