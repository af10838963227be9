//! The mark by which a copy of the database file tells whether it needs its write-ahead log.
//!
//! While a store is open, the database file says that the log is needed, and the log says that it is not: whoever reads both
//! has everything. A copy of the file alone says that something is missing. Every checkpoint ends with the same two writes.

use rusqlite::{Connection, OptionalExtension as _};

use super::schema::has_meta;

/// What the mark says.
#[derive(Clone, Copy)]
pub(super) enum LogMark {
    /// What follows is in the log.
    Needed,
    /// Who reads this has read the log.
    Merged,
}

impl LogMark {
    pub(super) fn write(self, db: &Connection) -> rusqlite::Result<()> {
        let mut write = db.prepare_cached(
            "INSERT INTO meta (key, value) VALUES ('log', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        write.execute([match self {
            LogMark::Needed => b"needed".as_slice(),
            LogMark::Merged => b"merged",
        }])?;
        Ok(())
    }
}

/// Whether the database, read without its log, needs it.
pub(super) fn needs_log(db: &Connection) -> rusqlite::Result<bool> {
    if !has_meta(db)? {
        return Ok(false);
    }
    let select = "SELECT value = x'6e6565646564' FROM meta WHERE key = 'log'";
    Ok(db.query_row(select, [], |row| row.get(0)).optional()?.unwrap_or(false))
}
