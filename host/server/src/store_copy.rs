//! `countersign store`: moves a store to another place, or backend, while its gateways are stopped.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use countersign_authoring::{Redis, StoreAddress};
use countersign_console::{Progress, note, say_text};
use countersign_core::secret::Secret;
use countersign_store::{CopyEnd, CopyError, CopyOptions, CopyProgress, RedisOptions, StoreUrl};

use crate::config::{Environment, Secrets};
use crate::keys;
use crate::spool;

/// Move a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
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
        let StoreCommand::Copy(copy) = self;
        let mut wrong = Vec::new();
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
    let StoreCommand::Copy(copy) = command;
    match copied(copy).await {
        Ok(text) => {
            say_text(format_args!("{text}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            note!("error: {error:#}");
            ExitCode::from(2)
        }
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
