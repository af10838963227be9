//! `countersign audit`: exports the audit log, and shows that it is what was written. docs/AUDIT.md describes both.

mod export;
mod files;
mod filter;
pub(crate) mod keeper;
mod line;
mod mirror;
mod source;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use countersign_authoring::{Redis, StoreAddress};
use countersign_console::{note, say};
use countersign_core::audit::note::NoteKey;
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_gateway::audit::{AuditKeys, AuditSigner, verify};
use countersign_store::StoreUrl;

use self::mirror::{AppendedFile, Parts};
use self::source::Source;
use crate::config::{Environment, Secrets};
use crate::keys;

pub(crate) use self::export::status;
pub(crate) use self::filter::AuditFilter;
pub use self::{export::Export, verify::Verify};

/// Export the audit log, and show that it is what was written.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Write audit entries to the standard output. A gateway may be running.
    Export(Export),
    /// Check that the log of a store, or an exported one, is what was written. A gateway may be running.
    #[command(after_long_help = verify::EXIT_CODES)]
    Verify(Verify),
    /// Print the public keys that checkpoints of the log are signed with.
    Key(Place),
    /// Go on without entries that are lost: begin another line of checkpoints, over what the log has now. Gateways must be
    /// stopped.
    AcceptLoss(AcceptLoss),
}

/// Of which log entries are lost.
#[derive(Debug, Args)]
pub struct AcceptLoss {
    #[command(flatten)]
    place: Place,
    /// The file that the gateway appends checkpoints to, if there is one; of each gateway its own.
    #[arg(long, value_name = "FILE")]
    checkpoint_file: Vec<PathBuf>,
}

/// Which store, and its keys.
#[derive(Debug, Args)]
#[command(
    after_long_help = "The keys are those of `COUNTERSIGN_SECRET` and `COUNTERSIGN_SECRET_PREVIOUS` if they are set, \
                             and else those of the key file beside an embedded store."
)]
pub struct Place {
    /// The store: `sqlite:PATH` or `redis://HOST`.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db", value_parser = StoreAddress)]
    store: StoreUrl,
    #[command(flatten)]
    redis: Redis,
    /// From the environment.
    #[arg(skip)]
    secrets: Secrets,
}

impl AuditCommand {
    /// Takes what the command needs from the environment, and returns what is wrong there, one sentence each.
    pub(crate) fn read_variables(&mut self, environment: &Environment) -> Vec<String> {
        let place = match self {
            AuditCommand::Export(export) => &mut export.place,
            AuditCommand::Verify(verify) => &mut verify.place,
            AuditCommand::Key(place) => place,
            AuditCommand::AcceptLoss(accept) => &mut accept.place,
        };
        let mut wrong = Vec::new();
        place.secrets = Secrets::of_server(environment, &mut wrong);
        wrong.extend(place.redis.read_variables(&place.store, environment));
        wrong
    }
}

impl Place {
    async fn open(&self) -> anyhow::Result<Source> {
        ensure!(!self.store.is_lost_at_exit(), "a store in memory is its gateway's alone");
        match self.store.file() {
            // For reading only: a gateway may have it open.
            Some(_) => {
                let opened = self.store.open_archive();
                Ok(Source::File(opened.with_context(|| format!("cannot open the store `{}`", self.store))?))
            }
            None => Ok(Source::Shared(self.redis.open_existing(&self.store).await?)),
        }
    }

    /// The keys that sign, if the secrets are at hand.
    fn keys(&self) -> anyhow::Result<Option<AuditKeys>> {
        let keys = match self.secrets.keys()? {
            Some(keys) => Some(keys),
            None => keys::of_file(&self.store)?,
        };
        keys.map(|keys| keys.audit()).transpose()
    }

    /// The public keys of the log with this origin, as far as the secrets are at hand.
    fn public(&self, origin: &str) -> anyhow::Result<Vec<NoteKey>> {
        Ok(self.keys()?.map(|keys| keys.public(origin)).unwrap_or_default())
    }
}

/// Runs a command, and returns the exit code.
pub async fn run(command: &AuditCommand) -> ExitCode {
    let done = match command {
        AuditCommand::Export(export) => export.run().await,
        AuditCommand::Verify(verify) => verify.run().await,
        AuditCommand::Key(place) => print_keys(place).await,
        AuditCommand::AcceptLoss(accept) => accept.run().await,
    };
    done.unwrap_or_else(|error| {
        note!("error: {error:#}");
        ExitCode::from(2)
    })
}

const NO_KEYS: &str =
    "the keys are not at hand: this needs `COUNTERSIGN_SECRET`, or the key file of the store";

impl AcceptLoss {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        let place = &self.place;
        ensure!(place.store.file().is_none_or(Path::exists), "there is no store `{}`", place.store);
        let keys = place.keys()?.context(NO_KEYS)?;
        let store = place.redis.open_existing(&place.store).await?;
        let random = getrandom::u64().context("the system gives no randomness")?;
        let mut signer = AuditSigner::new(Arc::clone(&store), keys, random, None);
        let signed = signer.restart(SystemClock.now()).await?;
        store.close().await.context("cannot close the store")?;
        for path in &self.checkpoint_file {
            let mut file = AppendedFile::new(path.clone(), Parts::Notes);
            file.append(signed.note.as_bytes())
                .with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        say!(
            "the log is `{}` from now on, and has {} entries",
            signed.checkpoint.origin,
            signed.checkpoint.entries()
        );
        Ok(ExitCode::SUCCESS)
    }
}

async fn print_keys(place: &Place) -> anyhow::Result<ExitCode> {
    let kept = place.open().await?.checkpoint().await?;
    let kept = kept.context("no checkpoint was signed yet: a gateway does when it starts")?;
    // The key is named after the log, whose name the first line is.
    let origin = kept.note.lines().next().unwrap_or_default();
    let public = place.public(origin)?;
    ensure!(!public.is_empty(), NO_KEYS);
    // Keys of another gateway would be kept, and fit nothing.
    verify(&kept.note, &public).context("the newest checkpoint of the store does not count")?;
    public.iter().for_each(|key| say!("{key}"));
    Ok(ExitCode::SUCCESS)
}
