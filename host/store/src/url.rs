//! The address of a store. This is the only place that chooses a backend.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::{OpenError, SqliteArchive, SqliteStore, Store};

/// The address of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// The embedded store, in the file with this path.
    Sqlite(PathBuf),
}

impl StoreUrl {
    /// Opens the store, and creates it if there is none. Blocks.
    ///
    /// # Errors
    /// If it cannot be opened, or is open already.
    pub fn open(&self) -> Result<Arc<dyn Store>, OpenError> {
        let StoreUrl::Sqlite(path) = self;
        Ok(Arc::new(SqliteStore::open(path)?))
    }

    /// Opens the store for reading only; a gateway may have it open at the same time. Blocks.
    ///
    /// # Errors
    /// If there is no store, or it cannot be read.
    pub fn open_archive(&self) -> Result<SqliteArchive, OpenError> {
        let StoreUrl::Sqlite(path) = self;
        SqliteArchive::open(path)
    }

    /// Hands the secret that an earlier version kept in the store to `keep`, and removes it once that has returned. False if
    /// there is none. Blocks.
    ///
    /// # Errors
    /// If the store cannot be opened or changed, or `keep` fails; then the secret is still there.
    pub fn take_secret(&self, keep: impl FnOnce([u8; 32]) -> std::io::Result<()>) -> Result<bool, OpenError> {
        let StoreUrl::Sqlite(path) = self;
        SqliteStore::take_secret(path, keep)
    }

    /// The store's file, if it is a file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        let StoreUrl::Sqlite(path) = self;
        Some(path)
    }
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let StoreUrl::Sqlite(path) = self;
        write!(f, "{}", path.display())
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<StoreUrl, String> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() && !path.ends_with('/') => {
                Ok(StoreUrl::Sqlite(PathBuf::from(path)))
            }
            Some(("redis" | "rediss", _)) => Err("Redis is not supported by this build".into()),
            _ => Err("a store is given as `sqlite:PATH`".into()),
        }
    }
}
