//! What the instances that share a store need of each other.

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, Timestamp};
use tokio::sync::broadcast;

use crate::StoreError;

/// A store that several instances have open at a time.
#[async_trait]
pub trait Shared: Send + Sync {
    /// What other instances store from now on.
    ///
    /// Changes are hints: they may be lost, and then the receiver lagged or hears [`Change::Missed`]; and what a change is
    /// about is read from the store.
    fn changes(&self) -> broadcast::Receiver<Change>;

    /// The store's time.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Takes a lease, or renews it, for `ttl_ms` milliseconds of the store's time. False if another holder has it.
    ///
    /// A lease keeps instances from doing the same work; it protects nothing, since a holder may not notice that its
    /// lease has ended.
    async fn lease(&self, name: &str, holder: u64, ttl_ms: u64) -> Result<bool, StoreError>;

    /// Who holds a lease, if anybody does.
    async fn lease_holder(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Gives a lease back; nothing happens if another holder has it.
    async fn release(&self, name: &str, holder: u64) -> Result<(), StoreError>;

    /// Says that an instance lives, for `ttl_ms` milliseconds of the store's time, and returns all that live, in order. With
    /// 0 it is forgotten at once.
    async fn announce(&self, instance: u64, ttl_ms: u64) -> Result<Vec<u64>, StoreError>;

    /// Says how many entries of each partition of the audit log an instance has in its audit file, for `ttl_ms` milliseconds
    /// of the store's time. Without numbers nothing is known to be in it yet.
    async fn announce_audit_file(
        &self,
        instance: u64,
        entries: &[u64],
        ttl_ms: u64,
    ) -> Result<(), StoreError>;

    /// What the instances have last said of their audit files.
    async fn audit_files(&self) -> Result<Vec<Vec<u64>>, StoreError>;

    /// Takes a token out of a bucket, by the store's time. If there is none: after how many milliseconds there will be one.
    async fn take(&self, bucket: &str, rate: Rate) -> Result<Option<u64>, StoreError>;
}

/// How many tokens a bucket has and gets. It is full at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The most that it holds.
    pub capacity: u32,
    /// How many it gets a second.
    pub per_sec: f64,
}

/// Something that another instance has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A version of a request.
    Request {
        /// The request.
        id: RequestId,
        /// Its version.
        version: u64,
    },
    /// A change of the policy set in force.
    PolicyInForce,
    /// A document.
    Document {
        /// Its key.
        key: String,
    },
    /// Changes were missed: anything may have changed.
    Missed,
}
