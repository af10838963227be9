//! What a copy reads from a Redis, and what it writes to one.

mod keys;
mod reader;
mod target;

use std::sync::Arc;

use redis::InfoDict;

use super::call::{Call, Tag};
use super::link::Link;
use super::options::RedisOptions;
use super::reply::Place;
use super::script::{GIVE_BACK, LEASE};
use super::{Space, checks};
use crate::StoreError;
use crate::copy::{CopyError, redis_error};

pub(crate) use reader::RedisReader;
pub(crate) use target::RedisTarget;

/// The lease that keeps gateways from starting on a store while it is copied.
pub(super) const LEASE_NAME: &str = "copy";

/// How long the lease lasts. It is renewed with each page.
const LEASE_MS: u64 = 60_000;

/// The lease of a store that is copied, or copied to, and the servers that it was taken on.
struct Lease {
    space: Arc<Space>,
    which: &'static str,
    holder: u64,
    servers: Vec<String>,
}

impl Lease {
    async fn take(space: Arc<Space>, which: &'static str) -> Result<Lease, CopyError> {
        let servers = servers(&space).await?;
        let lease = Lease { space, which, holder: fastrand::u64(..), servers };
        lease.renew().await?;
        Ok(lease)
    }

    /// Takes the lease anew if it has run out, which nobody may have used: what was stored meanwhile is noticed at the end.
    async fn renew(&self) -> Result<(), CopyError> {
        if servers(&self.space).await? != self.servers {
            return Err(CopyError::Failover(self.which));
        }
        let take =
            Call::script(&LEASE, &self.space.meta()).text(LEASE_NAME).number(self.holder).number(LEASE_MS);
        let place = Place { table: "lease", key: &LEASE_NAME };
        match place.number("taken", self.space.link.call(take).await?)? {
            1 => Ok(()),
            _ => Err(CopyError::Busy(self.which)),
        }
    }

    /// If it fails, the lease runs out by itself.
    async fn give_back(&self) {
        let give_back = Call::script(&GIVE_BACK, &self.space.meta()).text(LEASE_NAME).number(self.holder);
        if let Err(error) = self.space.link.call(give_back).await {
            tracing::debug!(%error, "the lease of the copy runs out by itself");
        }
    }
}

/// The ids of the processes that answer: one, or in a Cluster that of each partition. A server that was started again has
/// another one.
async fn servers(space: &Space) -> Result<Vec<String>, StoreError> {
    let tags = match space.link.connector().url().is_cluster() {
        true => space.all_tags(),
        false => vec![space.meta()],
    };
    let place = Place { table: "INFO", key: &"server" };
    let ask = tags.iter().map(|tag| async move {
        let told = space.link.call(Call::routed("INFO", tag).text("server")).await?;
        let id = InfoDict::new(&place.text("server", told)?).get::<String>("run_id");
        id.ok_or_else(|| place.corrupt("run_id", "it is missing"))
    });
    futures_util::future::try_join_all(ask).await
}

/// A store that is copied.
pub(crate) struct RedisSource {
    space: Arc<Space>,
    lease: Lease,
    /// How far each audit log had come when the copy began.
    began_at: Vec<u64>,
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
        let lease = Lease::take(Arc::clone(&space), "source").await?;
        match space.audit_sizes().await {
            Ok(began_at) => Ok(RedisSource { space, lease, began_at }),
            Err(error) => {
                lease.give_back().await;
                Err(error.into())
            }
        }
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

    pub(crate) async fn keep_others_out(&self) -> Result<(), CopyError> {
        self.lease.renew().await
    }

    /// Every decision, and all else that somebody does, makes an audit entry.
    pub(crate) async fn unchanged(&self) -> Result<(), CopyError> {
        not_in_use(&self.space, "source").await?;
        if self.space.audit_sizes().await? == self.began_at { Ok(()) } else { Err(CopyError::Changed) }
    }

    pub(crate) async fn release(&self) {
        self.lease.give_back().await;
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
