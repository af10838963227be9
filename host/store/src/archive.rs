//! What replays and comparisons read of a store that gateways may have open at the same time. Every call blocks.

use countersign_core::lifecycle::{Digest, Request, RequestId};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature};

use crate::redis::RedisArchive;
use crate::{SqliteArchive, StoreError, StoredSet};

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

    /// As [`crate::Policies::module`].
    ///
    /// # Errors
    /// If the store does not answer, or it cannot be read.
    pub fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Archive::Sqlite(archive) => archive.module(digest),
            Archive::Redis(archive) => archive.module(digest),
        }
    }

    /// As [`crate::Policies::signatures`].
    ///
    /// # Errors
    /// If the store does not answer, or it cannot be read.
    pub fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        match self {
            Archive::Sqlite(archive) => archive.signatures(digest),
            Archive::Redis(archive) => archive.signatures(digest),
        }
    }

    /// As [`crate::Policies::policy_set`].
    ///
    /// # Errors
    /// If the store does not answer, or it cannot be read.
    pub fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        match self {
            Archive::Sqlite(archive) => archive.policy_set(hash),
            Archive::Redis(archive) => archive.policy_set(hash),
        }
    }

    /// As [`crate::Policies::policy_in_force`].
    ///
    /// # Errors
    /// If the store does not answer, or it cannot be read.
    pub fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        match self {
            Archive::Sqlite(archive) => archive.policy_in_force(),
            Archive::Redis(archive) => archive.policy_in_force(),
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
