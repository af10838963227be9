//! How a Redis is used: settings that the gateway shares with every command that opens a store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use countersign_core::secret::Secret;
use countersign_store::{Durability, RedisOptions, Store, StoreUrl};

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
    /// Whether a Redis on another machine may be used without TLS. Whoever can write to that network decides, then.
    #[arg(long = "redis-plaintext", value_name = "COUNTERSIGN_REDIS_PLAINTEXT", default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    plaintext: bool,
    /// The user, from `REDIS_USERNAME`.
    #[arg(skip)]
    user: Option<String>,
    /// The password, from `REDIS_PASSWORD`.
    #[arg(skip)]
    password: Option<Secret>,
}

impl Redis {
    /// The file with the certificates of those who may sign that of the Redis, if it is given.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Reads the variables that have no flag. Returns what is wrong with them, one sentence each.
    #[must_use]
    pub fn read_variables(
        &mut self,
        store: &StoreUrl,
        environment: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let given = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        (self.user, self.password) = (given("REDIS_USERNAME"), given("REDIS_PASSWORD").map(Secret::new));
        // Every user of a machine can read the flags of its processes.
        let shown = "the address of the store has a password: give it as `REDIS_PASSWORD`";
        if store.has_password() { vec![shown.to_owned()] } else { Vec::new() }
    }

    /// The certificates of those who may sign that of the Redis, if they are given. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn authorities(&self) -> anyhow::Result<Option<Vec<u8>>> {
        authorities(self.ca_file.as_deref())
    }

    /// Opens a store.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn open(&self, store: &StoreUrl) -> anyhow::Result<Arc<dyn Store>> {
        let configured = self.configured().await?;
        store.open(configured).await.with_context(|| format!("cannot open the store `{store}`"))
    }

    /// Opens a store that is there; none is made.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub async fn open_existing(&self, store: &StoreUrl) -> anyhow::Result<Arc<dyn Store>> {
        let configured = self.configured().await?;
        store.open_existing(configured).await.with_context(|| format!("cannot open the store `{store}`"))
    }

    /// What is configured, applied to the defaults.
    ///
    /// # Errors
    /// If the file of certificates cannot be read.
    pub async fn configured(
        &self,
    ) -> anyhow::Result<impl Fn(RedisOptions) -> RedisOptions + Send + Sync + use<>> {
        let file = self.ca_file.clone();
        let authorities = tokio::task::spawn_blocking(move || authorities(file.as_deref())).await??;
        Ok(self.applied(authorities))
    }

    /// The same for commands without a runtime. Blocks.
    ///
    /// # Errors
    /// If the file of certificates cannot be read.
    pub fn configured_here(
        &self,
    ) -> anyhow::Result<impl Fn(RedisOptions) -> RedisOptions + Send + Sync + use<>> {
        Ok(self.applied(self.authorities()?))
    }

    fn applied(
        &self,
        authorities: Option<Vec<u8>>,
    ) -> impl Fn(RedisOptions) -> RedisOptions + Send + Sync + use<> {
        let (user, password) = (self.user.clone(), self.password.clone());
        let (namespace, partitions) = (self.namespace.clone(), self.partitions);
        let durability = match self.replicas {
            0 => Durability::Primary,
            replicas => {
                Durability::Replicas { replicas, timeout: Duration::from_millis(self.wait_ms.into()) }
            }
        };
        let plaintext = self.plaintext;
        move |options: RedisOptions| RedisOptions {
            url: options.url.with_login(user.clone(), password.clone()),
            authorities: authorities.clone(),
            plaintext,
            namespace: namespace.clone(),
            partitions,
            durability,
            ..options
        }
    }
}

fn authorities(file: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()));
    file.map(read).transpose()
}
