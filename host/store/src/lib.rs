//! Durable state: the ports (what a backend must keep, in [`ports`]) and the backends that implement them.
//!
//! Nothing here decides anything about a request; it stores what the caller decided.
//! One contract suite tests every backend against what the ports promise.

pub mod ports;

mod archive;
mod copy;
mod error;
mod file_lock;
mod hold;
mod projection;
mod redis;
mod sqlite;
mod url;

#[cfg(test)]
mod contract;
#[cfg(any(test, feature = "fixtures"))]
pub mod faulty;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;

pub use archive::Archive;
pub use copy::{CopyEnd, CopyError, CopyOptions, CopyProgress, copy};
pub use error::{StoreError, StoreFault};
pub use file_lock::FileLock;
pub use hold::{CLAIM_MS, Hold, Lost};
pub use ports::{
    ARCHIVAL_CLAIM_MS, Audit, AuditCursor, AuditPage, AuditRange, Change, ChangePolicy, Claim, Commit,
    Committed, Create, Created, DOCUMENT_PREFIXES, DeadLetter, Dispatch, DispatchDepth, Dispatches,
    Documents, Due, EXPIRED_KEPT_MS, Guards, Idempotency, KeepPost, KeptCheckpoint, LONGEST_PAUSE_MS,
    LONGEST_WAIT_MS, LogColumns, LogEntry, LogPage, Messages, MostOpen, NewDispatch, NewSalt, Nonce,
    OpenPolicy, OpenRequests, Outbox, OutboxDepth, OutboxEntry, Policies, Rate, ReadyEntry, Removable,
    Removal, RemovePolicySet, RemovedRequest, Requests, Retention, Salts, Settled, Shared, StalePost,
    Statistics, Store, StoredSet, Urgency, policy_set_use,
};
pub use redis::{
    Durability, RedisArchive, RedisOpenError, RedisOptions, RedisStore, RedisUrl, RedisUrlError,
    RedisWarning, StoreTime,
};
pub use sqlite::{OpenError, SqliteArchive, SqliteStore};
pub use url::{StoreOpenError, StoreUrl};
