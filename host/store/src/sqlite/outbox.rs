//! The outbox: enqueuing effects with a request, and claiming, finishing and postponing its entries.

use async_trait::async_trait;
use countersign_core::lifecycle::{Effect, Request, RequestId, Timestamp};
use countersign_core::record::Slot;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::column::{RowContext, integer, millis, row_limit};
use crate::projection::Projection;
use crate::{Claim, LONGEST_WAIT_MS, Outbox, OutboxEntry, ReadyEntry, StoreError, Urgency};

/// How long an unreadable entry is postponed, in milliseconds.
const UNREADABLE_MS: u64 = 10 * 60 * 1000;

pub(super) const NEXT_CHANNEL: &str =
    "SELECT channel FROM outbox WHERE urgency = ?1 AND channel > ?2 ORDER BY channel LIMIT 1";

pub(super) const READY: &str = "SELECT request, effect, revision, since FROM outbox
     WHERE urgency = ?1 AND channel = ?2 AND ready_at >= ?3 AND ready_at <= ?4 ORDER BY ready_at LIMIT ?5";

#[async_trait]
impl Outbox for SqliteStore {
    async fn ready_outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<ReadyEntry>, StoreError> {
        let read = self.readers.read(move |db| select_ready(db, now, limit));
        let (ready, unreadable) = read.await?;
        if !unreadable.is_empty() {
            // Otherwise they would take up the limit and block the readable ones.
            let later = millis(now.plus(UNREADABLE_MS));
            let postponed = self.writer.write(move |scope| {
                for (request, effect) in &unreadable {
                    let mut postpone = scope.db.prepare_cached(
                        "UPDATE outbox SET ready_at = ?3 WHERE request = ?1 AND effect = ?2",
                    )?;
                    postpone.execute(params![request, effect, later])?;
                }
                Ok(())
            });
            postponed.await?;
        }
        Ok(ready)
    }

    async fn claim_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        claim: Claim,
    ) -> Result<Option<OutboxEntry>, StoreError> {
        let Claim { id, now, until } = claim;
        let claimed = self.writer.write(move |scope| {
            let mut select = scope.db.prepare_cached(
                "SELECT revision, attempts, since, claim IS NOT NULL FROM outbox
                 WHERE request = ?1 AND effect = ?2 AND (ready_at <= ?3 OR ready_at > ?4)",
            )?;
            let key = (request.to_bytes(), effect.as_str());
            let farthest = millis(now.plus(LONGEST_WAIT_MS));
            let mut rows = select.query(params![key.0, key.1, millis(now), farthest])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let context = RowContext { table: "outbox", key: &format_args!("{request} {}", effect.as_str()) };
            let entry = OutboxEntry {
                request,
                effect,
                revision: context.unsigned(row, (0, "revision"))?,
                attempts: context.get(row, (1, "attempts"))?,
                since: context.time(row, (2, "since"))?,
                claim: id,
                taken_over: row.get(3)?,
            };
            let mut claim = scope.db.prepare_cached(
                "UPDATE outbox SET ready_at = ?3, claimed_until = ?3, claim = ?4 WHERE request = ?1 AND effect = ?2",
            )?;
            claim.execute(params![key.0, key.1, millis(until), id.cast_signed()])?;
            Ok(Some(entry))
        });
        claimed.await
    }

    async fn renew_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        claim: Claim,
    ) -> Result<bool, StoreError> {
        let renewed = self.writer.write(move |scope| {
            let mut renew = scope.db.prepare_cached(
                "UPDATE outbox SET ready_at = ?4, claimed_until = ?4
                 WHERE request = ?1 AND effect = ?2 AND claim = ?3",
            )?;
            let key = (request.to_bytes(), effect.as_str(), claim.id.cast_signed());
            Ok(renew.execute(params![key.0, key.1, key.2, millis(claim.until)])? > 0)
        });
        renewed.await
    }

    async fn finish_outbox(&self, entry: &OutboxEntry, delivered: u64) -> Result<(), StoreError> {
        let OutboxEntry { request, effect, claim, .. } = *entry;
        let finished = self.writer.write(move |scope| {
            let (request, effect) = (request.to_bytes(), effect.as_str());
            let mut delete = scope
                .db
                .prepare_cached("DELETE FROM outbox WHERE request = ?1 AND effect = ?2 AND revision <= ?3")?;
            if delete.execute(params![request, effect, integer(delivered)])? == 0 {
                // The entry was enqueued again by a version newer than the delivered one.
                let mut release = scope.db.prepare_cached(
                    "UPDATE outbox SET ready_at = 0, claimed_until = NULL, claim = NULL
                     WHERE request = ?1 AND effect = ?2 AND claim = ?3",
                )?;
                release.execute(params![request, effect, claim.cast_signed()])?;
            }
            Ok(())
        });
        finished.await
    }

    async fn retry_outbox(
        &self,
        entry: &OutboxEntry,
        _now: Timestamp,
        at: Timestamp,
        failed: bool,
    ) -> Result<(), StoreError> {
        let OutboxEntry { request, effect, claim, .. } = *entry;
        let released = self.writer.write(move |scope| {
            let mut release = scope.db.prepare_cached(
                "UPDATE outbox SET ready_at = ?4, claimed_until = NULL, claim = NULL, attempts = attempts + ?5
                 WHERE request = ?1 AND effect = ?2 AND claim = ?3",
            )?;
            let key = (request.to_bytes(), effect.as_str());
            release.execute(params![key.0, key.1, claim.cast_signed(), millis(at), failed])?;
            Ok(())
        });
        released.await
    }
}

/// The entries that a version of a request enqueues.
pub(super) struct NewEntries {
    request: [u8; 16],
    policy_hash: [u8; 32],
    revision: i64,
    since: i64,
    effects: Vec<(Effect, Urgency)>,
}

impl NewEntries {
    pub(super) fn of(request: &Request, projection: &Projection<'_>, effects: &[Effect]) -> NewEntries {
        let effects = effects.iter().map(|effect| (*effect, Urgency::of(request, *effect)));
        NewEntries {
            request: projection.id.to_bytes(),
            policy_hash: *projection.policy_hash.as_bytes(),
            revision: integer(projection.version),
            since: millis(projection.changed_at),
            effects: effects.collect(),
        }
    }

    pub(super) fn insert(&self, db: &Connection) -> rusqlite::Result<()> {
        let NewEntries { request, policy_hash, revision, since, effects } = self;
        for (effect, urgency) in effects {
            let urgency = match urgency {
                Urgency::Ended if is_unseen(db, request)? => Urgency::Unseen,
                other => *other,
            };
            // It is ready whatever the clock says: `since` may lie ahead of a clock that is set back afterwards.
            // A claimed entry stays claimed: its worker finishes the old revision, and that makes it ready again.
            // The message of an ended request that nobody saw is not posted, whatever is done with its approval: its entry
            // keeps that urgency.
            let mut enqueue = db.prepare_cached(
                "INSERT INTO outbox (request, effect, revision, attempts, since, ready_at, urgency, channel)
                 VALUES (?1, ?2, ?3, 0, ?4, 0, ?5, ?6)
                 ON CONFLICT DO UPDATE SET revision = excluded.revision, attempts = 0,
                     since = min(since, excluded.since),
                     urgency = iif(excluded.urgency = ?7, ?7, min(urgency, excluded.urgency)),
                     ready_at = iif(claimed_until IS NULL, 0, ready_at)",
            )?;
            enqueue.execute(params![
                request,
                effect.as_str(),
                revision,
                since,
                urgency.rank(),
                channel(db, policy_hash, *effect)?,
                Urgency::Unseen.rank(),
            ])?;
        }
        Ok(())
    }
}

/// Whether a request has no main message, nor a worker that may be about to post it.
fn is_unseen(db: &Connection, request: &[u8; 16]) -> rusqlite::Result<bool> {
    // INVARIANT: a worker claims the entry, loads the request, and stores that the message may exist before it posts it.
    let mut seen = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM slack_post WHERE request = ?1 AND slot = ?2)
             OR EXISTS (SELECT 1 FROM outbox WHERE request = ?1 AND effect = ?3 AND claimed_until IS NOT NULL)",
    )?;
    let seen: bool = seen
        .query_row(params![request, Slot::Main.to_string(), Effect::ShowRequest.as_str()], |row| {
            row.get(0)
        })?;
    Ok(!seen)
}

/// The channel that an effect is delivered to.
fn channel(db: &Connection, policy_hash: &[u8; 32], effect: Effect) -> rusqlite::Result<String> {
    let mut select =
        db.prepare_cached("SELECT channel, escalation_channel FROM policy_entry WHERE hash = ?1")?;
    let named: Option<(Option<String>, Option<String>)> =
        select.query_row([policy_hash], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (channel, escalation) = named.unwrap_or_default();
    let channel = match effect {
        Effect::NotifyEscalation => escalation.or(channel),
        Effect::ShowRequest | Effect::NotifyReplaced => channel,
    };
    Ok(channel.unwrap_or_default())
}

/// The key of an outbox row, unparsed.
type OutboxKey = (Vec<u8>, String);

/// The ready entries, and the keys of unreadable rows.
fn select_ready(
    db: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<(Vec<ReadyEntry>, Vec<OutboxKey>), StoreError> {
    // The index is sorted by urgency, then channel, then time: so each channel is found by one seek, and its entries by one
    // for each range, however many entries wait.
    let (mut next_channel, mut select) = (db.prepare_cached(NEXT_CHANNEL)?, db.prepare_cached(READY)?);
    let is_new = (0, 0);
    let is_due = (1, millis(now));
    let waits_too_long = (millis(now.plus(LONGEST_WAIT_MS)).saturating_add(1), i64::MAX);
    let (mut ready, mut unreadable) = (Vec::new(), Vec::new());
    for urgency in Urgency::ALL {
        // Entries without a channel come first; no channel's name is less than the empty one.
        let mut channel = Some(String::new());
        while let Some(name) = channel {
            for (from, to) in [is_new, is_due, waits_too_long] {
                let mut rows = select.query(params![urgency.rank(), name, from, to, row_limit(limit)])?;
                while let Some(row) = rows.next()? {
                    let key: OutboxKey = (row.get(0)?, row.get(1)?);
                    match ready_entry(row, &key, urgency, &name) {
                        Ok(entry) => ready.push(entry),
                        Err(error) => {
                            tracing::error!(%error, "outbox entry is unreadable; postponed");
                            unreadable.push(key);
                        }
                    }
                }
            }
            channel = next_channel.query_row(params![urgency.rank(), name], |row| row.get(0)).optional()?;
        }
    }
    ready.sort_by_key(|entry| (entry.urgency, entry.since));
    Ok((ready, unreadable))
}

/// From the columns `request, effect, revision, since`.
fn ready_entry(
    row: &Row<'_>,
    (request, effect): &OutboxKey,
    urgency: Urgency,
    channel: &str,
) -> Result<ReadyEntry, StoreError> {
    let key = format!("{} {effect}", hex::encode(request));
    let context = RowContext { table: "outbox", key: &key };
    Ok(ReadyEntry {
        request: context.request_id(row, (0, "request"))?,
        effect: context.variant("effect", effect)?,
        urgency,
        channel: channel.to_owned(),
        revision: context.unsigned(row, (2, "revision"))?,
        since: context.time(row, (3, "since"))?,
    })
}
