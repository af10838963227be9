//! Counters, and what is open or undelivered: each partition's own, added up.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::{Counter, Timestamp};

use super::call::Call;
use super::reply::Place;
use super::request_row::Kind;
use super::script::{DEPTH, OPEN};
use super::{RedisStore, Space};
use crate::{OpenRequests, OutboxDepth, Statistics, StoreError};

/// Submission times are summed from here, the beginning of 2020.
const SINCE_MS: i128 = 1_577_836_800_000;

/// Open requests of one kind in one partition.
pub(super) struct OpenKind {
    pub(super) kind: Kind,
    pub(super) count: u64,
    submitted: i128,
    /// When the oldest of this action and status was submitted.
    oldest: Timestamp,
}

#[async_trait]
impl Statistics for RedisStore {
    async fn counters(&self) -> Result<BTreeMap<Counter, u64>, StoreError> {
        let tags = self.space.all_tags();
        let select = tags.iter().map(|tag| Call::command("HGETALL", tag, "cnt"));
        let mut counters: BTreeMap<Counter, u64> = BTreeMap::new();
        for (tag, found) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "cnt", key: &tag.as_str() };
            let mut found = place.list(found)?.into_iter();
            while let (Some(field), Some(value)) = (found.next(), found.next()) {
                let field = place.text("counter", field)?;
                let place = Place { table: "cnt", key: &field };
                let (metric, labels) = place.json("counter", field.as_bytes())?;
                let value = place.number("value", value)?;
                let sum = counters.entry(Counter { metric, labels }).or_default();
                *sum = sum.saturating_add(value);
            }
        }
        Ok(counters)
    }

    async fn open_requests(&self) -> Result<Vec<OpenRequests>, StoreError> {
        let mut groups: BTreeMap<(String, String), OpenRequests> = BTreeMap::new();
        for OpenKind { kind, count, submitted, oldest } in self.space.open_kinds().await? {
            let sum = SINCE_MS.saturating_mul(i128::from(count)).saturating_add(submitted);
            let sum = u128::try_from(sum).unwrap_or_default();
            let status = kind.status()?;
            let group = groups.entry((kind.action.clone(), kind.status)).or_insert(OpenRequests {
                action: kind.action,
                status,
                count: 0,
                oldest,
                sum_submitted_ms: 0,
            });
            group.count = group.count.saturating_add(count);
            group.sum_submitted_ms = group.sum_submitted_ms.saturating_add(sum);
            group.oldest = group.oldest.min(oldest);
        }
        Ok(groups.into_values().collect())
    }

    async fn waiting_personas(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        let mut waiting: BTreeMap<(String, String), u64> = BTreeMap::new();
        for OpenKind { kind, count, .. } in self.space.open_kinds().await? {
            for persona in kind.waits_for {
                *waiting.entry((kind.action.clone(), persona)).or_default() += count;
            }
        }
        Ok(waiting.into_iter().map(|((action, persona), count)| (action, persona, count)).collect())
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth, StoreError> {
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| Call::script(&DEPTH, tag));
        let mut depth = OutboxDepth::default();
        for (tag, found) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "waiting", key: &tag.as_str() };
            let [entries, oldest] = place.row(found)?;
            depth.entries = depth.entries.saturating_add(place.number("entries", entries)?);
            if oldest != redis::Value::Nil {
                let oldest = place.time("since", oldest)?;
                depth.oldest = Some(depth.oldest.map_or(oldest, |other| other.min(oldest)));
            }
        }
        Ok(depth)
    }
}

impl Space {
    /// The open requests of all partitions, by kind.
    pub(super) async fn open_kinds(&self) -> Result<Vec<OpenKind>, StoreError> {
        let tags = self.tags();
        let select = tags.iter().map(|tag| Call::script(&OPEN, tag));
        let mut kinds = Vec::new();
        for (tag, rows) in tags.iter().zip(self.link.calls(select.collect()).await?) {
            let place = Place { table: "open", key: &tag.as_str() };
            for row in place.list(rows)? {
                let [kind, count, submitted, oldest] = place.row(row)?;
                kinds.push(OpenKind {
                    kind: Kind::parse(&place.text("kind", kind)?)?,
                    count: place.number("count", count)?,
                    submitted: place.parsed("submitted", submitted)?,
                    oldest: place.time("oldest", oldest)?,
                });
            }
        }
        Ok(kinds)
    }
}
