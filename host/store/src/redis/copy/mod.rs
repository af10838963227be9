//! What a copy reads from a Redis, and what it writes to one.

mod keys;
mod reader;
mod target;

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::call::{Call, Tag};
use super::link::Link;
use super::options::RedisOptions;
use super::reply::Place;
use super::script::{GIVE_BACK, LEASE};
use super::{Space, checks};
use crate::copy::{CopyError, redis_error};
use crate::{StoreError, StoreOpenError};

pub(crate) use reader::RedisReader;
pub(crate) use target::RedisTarget;

/// The lease that keeps gateways from starting on a store while it is copied.
pub(super) const LEASE_NAME: &str = "copy";

/// How long the lease lasts, and after how long it is renewed.
const LEASE_MS: u64 = 60_000;
const RENEW: Duration = Duration::from_secs(10);

/// A store that is copied.
pub(crate) struct RedisSource {
    space: Arc<Space>,
    holder: u64,
    renewed: Instant,
    /// How far each audit log had come when the copy began.
    began_at: Vec<Value>,
}

impl RedisSource {
    pub(crate) async fn open(options: RedisOptions) -> Result<RedisSource, CopyError> {
        let refused = |error| redis_error("source", error);
        checks::options(&options).map_err(refused)?;
        let name = options.url.to_string();
        let probe = Space::of(&options);
        checks::server(&probe).await.map_err(refused)?;
        let Some(partitions) = checks::existing(&probe).await.map_err(refused)? else {
            return Err(CopyError::NoSource(format!("{}` in `{name}", options.namespace)));
        };
        let space = Arc::new(Space::of(&RedisOptions { partitions, ..options }));
        not_in_use(&space, "source").await?;
        let mut source =
            RedisSource { space, holder: fastrand::u64(..), renewed: Instant::now(), began_at: Vec::new() };
        source.lease().await?;
        source.began_at = source.audit_numbers().await?;
        Ok(source)
    }

    pub(crate) fn partitions(&self) -> u16 {
        self.space.partitions
    }

    pub(crate) fn reader(&self) -> RedisReader {
        RedisReader::of(Arc::clone(&self.space))
    }

    pub(crate) async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let get = Call::command("GET", &self.space.meta(), format_args!("doc:{key}"));
        Place { table: "doc", key: &key }.optional_bytes("value", self.space.link.call(get).await?)
    }

    /// Renews the lease, if it is time to.
    pub(crate) async fn keep_others_out(&mut self) -> Result<(), CopyError> {
        if self.renewed.elapsed() >= RENEW { self.lease().await } else { Ok(()) }
    }

    /// Every decision, and all else that somebody does, makes an audit entry.
    pub(crate) async fn unchanged(&self) -> Result<(), CopyError> {
        not_in_use(&self.space, "source").await?;
        if self.audit_numbers().await? == self.began_at { Ok(()) } else { Err(CopyError::Changed) }
    }

    /// If it fails, the lease runs out by itself.
    pub(crate) async fn release(&self) {
        let give_back = Call::script(&GIVE_BACK, &self.space.meta()).text(LEASE_NAME).number(self.holder);
        if let Err(error) = self.space.link.call(give_back).await {
            tracing::debug!(%error, "the lease of the copy runs out by itself");
        }
    }

    async fn lease(&mut self) -> Result<(), CopyError> {
        let take =
            Call::script(&LEASE, &self.space.meta()).text(LEASE_NAME).number(self.holder).number(LEASE_MS);
        let place = Place { table: "lease", key: &LEASE_NAME };
        if place.number("taken", self.space.link.call(take).await?)? != 1 {
            return Err(CopyError::Busy);
        }
        self.renewed = Instant::now();
        Ok(())
    }

    async fn audit_numbers(&self) -> Result<Vec<Value>, StoreError> {
        let tags = self.space.all_tags();
        let numbers = tags.iter().map(|tag| Call::command("GET", tag, "audit:n"));
        self.space.link.calls(numbers.collect()).await
    }
}

/// Refuses a store that a gateway lives on. One that is cut off is not seen; what it stores is noticed at the end.
async fn not_in_use(space: &Space, which: &'static str) -> Result<(), CopyError> {
    let live = Call::script(&super::script::LIVING, &space.meta());
    let place = Place { table: "instances", key: &"an instance" };
    if place.list(space.link.call(live).await?)?.is_empty() { Ok(()) } else { Err(CopyError::InUse(which)) }
}

/// Looks for every key of a store, a page at a time. In a Cluster, each partition is looked for on the server that has it.
#[derive(Debug)]
pub(in crate::redis) struct Scan {
    /// Where, and what is still to be looked for.
    left: Vec<(Tag, String)>,
    /// The place in the first of them.
    cursor: String,
}

/// How many keys are looked at for a page, which has those among them that are the store's.
const SCANNED: u64 = 500;

impl Scan {
    /// Looks for those keys of what concerns no request whose names this pattern matches.
    pub(in crate::redis) fn of_meta(space: &Space, pattern: &str) -> Scan {
        let meta = space.meta();
        let pattern = meta.key(pattern);
        Scan { left: vec![(meta, pattern)], cursor: "0".to_owned() }
    }

    fn of(space: &Space) -> Scan {
        let left = if space.link.connector().url().is_cluster() {
            space.all_tags().into_iter().map(|tag| (tag.clone(), tag.key("*"))).collect()
        } else {
            vec![(space.meta(), format!("{{{}:*", space.namespace))]
        };
        Scan { left, cursor: "0".to_owned() }
    }

    /// The next keys; `None` at the end. A key may come twice.
    pub(in crate::redis) async fn next(&mut self, link: &Link) -> Result<Option<Vec<String>>, StoreError> {
        while let Some((tag, pattern)) = self.left.last().cloned() {
            let scan = Call::routed("SCAN", &tag).text(&self.cursor).text("MATCH").text(&pattern);
            let found = link.call(scan.text("COUNT").number(SCANNED)).await?;
            let place = Place { table: "SCAN", key: &pattern };
            let [cursor, keys] = place.row(found)?;
            self.cursor = place.text("cursor", cursor)?;
            if self.cursor == "0" {
                self.left.pop();
            }
            let keys = place.list(keys)?.into_iter().map(|key| place.text("key", key));
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            if !keys.is_empty() {
                return Ok(Some(keys));
            }
        }
        Ok(None)
    }
}

fn opened(which: &'static str) -> impl Fn(super::RedisOpenError) -> CopyError {
    move |error| CopyError::Open(which, StoreOpenError::Redis(error))
}
