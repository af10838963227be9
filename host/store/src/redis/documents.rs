//! Documents by key.

use async_trait::async_trait;

use super::RedisStore;
use super::call::Call;
use super::reply::Place;
use super::script::{KEEP_DOCUMENT, REPLACE_DOCUMENT};
use crate::{Documents, StoreError};

#[async_trait]
impl Documents for RedisStore {
    async fn keep(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        let meta = self.space.meta();
        let keep = self.space.lasting(&KEEP_DOCUMENT, &meta).text(&self.space.origin).text(key).bytes(value);
        self.space.durable(keep).await?;
        self.space.announce_meta(&format!("document {key}")).await;
        Ok(())
    }

    async fn replace(&self, key: &str, before: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StoreError> {
        let meta = self.space.meta();
        let replace = self.space.lasting(&REPLACE_DOCUMENT, &meta).text(&self.space.origin).text(key);
        let replace = replace.bytes(value).number(before.is_some()).bytes(before.unwrap_or_default());
        let answer = self.space.durable(replace).await?;
        let is_replaced = Place { table: "doc", key: &key }.text("replaced", answer)? == "done";
        if is_replaced {
            self.space.announce_meta(&format!("document {key}")).await;
        }
        Ok(is_replaced)
    }

    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let get = Call::command("GET", &self.space.meta(), format_args!("doc:{key}"));
        Place { table: "doc", key: &key }.optional_bytes("value", self.space.link.call(get).await?)
    }
}
