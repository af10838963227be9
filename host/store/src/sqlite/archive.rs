//! Reads a database while a gateway may have it open: for replays, comparisons and exports.

use std::path::Path;

use countersign_core::lifecycle::{Digest, Request, RequestId, WrappedSalt};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature};
use rusqlite::{Connection, params};

use super::column::{RowContext, other, row_limit};
use super::request_row::StoredRequest;
use super::{OpenError, audit, copy, file, policies, salts, schema};
use crate::{AuditCursor, AuditRange, FileLock, KeptCheckpoint, LogPage, StoreError, StoredSet};

/// A database that is open for reading only. Every call blocks.
#[derive(Debug)]
pub struct SqliteArchive {
    db: Connection,
    // Last, so that it outlives the connection.
    _lock: Option<FileLock>,
}

impl SqliteArchive {
    /// Opens the database at `path`, which must exist.
    pub fn open(path: &Path) -> Result<SqliteArchive, OpenError> {
        let (db, lock) = file::open_read_only(path)?;
        let marked =
            copy::has_mark(&db).map_err(|cause| OpenError::Sqlite { path: path.to_owned(), cause })?;
        if marked {
            return Err(OpenError::Unfinished { path: path.to_owned() });
        }
        Ok(SqliteArchive { db, _lock: lock })
    }

    /// Copies the database, as it is at one moment, into a file that is empty. A gateway goes on writing meanwhile.
    ///
    /// # Errors
    /// If it cannot be read, or the file is not empty or cannot be written.
    pub fn back_up(&self, to: &str) -> Result<(), StoreError> {
        self.db.execute("VACUUM INTO ?1", [to])?;
        Ok(())
    }

    /// Up to `limit` requests with ids from `from` on, in the order in which they were created, without their salts.
    pub fn requests(&self, from: RequestId, limit: usize) -> Result<Vec<Request>, StoreError> {
        let mut select = self.db.prepare_cached(
            "SELECT id, version, body, NULL, NULL FROM request WHERE id >= ?1 ORDER BY id LIMIT ?2",
        )?;
        let rows = select.query_and_then(params![from.to_bytes(), row_limit(limit)], |row| {
            let context = RowContext { table: "request", key: &"a request" };
            StoredRequest::of(context.request_id(row, (0, "id"))?, row)?.parse()
        })?;
        rows.collect()
    }

    /// As [`crate::Salts::salts`].
    pub fn salts(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, WrappedSalt)>, StoreError> {
        if schema::has_salts(&self.db)? { salts::select(&self.db, after, limit) } else { Ok(Vec::new()) }
    }

    /// As [`crate::Audit::audit_log`].
    ///
    /// # Errors
    /// If it cannot be read, or is of an earlier version, whose log has no numbers.
    pub fn audit_log(
        &self,
        range: AuditRange,
        after: &AuditCursor,
        limit: usize,
    ) -> Result<LogPage, StoreError> {
        self.need_numbers()?;
        audit::select(&self.db, range, audit::Place::of(&range, after)?, limit)
    }

    /// As [`crate::Audit::audit_sizes`].
    ///
    /// # Errors
    /// As [`SqliteArchive::audit_log`].
    pub fn audit_sizes(&self) -> Result<Vec<u64>, StoreError> {
        self.need_numbers()?;
        audit::sizes(&self.db)
    }

    /// As [`crate::Audit::audit_checkpoint`].
    ///
    /// # Errors
    /// As [`SqliteArchive::audit_log`].
    pub fn audit_checkpoint(&self) -> Result<Option<KeptCheckpoint>, StoreError> {
        self.need_numbers()?;
        audit::checkpoint(&self.db)
    }

    fn need_numbers(&self) -> Result<(), StoreError> {
        match audit::has_numbers(&self.db)? {
            true => Ok(()),
            false => Err(other(
                "its audit log has no numbers yet: a gateway of this version gives it some when it starts",
            )),
        }
    }

    /// The policy entry with this hash.
    pub fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        policies::select_policy_entry(&self.db, hash)
    }

    /// As [`crate::Policies::module`].
    pub fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        policies::select_module(&self.db, digest)
    }

    /// As [`crate::Policies::signatures`].
    pub fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        policies::select_signatures(&self.db, digest)
    }

    /// As [`crate::Policies::policy_set`].
    pub fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        policies::select_policy_set(&self.db, hash)
    }

    /// As [`crate::Policies::policy_in_force`].
    pub fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        policies::last_in_force(&self.db)
    }

    /// The documents whose keys begin with `prefix`, by key.
    pub fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut select = self.db.prepare_cached(
            "SELECT key, value FROM kept WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key",
        )?;
        let rows = select.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
