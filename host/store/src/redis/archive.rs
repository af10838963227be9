//! Reads a store while gateways may have it open: for replays and comparisons. Nothing is written, and no key is made.

use std::collections::BTreeMap;

use countersign_core::lifecycle::{Digest, Request, RequestId};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature};
use redis::Value;
use tokio::runtime::Runtime;

use super::call::Call;
use super::copy::Scan;
use super::fault::unavailable;
use super::options::RedisOptions;
use super::reply::{Place, limit as sent_limit};
use super::request_row::StoredRequest;
use super::{RedisOpenError, Space, checks};
use crate::{StoreError, StoreFault, StoredSet};

/// A store that is open for reading only. Every call blocks.
pub struct RedisArchive {
    space: Space,
    runtime: Own,
}

/// A runtime of its own, which does not wait for its tasks when it is dropped: that may be on a thread of another runtime,
/// which must not be blocked. `None` once it is dropped.
struct Own(Option<Runtime>);

impl RedisArchive {
    /// Opens a store that is there.
    pub(crate) fn open(options: RedisOptions) -> Result<RedisArchive, RedisOpenError> {
        checks::options(&options)?;
        let made = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Own(Some(made.map_err(|error| unavailable(StoreFault::Other, error))?));
        let namespace = options.namespace.clone();
        let space = runtime.block_on(async {
            let probe = Space::of(&options);
            let partitions = checks::existing(&probe).await?;
            let partitions = partitions.ok_or(RedisOpenError::Missing { namespace })?;
            Ok::<_, RedisOpenError>(Space::of(&RedisOptions { partitions, ..options }))
        })?;
        Ok(RedisArchive { space, runtime })
    }

    /// As [`crate::Archive::requests`].
    pub(crate) fn requests(&self, from: RequestId, limit: usize) -> Result<Vec<Request>, StoreError> {
        self.runtime.block_on(async {
            let tags = self.space.tags();
            let select = tags.iter().map(|tag| {
                let range = Call::command("ZRANGEBYLEX", tag, "ids").text(&format!("[{from}")).text("+");
                range.text("LIMIT").number(0_u64).number(sent_limit(limit))
            });
            let mut ids = Vec::new();
            for (tag, found) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
                let place = Place { table: "ids", key: &tag.as_str() };
                for id in place.list(found)? {
                    ids.push(place.request_id("id", id)?);
                }
            }
            // Each partition has told its first ones. Those of all partitions that come first are wanted.
            ids.sort_unstable();
            ids.truncate(limit);
            let get = ids.iter().map(|id| {
                let get = Call::command("HMGET", &self.space.tag_of(*id), format_args!("r:{id}"));
                get.text("v").text("body")
            });
            let mut requests = Vec::with_capacity(ids.len());
            for (id, row) in ids.iter().zip(self.space.link.calls(get.collect()).await?) {
                let [version, body] = Place { table: "r", key: id }.row(row)?;
                let key = Value::BulkString(id.to_string().into_bytes());
                let row = [key, version, Value::Nil, body, Value::Nil, Value::Nil];
                requests.push(StoredRequest::of(row)?.parse()?);
            }
            Ok(requests)
        })
    }

    /// As [`crate::Archive::policy_entry`].
    pub(crate) fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        self.runtime.block_on(self.space.policy_entry(hash))
    }

    /// As [`crate::Policies::module`].
    pub(crate) fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.runtime.block_on(self.space.module(digest))
    }

    /// As [`crate::Policies::signatures`].
    pub(crate) fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        self.runtime.block_on(self.space.signatures(digest))
    }

    /// As [`crate::Policies::policy_set`].
    pub(crate) fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        self.runtime.block_on(self.space.policy_set(hash))
    }

    /// As [`crate::Policies::policy_in_force`].
    pub(crate) fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        self.runtime.block_on(self.space.policy_in_force())
    }

    /// As [`crate::Archive::kept`]. Nothing lists the keys of documents, so they are looked for.
    pub(crate) fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.runtime.block_on(async {
            let meta = self.space.meta();
            let begin = meta.key("doc:");
            let mut scan = Scan::of_meta(&self.space, &format!("doc:{prefix}*"));
            let mut documents = BTreeMap::new();
            while let Some(keys) = scan.next(&self.space.link).await? {
                for key in keys.iter().filter_map(|key| key.strip_prefix(&begin)) {
                    let get = Call::command("GET", &meta, format_args!("doc:{key}"));
                    let place = Place { table: "doc", key: &key };
                    let value = place.optional_bytes("value", self.space.link.call(get).await?)?;
                    documents.extend(value.map(|value| (key.to_owned(), value)));
                }
            }
            Ok(documents.into_iter().collect())
        })
    }
}

impl Own {
    /// On a thread of its own, since whoever calls may be on one of another runtime.
    fn block_on<T: Send, E: From<StoreError> + Send>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let Some(runtime) = &self.0 else {
            return Err(unavailable(StoreFault::Other, "it is closed").into());
        };
        let done = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join());
        done.unwrap_or_else(|_| Err(unavailable(StoreFault::Other, "reading it panicked").into()))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for RedisArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisArchive").field("namespace", &self.space.namespace).finish_non_exhaustive()
    }
}
