//! The secret that earlier versions kept in the database: it is moved out, so that a copy of the database is worth less.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::file::{self, Database};
use super::{OpenError, SqliteStore, schema};

const SELECT: &str = "SELECT value FROM meta WHERE key = 'secret'";

impl SqliteStore {
    /// Hands the secret in the database at `path` to `keep`, and removes it, from free pages and from the write-ahead log
    /// too. False if there is no database, or no secret in it. Blocks.
    ///
    /// # Errors
    /// If the database cannot be opened or changed, or `keep` fails; then the secret is still there.
    pub fn take_secret(
        path: &Path,
        keep: impl FnOnce([u8; 32]) -> io::Result<()>,
    ) -> Result<bool, OpenError> {
        if !path.exists() || !has_secret(path)? {
            return Ok(false);
        }
        let (_database, connection) = Database::open(path)?;
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        let stored: Option<Vec<u8>> =
            connection.query_row(SELECT, [], |row| row.get(0)).optional().map_err(sqlite)?;
        let Some(secret) = stored.and_then(|secret| secret.try_into().ok()) else { return Ok(false) };
        // INVARIANT: it is on disk elsewhere before it is removed here.
        keep(secret).map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
        remove(&connection).map_err(sqlite)?;
        Ok(true)
    }
}

/// Looked at first, since only a reader needs no lock and changes nothing.
fn has_secret(path: &Path) -> Result<bool, OpenError> {
    let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let (connection, _lock) = file::open_read_only(path)?;
    if !schema::has_meta(&connection).map_err(sqlite)? {
        return Ok(false);
    }
    let found = connection.query_row(SELECT, [], |_| Ok(())).optional().map_err(sqlite)?;
    Ok(found.is_some())
}

fn remove(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "secure_delete", "on")?;
    connection.execute("DELETE FROM meta WHERE key = 'secret'", [])?;
    // The log still has the page as it was; truncated, nothing of it is left.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
