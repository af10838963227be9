//! The delivery state of Slack messages.

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, Timestamp};
use countersign_core::record::{SlackPost, Slot};
use rusqlite::{OptionalExtension, params};

use super::SqliteStore;
use super::audit::Records;
use super::column::{RowContext, integer, json, millis, row_limit};
use crate::{Committed, KeepPost, LONGEST_WAIT_MS, Messages, StalePost, StoreError};

pub(super) const NEXT_CHANNEL: &str = "SELECT channel FROM slack_post
     WHERE refresh_at IS NOT NULL AND channel > ?1 ORDER BY channel LIMIT 1";

pub(super) const STALE: &str = "SELECT request, slot, refresh_at FROM slack_post
     WHERE channel = ?1 AND refresh_at >= ?2 AND refresh_at <= ?3 ORDER BY refresh_at LIMIT ?4";

#[async_trait]
impl Messages for SqliteStore {
    async fn slack_post(&self, request: RequestId, slot: Slot) -> Result<Option<SlackPost>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select =
                db.prepare_cached("SELECT body FROM slack_post WHERE request = ?1 AND slot = ?2")?;
            let context = RowContext { table: "slack_post", key: &format_args!("{request} {slot}") };
            let mut rows = select.query_and_then(params![request.to_bytes(), slot.to_string()], |row| {
                context.json("body", context.get::<String>(row, (0, "body"))?)
            })?;
            rows.next().transpose()
        });
        read.await
    }

    async fn keep_slack_post(&self, keep: KeepPost) -> Result<Committed, StoreError> {
        let KeepPost { request, slot, post, audit, counts } = keep;
        let body = json(&post)?;
        let records = Records::of(audit, counts, Some(request.shard()))?;
        let stored = self.writer.write(move |scope| {
            let (request, slot) = (request.to_bytes(), slot.to_string());
            let refresh_at = post.refresh_at.map(millis);
            let row = params![request, slot, integer(post.revision), refresh_at, body, post.channel];
            // INVARIANT: a conflict has changed nothing up to here, so it needs no savepoint.
            let changed = if post.revision == 1 {
                let mut insert = scope.db.prepare_cached(
                    "INSERT INTO slack_post (request, slot, revision, refresh_at, body, channel)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                )?;
                insert.execute(row)?
            } else {
                let mut update = scope.db.prepare_cached(
                    "UPDATE slack_post SET revision = ?3, refresh_at = ?4, body = ?5, channel = ?6
                     WHERE request = ?1 AND slot = ?2 AND revision = ?3 - 1",
                )?;
                update.execute(row)?
            };
            if changed == 0 {
                return Ok(Committed::Conflict);
            }
            records.insert(scope)?;
            Ok(Committed::Done)
        });
        stored.await
    }

    async fn stale_slack_posts(&self, now: Timestamp, limit: usize) -> Result<Vec<StalePost>, StoreError> {
        let read = self.readers.read(move |db| {
            let (mut next_channel, mut select) =
                (db.prepare_cached(NEXT_CHANNEL)?, db.prepare_cached(STALE)?);
            let is_due = (0, millis(now));
            let waits_too_long = (millis(now.plus(LONGEST_WAIT_MS)).saturating_add(1), i64::MAX);
            let mut stale = Vec::new();
            let mut channel = Some(String::new());
            while let Some(name) = channel {
                let mut left = limit;
                // One query for each channel and range, so that each is a walk along the index.
                for (from, to) in [is_due, waits_too_long] {
                    let mut rows = select.query(params![name, from, to, row_limit(left)])?;
                    while let Some(row) = rows.next()? {
                        let slot: String = row.get(1)?;
                        let context = RowContext { table: "slack_post", key: &slot };
                        stale.push(StalePost {
                            request: context.request_id(row, (0, "request"))?,
                            slot: context.variant("slot", &slot)?,
                            channel: name.clone(),
                            since: context.time(row, (2, "refresh_at"))?,
                        });
                        left = left.saturating_sub(1);
                    }
                }
                channel = next_channel.query_row([&name], |row| row.get(0)).optional()?;
            }
            Ok(stale)
        });
        read.await
    }

    async fn claim_refresh(
        &self,
        request: RequestId,
        slot: Slot,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let claimed = self.writer.write(move |scope| {
            let mut claim = scope.db.prepare_cached(
                "UPDATE slack_post SET refresh_at = ?4
                 WHERE request = ?1 AND slot = ?2 AND (refresh_at <= ?3 OR refresh_at > ?5)",
            )?;
            let farthest = millis(now.plus(LONGEST_WAIT_MS));
            let key = (request.to_bytes(), slot.to_string());
            let claimed = claim.execute(params![key.0, key.1, millis(now), millis(until), farthest])?;
            Ok(claimed > 0)
        });
        claimed.await
    }
}
