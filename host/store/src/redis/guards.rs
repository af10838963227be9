//! Nonces.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Timestamp};
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::reply::{Place, millis};
use super::script::CLAIM_NONCE;
use crate::{Guards, StoreError};

#[async_trait]
impl Guards for RedisStore {
    async fn claim_nonce(
        &self,
        shard: u16,
        nonce: Digest,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let claim = self.space.lasting(&CLAIM_NONCE, &self.space.tag(shard)).text(&nonce.to_string());
        let answer = self.space.durable(claim.number(millis(now)).number(millis(until))).await?;
        let place = Place { table: "once", key: &nonce };
        Ok(place.text("claimed", answer)? == "done")
    }

    async fn has_nonce(&self, shard: u16, nonce: &Digest, now: Timestamp) -> Result<bool, StoreError> {
        let get = Call::command("GET", &self.space.tag(shard), format_args!("once:{nonce}"));
        match self.space.link.call(get).await? {
            Value::Nil => Ok(false),
            until => Ok(Place { table: "once", key: nonce }.number("until", until)? > millis(now)),
        }
    }
}
