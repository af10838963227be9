//! What replays read of a store that gateways may have open at the same time. Every call blocks.

use countersign_core::lifecycle::{Digest, Request, RequestId};
use countersign_core::record::PolicyEntry;

use crate::redis::RedisArchive;
use crate::{SqliteArchive, StoreError};

/// A store that is open for reading only.
#[derive(Debug)]
pub enum Archive {
    /// The file of an embedded store.
    Sqlite(SqliteArchive),
    /// A store in a Redis.
    Redis(Box<RedisArchive>),
}

impl Archive {
    /// Up to `limit` requests with ids from `from` on, in the order in which they were created, without their salts.
    ///
    /// # Errors
    /// If the store does not answer, or has a request that cannot be read.
    pub fn requests(&self, from: RequestId, limit: usize) -> Result<Vec<Request>, StoreError> {
        match self {
            Archive::Sqlite(archive) => archive.requests(from, limit),
            Archive::Redis(archive) => archive.requests(from, limit),
        }
    }

    /// The policy entry with this hash.
    ///
    /// # Errors
    /// If the store does not answer, or the entry cannot be read.
    pub fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        match self {
            Archive::Sqlite(archive) => archive.policy_entry(hash),
            Archive::Redis(archive) => archive.policy_entry(hash),
        }
    }

    /// The documents whose keys begin with `prefix`, by key.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        match self {
            Archive::Sqlite(archive) => archive.kept(prefix),
            Archive::Redis(archive) => archive.kept(prefix),
        }
    }
}
