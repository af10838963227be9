//! Counters, and what is open or undelivered.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::Counter;
use rusqlite::types::Type;

use super::SqliteStore;
use super::column::RowContext;
use crate::{OpenRequests, OutboxDepth, Statistics, StoreError};

#[async_trait]
impl Statistics for SqliteStore {
    async fn counters(&self) -> Result<BTreeMap<Counter, u64>, StoreError> {
        let read = self.readers.read(|db| {
            let mut select = db.prepare_cached("SELECT metric, labels, value FROM counter")?;
            let rows = select.query_and_then([], |row| {
                let metric: String = row.get(0)?;
                let labels: String = row.get(1)?;
                let key = format!("{metric} {labels}");
                let context = RowContext { table: "counter", key: &key };
                let labels = context.json("labels", labels)?;
                Ok((Counter { metric, labels }, context.unsigned(row, (2, "value"))?))
            })?;
            rows.collect()
        });
        read.await
    }

    async fn open_requests(&self) -> Result<Vec<OpenRequests>, StoreError> {
        let read = self.readers.read(|db| {
            // The sum is taken in two halves, neither of which can overflow.
            let mut select = db.prepare_cached(
                "SELECT action, status, count(*), min(submitted_at),
                        sum(submitted_at >> 32), sum(submitted_at & 4294967295)
                 FROM request WHERE due_at IS NOT NULL GROUP BY action, status ORDER BY action, status",
            )?;
            let rows = select.query_and_then([], |row| {
                let action: String = row.get(0)?;
                let context = RowContext { table: "request", key: &format_args!("action {action}") };
                let status: String = context.get(row, (1, "status"))?;
                let high = u128::from(context.unsigned(row, (4, "submitted_at"))?);
                let low = u128::from(context.unsigned(row, (5, "submitted_at"))?);
                Ok(OpenRequests {
                    status: context.variant("status", &status)?,
                    count: context.unsigned(row, (2, "count(*)"))?,
                    oldest: context.time(row, (3, "submitted_at"))?,
                    sum_submitted_ms: (high << 32).saturating_add(low),
                    action,
                })
            })?;
            rows.collect()
        });
        read.await
    }

    async fn waiting_personas(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        let read = self.readers.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT action, waits_for, count(*) FROM request WHERE waits_for IS NOT NULL
                 GROUP BY action, waits_for",
            )?;
            let mut waiting: BTreeMap<(String, String), u64> = BTreeMap::new();
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let action: String = row.get(0)?;
                let context = RowContext { table: "request", key: &format_args!("action {action}") };
                let personas: Vec<String> =
                    context.json("waits_for", context.get::<String>(row, (1, "waits_for"))?)?;
                let count = context.unsigned(row, (2, "count(*)"))?;
                for persona in personas {
                    *waiting.entry((action.clone(), persona)).or_default() += count;
                }
            }
            Ok(waiting.into_iter().map(|((action, persona), count)| (action, persona, count)).collect())
        });
        read.await
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth, StoreError> {
        let read = self.readers.read(|db| {
            let mut select = db.prepare_cached("SELECT count(*), min(since) FROM outbox")?;
            let mut rows = select.query_and_then([], |row| {
                let context = RowContext { table: "outbox", key: &"the oldest" };
                let oldest = match row.get_ref(1)?.data_type() {
                    Type::Null => None,
                    _ => Some(context.time(row, (1, "since"))?),
                };
                Ok(OutboxDepth { entries: context.unsigned(row, (0, "count(*)"))?, oldest })
            })?;
            rows.next().transpose()
        });
        Ok(read.await?.unwrap_or_default())
    }
}
