//! Nonces.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Timestamp};
use rusqlite::{Connection, params};

use super::column::millis;
use super::{PURGE, SqliteStore};
use crate::{EXPIRED_KEPT_MS, Guards, Nonce, StoreError};

#[async_trait]
impl Guards for SqliteStore {
    async fn claim_nonce(
        &self,
        _shard: u16,
        nonce: Digest,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let claimed = self.writer.write(move |scope| Ok(claim(scope.db, &nonce, now, until)?));
        claimed.await
    }

    async fn has_nonce(&self, _shard: u16, nonce: &Digest, now: Timestamp) -> Result<bool, StoreError> {
        let nonce = *nonce;
        let read = self.readers.read(move |db| Ok(is_claimed(db, &nonce, now)?));
        read.await
    }
}

/// Whether the write with this nonce must not be stored.
pub(super) fn is_repeated(db: &Connection, nonce: Option<&Nonce>) -> rusqlite::Result<bool> {
    let Some(Nonce { digest, excluded_by, at, .. }) = nonce else { return Ok(false) };
    Ok(is_claimed(db, digest, *at)? || is_claimed(db, excluded_by, *at)?)
}

/// Stores the nonce of a write that is stored in the same transaction, after [`is_repeated`] was false.
pub(super) fn insert(db: &Connection, nonce: Option<&Nonce>) -> rusqlite::Result<()> {
    let Some(Nonce { digest, at, until, .. }) = nonce else { return Ok(()) };
    claim(db, digest, *at, *until).map(drop)
}

fn is_claimed(db: &Connection, nonce: &Digest, now: Timestamp) -> rusqlite::Result<bool> {
    let mut select =
        db.prepare_cached("SELECT EXISTS (SELECT 1 FROM nonce WHERE nonce = ?1 AND until > ?2)")?;
    select.query_one(params![nonce.as_bytes(), millis(now)], |row| row.get(0))
}

/// Stores a nonce, and deletes some that expired long ago. False if it is stored already.
fn claim(db: &Connection, nonce: &Digest, now: Timestamp, until: Timestamp) -> rusqlite::Result<bool> {
    let mut claim = db.prepare_cached(
        "INSERT INTO nonce (nonce, until) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ?3",
    )?;
    if claim.execute(params![nonce.as_bytes(), millis(until), millis(now)])? == 0 {
        return Ok(false);
    }
    let mut purge = db.prepare_cached(
        "DELETE FROM nonce WHERE nonce IN (SELECT nonce FROM nonce WHERE until <= ?1 ORDER BY until LIMIT ?2)",
    )?;
    purge.execute(params![millis(now.minus(EXPIRED_KEPT_MS)), PURGE])?;
    Ok(true)
}
