//! The outbox: enqueuing effects with a request, and claiming, finishing and postponing its entries.

use async_trait::async_trait;
use countersign_core::lifecycle::{Effect, Request, RequestId, Timestamp};
use rusqlite::{Connection, Row, params};

use super::SqliteStore;
use super::column::{RowContext, integer, millis, row_limit};
use crate::projection::Projection;
use crate::{LONGEST_WAIT_MS, Outbox, OutboxEntry, ReadyEntry, StoreError, Urgency};

/// How long an unreadable entry is postponed, in milliseconds.
const UNREADABLE_MS: u64 = 10 * 60 * 1000;

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
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<OutboxEntry>, StoreError> {
        let claimed = self.writer.write(move |scope| {
            let mut claim = scope.db.prepare_cached(
                "UPDATE outbox SET ready_at = ?4, claimed_until = ?4
                 WHERE request = ?1 AND effect = ?2 AND (ready_at <= ?3 OR ready_at > ?5)
                 RETURNING revision, attempts, since",
            )?;
            let key = (request.to_bytes(), effect.as_str());
            let farthest = millis(now.plus(LONGEST_WAIT_MS));
            let mut rows = claim.query(params![key.0, key.1, millis(now), millis(until), farthest])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let context = RowContext { table: "outbox", key: &format_args!("{request} {}", effect.as_str()) };
            let entry = OutboxEntry {
                request,
                effect,
                revision: context.unsigned(row, (0, "revision"))?,
                attempts: context.get(row, (1, "attempts"))?,
                since: context.time(row, (2, "since"))?,
                claimed_until: until,
            };
            Ok(Some(entry))
        });
        claimed.await
    }

    async fn finish_outbox(&self, entry: &OutboxEntry, delivered: u64) -> Result<(), StoreError> {
        let OutboxEntry { request, effect, claimed_until, .. } = *entry;
        let finished = self.writer.write(move |scope| {
            let (request, effect) = (request.to_bytes(), effect.as_str());
            let mut delete = scope
                .db
                .prepare_cached("DELETE FROM outbox WHERE request = ?1 AND effect = ?2 AND revision <= ?3")?;
            if delete.execute(params![request, effect, integer(delivered)])? == 0 {
                // The entry was enqueued again by a version newer than the delivered one.
                let mut release = scope.db.prepare_cached(
                    "UPDATE outbox SET ready_at = 0, claimed_until = NULL
                     WHERE request = ?1 AND effect = ?2 AND claimed_until = ?3",
                )?;
                release.execute(params![request, effect, millis(claimed_until)])?;
            }
            Ok(())
        });
        finished.await
    }

    async fn retry_outbox(&self, entry: &OutboxEntry, at: Timestamp, failed: bool) -> Result<(), StoreError> {
        let OutboxEntry { request, effect, claimed_until, .. } = *entry;
        let released = self.writer.write(move |scope| {
            let mut release = scope.db.prepare_cached(
                "UPDATE outbox SET ready_at = ?4, claimed_until = NULL, attempts = attempts + ?5
                 WHERE request = ?1 AND effect = ?2 AND claimed_until = ?3",
            )?;
            let key = (request.to_bytes(), effect.as_str());
            release.execute(params![key.0, key.1, millis(claimed_until), millis(at), failed])?;
            Ok(())
        });
        released.await
    }
}

/// The entries that a version of a request enqueues.
pub(super) struct NewEntries {
    request: [u8; 16],
    revision: i64,
    since: i64,
    effects: Vec<(&'static str, u8)>,
}

impl NewEntries {
    pub(super) fn of(request: &Request, projection: &Projection<'_>, effects: &[Effect]) -> NewEntries {
        let ranked = effects.iter().map(|effect| (effect.as_str(), Urgency::of(request, *effect).rank()));
        NewEntries {
            request: projection.id.to_bytes(),
            revision: integer(projection.version),
            since: millis(projection.changed_at),
            effects: ranked.collect(),
        }
    }

    pub(super) fn insert(&self, db: &Connection) -> rusqlite::Result<()> {
        let NewEntries { request, revision, since, effects } = self;
        for (effect, urgency) in effects {
            // It is ready whatever the clock says: `since` may lie ahead of a clock that is set back afterwards.
            // A claimed entry stays claimed: its worker finishes the old revision, and that makes it ready again.
            let mut enqueue = db.prepare_cached(
                "INSERT INTO outbox (request, effect, revision, attempts, since, ready_at, urgency)
                 VALUES (?1, ?2, ?3, 0, ?4, 0, ?5)
                 ON CONFLICT DO UPDATE SET revision = excluded.revision, attempts = 0,
                     since = min(since, excluded.since), urgency = min(urgency, excluded.urgency),
                     ready_at = iif(claimed_until IS NULL, 0, ready_at)",
            )?;
            enqueue.execute(params![request, effect, revision, since, urgency])?;
        }
        Ok(())
    }
}

/// The key of an outbox row, unparsed.
type OutboxKey = (Vec<u8>, String);

/// The ready entries, and the keys of unreadable rows.
fn select_ready(
    db: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<(Vec<ReadyEntry>, Vec<OutboxKey>), StoreError> {
    // One query for each urgency and range, so that each is a walk along the index.
    let mut select = db.prepare_cached(
        "SELECT request, effect, revision, since FROM outbox
         WHERE urgency = ?1 AND ready_at BETWEEN ?2 AND ?3
         ORDER BY ready_at LIMIT ?4",
    )?;
    let is_new = (0, 0);
    let is_due = (1, millis(now));
    let waits_too_long = (millis(now.plus(LONGEST_WAIT_MS)).saturating_add(1), i64::MAX);
    let (mut ready, mut unreadable) = (Vec::new(), Vec::new());
    for urgency in Urgency::ALL {
        for (from, to) in [is_new, is_due, waits_too_long] {
            let mut rows = select.query(params![urgency.rank(), from, to, row_limit(limit)])?;
            while let Some(row) = rows.next()? {
                let key: OutboxKey = (row.get(0)?, row.get(1)?);
                match ready_entry(row, &key, urgency) {
                    Ok(entry) => ready.push(entry),
                    Err(error) => {
                        tracing::error!(%error, "outbox entry is unreadable; postponed");
                        unreadable.push(key);
                    }
                }
            }
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
) -> Result<ReadyEntry, StoreError> {
    let key = format!("{} {effect}", hex::encode(request));
    let context = RowContext { table: "outbox", key: &key };
    Ok(ReadyEntry {
        request: context.request_id(row, (0, "request"))?,
        effect: context.variant("effect", effect)?,
        urgency,
        revision: context.unsigned(row, (2, "revision"))?,
        since: context.time(row, (3, "since"))?,
    })
}
