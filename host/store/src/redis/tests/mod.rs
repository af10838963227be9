//! The contract for Redis, and tests that only concern Redis. They start redis-server.

mod proxy;
mod server;

mod applied_once;
mod cluster;
mod commands;
mod copy;
mod losses;
mod opening;
mod periods;
mod replicas;
mod sentinel;
mod time;
mod tls;
mod unreadable;

use std::sync::Arc;

use countersign_core::secret::Secret;

use crate::contract::{Backend, SharedBackend, shared_contract, store_contract};
use crate::redis::{RedisArchive, RedisOpenError, RedisOptions, RedisStore, StoreTime};
use crate::{Archive, Store, StoreFault};

/// A namespace in the server that tests share, used by somebody who may do no more than the documentation says.
struct Redis(RedisOptions);

impl Backend for Redis {
    async fn fresh() -> Redis {
        let options = options(&server::SHARED.url());
        let url = options.url.with_login(Some("countersign".into()), Some(Secret::new("secret")));
        Redis(RedisOptions { url, ..options })
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(RedisStore::open(self.0.clone()).await.unwrap())
    }

    fn archive(&self) -> Archive {
        archive(&self.0)
    }
}

impl SharedBackend for Redis {}

store_contract!(Redis);
shared_contract!(Redis);

/// Of a namespace that no other test has.
fn options(url: &str) -> RedisOptions {
    let namespace = format!("test-{:016x}", fastrand::u64(..));
    RedisOptions { namespace, time: StoreTime::Given, ..RedisOptions::new(url.parse().unwrap()) }
}

fn archive(options: &RedisOptions) -> Archive {
    Archive::Redis(Box::new(RedisArchive::open(options.clone()).unwrap()))
}

/// Opens a store whose deadline is so short that a slow start may take longer.
async fn opened(options: &RedisOptions) -> RedisStore {
    loop {
        match RedisStore::open(options.clone()).await {
            Ok(store) => return store,
            Err(RedisOpenError::Store(error)) => assert_eq!(error.fault(), Some(StoreFault::Slow), "{error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Carries out a command on a connection of its own.
async fn raw(server: &server::Server, command: &redis::Cmd) -> redis::Value {
    let address = redis::ConnectionAddr::Unix(server.directory.join("redis.sock"));
    let client = redis::Client::open(address).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    connection.send_packed_command(command).await.unwrap().extract_error().unwrap()
}
