//! Which ended requests it is time to look at, and removing them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::{Effect, RequestId, Timestamp};
use countersign_core::record::Slot;
use futures_util::future::try_join_all;
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::records::Records;
use super::reply::{Place, limit as sent_limit, millis};
use super::request_row::StoredRequest;
use super::script::{CLAIM_ARCHIVAL, PUT_OFF, REMOVABLE, REMOVE};
use crate::projection::Projection;
use crate::{ARCHIVAL_CLAIM_MS, Removable, Removal, Retention, StoreError};

const EFFECTS: [Effect; 3] = [Effect::ShowRequest, Effect::NotifyEscalation, Effect::NotifyReplaced];

/// The messages of a request, but for the notices of replaced approvals.
const SLOTS: [Slot; 3] = [Slot::Main, Slot::EscalationThread, Slot::EscalationChannel];

#[async_trait]
impl Retention for RedisStore {
    async fn ended(&self, until: Timestamp, limit: usize) -> Result<Vec<RequestId>, StoreError> {
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| {
            let range = Call::command("ZRANGEBYSCORE", tag, "ended").text("-inf").number(millis(until));
            range.text("WITHSCORES").text("LIMIT").number(0_u64).number(sent_limit(limit))
        });
        let mut ended = Vec::new();
        for (tag, found) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "ended", key: &tag.as_str() };
            let mut found = place.list(found)?.into_iter();
            while let (Some(id), Some(at)) = (found.next(), found.next()) {
                ended.push((place.parsed::<f64>("at", at)?, place.request_id("id", id)?));
            }
        }
        // Each partition has told its first ones. Those of all partitions that come first are wanted.
        ended.sort_by(|(one, id), (other, other_id)| one.total_cmp(other).then(id.cmp(other_id)));
        ended.truncate(limit);
        Ok(ended.into_iter().map(|(_, id)| id).collect())
    }

    async fn put_off(&self, requests: Vec<(RequestId, Timestamp)>) -> Result<(), StoreError> {
        let calls = by_shard(&requests, |(id, _)| *id).into_values().map(|requests| {
            let tag = self.space.tag_of(requests.first().map_or(RequestId::from_bytes([0; 16]), |it| it.0));
            Call::script(&PUT_OFF, &tag)
                .each(&requests, |call, (id, at)| call.text(&id.to_string()).number(millis(*at)))
        });
        self.space.writable()?;
        self.space.link.calls(calls.collect()).await.map(drop)
    }

    async fn removable(&self, lineage: RequestId, limit: usize) -> Result<Vec<Removable>, StoreError> {
        let place = Place { table: "lin", key: &lineage };
        let select = Call::script(&REMOVABLE, &self.space.tag_of(lineage)).text(&lineage.to_string());
        let select = append_effects(select.number(sent_limit(limit.max(2))));
        let rows = place.list(self.space.link.call(select).await?)?.into_iter().map(|row| {
            let [stored @ .., key_until, stale]: [Value; 8] = place.row(row)?;
            let key_until = place.text("key", key_until)?;
            let key_until = match key_until.as_str() {
                "" => None,
                until => Some(place.time("key", Value::BulkString(until.as_bytes().to_vec()))?),
            };
            Ok(Removable {
                request: StoredRequest::of(stored)?.parse()?,
                key_until,
                is_undelivered: place.number("stale", stale)? > 0,
            })
        });
        let found: Vec<Removable> = rows.collect::<Result<_, StoreError>>()?;
        // Whoever ended one, and died before it was off its list, has left it there.
        for Removable { request, .. } in found.iter().filter(|found| found.request.due_at().is_none()) {
            for key in Projection::of(request).contests() {
                self.space.drop_superseding(&key, &[request.id]).await?;
            }
        }
        Ok(found)
    }

    async fn claim_archival(
        &self,
        requests: &[RequestId],
        archive: u64,
        now: Timestamp,
    ) -> Result<Vec<RequestId>, StoreError> {
        let claims = by_shard(requests, |id| *id).into_values().map(async |ids| {
            let tag = self.space.tag_of(ids.first().copied().unwrap_or(RequestId::from_bytes([0; 16])));
            let claim = self.space.lasting(&CLAIM_ARCHIVAL, &tag).text(&format!("{archive:016x}"));
            let claim = claim.number(millis(now)).number(millis(now.minus(ARCHIVAL_CLAIM_MS)));
            let claim = claim.each(&ids, |call, id| call.text(&id.to_string()));
            let place = Place { table: "archiving", key: &tag.as_str() };
            let own = place.text("own", self.space.durable(claim).await?)?;
            let own = own
                .split_ascii_whitespace()
                .map(|id| place.request_id("id", Value::BulkString(id.as_bytes().to_vec())));
            own.collect::<Result<Vec<_>, StoreError>>()
        });
        Ok(try_join_all(claims).await?.concat())
    }

    async fn remove(&self, removals: Vec<Removal>, archive: Option<u64>) -> Result<Vec<bool>, StoreError> {
        let archive = archive.map_or_else(String::new, |archive| format!("{archive:016x}"));
        let removals = removals.iter().map(async |removal| {
            let Removal { lineage, newest, requests, counts } = removal;
            let records = Records::of(&[], counts)?;
            let call = self.space.lasting(&REMOVE, &self.space.tag_of(*lineage));
            let call = call.text(&lineage.to_string()).text(&newest.to_string()).text(&archive);
            let call = append_effects(call).each(&SLOTS, |call, slot| call.text(&slot.to_string()));
            let call = call.each(requests, |call, request| {
                call.text(&request.id.to_string()).number(request.version).number(request.events)
            });
            let answer = self.space.durable(records.append(call)).await?;
            Ok(Place { table: "r", key: lineage }.text("removed", answer)? == "done")
        });
        try_join_all(removals).await
    }
}

fn append_effects(call: Call) -> Call {
    call.each(&EFFECTS, |call, effect| call.text(effect.as_str()))
}

/// What is in one partition is in one call; what shards share a partition may be in several.
fn by_shard<T: Clone>(items: &[T], id: impl Fn(&T) -> RequestId) -> BTreeMap<u16, Vec<T>> {
    let mut by_shard: BTreeMap<u16, Vec<T>> = BTreeMap::new();
    for item in items {
        by_shard.entry(id(item).shard()).or_default().push(item.clone());
    }
    by_shard
}
