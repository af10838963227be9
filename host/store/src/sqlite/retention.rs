//! Which ended requests it is time to look at, and removing them.

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::SqliteStore;
use super::audit::Records;
use super::column::{RowContext, integer, millis, row_limit};
use super::request_row::StoredRequest;
use crate::{Removable, Removal, RemovedRequest, Retention, StoreError};

pub(super) const ENDED: &str = "SELECT id, seq FROM request WHERE ended_at <= ?1 ORDER BY ended_at LIMIT ?2";

#[async_trait]
impl Retention for SqliteStore {
    async fn ended(&self, until: Timestamp, limit: usize) -> Result<Vec<RequestId>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(ENDED)?;
            let rows = select.query_and_then(params![millis(until), row_limit(limit)], |row| {
                let seq: i64 = row.get(1)?;
                RowContext { table: "request", key: &seq }.request_id(row, (0, "id"))
            })?;
            rows.collect()
        });
        read.await
    }

    async fn put_off(&self, requests: Vec<(RequestId, Timestamp)>) -> Result<(), StoreError> {
        let put_off = self.writer.write(move |scope| {
            let mut update = scope
                .db
                .prepare_cached("UPDATE request SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NOT NULL")?;
            for (request, at) in &requests {
                update.execute(params![request.to_bytes(), millis(*at)])?;
            }
            Ok(())
        });
        put_off.await
    }

    async fn removable(&self, lineage: RequestId, limit: usize) -> Result<Vec<Removable>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(
                "WITH of_lineage (id, version, body, depth, key_until) AS (
                     SELECT id, version, body, depth, key_until FROM request WHERE id = ?1 AND depth = 0
                     UNION ALL
                     SELECT id, version, body, depth, key_until FROM request WHERE lineage = ?1 AND depth > 0
                     ORDER BY depth LIMIT ?2)
                 SELECT id, version, body, NULL, NULL, key_until,
                     EXISTS (SELECT 1 FROM outbox WHERE outbox.request = of_lineage.id)
                         AND EXISTS (SELECT 1 FROM slack_post WHERE slack_post.request = of_lineage.id)
                     OR EXISTS (SELECT 1 FROM dispatch WHERE dispatch.request = of_lineage.id AND failure IS NULL)
                 FROM of_lineage ORDER BY depth",
            )?;
            let rows = select.query_and_then(params![lineage.to_bytes(), row_limit(limit)], |row| {
                let id = RowContext { table: "request", key: &lineage }.request_id(row, (0, "id"))?;
                let context = RowContext { table: "request", key: &id };
                let key_until: Option<i64> = context.get(row, (5, "key_until"))?;
                Ok((
                    StoredRequest::of(id, row)?,
                    key_until.map(|until| Timestamp::from_millis(until.try_into().unwrap_or_default())),
                    row.get(6)?,
                ))
            })?;
            rows.collect::<Result<Vec<(StoredRequest, _, _)>, StoreError>>()
        });
        let rows = read.await?.into_iter().map(|(stored, key_until, is_undelivered)| {
            Ok(Removable { request: stored.parse()?, key_until, is_undelivered })
        });
        rows.collect()
    }

    async fn remove(&self, removals: Vec<Removal>, _archive: Option<u64>) -> Result<Vec<bool>, StoreError> {
        let removals = removals.into_iter().map(|mut removal| {
            let counts = std::mem::take(&mut removal.counts);
            Ok((Records::of(Vec::new(), counts, Some(removal.lineage.shard()))?, removal))
        });
        let removals = removals.collect::<Result<Vec<_>, StoreError>>()?;
        let removed = self.writer.write(move |scope| {
            let mut done = Vec::new();
            for (records, removal) in &removals {
                let can_go = can_go(scope.db, removal)?;
                if can_go {
                    for request in &removal.requests {
                        remove(scope.db, request)?;
                    }
                    records.insert(scope)?;
                }
                done.push(can_go);
            }
            Ok(done)
        });
        removed.await
    }
}

/// Whether nothing has changed since the removal was decided.
fn can_go(db: &Connection, removal: &Removal) -> rusqlite::Result<bool> {
    let mut newest = db.prepare_cached(
        "SELECT id FROM request WHERE lineage = ?1 AND depth > 0 ORDER BY depth DESC LIMIT 1",
    )?;
    let newest =
        newest.query_row([removal.lineage.to_bytes()], |row| row.get::<_, [u8; 16]>(0)).optional()?;
    if newest.unwrap_or(removal.lineage.to_bytes()) != removal.newest.to_bytes() {
        return Ok(false);
    }
    let mut has_ended =
        db.prepare_cached("SELECT 1 FROM request WHERE id = ?1 AND version = ?2 AND due_at IS NULL")?;
    for RemovedRequest { id, version, .. } in &removal.requests {
        if !has_ended.exists(params![id.to_bytes(), integer(*version)])? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn remove(db: &Connection, request: &RemovedRequest) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM request WHERE id = ?1",
        "DELETE FROM outbox WHERE request = ?1",
        "DELETE FROM dispatch WHERE request = ?1",
        "DELETE FROM slack_post WHERE request = ?1",
    ] {
        db.prepare_cached(sql)?.execute([request.id.to_bytes()])?;
    }
    Ok(())
}
