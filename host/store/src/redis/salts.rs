//! The salts of requests, which are fields of their hashes.

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, WrappedSalt};

use super::RedisStore;
use super::call::Call;
use super::reply::{Place, limit as sent_limit};
use super::request_row::salt_of;
use super::script::{REPLACE_SALTS, SALTS};
use crate::{NewSalt, Salts, StoreError};

#[async_trait]
impl Salts for RedisStore {
    async fn salts(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, WrappedSalt)>, StoreError> {
        // An id has at least one letter, so that every request comes after an empty one.
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| Call::script(&SALTS, tag).text(&after).number(sent_limit(limit)));
        let mut salts = Vec::new();
        for found in self.space.link.calls(select.collect()).await? {
            let place = Place { table: "r", key: &"a salt" };
            for row in place.list(found)? {
                let [id, key, sealed] = place.row(row)?;
                let id = place.request_id("id", id)?;
                let salt = salt_of(Place { table: "r", key: &id }, key, sealed)?;
                salts.extend(salt.map(|salt| (id, salt)));
            }
        }
        salts.sort_unstable_by_key(|(id, _)| *id);
        salts.truncate(limit);
        Ok(salts)
    }

    async fn replace_salts(&self, replacements: Vec<NewSalt>) -> Result<usize, StoreError> {
        let mut replaced = 0;
        // Those of one partition in one step. Whoever is interrupted reads the salts again.
        for tag in self.space.tags() {
            let of_partition: Vec<&NewSalt> =
                replacements.iter().filter(|it| self.space.tag_of(it.request) == tag).collect();
            if of_partition.is_empty() {
                continue;
            }
            let replace = self.space.lasting(&REPLACE_SALTS, &tag);
            let replace = replace.each(&of_partition, |call, NewSalt { request, from, to }| {
                call.text(&request.to_string())
                    .text(&from.key)
                    .bytes(from.sealed.as_slice())
                    .text(&to.key)
                    .bytes(to.sealed.as_slice())
            });
            let place = Place { table: "r", key: &tag.as_str() };
            let count = place.number("replaced", self.space.durable(replace).await?)?;
            replaced += usize::try_from(count).unwrap_or(usize::MAX);
        }
        Ok(replaced)
    }
}
