//! The shared store: any number of instances on one Redis (7 or later), be it a server, one that Sentinels watch, or a
//! Cluster.
//!
//! Requests are spread over partitions by the shard in their ids. The keys of a partition have one hash slot, and every
//! write is one script over keys of one partition, so it is atomic wherever the partition lives; but for the one rule below.
//! What concerns no request has a partition of its own. docs/REDIS.md lists the keys, and says what each setting promises.
//!
//! **How many requests a caller may have open** is the one rule that spans partitions. They are counted in the partition
//! that the caller's name leads to, by a list of ids. One server has all partitions, and there the write that creates or ends
//! a request also counts it. In a Cluster an id is put on the list before its request is created, and taken off after it has
//! ended, or was not created. So the list has all that are open, and the limit is never exceeded. What a crash leaves on it
//! is found when it is full: then its members are looked at, no more of them than the limit, and those that are not open are
//! taken off. (Blocks of permits that instances lease would spare the Cluster a script for each create, but strand permits
//! with instances that do not need them, which refuses callers below their limit; and limits are small.) Requests that were
//! created while no limit applied are not on the list.
//!
//! **Requests that supersede each other** are found by such a list as well, one for each key (`supersede.rs`).
//!
//! Here the store is opened; each port has a file of its own.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod address;
mod options;

mod breaker;
mod call;
mod connect;
mod fault;
mod link;
mod reply;
mod script;

mod checks;
mod confirmation;

mod archive;
pub(crate) mod copy;

mod audit;
mod dispatches;
mod documents;
mod guards;
mod messages;
mod outbox;
mod policies;
mod quota;
mod records;
mod request_row;
mod requests;
mod retention;
mod salts;
mod shared;
mod statistics;
mod supersede;
mod together;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, Timestamp};

use self::call::{Call, Tag};
use self::fault::unavailable;
use self::link::Link;
use self::outbox::Channels;
use self::quota::{Full, NewOpen, Quota};
use self::reply::{Place, millis};
use self::script::MAINTAIN;
use self::shared::{Bucket, Feed};
use self::together::Together;
use crate::{Shared, Store, StoreError, StoreFault};

pub use address::{RedisUrl, RedisUrlError};
pub use archive::RedisArchive;
pub use checks::{RedisOpenError, RedisWarning};
pub use options::{Durability, RedisOptions, StoreTime};

const BACKEND: &str = "redis";

/// A store in a Redis, which other instances may have open too.
pub struct RedisStore {
    space: Arc<Space>,
    feed: Feed,
    warnings: Vec<RedisWarning>,
}

/// How much that has expired one script removes at most, since others wait for it.
const PURGED_AT_ONCE: u64 = 1000;

/// What all that use a Redis must know of it.
struct Space {
    link: Link,
    namespace: String,
    partitions: u16,
    durability: Durability,
    time: StoreTime,
    /// Tells the changes of this instance from those of others.
    origin: String,
    channels: Channels,
    full: Full,
    /// By caller: requests that are to be counted as open, and those that are no longer.
    reserving: Together<String, NewOpen, Option<Quota>>,
    releasing: Together<String, RequestId, ()>,
    /// Tokens that are taken of buckets.
    taking: Together<Bucket, (), Option<u64>>,
    closed: std::sync::atomic::AtomicBool,
}

impl RedisStore {
    /// Opens the store, and makes it if there is none.
    ///
    /// # Errors
    /// If it cannot be reached, is too old, may throw away what is stored, or has another number of partitions.
    pub async fn open(options: RedisOptions) -> Result<RedisStore, RedisOpenError> {
        checks::options(&options)?;
        let space = Space::of(&options);
        let warnings = checks::server(&space).await?;
        checks::make(&space).await?;
        RedisStore::of(space, warnings).await
    }

    /// Opens a store that is there, with as many partitions as it has. No key is made.
    ///
    /// # Errors
    /// As [`RedisStore::open`], and if there is none.
    pub async fn open_existing(options: RedisOptions) -> Result<RedisStore, RedisOpenError> {
        checks::options(&options)?;
        let probe = Space::of(&options);
        let warnings = checks::server(&probe).await?;
        let missing = || RedisOpenError::Missing { namespace: options.namespace.clone() };
        let partitions = checks::existing(&probe).await?.ok_or_else(missing)?;
        RedisStore::of(Space::of(&RedisOptions { partitions, ..options }), warnings).await
    }

    async fn of(space: Space, warnings: Vec<RedisWarning>) -> Result<RedisStore, RedisOpenError> {
        checks::partitions(&space).await?;
        let space = Arc::new(space);
        let feed = Feed::start(Arc::clone(&space));
        Ok(RedisStore { space, feed, warnings })
    }

    /// What of the server's configuration can lose what was acknowledged.
    #[must_use]
    pub fn warnings(&self) -> &[RedisWarning] {
        &self.warnings
    }
}

impl Space {
    fn of(options: &RedisOptions) -> Space {
        Space {
            link: Link::new(options),
            namespace: options.namespace.clone(),
            partitions: options.partitions,
            durability: options.durability,
            time: options.time,
            origin: format!("{:016x}", fastrand::u64(..)),
            channels: Channels::default(),
            full: Full::default(),
            reserving: Together::default(),
            releasing: Together::default(),
            taking: Together::default(),
            closed: Default::default(),
        }
    }

    fn tag(&self, shard: u16) -> Tag {
        Tag::of_partition(&self.namespace, shard.checked_rem(self.partitions).unwrap_or_default())
    }

    fn tag_of(&self, request: RequestId) -> Tag {
        self.tag(request.shard())
    }

    fn meta(&self) -> Tag {
        Tag::of_meta(&self.namespace)
    }

    /// Those of all partitions of requests.
    fn tags(&self) -> Vec<Tag> {
        (0..self.partitions).map(|partition| Tag::of_partition(&self.namespace, partition)).collect()
    }

    /// Those of all partitions, with the one of what concerns no request.
    fn all_tags(&self) -> Vec<Tag> {
        let mut tags = self.tags();
        tags.push(self.meta());
        tags
    }

    /// A change that is applied once, however often it is sent.
    fn once(&self, script: &'static script::Script, tag: &Tag) -> Call {
        Call::once(script, tag, false)
    }

    /// The same, of which a WAIT follows if one is configured: for [`Space::durable`].
    fn lasting(&self, script: &'static script::Script, tag: &Tag) -> Call {
        Call::once(script, tag, self.durability.waits())
    }

    /// Carries out a change, and waits until it is as durable as configured.
    async fn durable(&self, call: Call) -> Result<redis::Value, StoreError> {
        self.writable()?;
        self.link.durable(call).await
    }

    /// Carries out a change that may be lost with the server, and is then made again.
    async fn write(&self, call: Call) -> Result<redis::Value, StoreError> {
        self.writable()?;
        self.link.call(call).await
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.closed.load(std::sync::atomic::Ordering::Acquire) {
            true => Err(unavailable(StoreFault::Other, "it is closed")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.space.writable()?;
        // A write to each partition, since in a Cluster each may be on a server of its own.
        let tags = self.space.all_tags();
        let pings = tags.iter().map(|tag| Call::command("SET", tag, "ping").text("1"));
        self.space.link.calls(pings.collect()).await?;
        if self.space.durability.waits() {
            self.space.link.confirmed(&self.space.meta()).await?;
        }
        Ok(())
    }

    async fn maintain(&self, now: Timestamp) -> Result<(), StoreError> {
        self.space.writable()?;
        let mut tags = self.space.tags();
        while !tags.is_empty() {
            let purge = |tag| Call::script(&MAINTAIN, tag).number(millis(now)).number(PURGED_AT_ONCE);
            let removed = self.space.link.calls(tags.iter().map(purge).collect()).await?;
            // Where as much was removed as may be at once, there may be more.
            let mut full = Vec::new();
            for (tag, removed) in tags.into_iter().zip(removed) {
                let place = Place { table: "expiring", key: &"what has expired" };
                if place.number("removed", removed)? >= PURGED_AT_ONCE {
                    full.push(tag);
                }
            }
            tags = full;
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        // Writes are carried out by whoever awaits them, so none is queued.
        self.space.closed.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }
}
