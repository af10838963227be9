//! The address of a store. This is the only place that chooses a backend.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use crate::redis::{RedisArchive, RedisOpenError, RedisOptions, RedisStore, RedisUrl};
use crate::{Archive, OpenError, SqliteArchive, SqliteStore, Store};

/// A future whose type is not known.
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How the embedded store in memory is given.
const MEMORY: &str = "memory";

/// The address of a store.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// The embedded store, in the file with this path.
    Sqlite(PathBuf),
    /// A Redis, which several instances can share.
    Redis(Box<RedisUrl>),
    /// The embedded store, in memory: it ends with the process.
    Memory,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The embedded store.
    #[error(transparent)]
    Sqlite(#[from] OpenError),
    /// A Redis.
    #[error(transparent)]
    Redis(#[from] RedisOpenError),
    /// The embedded store, in memory.
    #[error("there is no memory left for it: {0}")]
    Memory(rusqlite::Error),
    /// What opened it panicked.
    #[error("opening the store was stopped half-way")]
    Stopped,
    /// There is no file of an embedded store.
    #[error("there is no store `{0}`")]
    Missing(String),
    /// The command reads the file of an embedded store.
    #[error("this can only be done with an embedded store, `sqlite:PATH`")]
    NotEmbedded,
    /// The command reads a store that another process has open.
    #[error("a store in memory is its gateway's alone")]
    InMemory,
}

impl StoreUrl {
    /// Opens the store, and creates it if there is none. `redis` changes how a Redis is used.
    ///
    /// # Errors
    /// If it cannot be opened, or is open already.
    pub async fn open(
        &self,
        redis: impl FnOnce(RedisOptions) -> RedisOptions,
    ) -> Result<Arc<dyn Store>, StoreOpenError> {
        match self {
            StoreUrl::Sqlite(path) => {
                let path = path.clone();
                let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path));
                Ok(Arc::new(opened.await.map_err(|_| StoreOpenError::Stopped)??))
            }
            StoreUrl::Redis(url) => {
                let options = redis(RedisOptions::new(url.as_ref().clone()));
                warned(Box::pin(RedisStore::open(options))).await
            }
            StoreUrl::Memory => Ok(Arc::new(SqliteStore::in_memory().map_err(StoreOpenError::Memory)?)),
        }
    }

    /// Opens a store that is there, for commands: an empty one that they had made would look like one that has lost
    /// everything. `redis` changes how a Redis is used; it has as many partitions as it was made with.
    ///
    /// # Errors
    /// As [`StoreUrl::open`], and if there is none.
    pub async fn open_existing(
        &self,
        redis: impl FnOnce(RedisOptions) -> RedisOptions,
    ) -> Result<Arc<dyn Store>, StoreOpenError> {
        match self {
            StoreUrl::Redis(url) => {
                let options = redis(RedisOptions::new(url.as_ref().clone()));
                warned(Box::pin(RedisStore::open_existing(options))).await
            }
            StoreUrl::Sqlite(path) if !path.exists() => Err(StoreOpenError::Missing(self.to_string())),
            StoreUrl::Sqlite(_) | StoreUrl::Memory => self.open(redis).await,
        }
    }

    /// Opens the file of the embedded store for reading only; a gateway may have it open at the same time. Blocks.
    ///
    /// # Errors
    /// If it is another store, there is none, or it cannot be read.
    pub fn open_archive(&self) -> Result<SqliteArchive, StoreOpenError> {
        match self {
            StoreUrl::Sqlite(path) => Ok(SqliteArchive::open(path)?),
            StoreUrl::Redis(_) => Err(StoreOpenError::NotEmbedded),
            StoreUrl::Memory => Err(StoreOpenError::InMemory),
        }
    }

    /// Opens the store for reading only; gateways may have it open at the same time. `redis` changes how a Redis is used.
    /// Blocks.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open_for_reading(
        &self,
        redis: impl FnOnce(RedisOptions) -> RedisOptions,
    ) -> Result<Archive, StoreOpenError> {
        match self {
            StoreUrl::Sqlite(path) => Ok(Archive::Sqlite(SqliteArchive::open(path)?)),
            StoreUrl::Redis(url) => {
                let options = redis(RedisOptions::new(url.as_ref().clone()));
                Ok(Archive::Redis(Box::new(RedisArchive::open(options)?)))
            }
            StoreUrl::Memory => Err(StoreOpenError::InMemory),
        }
    }

    /// Hands the secret that an earlier version kept in the store to `keep`, and removes it once that has returned. False if
    /// there is none. Blocks.
    ///
    /// # Errors
    /// If the store cannot be opened or changed, or `keep` fails; then the secret is still there.
    pub fn take_secret(&self, keep: impl FnOnce([u8; 32]) -> std::io::Result<()>) -> Result<bool, OpenError> {
        match self {
            StoreUrl::Sqlite(path) => SqliteStore::take_secret(path, keep),
            StoreUrl::Redis(_) | StoreUrl::Memory => Ok(false),
        }
    }

    /// The store's file, if it is a file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            StoreUrl::Sqlite(path) => Some(path),
            StoreUrl::Redis(_) | StoreUrl::Memory => None,
        }
    }

    /// Whether nothing is left of it when the process ends.
    #[must_use]
    pub fn is_lost_at_exit(&self) -> bool {
        matches!(self, StoreUrl::Memory)
    }

    /// Whether the address has a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        matches!(self, StoreUrl::Redis(url) if url.has_password())
    }
}

/// The store in a Redis, once its warnings are in the log. The type of what opens it is deep.
async fn warned(
    opened: BoxFuture<'_, Result<RedisStore, RedisOpenError>>,
) -> Result<Arc<dyn Store>, StoreOpenError> {
    let store = opened.await?;
    for warning in store.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(store))
}

/// As it is given, without a password.
impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Redis(url) => url.fmt(f),
            StoreUrl::Memory => f.write_str(MEMORY),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<StoreUrl, String> {
        match text.split_once(':') {
            None if text == MEMORY => Ok(StoreUrl::Memory),
            Some(("sqlite", path)) if !path.is_empty() && !path.ends_with('/') => {
                Ok(StoreUrl::Sqlite(PathBuf::from(path)))
            }
            Some((scheme, _)) if scheme.starts_with("redis") => match text.parse() {
                Ok(url) => Ok(StoreUrl::Redis(Box::new(url))),
                Err(error) => Err(format!("{error}")),
            },
            _ => Err("a store is given as `sqlite:PATH`, `redis://HOST` or `memory`".into()),
        }
    }
}
