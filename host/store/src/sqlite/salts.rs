//! The salts of requests, which are columns of the table `request`.

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, WrappedSalt};
use rusqlite::{Connection, Row, params};

use super::SqliteStore;
use super::column::{Column, RowContext, row_limit};
use crate::{NewSalt, Salts, StoreError};

#[async_trait]
impl Salts for SqliteStore {
    async fn salts(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, WrappedSalt)>, StoreError> {
        self.readers.read(move |db| select(db, after, limit)).await
    }

    async fn replace_salts(&self, replacements: Vec<NewSalt>) -> Result<usize, StoreError> {
        let replaced = self.writer.write(move |scope| {
            // A salt has the same length under every key, so SQLite overwrites what the former key decrypts.
            let mut update = scope.db.prepare_cached(
                "UPDATE request SET salt_key = ?4, salt = ?5 WHERE id = ?1 AND salt_key = ?2 AND salt = ?3",
            )?;
            let mut replaced = 0;
            for NewSalt { request, from, to } in &replacements {
                let id = request.to_bytes();
                replaced += update.execute(params![id, from.key, from.sealed, to.key, to.sealed])?;
            }
            Ok(replaced)
        });
        replaced.await
    }
}

/// Up to `limit` salts of requests with ids above `after`.
pub(super) fn select(
    db: &Connection,
    after: Option<RequestId>,
    limit: usize,
) -> Result<Vec<(RequestId, WrappedSalt)>, StoreError> {
    // The id of each request is longer than nothing, so it is above it.
    let after = after.map(|id| id.to_bytes().to_vec()).unwrap_or_default();
    let mut select = db.prepare_cached(
        "SELECT id, salt_key, salt FROM request WHERE id > ?1 AND salt_key IS NOT NULL ORDER BY id LIMIT ?2",
    )?;
    let mut rows = select.query(params![after, row_limit(limit)])?;
    let mut salts = Vec::new();
    while let Some(row) = rows.next()? {
        let id = RowContext { table: "request", key: &"a salt" }.request_id(row, (0, "id"))?;
        let context = RowContext { table: "request", key: &id };
        salts.extend(read(context, row, (1, "salt_key"), (2, "salt"))?.map(|salt| (id, salt)));
    }
    Ok(salts)
}

/// The salt in these columns, if there is one.
pub(super) fn read(
    context: RowContext<'_>,
    row: &Row<'_>,
    key: Column,
    sealed: Column,
) -> Result<Option<WrappedSalt>, StoreError> {
    let found: (Option<String>, Option<Vec<u8>>) = (context.get(row, key)?, context.get(row, sealed)?);
    match found {
        (Some(key), Some(sealed)) => Ok(Some(WrappedSalt { key, sealed })),
        (None, None) => Ok(None),
        _ => Err(context.corrupt(sealed.1, "there is only a part of it")),
    }
}
