//! Idempotency keys, which are stored with the request that they were first used for.

use countersign_core::lifecycle::Digest;
use rusqlite::{Connection, params};

use super::PURGE;
use super::column::{RowContext, millis};
use super::request_row::{RequestRow, StoredRequest};
use crate::{EXPIRED_KEPT_MS, Idempotency, StoreError};

/// The fingerprint and the request that a key was first used for, if the key has not expired at `now`.
pub(super) fn find(
    db: &Connection,
    key: &Digest,
    now: i64,
) -> Result<Option<(Digest, StoredRequest)>, StoreError> {
    let context = RowContext { table: "idempotency", key };
    let mut select =
        db.prepare_cached("SELECT fingerprint, request FROM idempotency WHERE key = ?1 AND until > ?2")?;
    let mut rows = select.query_and_then(params![key.as_bytes(), now], |row| {
        let fingerprint = context.digest(row, (0, "fingerprint"))?;
        Ok::<_, StoreError>((fingerprint, context.request_id(row, (1, "request"))?))
    })?;
    let Some((fingerprint, id)) = rows.next().transpose()? else { return Ok(None) };
    Ok(StoredRequest::find(db, id)?.map(|stored| (fingerprint, stored)))
}

/// Stores the key of a new request, and deletes some that expired long ago.
pub(super) fn insert(db: &Connection, idempotency: &Idempotency, row: &RequestRow) -> rusqlite::Result<()> {
    let Idempotency { key, fingerprint, until } = idempotency;
    let mut purge = db.prepare_cached(
        "DELETE FROM idempotency
         WHERE key IN (SELECT key FROM idempotency WHERE until <= ?1 ORDER BY until LIMIT ?2)",
    )?;
    purge.execute(params![row.submitted_at.saturating_sub_unsigned(EXPIRED_KEPT_MS), PURGE])?;
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (key, fingerprint, request, until) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![key.as_bytes(), fingerprint.as_bytes(), row.id, millis(*until)])?;
    Ok(())
}
