use std::sync::Arc;

use tempfile::TempDir;

use crate::store::contract::{Backend, store_contract};
use crate::store::{SqliteStore, Store};

/// A directory with a database.
struct Sqlite(TempDir);

impl Backend for Sqlite {
    async fn fresh() -> Sqlite {
        Sqlite(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.0.path().join("store.db")).unwrap())
    }
}

store_contract!(Sqlite);
