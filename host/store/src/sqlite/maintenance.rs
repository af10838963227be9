//! What is done in small steps from time to time: removing what expired long ago, and giving space back to the disk.

use countersign_core::lifecycle::Timestamp;
use rusqlite::{Connection, params};

use super::column::millis;
use crate::{EXPIRED_KEPT_MS, StoreError};

/// How many rows of each table are removed at a time.
const ROWS: u32 = 500;

/// How many unused pages are kept for what is stored next: 16 MiB.
const SPARE_PAGES: u32 = 4_096;

/// How many pages are given back at a time.
const PAGES: u32 = 512;

/// Removes some of what expired long before `now`, and gives some unused pages back.
pub(super) fn maintain(db: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let long_ago = millis(now.minus(EXPIRED_KEPT_MS));
    for sql in [
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE until <= ?1 ORDER BY until LIMIT ?2)",
        "DELETE FROM nonce WHERE nonce IN (SELECT nonce FROM nonce WHERE until <= ?1 ORDER BY until LIMIT ?2)",
    ] {
        db.prepare_cached(sql)?.execute(params![long_ago, ROWS])?;
    }
    let unused: u32 = db.query_one("PRAGMA freelist_count", [], |row| row.get(0))?;
    if unused > SPARE_PAGES {
        // Does nothing in a database that was made without `auto_vacuum`. It gives back a page for each row that is read.
        let mut give_back = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut pages = give_back.query([])?;
        while pages.next()?.is_some() {}
    }
    Ok(())
}
