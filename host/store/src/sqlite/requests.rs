//! Requests: creating and committing them, and finding them by id, key, lineage and due time.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Request, RequestId, Timestamp};
use rusqlite::{Connection, Row, params};

use super::audit::Records;
use super::column::{RowContext, millis, row_limit};
use super::dispatches::NewDispatches;
use super::outbox::NewEntries;
use super::request_row::{RequestRow, StoredRequest};
use super::{SqliteStore, guards, idempotency};
use crate::projection::Projection;
use crate::{Commit, Committed, Create, Created, Due, Requests, StoreError};

/// How many rows that cannot be read are passed over in a list of what is due.
const MOST_UNREADABLE: usize = 1000;

/// The open requests with a key by which requests supersede each other, in the order in which they were stored.
pub(super) const WITH_SUPERSEDE_KEY: &str =
    "SELECT id, seq FROM request WHERE supersede = ?1 AND due_at IS NOT NULL
     UNION ALL SELECT id, seq FROM request WHERE subject = ?1 AND due_at IS NOT NULL ORDER BY seq";

#[async_trait]
impl Requests for SqliteStore {
    async fn create(&self, new: Create) -> Result<Created, StoreError> {
        let Create { request, idempotency, most_open, nonce, audit, effects, dispatches, counts } = new;
        let projection = Projection::of(&request);
        let mut row = RequestRow::of(&request, &projection)?;
        row.key_until = Some(idempotency.as_ref().map_or(0, |idempotency| millis(idempotency.until)));
        let entries = NewEntries::of(&request, &projection, &effects);
        let dispatches = NewDispatches::of(&projection, dispatches);
        let records = Records::of(audit, counts, Some(request.id.shard()))?;
        let written = self.writer.write(move |scope| {
            if guards::is_repeated(scope.db, nonce.as_ref())? {
                return Ok(Written::Repeated);
            }
            if let Some(idempotency) = &idempotency
                && let Some(known) = idempotency::find(scope.db, &idempotency.key, row.submitted_at)?
            {
                return Ok(Written::Known(known));
            }
            if row.has_too_many_open(scope, most_open)? {
                return Ok(Written::TooManyOpen);
            }
            // INVARIANT: a create that stores nothing has changed nothing up to here, so it needs no savepoint.
            if !row.follows(scope.db)? || !row.insert(scope)? {
                return Ok(Written::LineageConflict);
            }
            guards::insert(scope.db, nonce.as_ref())?;
            if let Some(idempotency) = &idempotency {
                idempotency::insert(scope.db, idempotency, &row)?;
            }
            entries.insert(scope.db)?;
            dispatches.insert(scope.db)?;
            records.insert(scope)?;
            Ok(Written::New)
        });
        Ok(match written.await? {
            Written::New => Created::New,
            Written::LineageConflict => Created::LineageConflict,
            Written::TooManyOpen => Created::TooManyOpen,
            Written::Repeated => Created::Repeated,
            Written::Known((fingerprint, stored)) => Created::Known(fingerprint, Box::new(stored.parse()?)),
        })
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let Commit { request, nonce, audit, effects, dispatches, counts } = commit;
        let projection = Projection::of(&request);
        let row = RequestRow::of(&request, &projection)?;
        let entries = NewEntries::of(&request, &projection, &effects);
        let dispatches = NewDispatches::of(&projection, dispatches);
        let records = Records::of(audit, counts, Some(request.id.shard()))?;
        let committed = self.writer.write(move |scope| {
            if guards::is_repeated(scope.db, nonce.as_ref())? {
                return Ok(Committed::Repeated);
            }
            // INVARIANT: a conflict has changed nothing up to here, so it needs no savepoint.
            if !row.update(scope)? {
                return Ok(Committed::Conflict);
            }
            guards::insert(scope.db, nonce.as_ref())?;
            entries.insert(scope.db)?;
            dispatches.insert(scope.db)?;
            records.insert(scope)?;
            Ok(Committed::Done)
        });
        committed.await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        let stored = self.readers.read(move |db| StoredRequest::find(db, id)).await?;
        stored.map(StoredRequest::parse).transpose()
    }

    async fn idempotent(
        &self,
        _shard: u16,
        key: &Digest,
        now: Timestamp,
    ) -> Result<Option<(Digest, Request)>, StoreError> {
        let key = *key;
        let known = self.readers.read(move |db| idempotency::find(db, &key, millis(now))).await?;
        known.map(|(fingerprint, stored)| Ok((fingerprint, stored.parse()?))).transpose()
    }

    async fn lineage(&self, lineage: RequestId, from: u32, limit: usize) -> Result<Vec<Request>, StoreError> {
        let read = self.readers.read(move |db| {
            // The first request has the id of the lineage, and is not in its index.
            let mut select = db.prepare_cached(
                "SELECT id, version, body, salt_key, salt, depth FROM request
                 WHERE id = ?1 AND depth = 0 AND ?2 = 0
                 UNION ALL
                 SELECT id, version, body, salt_key, salt, depth FROM request
                 WHERE lineage = ?1 AND depth > 0 AND depth >= ?2
                 ORDER BY depth LIMIT ?3",
            )?;
            let rows = select.query_and_then(params![lineage.to_bytes(), from, row_limit(limit)], |row| {
                of_lineage(&lineage, row)
            })?;
            rows.collect()
        });
        read.await
    }

    async fn newest_of_lineage(&self, lineage: RequestId) -> Result<Option<Request>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT id, version, body, salt_key, salt FROM request WHERE lineage = ?1 AND depth > 0
                 ORDER BY depth DESC LIMIT 1",
            )?;
            let mut rows = select.query_and_then([lineage.to_bytes()], |row| of_lineage(&lineage, row))?;
            if let Some(newest) = rows.next() {
                return newest.map(Some);
            }
            let first = StoredRequest::find(db, lineage)?.map(StoredRequest::parse).transpose()?;
            Ok(first.filter(|first| first.submission.depth == 0))
        });
        read.await
    }

    async fn recent_in_lineage(
        &self,
        lineage: RequestId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timestamp>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT submitted_at, depth FROM
                     (SELECT submitted_at, depth FROM request WHERE lineage = ?1 AND depth > 0
                      ORDER BY depth DESC LIMIT ?3)
                 WHERE submitted_at > ?2
                 UNION ALL
                 SELECT submitted_at, depth FROM request WHERE id = ?1 AND depth = 0 AND submitted_at > ?2
                 ORDER BY depth DESC LIMIT ?3",
            )?;
            let context = RowContext { table: "request", key: &lineage };
            let parameters = params![lineage.to_bytes(), millis(since), row_limit(limit)];
            let rows = select.query_and_then(parameters, |row| context.time(row, (0, "submitted_at")))?;
            rows.collect()
        });
        read.await
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestId)>,
        limit: usize,
    ) -> Result<Due, StoreError> {
        // An id has at least one byte, so that every request comes after an empty one.
        let (from, id) = after.map_or((i64::MIN, Vec::new()), |(at, id)| (millis(at), id.to_bytes().into()));
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT id, due_at, seq FROM request
                 WHERE due_at IS NOT NULL AND due_at <= ?1 AND due_at >= ?2 AND (due_at > ?2 OR id > ?3)
                 ORDER BY due_at, id",
            )?;
            let mut rows = select.query_and_then(params![millis(now), from, id], |row| {
                let seq: i64 = row.get(2)?;
                let context = RowContext { table: "request", key: &seq };
                Ok((context.request_id(row, (0, "id"))?, context.time(row, (1, "due_at"))?))
            })?;
            let mut due = Due::default();
            while due.requests.len() < limit && due.unreadable.len() < MOST_UNREADABLE {
                match rows.next().transpose() {
                    Ok(Some(request)) => due.requests.push(request),
                    Ok(None) => break,
                    Err(corrupt @ StoreError::Corrupt { .. }) => due.unreadable.push(corrupt),
                    Err(error) => return Err(error),
                }
            }
            Ok(due)
        });
        read.await
    }

    async fn next_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT due_at FROM request WHERE due_at IS NOT NULL AND due_at > ?1 ORDER BY due_at LIMIT 1",
            )?;
            let context = RowContext { table: "request", key: &"the next one due" };
            let mut rows = select.query_and_then([millis(after)], |row| context.time(row, (0, "due_at")))?;
            rows.next().transpose()
        });
        read.await
    }

    async fn newest(&self, before: Option<RequestId>, limit: usize) -> Result<Vec<RequestId>, StoreError> {
        // Every id comes before 17 bytes of ones.
        let before = before.map_or(vec![u8::MAX; 17], |before| before.to_bytes().into());
        let read = self.readers.read(move |db| {
            let mut select =
                db.prepare_cached("SELECT id FROM request WHERE id < ?1 ORDER BY id DESC LIMIT ?2")?;
            let rows = select.query_and_then(params![before, row_limit(limit)], |row| {
                RowContext { table: "request", key: &"a request" }.request_id(row, (0, "id"))
            })?;
            rows.collect()
        });
        read.await
    }

    async fn with_supersede_key(
        &self,
        key: &Digest,
        _request: Option<RequestId>,
    ) -> Result<Vec<RequestId>, StoreError> {
        let key = *key.as_bytes();
        self.readers.read(move |db| with_supersede_key(db, &key)).await
    }
}

pub(super) fn with_supersede_key(db: &Connection, key: &[u8; 32]) -> Result<Vec<RequestId>, StoreError> {
    let mut select = db.prepare_cached(WITH_SUPERSEDE_KEY)?;
    let rows = select.query_and_then([key], |row| {
        let seq: i64 = row.get(1)?;
        RowContext { table: "request", key: &seq }.request_id(row, (0, "id"))
    })?;
    rows.collect()
}

/// A request of a lineage, from the columns `id, version, body, salt_key, salt`.
fn of_lineage(lineage: &RequestId, row: &Row<'_>) -> Result<Request, StoreError> {
    let context = RowContext { table: "request", key: lineage };
    StoredRequest::of(context.request_id(row, (0, "id"))?, row)?.parse()
}

/// Result of a create, with a known request not yet parsed: that is done on the caller's thread.
enum Written {
    New,
    Known((Digest, StoredRequest)),
    LineageConflict,
    TooManyOpen,
    Repeated,
}
