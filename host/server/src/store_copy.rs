//! `countersign store`: moves a store to another place, or backend, while its gateways are stopped, and backs one up while
//! they run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use countersign_authoring::{Redis, StoreAddress};
use countersign_console::{Progress, note, say_text};
use countersign_core::secret::Secret;
use countersign_store::{
    CopyEnd, CopyError, CopyOptions, CopyProgress, RedisOptions, SqliteArchive, StoreUrl,
};

use crate::config::{Environment, Secrets};
use crate::keys;
use crate::spool;

/// Move a store, or back it up.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy the database of an embedded store, as it is at one moment, to a file; its gateway may run. The key file is not in it
    #[command(after_long_help = BACKUP_HELP)]
    Backup(BackupCommand),
    /// Copy everything in a store to an empty one, and verify it. Stop every gateway that uses either of them first.
    #[command(after_long_help = HELP)]
    Copy(Box<CopyCommand>),
}

const HELP: &str = "\
Environment:
  COUNTERSIGN_SECRET  if it is set, it must be the secret that the source was used with
  REDIS_USERNAME, REDIS_PASSWORD
                      the user and password of a Redis
  REDIS_FROM_USERNAME, REDIS_FROM_PASSWORD
                      those of the source, if both stores are in a Redis and they differ

Exit codes: 0 if everything was copied and read back, else 2.";

const BACKUP_HELP: &str = "\
To restore it, put the file in the place of the database while the gateway is stopped, without the `-wal` and `-shm` files of
the old one, and the key file, `PATH.key`, beside it.

Exit codes: 0 if the backup is whole and on disk, else 2.";

/// Of what, and to where.
#[derive(Debug, Args)]
pub struct BackupCommand {
    /// The store: `sqlite:PATH`. A Redis has backups of its own.
    #[arg(long, value_name = "COUNTERSIGN_STORE", value_parser = StoreAddress)]
    store: StoreUrl,
    /// The file to write, which must not exist yet; `-` for the standard output.
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

/// From where, and to where.
#[derive(Debug, Args)]
pub struct CopyCommand {
    /// The store to copy: `sqlite:PATH` or `redis://HOST`.
    #[arg(long, value_name = "URL", value_parser = StoreAddress)]
    from: StoreUrl,
    /// The store to copy it to, which must be empty.
    #[arg(long, value_name = "URL", value_parser = StoreAddress)]
    to: StoreUrl,
    /// Begin anew where an earlier copy was interrupted: what it has left in the destination is removed first.
    #[arg(long)]
    restart: bool,
    /// The namespace of the source, if both stores are in a Redis and they differ.
    #[arg(long, value_name = "NAMESPACE")]
    from_redis_namespace: Option<String>,
    /// A PEM file with the certificates of those who may sign that of the source, if both stores are in a Redis.
    #[arg(long, value_name = "FILE")]
    from_redis_ca_file: Option<PathBuf>,
    #[command(flatten)]
    redis: Redis,
    /// From the environment.
    #[arg(skip)]
    secrets: Secrets,
    #[arg(skip)]
    from_login: (Option<String>, Option<Secret>),
}

impl StoreCommand {
    /// Takes what the command needs from the environment, and returns what is wrong there, one sentence each.
    pub(crate) fn read_variables(&mut self, environment: &Environment) -> Vec<String> {
        let mut wrong = Vec::new();
        let StoreCommand::Copy(copy) = self else { return wrong };
        copy.secrets = Secrets::of_server(environment, &mut wrong);
        for store in [&copy.from, &copy.to] {
            wrong.extend(copy.redis.read_variables(store, environment));
        }
        let given = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        copy.from_login = (given("REDIS_FROM_USERNAME"), given("REDIS_FROM_PASSWORD").map(Secret::new));
        wrong
    }
}

/// Runs a command, and returns the exit code.
pub async fn run(command: &StoreCommand) -> ExitCode {
    let done = match command {
        StoreCommand::Copy(copy) => copied(copy).await.map(Some),
        StoreCommand::Backup(BackupCommand { store, to }) => {
            let (store, to) = (store.clone(), to.clone());
            let backed_up = tokio::task::spawn_blocking(move || backed_up(&store, &to)).await;
            backed_up.unwrap_or_else(|error| Err(error.into()))
        }
    };
    match done {
        Ok(text) => {
            if let Some(text) = text {
                say_text(format_args!("{text}"));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            note!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Backs up a store, and returns what to say of it.
fn backed_up(store: &StoreUrl, to: &Path) -> anyhow::Result<Option<String>> {
    let database = match store {
        StoreUrl::Sqlite(path) => path,
        StoreUrl::Redis(_) => {
            bail!("a Redis has backups of its own, such as copies of its AOF and RDB files")
        }
        StoreUrl::Memory => bail!("a store in memory cannot be backed up from outside of its gateway"),
    };
    let archive = SqliteArchive::open(database)?;
    let progress = Progress::start("copying the database");
    if to == Path::new("-") {
        ensure!(!io::stdout().is_terminal(), "the standard output is a terminal; name a file");
        // SQLite writes into a file, which nobody else needs to see.
        let mut beside = database.clone().into_os_string();
        beside.push(format!(".backup-{}", std::process::id()));
        let (mut file, remove) = write(&archive, Path::new(&beside))?;
        drop(remove);
        file.rewind().context("cannot read what was copied")?;
        io::copy(&mut file, &mut io::stdout().lock()).context("cannot write to the standard output")?;
        return Ok(None);
    }
    let (file, remove) = write(&archive, to)?;
    let named = || format!("cannot write `{}`", to.display());
    file.sync_all().with_context(named)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(named)?;
    remove.keep();
    drop(progress);
    Ok(Some(format!(
        "backed up: {}\nNot in it, and needed with it: the secret (`COUNTERSIGN_SECRET`, or the key file `{}.key`) and the keys \
         of receipts.\n",
        to.display(),
        database.display()
    )))
}

/// Copies a database into a new file, which is removed again unless it is to be kept.
fn write(archive: &SqliteArchive, to: &Path) -> anyhow::Result<(File, Removal)> {
    let named = || format!("cannot write `{}`", to.display());
    // Not to be taken for a URI.
    let to = &std::path::absolute(to).with_context(named)?;
    let name = to.to_str().with_context(|| format!("`{}` is not UTF-8, as SQLite wants it", to.display()))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .with_context(named)?;
    let removal = Removal(Some(to.to_owned()));
    archive.back_up(name).with_context(named)?;
    Ok((file, removal))
}

/// Removes a file when it is dropped.
struct Removal(Option<PathBuf>);

impl Removal {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        // Whoever finds it knows from the error that it is not whole.
        let _removed = self.0.take().map(fs::remove_file);
    }
}

async fn copied(copy: &CopyCommand) -> anyhow::Result<String> {
    let waiting = spool::waiting(&copy.from)?;
    if waiting > 0 {
        bail!(
            "{waiting} presses in Slack wait in the spool beside `{}`: start its gateway, and stop it once they are applied",
            copy.from
        );
    }
    let to = copy.redis.configured().await?;
    let authorities = match &copy.from_redis_ca_file {
        Some(file) => Some(std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?),
        None => None,
    };
    let from = |options: RedisOptions| {
        let options = to(options);
        let (user, password) = copy.from_login.clone();
        RedisOptions {
            url: options.url.with_login(user, password),
            namespace: copy.from_redis_namespace.clone().unwrap_or(options.namespace),
            authorities: authorities.clone().or(options.authorities),
            ..options
        }
    };
    let progress = Progress::start("copying records");
    let (mut copied, mut is_verifying) = (0, false);
    let mut tell = |CopyProgress { verifying, records }| {
        if verifying && !is_verifying {
            progress.next("verifying records");
            progress.total(copied);
        }
        (copied, is_verifying) = (if verifying { copied } else { records }, verifying);
        progress.set(records);
    };
    let result = countersign_store::copy(
        CopyEnd { url: &copy.from, redis: Box::new(from) },
        CopyEnd { url: &copy.to, redis: Box::new(&to) },
        CopyOptions { restart: copy.restart, expected: keys::expected(&copy.to, copy.secrets.keys()?)? },
        &mut tell,
    );
    let counts = result.await.map_err(|error| match error {
        CopyError::Document { found, .. } => anyhow::anyhow!(
            "the source was used with the key `{found}`, and `COUNTERSIGN_SECRET`, or the key file beside the destination, is \
             another one"
        ),
        error => error.into(),
    })?;
    drop(progress);
    let mut text = format!("copied and verified: {}\n", copy.to);
    for (kind, count) in counts {
        text.push_str(&format!("  {count:>10} {kind}\n"));
    }
    if copy.secrets.server.is_none() {
        text.push_str(
            "Not in the store, and needed with it: the secret (`COUNTERSIGN_SECRET`, or the key file `PATH.key`) and the keys of \
             receipts.\n",
        );
    }
    Ok(text)
}
