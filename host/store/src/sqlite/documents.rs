//! Documents by key.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::SqliteStore;
use crate::{Documents, StoreError};

#[async_trait]
impl Documents for SqliteStore {
    async fn keep(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        let key = key.to_owned();
        let kept = self.writer.write(move |scope| {
            let mut keep = scope.db.prepare_cached(
                "INSERT INTO kept (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?;
            keep.execute(params![key, value])?;
            Ok(())
        });
        kept.await
    }

    async fn replace(&self, key: &str, before: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StoreError> {
        let key = key.to_owned();
        let replaced = self.writer.write(move |scope| {
            let changed = match &before {
                None => {
                    let mut insert = scope.db.prepare_cached(
                        "INSERT INTO kept (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    )?;
                    insert.execute(params![key, value])?
                }
                Some(before) => {
                    let mut update = scope
                        .db
                        .prepare_cached("UPDATE kept SET value = ?3 WHERE key = ?1 AND value = ?2")?;
                    update.execute(params![key, before, value])?
                }
            };
            Ok(changed > 0)
        });
        replaced.await
    }

    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_owned();
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached("SELECT value FROM kept WHERE key = ?1")?;
            Ok(select.query_row([key], |row| row.get(0)).optional()?)
        });
        read.await
    }
}
