//! Nonces.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Timestamp};
use rusqlite::params;

use super::column::millis;
use super::{PURGE, SqliteStore};
use crate::{Guards, StoreError};

#[async_trait]
impl Guards for SqliteStore {
    async fn claim_nonce(&self, nonce: Digest, now: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
        let claimed = self.writer.write(move |scope| {
            let mut claim = scope.db.prepare_cached(
                "INSERT INTO nonce (nonce, until) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ?3",
            )?;
            if claim.execute(params![nonce.as_bytes(), millis(until), millis(now)])? == 0 {
                return Ok(false);
            }
            let mut purge = scope.db.prepare_cached(
                "DELETE FROM nonce WHERE nonce IN (SELECT nonce FROM nonce WHERE until <= ?1 ORDER BY until LIMIT ?2)",
            )?;
            purge.execute(params![millis(now), PURGE])?;
            Ok(true)
        });
        claimed.await
    }
}
