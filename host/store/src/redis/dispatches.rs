//! Dispatches: enqueuing them with a request, and claiming and settling them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, RequestId, Timestamp};
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::records::Records;
use super::reply::{Place, limit as sent_limit, millis};
use super::script::{
    DISPATCH_CLAIM, DISPATCH_DEAD, DISPATCH_DEPTH, DISPATCH_DROP, DISPATCH_LIST, DISPATCH_RENEW,
    DISPATCH_REVIVE, DISPATCH_SETTLE,
};
use crate::{Claim, DeadLetter, Dispatch, DispatchDepth, Dispatches, NewDispatch, Settled, StoreError};

#[async_trait]
impl Dispatches for RedisStore {
    async fn ready_dispatches(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(RequestId, String)>, StoreError> {
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| {
            let list = Call::script(&DISPATCH_LIST, tag).number(millis(now)).text(self.space.time.as_str());
            list.number(sent_limit(limit))
        });
        let mut found = Vec::new();
        for (tag, rows) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "disp", key: &tag.as_str() };
            for row in place.list(rows)? {
                let [target, range, at, key] = place.row(row)?;
                let (target, key) = (place.text("target", target)?, place.text("key", key)?);
                let (range, at) = (place.number("range", range)?, place.number("ready_at", at)?);
                match request_of(&key) {
                    Ok(request) => found.push((target, range, at, request)),
                    Err(error) => tracing::error!(%error, "dispatch is unreadable; skipped"),
                }
            }
        }
        // Each partition has told its first ones. Those of all partitions that come first are wanted.
        found.sort_unstable();
        let mut taken: BTreeMap<(String, u64), usize> = BTreeMap::new();
        found.retain(|(target, range, ..)| {
            let taken = taken.entry((target.clone(), *range)).or_default();
            *taken += 1;
            *taken <= limit
        });
        Ok(found.into_iter().map(|(target, _, _, request)| (request, target)).collect())
    }

    async fn claim_dispatch(
        &self,
        request: RequestId,
        target: &str,
        claim: Claim,
    ) -> Result<Option<Dispatch>, StoreError> {
        let call = self.space.once(&DISPATCH_CLAIM, &self.space.tag_of(request)).number(millis(claim.now));
        let call = call.text(self.space.time.as_str()).text(&key_of(request, target)).text(target);
        let answer = self.space.write(call.number(claim.id).number(millis(claim.until))).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let key = key_of(request, target);
        let place = Place { table: "disp", key: &key };
        let text = place.text("claimed", answer)?;
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let (Some(Ok(position)), Some(Ok(attempts)), Some(Ok(since))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(place.corrupt("position", format_args!("position, attempts and since are `{text}`")));
        };
        Ok(Some(Dispatch {
            request,
            target: target.to_owned(),
            position: u32::try_from(position).unwrap_or(u32::MAX),
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            since: Timestamp::from_millis(since),
            claim: claim.id,
        }))
    }

    async fn renew_dispatch(
        &self,
        request: RequestId,
        target: &str,
        claim: Claim,
    ) -> Result<bool, StoreError> {
        let call = Call::script(&DISPATCH_RENEW, &self.space.tag_of(request)).number(millis(claim.now));
        let key = key_of(request, target);
        let call = call.text(self.space.time.as_str()).text(&key).text(target);
        let answer = self.space.write(call.number(claim.id).number(millis(claim.until))).await?;
        Ok(Place { table: "disp", key: &key }.number("renewed", answer)? == 1)
    }

    async fn settle_dispatch(
        &self,
        dispatch: &Dispatch,
        now: Timestamp,
        settled: Settled,
    ) -> Result<(), StoreError> {
        let Dispatch { request, target, claim, .. } = dispatch;
        let call = self.space.once(&DISPATCH_SETTLE, &self.space.tag_of(*request)).number(millis(now));
        let call = call.text(self.space.time.as_str()).text(&key_of(*request, target)).text(target);
        let call = call.number(*claim);
        let call = match &settled {
            Settled::Told { position, version, complete } => {
                call.text("told").number(0_u64).number(*position).number(*version).number(*complete)
            }
            Settled::Held { position, version, until } => {
                call.text("held").number(millis(*until)).number(*position).number(*version)
            }
            Settled::Retry { at } => call.text("retry").number(millis(*at)),
            Settled::Released { at } => call.text("released").number(millis(*at)),
            Settled::Dead { failure } => call.text("dead").number(millis(now)).text(failure),
            Settled::Dropped => call.text("dropped").number(0_u64),
        };
        self.space.write(call).await.map(drop)
    }

    async fn dead_letters(&self, target: &str, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let tags = self.space.tags();
        let select =
            tags.iter().map(|tag| Call::script(&DISPATCH_DEAD, tag).text(target).number(sent_limit(limit)));
        let mut dead = Vec::new();
        for (tag, rows) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "disp", key: &tag.as_str() };
            for row in place.list(rows)? {
                let [key, died_at, position, since, failure] = place.row(row)?;
                let key = place.text("key", key)?;
                let place = Place { table: "disp", key: &key };
                dead.push(DeadLetter {
                    request: request_of(&key)?,
                    target: target.to_owned(),
                    position: place.parsed("position", position)?,
                    since: place.time("since", since)?,
                    died_at: place.time("died_at", died_at)?,
                    failure: place.text("failure", failure)?,
                });
            }
        }
        dead.sort_by_key(|letter| (letter.died_at, letter.request));
        dead.truncate(limit);
        Ok(dead)
    }

    async fn revive_dispatch(
        &self,
        request: RequestId,
        target: &str,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let key = key_of(request, target);
        let call = self.space.lasting(&DISPATCH_REVIVE, &self.space.tag_of(request));
        let call = call.text(&key).text(target).number(millis(now));
        let answer = self.space.durable(Records::of(&[audit], &[])?.append(call)).await?;
        Ok(Place { table: "disp", key: &key }.text("revived", answer)? == "revived")
    }

    async fn drop_dispatches(&self, target: &str, limit: usize) -> Result<u64, StoreError> {
        let mut dropped = 0;
        for tag in self.space.tags() {
            let most = sent_limit(limit).saturating_sub(dropped);
            if most == 0 {
                break;
            }
            let call = self.space.once(&DISPATCH_DROP, &tag).text(target).number(most);
            let answer = self.space.write(call).await?;
            dropped += Place { table: "disp", key: &target }.number("dropped", answer)?;
        }
        Ok(dropped)
    }

    async fn dispatch_depth(&self) -> Result<Vec<DispatchDepth>, StoreError> {
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| Call::script(&DISPATCH_DEPTH, tag));
        let mut targets: BTreeMap<String, DispatchDepth> = BTreeMap::new();
        for (tag, rows) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "dispwait", key: &tag.as_str() };
            for row in place.list(rows)? {
                let [target, waiting, oldest, dead] = place.row(row)?;
                let target = place.text("target", target)?;
                let depth = targets.entry(target.clone()).or_insert(DispatchDepth {
                    target,
                    waiting: 0,
                    oldest: None,
                    dead: 0,
                });
                depth.waiting = depth.waiting.saturating_add(place.number("waiting", waiting)?);
                depth.dead = depth.dead.saturating_add(place.number("dead", dead)?);
                if oldest != Value::Nil {
                    let oldest = place.time("since", oldest)?;
                    depth.oldest = Some(depth.oldest.map_or(oldest, |other| other.min(oldest)));
                }
            }
        }
        Ok(targets.into_values().collect())
    }
}

fn key_of(request: RequestId, target: &str) -> String {
    format!("{request}:{target}")
}

/// The request that a dispatch with this key is about.
fn request_of(key: &str) -> Result<RequestId, StoreError> {
    let place = Place { table: "disp", key: &key };
    let (request, _) = key.split_once(':').ok_or_else(|| place.corrupt("key", "it has no target"))?;
    request.parse().map_err(|error| place.corrupt("key", error))
}

/// Appends the dispatches of a version of a request.
pub(super) fn append_dispatches(call: Call, dispatches: &[NewDispatch]) -> Call {
    call.each(dispatches, |call, dispatch| call.text(&dispatch.target).number(dispatch.position))
}
