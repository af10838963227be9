//! Writes a store: every record where the scripts of a gateway would have put it.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::RequestId;

use super::reader::RedisReader;
use super::{LEASE_NAME, Lease, Scan};
use crate::copy::{
    AuditRecord, CopyError, DispatchRecord, Home, Kind, OutboxRecord, Outcome, Record, redis_error,
};
use crate::projection::Projection;
use crate::redis::Space;
use crate::redis::call::{Call, Tag};
use crate::redis::checks::{self, FORMAT, UNFINISHED};
use crate::redis::options::RedisOptions;
use crate::redis::quota::{Limits, NewOpen};
use crate::redis::reply::{LARGEST, Place, json, millis};
use crate::redis::request_row::append_indexed;
use crate::redis::script::{
    APPEND, COPY_CHANGES, COPY_DISPATCHES, COPY_OUTBOX, COPY_POSTS, COPY_REQUESTS, COPY_SIGNATURES,
    COPY_VALUES, KEEP_SET, RESERVE,
};
use crate::{MostOpen, StoreError, StoreFault};

/// The store that a copy is written to.
pub(crate) struct RedisTarget {
    space: Arc<Space>,
    lease: Lease,
    restart: bool,
}

impl RedisTarget {
    pub(crate) async fn open(options: RedisOptions, restart: bool) -> Result<RedisTarget, CopyError> {
        let refused = |error| redis_error("destination", error);
        checks::options(&options).map_err(refused)?;
        let space = Arc::new(Space::of(&options));
        checks::server(&space).await.map_err(refused)?;
        let lease = Lease::take(Arc::clone(&space), "destination").await?;
        Ok(RedisTarget { space, lease, restart })
    }

    pub(crate) async fn keep_others_out(&self) -> Result<(), CopyError> {
        self.lease.renew().await
    }

    pub(crate) async fn release(&self) {
        self.lease.give_back().await;
    }

    /// Marks it as a part of a store, after a check that it is empty.
    pub(crate) async fn prepare(&self) -> Result<(), CopyError> {
        let (link, meta) = (&self.space.link, self.space.meta());
        let place = Place { table: "meta", key: &self.space.namespace };
        let format =
            place.optional_bytes("format", link.call(Call::command("GET", &meta, "format")).await?)?;
        let is_marked = format.is_some_and(|format| format == UNFINISHED.as_bytes());
        if is_marked {
            if !self.restart {
                return Err(CopyError::Interrupted);
            }
            self.discard().await?;
        }
        let (mark, lease) = self.own_keys();
        let is_own = |key: &String| *key == lease || is_marked && *key == mark;
        let mut scan = Scan::of(&self.space);
        while let Some(keys) = scan.next(link).await? {
            if let Some(key) = keys.into_iter().find(|key| !is_own(key)) {
                return Err(CopyError::NotEmpty(format!("the key `{key}`")));
            }
        }
        // A gateway may have made a store here since the scan.
        let set_mark = Call::command("SETNX", &meta, "format").text(UNFINISHED);
        if !is_marked && place.number("format", link.durable(set_mark).await?)? != 1 {
            return Err(CopyError::NotEmpty(format!("the key `{mark}`")));
        }
        let partitions = Call::command("SET", &meta, "partitions").number(u64::from(self.space.partitions));
        link.durable(partitions).await?;
        Ok(())
    }

    /// The mark, and the lease of this copy.
    fn own_keys(&self) -> (String, String) {
        let meta = self.space.meta();
        (meta.key("format"), meta.key(format_args!("lease:{LEASE_NAME}")))
    }

    /// Removes what an interrupted copy has left, and keeps the mark.
    async fn discard(&self) -> Result<(), StoreError> {
        let mut scan = Scan::of(&self.space);
        let (mark, lease) = self.own_keys();
        while let Some(keys) = scan.next(&self.space.link).await? {
            let keys: Vec<String> = keys.into_iter().filter(|key| *key != mark && *key != lease).collect();
            // Each with its own key, since those of a page may be in several slots.
            let deletes = keys.iter().filter_map(|key| {
                let (tag, name) = key.split_once("}:")?;
                Some(Call::command("DEL", &Tag::parse(&format!("{tag}}}")), name))
            });
            self.space.link.calls(deletes.collect()).await?;
        }
        Ok(())
    }

    /// Removes the mark.
    pub(crate) async fn finish(&self) -> Result<(), StoreError> {
        let finish = Call::command("SET", &self.space.meta(), "format").text(FORMAT);
        self.space.link.durable(finish).await.map(drop)
    }

    pub(crate) fn reader(&self) -> RedisReader {
        RedisReader::of(Arc::clone(&self.space))
    }

    /// The records as they will be kept. A nonce whose partition is not known is kept in each: it is looked for in one.
    pub(crate) fn place(&self, page: Vec<Record>) -> Vec<Record> {
        let partitions = self.space.partitions;
        let mut placed = Vec::with_capacity(page.len());
        for record in page {
            match record {
                Record::Nonce { home, digest, until } => {
                    let until = until.min(LARGEST);
                    match home {
                        Home::Partition(_) => {
                            placed.push(Record::Nonce { home, digest, until });
                        }
                        Home::Whole => placed.extend((0..partitions).map(|partition| Record::Nonce {
                            home: Home::Partition(partition),
                            digest,
                            until,
                        })),
                    }
                }
                Record::Idempotency { key, fingerprint, request, until } => {
                    let until = until.min(LARGEST);
                    placed.push(Record::Idempotency { key, fingerprint, request, until });
                }
                Record::Outbox(entry) => {
                    let (since, ready_at) = (entry.since.min(LARGEST), entry.ready_at.min(LARGEST));
                    placed.push(Record::Outbox(OutboxRecord { since, ready_at, ..entry }));
                }
                Record::Dispatch(dispatch) => {
                    let (since, ready_at) = (dispatch.since.min(LARGEST), dispatch.ready_at.min(LARGEST));
                    placed.push(Record::Dispatch(DispatchRecord { since, ready_at, ..dispatch }));
                }
                Record::Message { request, slot, revision, channel, refresh_at, body } => {
                    let refresh_at = refresh_at.map(|at| at.min(LARGEST));
                    placed.push(Record::Message { request, slot, revision, channel, refresh_at, body });
                }
                other => placed.push(other),
            }
        }
        placed
    }

    /// Writes records; those of one kind and partition by one script.
    pub(crate) async fn write(&self, placed: &[Record]) -> Result<Vec<Outcome>, StoreError> {
        let mut groups: BTreeMap<(Kind, String), (Tag, Vec<usize>)> = BTreeMap::new();
        for (at, record) in placed.iter().enumerate() {
            let tag = self.tag_of(record);
            let group = groups.entry((record.kind(), tag.as_str().to_owned()));
            group.or_insert_with(|| (tag, Vec::new())).1.push(at);
        }
        let mut outcomes = vec![Outcome::New; placed.len()];
        let written = groups.into_iter().map(|((kind, _), (tag, places))| async move {
            let records: Vec<&Record> = places.iter().filter_map(|at| placed.get(*at)).collect();
            let found = self.write_group(kind, &tag, &records).await?;
            Ok::<_, StoreError>((places, found))
        });
        for (places, found) in futures_util::future::try_join_all(written).await? {
            for (at, outcome) in places.into_iter().zip(found) {
                if let Some(place) = outcomes.get_mut(at) {
                    *place = outcome;
                }
            }
        }
        self.reserve(placed).await?;
        Ok(outcomes)
    }

    async fn write_group(
        &self,
        kind: Kind,
        tag: &Tag,
        records: &[&Record],
    ) -> Result<Vec<Outcome>, StoreError> {
        let space = &self.space;
        let call = match kind {
            Kind::Request => {
                let call = space.lasting(&COPY_REQUESTS, tag).number(records.len() as u64);
                records.iter().try_fold(call, |call, record| append_request(call, record))?
            }
            Kind::Outbox => {
                space.lasting(&COPY_OUTBOX, tag).each(records, |call, record| append_outbox(call, record))
            }
            Kind::Dispatch => space
                .lasting(&COPY_DISPATCHES, tag)
                .each(records, |call, record| append_dispatch(call, record)),
            Kind::Message => {
                space.lasting(&COPY_POSTS, tag).each(records, |call, record| append_post(call, record))
            }
            Kind::Signature => {
                space.lasting(&COPY_SIGNATURES, tag).each(records, |call, record| match record {
                    Record::Signature { digest, signature } => {
                        call.text(&digest.to_string()).bytes(signature.as_slice())
                    }
                    _ => call,
                })
            }
            Kind::Idempotency | Kind::Nonce | Kind::Entry | Kind::Module | Kind::Document => {
                space.lasting(&COPY_VALUES, tag).each(records, |call, record| append_value(call, record))
            }
            Kind::Superseding => {
                for record in records {
                    let Record::Superseding { key, requests } = record else { continue };
                    for request in requests {
                        space.list_superseding(key, *request).await?;
                    }
                }
                return Ok(vec![Outcome::New; records.len()]);
            }
            Kind::Change => {
                let call = space.lasting(&COPY_CHANGES, tag).each(records, |call, record| match record {
                    Record::Change { in_force, body } => {
                        call.text(&in_force.map(|set| set.to_string()).unwrap_or_default()).text(body)
                    }
                    _ => call,
                });
                space.durable(call).await?;
                return Ok(vec![Outcome::New; records.len()]);
            }
            Kind::Checkpoint => {
                for record in records {
                    let Record::Checkpoint { sequence, note, state } = record else { continue };
                    let keep =
                        Call::command("HSET", tag, "audit:checkpoint").text("sequence").number(*sequence);
                    space.link.durable(keep.text("note").text(note).text("state").text(state)).await?;
                }
                return Ok(vec![Outcome::New; records.len()]);
            }
            Kind::Audit | Kind::Counter => {
                // The first entries may have been removed by retention; the others keep their numbers.
                if let Some(Record::Audit(first)) = records.first() {
                    let before = Call::command("SETNX", tag, "audit:n");
                    space.link.call(before.number(first.number.saturating_sub(1))).await?;
                }
                space.durable(append_records(space.lasting(&APPEND, tag), records)?).await?;
                return Ok(vec![Outcome::New; records.len()]);
            }
            Kind::Set => {
                let mut outcomes = Vec::with_capacity(records.len());
                for record in records {
                    let Record::Set { hash, stored_at, entries, document } = record else { continue };
                    let call = space.lasting(&KEEP_SET, tag).text(&hash.to_string()).number(*stored_at);
                    let answer = space.durable(call.text(entries).text(document)).await?;
                    let is_new = Place { table: "set", key: hash }.text("kept", answer)? == "done";
                    outcomes.push(if is_new { Outcome::New } else { Outcome::Same });
                }
                return Ok(outcomes);
            }
        };
        let place = Place { table: "copy", key: &kind.name() };
        let answer = place.text("outcomes", space.durable(call).await?)?;
        if answer.len() != records.len() {
            return Err(place.corrupt("outcomes", format_args!("they are `{answer}`")));
        }
        let outcomes = answer.chars().map(|outcome| match outcome {
            '1' => Outcome::New,
            '0' => Outcome::Same,
            _ => Outcome::Clash,
        });
        Ok(outcomes.collect())
    }

    /// Open requests take their places among those of their callers.
    async fn reserve(&self, placed: &[Record]) -> Result<(), StoreError> {
        let reserve = placed.iter().filter_map(|record| {
            let Record::Request { request, .. } = record else { return None };
            let projection = Projection::of(request);
            projection.due_at?;
            let caller = projection.caller.unwrap_or_default();
            let reserve = Call::script(&RESERVE, &self.space.home_of(caller)).text(caller);
            let limits = Limits { action: projection.action.to_owned(), most: MostOpen::default() };
            let new = NewOpen { id: request.id, limits, gives_way: Vec::new() };
            Some(reserve.each(&[new], NewOpen::append))
        });
        self.space.link.calls(reserve.collect()).await.map(drop)
    }

    /// The part that a record is kept in.
    fn tag_of(&self, record: &Record) -> Tag {
        let of = |request: RequestId| self.space.tag_of(request);
        match record {
            Record::Nonce { home: Home::Partition(partition), .. } => self.space.tag(*partition),
            Record::Audit(entry) if entry.partition < self.space.partitions => {
                self.space.tag(entry.partition)
            }
            Record::Superseding { key, .. } => self.space.tag(key.shard()),
            Record::Request { request, .. } => of(request.id),
            Record::Idempotency { request, .. } | Record::Message { request, .. } => of(*request),
            Record::Outbox(entry) => of(entry.request),
            Record::Dispatch(dispatch) => of(dispatch.request),
            Record::Nonce { home: Home::Whole, .. }
            | Record::Audit(_)
            | Record::Checkpoint { .. }
            | Record::Counter { .. }
            | Record::Entry { .. }
            | Record::Module { .. }
            | Record::Signature { .. }
            | Record::Set { .. }
            | Record::Change { .. }
            | Record::Document { .. } => self.space.meta(),
        }
    }
}

fn append_request(call: Call, record: &Record) -> Result<Call, StoreError> {
    let Record::Request { request, body } = record else { return Ok(call) };
    let projection = Projection::of(request);
    let call = call.text(&request.id.to_string()).number(request.version).text(body);
    let call = match &request.submission.salt {
        Some(salt) => call.text(&salt.key).bytes(salt.sealed.as_slice()),
        None => call.text("").text(""),
    };
    let call = call.number(millis(projection.submitted_at));
    append_indexed(call.text(&projection.lineage.to_string()).number(projection.depth), &projection)
}

fn append_outbox(call: Call, record: &Record) -> Call {
    let Record::Outbox(entry) = record else { return call };
    let OutboxRecord { request, effect, revision, attempts, since, ready_at, urgency, channel } = entry;
    let call = call.text(&format!("{request}:{effect}")).number(*revision).number(*attempts);
    call.number(*since).number(*urgency).text(channel).number(*ready_at)
}

fn append_dispatch(call: Call, record: &Record) -> Call {
    let Record::Dispatch(dispatch) = record else { return call };
    let DispatchRecord { request, target, position, revision, attempts, since, ready_at, failure } = dispatch;
    let call = call.text(&format!("{request}:{target}")).text(target).number(*position).number(*revision);
    call.number(*attempts).number(*since).number(*ready_at).text(failure.as_deref().unwrap_or_default())
}

fn append_post(call: Call, record: &Record) -> Call {
    let Record::Message { request, slot, revision, channel, refresh_at, body } = record else { return call };
    let call = call.text(&format!("{request}:{slot}")).number(*revision).text(channel);
    call.optional(*refresh_at).text(body)
}

/// The key, the value, and when it expires.
fn append_value(call: Call, record: &Record) -> Call {
    match record {
        Record::Idempotency { key, fingerprint, request, until } => {
            call.text(&format!("idem:{key}")).text(&format!("{until} {fingerprint} {request}")).number(*until)
        }
        Record::Nonce { digest, until, .. } => {
            call.text(&format!("once:{digest}")).number(*until).number(*until)
        }
        Record::Entry { hash, body } => call.text(&format!("entry:{hash}")).text(body).text(""),
        Record::Module { digest, bytes } => {
            call.text(&format!("module:{digest}")).bytes(bytes.as_slice()).text("")
        }
        Record::Document { key, value } => call.text(&format!("doc:{key}")).bytes(value.as_slice()).text(""),
        _ => call,
    }
}

/// No nonce, audit entries, and counts.
fn append_records(call: Call, records: &[&Record]) -> Result<Call, StoreError> {
    let mut audit = Vec::new();
    let mut counts = Vec::new();
    for record in records {
        match record {
            Record::Audit(entry) => audit.push(entry),
            Record::Counter { metric, labels, value } => {
                let place = Place { table: "cnt", key: metric };
                let labels: BTreeMap<String, String> = place.json("labels", labels.as_bytes())?;
                if i64::try_from(*value).is_err() {
                    return Err(crate::redis::fault::unavailable(
                        StoreFault::Other,
                        format_args!("the counter `{metric}` is too large for a Redis"),
                    ));
                }
                counts.push((json(&(metric, labels))?, *value));
            }
            _ => {}
        }
    }
    // They are numbered anew, from 1 on: as they were, unless some are missing, which reading them back shows.
    let call = call.text("").each(&audit, |call, entry| {
        let AuditRecord { at, request, digest, body, .. } = entry;
        let call = call.text(body).text(&digest.to_string()).number(*at);
        call.text(&request.map(|request| request.to_string()).unwrap_or_default())
    });
    Ok(call.each(&counts, |call, (counter, value)| call.text(counter).number(*value)))
}
