//! Counters, and what is open or undelivered.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::Counter;
use rusqlite::types::Type;

use super::column::RowContext;
use super::{SqliteStore, open_requests};
use crate::{OpenRequests, OutboxDepth, Statistics, StoreError};

/// Of an index alone a count needs no look at each of its entries, unless something else is asked in the same go.
pub(super) const OUTBOX_DEPTH: &str =
    "SELECT (SELECT count(*) FROM outbox), (SELECT min(since) FROM outbox INDEXED BY outbox_since)";

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
        self.readers.read(open_requests::by_status).await
    }

    async fn waiting_personas(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.readers.read(open_requests::by_persona).await
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth, StoreError> {
        let read = self.readers.read(|db| {
            let mut select = db.prepare_cached(OUTBOX_DEPTH)?;
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
