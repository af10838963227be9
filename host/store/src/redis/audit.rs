//! The audit log: a stream in each partition, whose entries are numbered without gaps.
//!
//! Beside each stream there are the numbers of the entries about each request, and of each block of entries the first and
//! the last time in it: clocks can be set, so times need not grow with the numbers.

use std::collections::BTreeSet;

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count, Digest, RequestId, Timestamp};
use redis::Value;
use serde::Deserialize;

use super::call::{Call, Tag};
use super::records::{Records, append_nonce};
use super::reply::{Place, limit as sent_limit, millis};
use super::script::{APPEND, APPEND_TO, KEEP_CHECKPOINT, REMOVE_AUDIT};
use super::{RedisStore, Space};
use crate::{
    Audit, AuditCursor, AuditRange, Committed, KeptCheckpoint, LogEntry, LogPage, Nonce, StoreError,
};

/// How many entries a block has, as in the script `records`.
const BLOCK: u64 = 256;

/// How many entries of a partition are read at once at most if they are searched for those of a period.
const SEARCHED: usize = 2 * BLOCK as usize;

/// The times of how many blocks are asked for at once, and how often for one page of one stream.
const LOOKED: usize = 64;
const LOOKS: usize = 8;

/// How many blocks are listed at once, to find those of a period among them.
const FEW_BLOCKS: u64 = 256;

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

    async fn audit_log(
        &self,
        range: AuditRange,
        after: &AuditCursor,
        limit: usize,
    ) -> Result<LogPage, StoreError> {
        let mut places = Places::parse(&after.0, self.space.all_tags().len())?;
        if limit == 0 {
            return Ok(LogPage { entries: Vec::new(), next: after.clone(), is_last: false });
        }
        let (entries, is_last) = match range {
            AuditRange { request: Some(request), .. } => {
                self.of_request(request, range, &mut places, limit).await?
            }
            AuditRange { period: Some(period), .. } => self.of_period(period, &mut places, limit).await?,
            AuditRange { request: None, period: None } => self.whole(&mut places, limit).await?,
        };
        if self.space.durability.waits() {
            let read: BTreeSet<u16> = entries.iter().map(|entry| entry.partition).collect();
            for partition in read {
                self.space.link.confirmed(&self.space.audit_tag(partition)).await?;
            }
        }
        Ok(LogPage { entries, next: AuditCursor(places.to_string()), is_last })
    }

    async fn audit_sizes(&self) -> Result<Vec<u64>, StoreError> {
        self.space.audit_sizes().await
    }

    async fn audit_entries_at(&self, numbers: &[u64]) -> Result<Option<Vec<Option<LogEntry>>>, StoreError> {
        let mut found = Vec::with_capacity(numbers.len());
        for (partition, number) in (0..).zip(numbers) {
            let entries = match number {
                0 => Vec::new(),
                number => self.read_stream(partition, *number, Some(*number), 1).await?,
            };
            found.push(entries.into_iter().next());
        }
        Ok(Some(found))
    }

    async fn audit_before(&self, place: &AuditCursor) -> Result<Vec<LogEntry>, StoreError> {
        let Places { seen, .. } = Places::parse(&place.0, self.space.all_tags().len())?;
        Ok(self.audit_entries_at(&seen).await?.into_iter().flatten().flatten().collect())
    }

    async fn append_to(&self, partition: u16, entry: AuditEntry) -> Result<u64, StoreError> {
        let tag = self.space.audit_tag(partition);
        let append = Records::of(&[entry], &[])?.append(self.space.lasting(&APPEND_TO, &tag));
        Place { table: "audit", key: &tag.as_str() }.number("number", self.space.durable(append).await?)
    }

    async fn remove_audit(&self, partition: u16, through: u64) -> Result<(), StoreError> {
        let remove = self.space.lasting(&REMOVE_AUDIT, &self.space.audit_tag(partition));
        self.space.durable(remove.number(through)).await.map(drop)
    }

    async fn audit_checkpoint(&self) -> Result<Option<KeptCheckpoint>, StoreError> {
        newest_checkpoint(&self.space).await
    }

    async fn keep_audit_checkpoint(&self, checkpoint: KeptCheckpoint) -> Result<Committed, StoreError> {
        let KeptCheckpoint { sequence, note, state } = checkpoint;
        let keep = self.space.lasting(&KEEP_CHECKPOINT, &self.space.meta());
        let answer = self.space.durable(keep.number(sequence).text(&note).text(&state)).await?;
        let place = Place { table: "audit:checkpoint", key: &sequence };
        match place.text("stored", answer)?.as_str() {
            "done" => Ok(Committed::Done),
            _ => Ok(Committed::Conflict),
        }
    }
}

/// The newest checkpoint of a store.
pub(super) async fn newest_checkpoint(space: &Space) -> Result<Option<KeptCheckpoint>, StoreError> {
    let get = Call::command("HMGET", &space.meta(), "audit:checkpoint");
    let get = get.text("sequence").text("note").text("state");
    let place = Place { table: "audit:checkpoint", key: &"the newest one" };
    let [sequence, note, state] = place.row(space.link.call(get).await?)?;
    if sequence == Value::Nil {
        return Ok(None);
    }
    Ok(Some(KeptCheckpoint {
        sequence: place.number("sequence", sequence)?,
        note: place.text("note", note)?,
        state: place.text("state", state)?,
    }))
}

impl Space {
    /// The tag of a partition of the audit log: the one after those of requests is of what is about none.
    /// How many entries each partition has.
    pub(super) async fn audit_sizes(&self) -> Result<Vec<u64>, StoreError> {
        let tags = self.all_tags();
        let lengths = tags.iter().map(|tag| Call::command("GET", tag, "audit:n"));
        let lengths = self.link.calls(lengths.collect()).await?;
        let lengths = tags.iter().zip(lengths).map(|(tag, length)| match length {
            Value::Nil => Ok(0),
            length => Place { table: "audit", key: &tag.as_str() }.number("length", length),
        });
        lengths.collect()
    }

    fn audit_tag(&self, partition: u16) -> Tag {
        if partition < self.partitions { self.tag(partition) } else { self.meta() }
    }
}

impl RedisStore {
    /// Entries of all streams, each as far as it goes, one stream after another.
    async fn whole(&self, places: &mut Places, limit: usize) -> Result<(Vec<LogEntry>, bool), StoreError> {
        let sizes = self.audit_sizes().await?;
        let mut entries = Vec::new();
        for step in 0..sizes.len() {
            let stream = places.first.saturating_add(step).checked_rem(sizes.len()).unwrap_or_default();
            let (Some(size), Some(seen), Ok(partition)) =
                (sizes.get(stream), places.seen.get_mut(stream), u16::try_from(stream))
            else {
                continue;
            };
            if *size <= *seen {
                continue;
            }
            let left = limit.saturating_sub(entries.len());
            let found = self.read_stream(partition, seen.saturating_add(1), None, left).await?;
            if let Some(last) = found.last() {
                *seen = last.number;
            }
            entries.extend(found);
            if entries.len() >= limit {
                // The next page begins with another stream, so that none holds up the others.
                places.first = stream.saturating_add(1).checked_rem(sizes.len()).unwrap_or_default();
                return Ok((entries, false));
            }
        }
        Ok((entries, true))
    }

    async fn of_request(
        &self,
        request: RequestId,
        range: AuditRange,
        places: &mut Places,
        limit: usize,
    ) -> Result<(Vec<LogEntry>, bool), StoreError> {
        let partition = request.shard().checked_rem(self.space.partitions).unwrap_or_default();
        let Some(seen) = places.seen.get_mut(usize::from(partition)) else { return Ok((Vec::new(), true)) };
        // By how many were read, since they are in a list.
        let (from, to) = (*seen, seen.saturating_add(sent_limit(limit)).saturating_sub(1));
        let tag = self.space.tag_of(request);
        let list = Call::command("LRANGE", &tag, format_args!("audit:of:{request}"));
        let place = Place { table: "audit:of", key: &request };
        let numbers = place.list(self.space.link.call(list.number(from).number(to)).await?)?;
        *seen = seen.saturating_add(numbers.len() as u64);
        let is_last = numbers.len() < limit;
        let mut entries = Vec::new();
        for number in numbers {
            let number = place.number("number", number)?;
            entries.extend(self.read_stream(partition, number, Some(number), 1).await?);
        }
        retain(&mut entries, range)?;
        Ok((entries, is_last))
    }

    /// Entries of all streams, the earliest first as far as the clocks agree.
    async fn of_period(
        &self,
        period: (Timestamp, Timestamp),
        places: &mut Places,
        limit: usize,
    ) -> Result<(Vec<LogEntry>, bool), StoreError> {
        let range = AuditRange { request: None, period: Some(period) };
        let mut streams = Vec::new();
        let sizes = self.audit_sizes().await?;
        for ((partition, seen), size) in (0..).zip(&places.seen).zip(sizes) {
            streams.push(self.next_of_period(partition, (*seen, size), range, limit).await?);
        }
        let mut entries = Vec::new();
        while entries.len() < limit {
            // The stream whose next entry is the earliest. One of which nothing was found yet, but may be, ends the page.
            let next = streams.iter().enumerate().min_by_key(|(_, stream)| stream.next());
            let Some((index, stream)) =
                next.filter(|(_, stream)| stream.next() < Timestamp::from_millis(u64::MAX))
            else {
                break;
            };
            if stream.found.is_empty() {
                break;
            }
            let Some(stream) = streams.get_mut(index) else { break };
            entries.extend(stream.found.pop_front().map(|(_, entry)| entry));
        }
        let mut is_last = true;
        for (stream, seen) in streams.iter().zip(&mut places.seen) {
            // Up to before what is left over.
            *seen = stream.found.front().map_or(stream.read_to, |(_, entry)| entry.number.saturating_sub(1));
            is_last &= stream.found.is_empty() && stream.is_last;
        }
        Ok((entries, is_last))
    }

    /// The next entries of one stream, of which `seen` were read, that are in a period. A page may end before anything is
    /// found.
    async fn next_of_period(
        &self,
        partition: u16,
        (seen, size): (u64, u64),
        range: AuditRange,
        limit: usize,
    ) -> Result<Stream, StoreError> {
        let tag = self.space.audit_tag(partition);
        let (since, until) = range.period.unwrap_or((Timestamp::EPOCH, Timestamp::from_millis(u64::MAX)));
        let period = (millis(since), millis(until));
        let left = seen.checked_div(BLOCK).unwrap_or_default()..size.div_ceil(BLOCK);
        let blocks = self.blocks_of_period(&tag, period, left).await?;
        let mut stream = Stream { read_to: seen, ..Stream::default() };
        let mut searched = 0;
        for (look, blocks) in blocks.chunks(LOOKED).enumerate() {
            if look >= LOOKS {
                return Ok(stream);
            }
            for (block, is_in_period) in self.in_period(&tag, period, blocks).await? {
                if stream.found.len() >= limit || searched >= SEARCHED {
                    return Ok(stream);
                }
                let (before, end) =
                    (block.saturating_mul(BLOCK), block.saturating_add(1).saturating_mul(BLOCK));
                // Those before it have nothing of the period, and do not grow any more.
                let mut read_to = stream.read_to.max(before);
                if is_in_period {
                    let mut found = self
                        .read_stream(partition, read_to.saturating_add(1), Some(end), BLOCK as usize)
                        .await?;
                    searched = searched.saturating_add(found.len());
                    read_to = found.last().map_or(read_to, |last| last.number);
                    retain(&mut found, range)?;
                    for entry in found {
                        stream.found.push_back((time(&entry)?, entry));
                    }
                }
                // Not to the end of the newest block, which grows.
                stream.read_to = if end <= size { read_to.max(end) } else { read_to };
            }
        }
        stream.is_last = true;
        Ok(stream)
    }

    /// In their order, the blocks of `left` that may have entries of a period: those that end after it began, or begin before
    /// it ended, whichever are few; else all.
    async fn blocks_of_period(
        &self,
        tag: &Tag,
        (since, until): (u64, u64),
        left: std::ops::Range<u64>,
    ) -> Result<Vec<u64>, StoreError> {
        let place = Place { table: "audit", key: &tag.as_str() };
        let late = |name| Call::command(name, tag, "audit:to").number(since).text("+inf");
        let early = |name| Call::command(name, tag, "audit:from").text("-inf").text(&format!("({until}"));
        let mut counts = self.space.link.calls(vec![late("ZCOUNT"), early("ZCOUNT")]).await?.into_iter();
        let mut count = || place.number("blocks", counts.next().unwrap_or(Value::Nil));
        let (late_ones, early_ones) = (count()?, count()?);
        if late_ones.min(early_ones) > FEW_BLOCKS {
            return Ok(left.collect());
        }
        let few = if late_ones <= early_ones { late("ZRANGEBYSCORE") } else { early("ZRANGEBYSCORE") };
        let found = place.list(self.space.link.call(few).await?)?.into_iter();
        let blocks = found.map(|block| place.number("block", block));
        let mut blocks = blocks.collect::<Result<Vec<u64>, StoreError>>()?;
        blocks.retain(|block| left.contains(block));
        blocks.sort_unstable();
        Ok(blocks)
    }

    /// Each of these blocks, and whether its times and the period have something in common.
    async fn in_period(
        &self,
        tag: &Tag,
        (since, until): (u64, u64),
        blocks: &[u64],
    ) -> Result<Vec<(u64, bool)>, StoreError> {
        let scores =
            |name| blocks.iter().fold(Call::command("ZMSCORE", tag, name), |call, block| call.number(*block));
        let mut answers =
            self.space.link.calls(vec![scores("audit:from"), scores("audit:to")]).await?.into_iter();
        let place = Place { table: "audit", key: &tag.as_str() };
        let mut times = || -> Result<Vec<Option<f64>>, StoreError> {
            let scores = place.list(answers.next().unwrap_or(Value::Nil))?.into_iter();
            // Nothing of a block of which every entry was removed.
            let time = |score| match score {
                Value::Nil => Ok(None),
                Value::Double(score) => Ok(Some(score)),
                score => place.parsed::<f64>("time", score).map(Some),
            };
            scores.map(time).collect()
        };
        let (first, last) = (times()?, times()?);
        #[expect(
            clippy::cast_precision_loss,
            reason = "scores are numbers of this kind, and exact up to 2^53"
        )]
        let (since, until) = (since as f64, until as f64);
        let overlaps = first.into_iter().zip(last).map(|(first, last)| {
            first.is_some_and(|first| first < until) && last.is_some_and(|last| last >= since)
        });
        Ok(blocks.iter().copied().zip(overlaps).collect())
    }

    /// Up to `limit` entries of a partition with numbers from `from` to `to`.
    async fn read_stream(
        &self,
        partition: u16,
        from: u64,
        to: Option<u64>,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let tag = self.space.audit_tag(partition);
        let range = Call::command("XRANGE", &tag, "audit").text(&format!("{from}-0"));
        let range = range.text(&to.map_or_else(|| "+".to_owned(), |to| format!("{to}-0"))).text("COUNT");
        let place = Place { table: "audit", key: &tag.as_str() };
        let found = place.list(self.space.link.call(range.number(sent_limit(limit))).await?)?;
        let entries = found.into_iter().map(|entry| {
            let [id, fields] = place.row(entry)?;
            let id = place.text("id", id)?;
            let place = Place { table: "audit", key: &id };
            let number = id.split('-').next().and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| place.corrupt("id", "it is no number"))?;
            let [_, body, _, digest] = place.row(fields)?;
            // What is no digest is not that of the entry, whatever it is.
            let digest = place.digest("d", digest).unwrap_or(Digest::from_bytes([0; 32]));
            Ok(LogEntry { partition, number, digest, body: place.text("b", body)?, columns: None })
        });
        entries.collect()
    }
}

/// What was found in a stream, and how far it was read.
#[derive(Default)]
struct Stream {
    found: std::collections::VecDeque<(Timestamp, LogEntry)>,
    read_to: u64,
    is_last: bool,
}

impl Stream {
    /// When its next entry was written; the beginning of time if it is not known yet, and the end if there is none.
    fn next(&self) -> Timestamp {
        match self.found.front() {
            Some((at, _)) => *at,
            None if self.is_last => Timestamp::from_millis(u64::MAX),
            None => Timestamp::EPOCH,
        }
    }
}

/// When an entry was written.
fn time(entry: &LogEntry) -> Result<Timestamp, StoreError> {
    #[derive(Deserialize)]
    struct Timed {
        at: Timestamp,
    }
    let Timed { at } = match serde_json::from_str(&entry.body) {
        Ok(timed) => timed,
        // Names the entry.
        Err(_) => return entry.entry().map(|entry| entry.at),
    };
    Ok(at)
}

/// Keeps those that are in the period.
fn retain(entries: &mut Vec<LogEntry>, range: AuditRange) -> Result<(), StoreError> {
    if range.period.is_none() {
        return Ok(());
    }
    let mut wrong = None;
    entries.retain(|entry| match time(entry) {
        Ok(at) => range.has(at),
        Err(error) => {
            wrong.get_or_insert(error);
            false
        }
    });
    wrong.map_or(Ok(()), Err)
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
