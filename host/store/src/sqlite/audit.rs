//! The audit log, and the counts that are stored with its entries.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count, RequestId, Status};
use rusqlite::{Connection, params};

use super::column::{RowContext, json, millis, row_limit};
use super::writer::{CountRow, Scope};
use super::{SqliteStore, guards};
use crate::{Audit, AuditCursor, AuditPage, Nonce, StoreError};

#[async_trait]
impl Audit for SqliteStore {
    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError> {
        let records = Records::of(audit, counts)?;
        let appended = self.writer.write(move |scope| Ok(records.insert(scope)?));
        appended.await
    }

    async fn append_once(
        &self,
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        nonce: Nonce,
    ) -> Result<bool, StoreError> {
        let records = Records::of(audit, counts)?;
        let appended = self.writer.write(move |scope| {
            if guards::is_repeated(scope.db, Some(&nonce))? {
                return Ok(false);
            }
            guards::insert(scope.db, Some(&nonce))?;
            records.insert(scope)?;
            Ok(true)
        });
        appended.await
    }

    async fn audit(&self, after: &AuditCursor, limit: usize) -> Result<AuditPage, StoreError> {
        let mut last = place(after)?;
        let read = self.readers.read(move |db| {
            let mut select =
                db.prepare_cached("SELECT seq, body FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut rows = select.query(params![last, row_limit(limit)])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                last = row.get(0)?;
                let context = RowContext { table: "audit", key: &last };
                entries.push(context.json("body", context.get::<String>(row, (1, "body"))?)?);
            }
            Ok(AuditPage { entries, next: AuditCursor(last.to_string()) })
        });
        read.await
    }
}

/// The number of the last entry that was read.
fn place(cursor: &AuditCursor) -> Result<i64, StoreError> {
    if cursor.0.is_empty() {
        return Ok(0);
    }
    cursor.0.parse().map_err(|_| StoreError::Cursor(cursor.0.clone()))
}

/// The audit entries and counts that are stored in the same transaction as a change.
pub(super) struct Records {
    audit: Vec<AuditRow>,
    counts: Vec<CountRow>,
}

pub(super) struct AuditRow {
    at: i64,
    event: String,
    action: String,
    status: Option<&'static str>,
    request: Option<[u8; 16]>,
    body: String,
}

impl Records {
    pub(super) fn of(audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<Records, StoreError> {
        Ok(Records {
            audit: audit.into_iter().map(AuditRow::of).collect::<Result<_, _>>()?,
            counts: counts.into_iter().map(CountRow::of).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn insert(&self, scope: &mut Scope<'_>) -> rusqlite::Result<()> {
        self.audit.iter().try_for_each(|row| row.insert(scope.db))?;
        scope.count(&self.counts);
        Ok(())
    }
}

impl AuditRow {
    fn of(entry: AuditEntry) -> Result<AuditRow, StoreError> {
        Ok(AuditRow {
            at: millis(entry.at),
            status: entry.status.map(Status::as_str),
            request: entry.request.map(RequestId::to_bytes),
            body: json(&entry)?,
            event: entry.event,
            action: entry.action,
        })
    }

    /// The row of an entry whose JSON is stored as it is.
    pub(super) fn stored(body: String) -> Result<AuditRow, StoreError> {
        let context = RowContext { table: "audit", key: &"an entry" };
        let row = AuditRow::of(context.json("body", &body)?)?;
        Ok(AuditRow { body, ..row })
    }

    pub(super) fn insert(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut insert = db.prepare_cached(
            "INSERT INTO audit (at, event, action, status, request, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        insert.execute(params![self.at, self.event, self.action, self.status, self.request, self.body])?;
        Ok(())
    }
}
