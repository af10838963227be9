//! The delivery state of Slack messages.

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, Timestamp};
use countersign_core::record::{SlackPost, Slot};
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::records::Records;
use super::reply::{Place, json, limit as sent_limit, millis};
use super::script::{CLAIM_REFRESH, KEEP_POST, STALE};
use crate::{Committed, KeepPost, Messages, StalePost, StoreError};

#[async_trait]
impl Messages for RedisStore {
    async fn slack_post(&self, request: RequestId, slot: Slot) -> Result<Option<SlackPost>, StoreError> {
        let key = key_of(request, slot);
        let get = Call::command("HGET", &self.space.tag_of(request), format_args!("post:{key}")).text("body");
        let place = Place { table: "post", key: &key };
        let body = place.optional_bytes("body", self.space.link.call(get).await?)?;
        body.map(|body| place.json("body", &body)).transpose()
    }

    async fn keep_slack_post(&self, keep: KeepPost) -> Result<Committed, StoreError> {
        let KeepPost { request, slot, post, audit, counts } = keep;
        let records = Records::of(&audit, &counts)?;
        let key = key_of(request, slot);
        let call = self.space.lasting(&KEEP_POST, &self.space.tag_of(request)).text(&key);
        let call = call.number(post.revision).text(&post.channel).optional(post.refresh_at.map(millis));
        let answer = self.space.durable(records.append(call.text(&json(&post)?))).await?;
        let place = Place { table: "post", key: &key };
        Ok(if place.text("kept", answer)? == "done" { Committed::Done } else { Committed::Conflict })
    }

    async fn stale_slack_posts(&self, now: Timestamp, limit: usize) -> Result<Vec<StalePost>, StoreError> {
        let tags = self.space.tags();
        let select =
            tags.iter().map(|tag| Call::script(&STALE, tag).number(millis(now)).number(sent_limit(limit)));
        let mut found = Vec::new();
        for (tag, rows) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "refresh", key: &tag.as_str() };
            for row in place.list(rows)? {
                let [channel, range, since, key] = place.row(row)?;
                let range = place.number("range", range)?;
                let key = place.text("key", key)?;
                let place = Place { table: "refresh", key: &key };
                let (request, slot) =
                    key.split_once(':').ok_or_else(|| place.corrupt("key", "it has no slot"))?;
                let stale = StalePost {
                    request: request.parse().map_err(|error| place.corrupt("key", error))?,
                    slot: slot.parse().map_err(|error| place.corrupt("key", error))?,
                    channel: place.text("channel", channel)?,
                    since: place.time("refresh_at", since)?,
                };
                found.push((range, stale));
            }
        }
        // Each partition has told its first ones. Those of all partitions that come first are wanted.
        found.sort_by(|(one_range, one), (other_range, other)| {
            let order = |range: &u64, it: &StalePost| (*range, it.since, it.request, it.slot);
            one.channel
                .cmp(&other.channel)
                .then_with(|| order(one_range, one).cmp(&order(other_range, other)))
        });
        let mut place = (String::new(), 0);
        found.retain(|(_, stale)| {
            let count = if place.0 == stale.channel { place.1 + 1 } else { 1 };
            place = (stale.channel.clone(), count);
            count <= limit
        });
        Ok(found.into_iter().map(|(_, stale)| stale).collect())
    }

    async fn claim_refresh(
        &self,
        request: RequestId,
        slot: Slot,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let call = self.space.once(&CLAIM_REFRESH, &self.space.tag_of(request)).text(&key_of(request, slot));
        let answer = self.space.write(call.number(millis(now)).number(millis(until))).await?;
        Ok(answer != Value::Nil)
    }
}

fn key_of(request: RequestId, slot: Slot) -> String {
    format!("{request}:{slot}")
}
