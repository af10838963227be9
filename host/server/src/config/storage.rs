//! Where requests are stored.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use countersign_authoring::{Redis, StoreAddress};
use countersign_store::{Store, StoreUrl};

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
