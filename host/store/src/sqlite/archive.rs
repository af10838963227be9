//! What is stored, for whoever only reads it, beside a gateway that may be running.

use std::path::Path;

use rusqlite::{Connection, params};

use super::row::Place;
use super::{OpenError, StoredRequest, content, file, size};
use crate::StoreError;
use countersign_core::lifecycle::{Digest, Request, RequestId};
use countersign_core::record::PolicyEntry;

/// A database that is read, and neither written to nor locked. Every call blocks.
#[derive(Debug)]
pub struct SqliteArchive {
    db: Connection,
}

impl SqliteArchive {
    /// Opens the database at `path`, which must exist.
    pub fn open(path: &Path) -> Result<SqliteArchive, OpenError> {
        Ok(SqliteArchive { db: file::open_beside(path)? })
    }

    /// Up to `limit` requests with ids from `from` on, in the order in which they were made.
    pub fn requests(&self, from: RequestId, limit: usize) -> Result<Vec<Request>, StoreError> {
        let mut select = self
            .db
            .prepare_cached("SELECT id, version, body FROM request WHERE id >= ?1 ORDER BY id LIMIT ?2")?;
        let rows = select.query_and_then(params![from.to_bytes(), size(limit)], |row| {
            let place = Place { table: "request", key: &"a request" };
            StoredRequest::of(place.request_id(row, (0, "id"))?, row)?.read()
        })?;
        rows.collect()
    }

    /// The policy entry with this hash.
    pub fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        let place = Place { table: "policy_entry", key: &hash };
        let body = content(&self.db, "SELECT body FROM policy_entry WHERE hash = ?1", place, "body", hash)?;
        body.map(|body| place.json("body", body)).transpose()
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
