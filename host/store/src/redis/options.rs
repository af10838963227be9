//! How a Redis is used.

use std::time::Duration;

use super::address::RedisUrl;
use super::checks::RedisOpenError;

/// How a Redis is used. Every instance that shares one must be given the same.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Where it is.
    pub url: RedisUrl,
    /// The certificates, in PEM, of those who may sign the server's one; those of the system if there are none here.
    pub authorities: Option<Vec<u8>>,
    /// Whether a server on another machine may be used without TLS.
    pub plaintext: bool,
    /// What every key begins with, in braces, so that several stores can share a Redis: letters, digits, `-` and `_`.
    pub namespace: String,
    /// In how many partitions requests are spread. It is fixed when the store is made.
    pub partitions: u16,
    /// When a write counts as stored.
    pub durability: Durability,
    /// Whose time leases, claims and readiness go by.
    pub time: StoreTime,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// How long a call may take in all, with what is tried again; a `WAIT` that was sent before that is waited for. Less
    /// than a minute, after which a place that was reserved for a request counts as unused.
    pub deadline: Duration,
    /// How many writes may wait for replicas at once.
    pub waiting_writes: usize,
}

impl RedisOptions {
    /// Refuses what a store would not be opened with, without a connection.
    ///
    /// # Errors
    /// Which option it is.
    pub fn check(&self) -> Result<(), RedisOpenError> {
        super::checks::options(self)
    }

    /// The defaults.
    #[must_use]
    pub fn new(url: RedisUrl) -> RedisOptions {
        RedisOptions {
            url,
            authorities: None,
            plaintext: false,
            namespace: "cs".to_owned(),
            partitions: 16,
            durability: Durability::Primary,
            time: StoreTime::Redis,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(5),
            waiting_writes: 32,
        }
    }
}

/// When a write counts as stored. docs/REDIS.md says what each promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once the primary has it.
    Primary,
    /// Once this many replicas have it too (`WAIT`).
    Replicas {
        /// How many.
        replicas: u32,
        /// How long one `WAIT` may take. It is repeated within the call's deadline.
        timeout: Duration,
    },
    /// Once it is on disk (`WAITAOF`, from Redis 7.2).
    Disks {
        /// Whether on the primary's.
        local: bool,
        /// On how many replicas'.
        replicas: u32,
        /// How long one `WAITAOF` may take. It is repeated within the call's deadline.
        timeout: Duration,
    },
}

impl Durability {
    /// Whether a write is told before it is confirmed to whoever has made it alone.
    pub(super) fn waits(self) -> bool {
        self != Durability::Primary
    }
}

/// Whose time leases, claims and readiness go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTime {
    /// That of Redis: a caller's times are moved by how far its clock is behind.
    Redis,
    /// The caller's, for tests and simulations that have a time of their own.
    Given,
}

impl StoreTime {
    /// As scripts know it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            StoreTime::Redis => "store",
            StoreTime::Given => "given",
        }
    }
}
