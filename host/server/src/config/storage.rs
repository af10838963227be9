//! Where requests are stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use countersign_authoring::StoreAddress;
use countersign_core::secret::Secret;
use countersign_store::{Durability, RedisOptions, Store, StoreUrl};

use super::Environment;

/// Where requests are stored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct Storage {
    /// The store: `sqlite:PATH`, or a Redis that several instances share: `redis://HOST`,
    /// `redis+sentinel://HOST,HOST/NAME`, `redis+cluster://HOST,HOST`, each with TLS as `rediss…`; or, to try things out,
    /// `memory`, which ends with the process.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = DEFAULT, value_parser = StoreAddress)]
    pub store: StoreUrl,
    /// A folder in which what people do in Slack is kept while the store cannot take it, on a disk that outlives the process.
    /// Beside an embedded store there is one, `PATH.spool`; with a Redis there is none unless it is given.
    #[arg(long, value_name = "COUNTERSIGN_SPOOL_DIR")]
    pub spool_dir: Option<PathBuf>,
    /// The file of the keys that receipts are signed with; without it `PATH.receipts.key` beside the database `PATH`.
    #[arg(long, value_name = "COUNTERSIGN_RECEIPT_KEYS")]
    pub receipt_keys: Option<PathBuf>,
    /// How a Redis is used.
    #[command(flatten)]
    pub redis: Redis,
}

const DEFAULT: &str = "sqlite:countersign.db";

/// How a Redis is used. Every instance that shares it must be given the same.
#[derive(Debug, Args)]
pub struct Redis {
    /// A PEM file with the certificates of those who may sign that of the Redis, in place of the system's.
    #[arg(long = "redis-ca-file", value_name = "COUNTERSIGN_REDIS_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// What every key in Redis begins with, in braces, so that several stores can share one.
    #[arg(long = "redis-namespace", value_name = "COUNTERSIGN_REDIS_NAMESPACE", default_value = "cs")]
    namespace: String,
    /// In how many partitions requests are spread; fixed when the store is made.
    #[arg(
        long = "redis-partitions",
        value_name = "COUNTERSIGN_REDIS_PARTITIONS",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    partitions: u16,
    /// How many replicas must have a write before anybody hears of it; 0 for none.
    #[arg(long = "redis-replicas", value_name = "COUNTERSIGN_REDIS_REPLICAS", default_value_t = 0)]
    replicas: u32,
    /// How long they are waited for at once, in milliseconds; it is repeated.
    #[arg(
        long = "redis-wait-ms",
        value_name = "COUNTERSIGN_REDIS_WAIT_MS",
        default_value_t = 400,
        value_parser = clap::value_parser!(u32).range(1..=1500)
    )]
    wait_ms: u32,
    /// The user, from `REDIS_USERNAME`.
    #[arg(skip)]
    user: Option<String>,
    /// The password, from `REDIS_PASSWORD`.
    #[arg(skip)]
    password: Option<Secret>,
}

impl Storage {
    /// Reads the variables that have no flag. Returns what is wrong with them, one sentence each.
    pub(crate) fn read_variables(&mut self, environment: &Environment) -> Vec<String> {
        let mut wrong = self.redis.read_variables(&self.store, environment);
        let Some(url) = environment.get("REDIS_URL").filter(|url| !url.is_empty()) else { return wrong };
        match url.parse() {
            Ok(store @ StoreUrl::Redis(_)) if self.store.to_string() == DEFAULT => self.store = store,
            Ok(StoreUrl::Redis(_)) => {
                wrong.push(
                    "the variable `REDIS_URL` is set, and so is the store: one of them is enough".into(),
                );
            }
            Ok(StoreUrl::Sqlite(_) | StoreUrl::Memory) => {
                wrong.push("the variable `REDIS_URL` is no address of a Redis".into())
            }
            Err(error) => wrong.push(format!("the variable `REDIS_URL`: {error}")),
        }
        wrong
    }

    /// Opens the store.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn Store>> {
        self.redis.open(&self.store).await
    }
}

impl Redis {
    /// Reads the variables that have no flag. Returns what is wrong with them, one sentence each.
    pub(crate) fn read_variables(&mut self, store: &StoreUrl, environment: &Environment) -> Vec<String> {
        let given = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        (self.user, self.password) = (given("REDIS_USERNAME"), given("REDIS_PASSWORD").map(Secret::new));
        // Every user of a machine can read the flags of its processes.
        let shown = "the address of the store has a password: give it as `REDIS_PASSWORD`, or all of it as `REDIS_URL`";
        if store.has_password() { vec![shown.to_owned()] } else { Vec::new() }
    }

    /// The certificates of those who may sign that of the Redis, if they are given. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn authorities(&self) -> anyhow::Result<Option<Vec<u8>>> {
        authorities(self.ca_file.as_deref())
    }

    /// Opens a store.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) async fn open(&self, store: &StoreUrl) -> anyhow::Result<Arc<dyn Store>> {
        let file = self.ca_file.clone();
        let authorities = tokio::task::spawn_blocking(move || authorities(file.as_deref())).await??;
        let configured = |options: RedisOptions| RedisOptions {
            url: options.url.with_login(self.user.clone(), self.password.clone()),
            authorities,
            namespace: self.namespace.clone(),
            partitions: self.partitions,
            durability: match self.replicas {
                0 => Durability::Primary,
                replicas => {
                    Durability::Replicas { replicas, timeout: Duration::from_millis(self.wait_ms.into()) }
                }
            },
            ..options
        };
        store.open(configured).await.with_context(|| format!("cannot open the store `{store}`"))
    }
}

fn authorities(file: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()));
    file.map(read).transpose()
}
