//! The audit log: a stream in each partition, whose entries are numbered without gaps.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count};
use redis::Value;

use super::RedisStore;
use super::call::{Call, Tag};
use super::records::{Records, append_nonce};
use super::reply::{Place, limit as sent_limit};
use super::script::APPEND;
use crate::{Audit, AuditCursor, AuditPage, Nonce, StoreError};

#[async_trait]
impl Audit for RedisStore {
    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError> {
        // All are about one request, or about none.
        let request = audit.iter().find_map(|entry| entry.request);
        let tag = request.map_or_else(|| self.space.meta(), |request| self.space.tag_of(request));
        let call = append_nonce(self.space.lasting(&APPEND, &tag), None);
        self.space.durable(Records::of(&audit, &counts)?.append(call)).await.map(drop)
    }

    async fn append_once(
        &self,
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        nonce: Nonce,
    ) -> Result<bool, StoreError> {
        let call = append_nonce(self.space.lasting(&APPEND, &self.space.tag(nonce.shard)), Some(&nonce));
        let answer = self.space.durable(Records::of(&audit, &counts)?.append(call)).await?;
        let place = Place { table: "once", key: &nonce.digest };
        Ok(place.text("appended", answer)? == "done")
    }

    async fn audit(&self, after: &AuditCursor, limit: usize) -> Result<AuditPage, StoreError> {
        let tags = self.space.all_tags();
        let mut places = Places::parse(&after.0, tags.len())?;
        if limit == 0 {
            return Ok(AuditPage { entries: Vec::new(), next: after.clone() });
        }
        let lengths = tags.iter().map(|tag| Call::command("GET", tag, "audit:n"));
        let lengths = self.space.link.calls(lengths.collect()).await?;
        let mut entries = Vec::new();
        let mut read = Vec::new();
        for step in 0..tags.len() {
            let stream = places.first.saturating_add(step).checked_rem(tags.len()).unwrap_or_default();
            let (Some(tag), Some(length), Some(seen)) =
                (tags.get(stream), lengths.get(stream), places.seen.get_mut(stream))
            else {
                continue;
            };
            let place = Place { table: "audit", key: &tag.as_str() };
            if *length == Value::Nil || place.number("length", length.clone())? <= *seen {
                continue;
            }
            let left = limit.saturating_sub(entries.len());
            let found = self.read_stream(tag, *seen, left).await?;
            if let Some((last, _)) = found.last() {
                *seen = *last;
                read.push(tag.clone());
            }
            entries.extend(found.into_iter().map(|(_, entry)| entry));
            if entries.len() >= limit {
                // The next page begins with another stream, so that none holds up the others.
                places.first = stream.saturating_add(1).checked_rem(tags.len()).unwrap_or_default();
                break;
            }
        }
        if self.space.durability.waits() {
            for tag in &read {
                self.space.link.confirmed(tag).await?;
            }
        }
        Ok(AuditPage { entries, next: AuditCursor(places.to_string()) })
    }
}

impl RedisStore {
    /// Up to `limit` entries of a stream with numbers above `seen`.
    async fn read_stream(
        &self,
        tag: &Tag,
        seen: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        let from = format!("({seen}-0");
        let range = Call::command("XRANGE", tag, "audit").text(&from).text("+").text("COUNT");
        let place = Place { table: "audit", key: &tag.as_str() };
        let found = place.list(self.space.link.call(range.number(sent_limit(limit))).await?)?;
        let entries = found.into_iter().map(|entry| {
            let [id, fields] = place.row(entry)?;
            let id = place.text("id", id)?;
            let place = Place { table: "audit", key: &id };
            let number = id.split('-').next().and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| place.corrupt("id", "it is no number"))?;
            let [_, body] = place.row(fields)?;
            Ok((number, place.json("body", &place.bytes("body", body)?)?))
        });
        entries.collect()
    }
}

/// How far each stream was read, and which one is read first.
struct Places {
    first: usize,
    seen: Vec<u64>,
}

impl Places {
    /// Empty text is the beginning.
    fn parse(text: &str, streams: usize) -> Result<Places, StoreError> {
        if text.is_empty() {
            return Ok(Places { first: 0, seen: vec![0; streams] });
        }
        let parse = || {
            let (first, seen) = text.split_once(':')?;
            let seen = seen.split(',').map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
            Some(Places { first: first.parse().ok()?, seen })
        };
        let places = parse().filter(|places| places.seen.len() == streams && places.first < streams);
        places.ok_or_else(|| StoreError::Cursor(text.to_owned()))
    }
}

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seen: Vec<String> = self.seen.iter().map(u64::to_string).collect();
        write!(f, "{}:{}", self.first, seen.join(","))
    }
}
