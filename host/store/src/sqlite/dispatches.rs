//! Dispatches: enqueuing them with a request, and claiming and settling them.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, RequestId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::audit::Records;
use super::column::{RowContext, integer, millis, row_limit};
use crate::projection::Projection;
use crate::{
    Claim, DeadLetter, Dispatch, DispatchDepth, Dispatches, LONGEST_PAUSE_MS, NewDispatch, Settled,
    StoreError,
};

pub(super) const NEXT_TARGET: &str =
    "SELECT target FROM dispatch INDEXED BY dispatch_ready WHERE target > ?1 ORDER BY target LIMIT 1";

pub(super) const READY: &str = "SELECT request FROM dispatch INDEXED BY dispatch_ready
     WHERE target = ?1 AND (failure IS NOT NULL) = 0 AND ready_at >= ?2 AND ready_at <= ?3
     ORDER BY ready_at, request LIMIT ?4";

pub(super) const DEAD: &str =
    "SELECT request, position, since, ready_at, failure FROM dispatch INDEXED BY dispatch_ready
     WHERE target = ?1 AND (failure IS NOT NULL) = 1 ORDER BY ready_at, request LIMIT ?2";

/// The counts are kept by triggers, so that a look at them takes as long for a million of dead letters as for one.
pub(super) const DEPTH: &str = "SELECT target, waiting,
         (SELECT min(since) FROM dispatch INDEXED BY dispatch_since
          WHERE dispatch.target = dispatch_depth.target AND failure IS NULL),
         dead
     FROM dispatch_depth ORDER BY target";

pub(super) const DROP: &str = "DELETE FROM dispatch WHERE target = ?1 AND request IN
     (SELECT request FROM dispatch INDEXED BY dispatch_ready WHERE target = ?1 LIMIT ?2)";

pub(super) const RELEASE_CLAIMS: &str =
    "UPDATE dispatch SET claim = NULL, ready_at = 0 WHERE claim IS NOT NULL";

#[async_trait]
impl Dispatches for SqliteStore {
    async fn ready_dispatches(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(RequestId, String)>, StoreError> {
        self.readers.read(move |db| select_ready(db, now, limit)).await
    }

    async fn claim_dispatch(
        &self,
        request: RequestId,
        target: &str,
        claim: Claim,
    ) -> Result<Option<Dispatch>, StoreError> {
        let target = target.to_owned();
        let Claim { id, now, until } = claim;
        let claimed = self.writer.write(move |scope| {
            let mut update = scope.db.prepare_cached(
                "UPDATE dispatch SET ready_at = ?4, claim = ?6
                 WHERE request = ?1 AND target = ?2 AND failure IS NULL AND (ready_at <= ?3 OR ready_at > ?5)
                 RETURNING position, attempts, since",
            )?;
            let farthest = millis(now.plus(LONGEST_PAUSE_MS));
            let mut rows = update.query(params![
                request.to_bytes(),
                target,
                millis(now),
                millis(until),
                farthest,
                id.cast_signed()
            ])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let context = RowContext { table: "dispatch", key: &format_args!("{request} {target}") };
            Ok(Some(Dispatch {
                request,
                target: target.clone(),
                position: context.get(row, (0, "position"))?,
                attempts: context.get(row, (1, "attempts"))?,
                since: context.time(row, (2, "since"))?,
                claim: id,
            }))
        });
        claimed.await
    }

    async fn renew_dispatch(
        &self,
        request: RequestId,
        target: &str,
        claim: Claim,
    ) -> Result<bool, StoreError> {
        let target = target.to_owned();
        let renewed = self.writer.write(move |scope| {
            let mut renew = scope.db.prepare_cached(
                "UPDATE dispatch SET ready_at = ?4 WHERE request = ?1 AND target = ?2 AND claim = ?3",
            )?;
            let key = (request.to_bytes(), claim.id.cast_signed());
            Ok(renew.execute(params![key.0, target, key.1, millis(claim.until)])? > 0)
        });
        renewed.await
    }

    async fn settle_dispatch(
        &self,
        dispatch: &Dispatch,
        now: Timestamp,
        settled: Settled,
    ) -> Result<(), StoreError> {
        let dispatch = dispatch.clone();
        self.writer.write(move |scope| Ok(settle(scope.db, &dispatch, now, &settled)?)).await
    }

    async fn dead_letters(&self, target: &str, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let target = target.to_owned();
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(DEAD)?;
            let rows =
                select.query_and_then(params![target, row_limit(limit)], |row| dead_letter(row, &target))?;
            rows.collect()
        });
        read.await
    }

    async fn revive_dispatch(
        &self,
        request: RequestId,
        target: &str,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        let target = target.to_owned();
        let records = Records::of(vec![audit], Vec::new(), Some(request.shard()))?;
        let revived = self.writer.write(move |scope| {
            let mut revive = scope.db.prepare_cached(
                "UPDATE dispatch SET failure = NULL, attempts = 0, since = ?3, ready_at = 0
                 WHERE request = ?1 AND target = ?2 AND failure IS NOT NULL",
            )?;
            if revive.execute(params![request.to_bytes(), target, millis(now)])? == 0 {
                return Ok(false);
            }
            drop(revive);
            records.insert(scope)?;
            Ok(true)
        });
        revived.await
    }

    async fn drop_dispatches(&self, target: &str, limit: usize) -> Result<u64, StoreError> {
        let target = target.to_owned();
        let dropped = self.writer.write(move |scope| {
            let mut delete = scope.db.prepare_cached(DROP)?;
            Ok(delete.execute(params![target, row_limit(limit)])? as u64)
        });
        dropped.await
    }

    async fn dispatch_depth(&self) -> Result<Vec<DispatchDepth>, StoreError> {
        let read = self.readers.read(|db| {
            let mut select = db.prepare_cached(DEPTH)?;
            let rows = select.query_and_then([], |row| {
                let target: String = row.get(0)?;
                let context = RowContext { table: "dispatch", key: &target };
                let oldest: Option<i64> = context.get(row, (2, "since"))?;
                let oldest = oldest.map(|_| context.time(row, (2, "since"))).transpose()?;
                let waiting = context.unsigned(row, (1, "waiting"))?;
                let dead = context.unsigned(row, (3, "dead"))?;
                Ok(DispatchDepth { target, waiting, oldest, dead })
            })?;
            rows.collect()
        });
        read.await
    }
}

/// Whoever had claimed anything is gone: one process at a time has the database.
pub(super) fn release_claims(db: &Connection) -> rusqlite::Result<()> {
    db.execute(RELEASE_CLAIMS, []).map(drop)
}

/// The dispatches that a version of a request enqueues.
pub(super) struct NewDispatches {
    request: [u8; 16],
    revision: i64,
    since: i64,
    dispatches: Vec<NewDispatch>,
}

impl NewDispatches {
    pub(super) fn of(projection: &Projection<'_>, dispatches: Vec<NewDispatch>) -> NewDispatches {
        NewDispatches {
            request: projection.id.to_bytes(),
            revision: integer(projection.version),
            since: millis(projection.changed_at),
            dispatches,
        }
    }

    pub(super) fn insert(&self, db: &Connection) -> rusqlite::Result<()> {
        let NewDispatches { request, revision, since, dispatches } = self;
        for NewDispatch { target, position } in dispatches {
            // A new one is ready whatever the clock says. One that failed keeps its schedule, and one that is held does not.
            let mut enqueue = db.prepare_cached(
                "INSERT INTO dispatch (request, target, position, revision, attempts, since, ready_at)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5, 0)
                 ON CONFLICT DO UPDATE SET revision = excluded.revision,
                     since = min(since, excluded.since),
                     ready_at = iif(claim IS NULL AND attempts = 0 AND failure IS NULL, 0, ready_at)",
            )?;
            enqueue.execute(params![request, target, position, revision, since])?;
        }
        Ok(())
    }
}

fn settle(db: &Connection, dispatch: &Dispatch, now: Timestamp, settled: &Settled) -> rusqlite::Result<()> {
    let (request, target, claim) =
        (dispatch.request.to_bytes(), dispatch.target.as_str(), dispatch.claim.cast_signed());
    match settled {
        Settled::Told { position, version, complete } => {
            if *complete {
                let mut delete = db.prepare_cached(
                    "DELETE FROM dispatch WHERE request = ?1 AND target = ?2 AND claim = ?3 AND revision <= ?4",
                )?;
                if delete.execute(params![request, target, claim, integer(*version)])? > 0 {
                    return Ok(());
                }
            }
            let mut next = db.prepare_cached(
                "UPDATE dispatch SET position = ?4, attempts = 0, ready_at = 0, claim = NULL
                 WHERE request = ?1 AND target = ?2 AND claim = ?3",
            )?;
            next.execute(params![request, target, claim, position])?;
        }
        Settled::Held { position, version, until } => {
            let mut hold = db.prepare_cached(
                "UPDATE dispatch SET position = ?5, attempts = 0, since = ?4, claim = NULL,
                     ready_at = iif(revision > ?6, 0, ?4)
                 WHERE request = ?1 AND target = ?2 AND claim = ?3",
            )?;
            hold.execute(params![request, target, claim, millis(*until), position, integer(*version)])?;
        }
        Settled::Retry { at } | Settled::Released { at } => {
            let mut retry = db.prepare_cached(
                "UPDATE dispatch SET attempts = attempts + ?5, ready_at = ?4, claim = NULL
                 WHERE request = ?1 AND target = ?2 AND claim = ?3",
            )?;
            let failed = matches!(settled, Settled::Retry { .. });
            retry.execute(params![request, target, claim, millis(*at), failed])?;
        }
        Settled::Dead { failure } => {
            let mut die = db.prepare_cached(
                "UPDATE dispatch SET failure = ?5, ready_at = ?4, claim = NULL
                 WHERE request = ?1 AND target = ?2 AND claim = ?3",
            )?;
            die.execute(params![request, target, claim, millis(now), failure])?;
        }
        Settled::Dropped => {
            let mut delete =
                db.prepare_cached("DELETE FROM dispatch WHERE request = ?1 AND target = ?2 AND claim = ?3")?;
            delete.execute(params![request, target, claim])?;
        }
    }
    Ok(())
}

fn select_ready(
    db: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(RequestId, String)>, StoreError> {
    let (mut next_target, mut select) = (db.prepare_cached(NEXT_TARGET)?, db.prepare_cached(READY)?);
    let is_new = (0, 0);
    let is_due = (1, millis(now));
    let waits_too_long = (millis(now.plus(LONGEST_PAUSE_MS)).saturating_add(1), i64::MAX);
    let mut ready = Vec::new();
    let mut target: Option<String> = Some(String::new());
    while let Some(before) = target {
        target = next_target.query_row([before], |row| row.get(0)).optional()?;
        let Some(name) = &target else { break };
        for (from, to) in [is_new, is_due, waits_too_long] {
            let mut rows = select.query(params![name, from, to, row_limit(limit)])?;
            while let Some(row) = rows.next()? {
                match (RowContext { table: "dispatch", key: name }).request_id(row, (0, "request")) {
                    Ok(request) => ready.push((request, name.clone())),
                    Err(error) => tracing::error!(%error, "dispatch is unreadable; skipped"),
                }
            }
        }
    }
    Ok(ready)
}

/// From the columns `request, position, since, ready_at, failure`.
fn dead_letter(row: &Row<'_>, target: &str) -> Result<DeadLetter, StoreError> {
    let request = RowContext { table: "dispatch", key: &target }.request_id(row, (0, "request"))?;
    let context = RowContext { table: "dispatch", key: &format_args!("{request} {target}") };
    Ok(DeadLetter {
        request,
        target: target.to_owned(),
        position: context.get(row, (1, "position"))?,
        since: context.time(row, (2, "since"))?,
        died_at: context.time(row, (3, "ready_at"))?,
        failure: context.get(row, (4, "failure"))?,
    })
}
