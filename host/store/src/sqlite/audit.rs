//! The audit log, and the counts that are stored with its entries.

use async_trait::async_trait;
use countersign_core::lifecycle::{AuditEntry, Count, Digest, RequestId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::column::{RowContext, integer, millis, row_limit};
use super::writer::{CountRow, Scope};
use super::{SqliteStore, guards};
use crate::ports::encoded;
use crate::{
    Audit, AuditCursor, AuditRange, Committed, KeptCheckpoint, LogColumns, LogEntry, LogPage, Nonce,
    StoreError,
};

/// In how many partitions the entries about requests are spread. The one after them is of what is about none.
pub(crate) const PARTITIONS: u16 = 16;

pub(super) const OF_REQUEST: &str = "SELECT seq, partition, number, at, request, digest, body FROM audit
     WHERE request = ?1 AND seq > ?2 AND at >= ?3 AND at < ?4 ORDER BY seq LIMIT ?5";

pub(super) const OF_PERIOD: &str = "SELECT seq, partition, number, at, request, digest, body FROM audit
     WHERE at >= ?1 AND at < ?2 AND (at > ?1 OR seq > ?3) ORDER BY at, seq LIMIT ?4";

#[async_trait]
impl Audit for SqliteStore {
    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError> {
        // All are about one request, or about none.
        let shard = audit.iter().find_map(|entry| entry.request).map(RequestId::shard);
        let records = Records::of(audit, counts, shard)?;
        let appended = self.writer.write(move |scope| Ok(records.insert(scope)?));
        appended.await
    }

    async fn append_once(
        &self,
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        nonce: Nonce,
    ) -> Result<bool, StoreError> {
        let records = Records::of(audit, counts, Some(nonce.shard))?;
        let appended = self.writer.write(move |scope| {
            if guards::is_repeated(scope.db, Some(&nonce))? {
                return Ok(false);
            }
            guards::insert(scope.db, Some(&nonce))?;
            records.insert(scope)?;
            Ok(true)
        });
        appended.await
    }

    async fn audit_log(
        &self,
        range: AuditRange,
        after: &AuditCursor,
        limit: usize,
    ) -> Result<LogPage, StoreError> {
        let place = Place::of(&range, after)?;
        self.readers.read(move |db| select(db, range, place, limit)).await
    }

    async fn audit_sizes(&self) -> Result<Vec<u64>, StoreError> {
        self.readers.read(sizes).await
    }

    async fn audit_before(&self, place: &AuditCursor) -> Result<Vec<LogEntry>, StoreError> {
        let Place { seq, .. } = Place::of(&AuditRange::default(), place)?;
        let select = "SELECT seq, partition, number, at, request, digest, body FROM audit WHERE seq = ?1";
        self.readers
            .read(move |db| {
                let mut select = db.prepare_cached(select)?;
                let found = select.query_and_then([seq], log_entry)?;
                found.collect()
            })
            .await
    }

    async fn append_to(&self, partition: u16, entry: AuditEntry) -> Result<u64, StoreError> {
        let records = Records { partition, audit: vec![AuditRow::of(&entry)?], counts: Vec::new() };
        let appended = self.writer.write(move |scope| {
            records.insert(scope)?;
            let mut size =
                scope.db.prepare_cached("SELECT size FROM audit_partition WHERE partition = ?1")?;
            let mut rows = size.query_and_then([partition], |row| {
                RowContext { table: "audit_partition", key: &partition }.unsigned(row, (0, "size"))
            })?;
            Ok(rows.next().transpose()?.unwrap_or_default())
        });
        appended.await
    }

    async fn remove_audit(&self, partition: u16, through: u64) -> Result<(), StoreError> {
        // There is no index by number, so they are looked for from the beginning, where they are, and not in the write.
        let rows = self.readers.read(move |db| oldest(db, partition, through)).await?;
        let removed = self.writer.write(move |scope| {
            let mut delete = scope.db.prepare_cached("DELETE FROM audit WHERE seq = ?1")?;
            for seq in &rows {
                delete.execute([seq])?;
            }
            Ok(())
        });
        removed.await
    }

    async fn audit_checkpoint(&self) -> Result<Option<KeptCheckpoint>, StoreError> {
        self.readers.read(checkpoint).await
    }

    async fn keep_audit_checkpoint(&self, checkpoint: KeptCheckpoint) -> Result<Committed, StoreError> {
        let stored = self.writer.write(move |scope| {
            let KeptCheckpoint { sequence, note, state } = &checkpoint;
            let mut keep = scope.db.prepare_cached(
                "INSERT INTO audit_checkpoint (id, sequence, note, state) SELECT 1, ?1, ?2, ?3
                 WHERE ?1 = 1 + coalesce((SELECT sequence FROM audit_checkpoint), 0)
                 ON CONFLICT DO UPDATE SET sequence = excluded.sequence, note = excluded.note, state = excluded.state",
            )?;
            let kept = keep.execute(params![integer(*sequence), note, state])?;
            Ok(if kept == 0 { Committed::Conflict } else { Committed::Done })
        });
        stored.await
    }
}

/// The number of the row that was read last, and, in a period, its time.
#[derive(Clone, Copy)]
pub(super) struct Place {
    at: i64,
    seq: i64,
}

impl Place {
    pub(super) fn of(range: &AuditRange, cursor: &AuditCursor) -> Result<Place, StoreError> {
        let text = cursor.0.as_str();
        let is_by_time = range.request.is_none() && range.period.is_some();
        let from = range.period.map_or(0, |(since, _)| millis(since));
        if text.is_empty() {
            return Ok(Place { at: from, seq: -1 });
        }
        let place = match text.split_once('-') {
            Some((at, seq)) if is_by_time => at.parse().ok().zip(seq.parse().ok()),
            None if !is_by_time => text.parse().ok().map(|seq| (from, seq)),
            _ => None,
        };
        // A place before the period would be read from the beginning of the log.
        let place = place.filter(|(at, _)| *at >= from);
        let (at, seq) = place.ok_or_else(|| StoreError::Cursor(text.to_owned()))?;
        Ok(Place { at, seq })
    }
}

/// Entries after a place.
pub(super) fn select(
    db: &Connection,
    range: AuditRange,
    after: Place,
    limit: usize,
) -> Result<LogPage, StoreError> {
    let (since, until) = range.period.map_or((i64::MIN, i64::MAX), |(from, to)| (millis(from), millis(to)));
    let limit_rows = row_limit(limit);
    let mut place = after;
    let mut entries = Vec::new();
    let mut read = |row: &Row<'_>| -> Result<(), StoreError> {
        let entry = log_entry(row)?;
        place = Place { at: entry.columns.as_ref().map_or(0, |columns| columns.at), seq: row.get(0)? };
        entries.push(entry);
        Ok(())
    };
    let mut statement;
    let mut rows = match (range.request, range.period) {
        (Some(request), _) => {
            statement = db.prepare_cached(OF_REQUEST)?;
            statement.query(params![request.to_bytes(), after.seq, since, until, limit_rows])?
        }
        (None, Some(_)) => {
            statement = db.prepare_cached(OF_PERIOD)?;
            statement.query(params![after.at, until, after.seq, limit_rows])?
        }
        (None, None) => {
            statement = db.prepare_cached(
                "SELECT seq, partition, number, at, request, digest, body FROM audit
                 WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            statement.query(params![after.seq, limit_rows])?
        }
    };
    while let Some(row) = rows.next()? {
        read(row)?;
    }
    let is_last = entries.len() < limit;
    let next = match range {
        AuditRange { request: None, period: Some(_) } => format!("{}-{}", place.at, place.seq),
        // The beginning is nobody's number.
        _ if place.seq < 0 => String::new(),
        _ => place.seq.to_string(),
    };
    Ok(LogPage { entries, next: AuditCursor(next), is_last })
}

/// The rows of a partition's entries up to the one with this number.
fn oldest(db: &Connection, partition: u16, through: u64) -> Result<Vec<i64>, StoreError> {
    let mut select = db.prepare_cached("SELECT seq, partition, number FROM audit ORDER BY seq")?;
    let mut rows = select.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let context = RowContext { table: "audit", key: &seq };
        if context.unsigned(row, (1, "partition"))? != u64::from(partition) {
            continue;
        }
        let number = context.unsigned(row, (2, "number"))?;
        if number <= through {
            found.push(seq);
        }
        // The order of the rows is that of the numbers.
        if number >= through {
            break;
        }
    }
    Ok(found)
}

/// From the columns `seq, partition, number, at, request, digest, body`.
fn log_entry(row: &Row<'_>) -> Result<LogEntry, StoreError> {
    let seq: i64 = row.get(0)?;
    let context = RowContext { table: "audit", key: &seq };
    let partition = context.unsigned(row, (1, "partition"))?;
    // What is no digest is not that of the entry, whatever it is.
    let digest: Vec<u8> = context.get(row, (5, "digest"))?;
    Ok(LogEntry {
        partition: u16::try_from(partition).map_err(|error| context.corrupt("partition", error))?,
        number: context.unsigned(row, (2, "number"))?,
        digest: Digest::from_bytes(digest.try_into().unwrap_or_default()),
        body: context.get(row, (6, "body"))?,
        columns: Some(LogColumns {
            at: context.get(row, (3, "at"))?,
            request: context.get(row, (4, "request"))?,
        }),
    })
}

pub(super) fn sizes(db: &Connection) -> Result<Vec<u64>, StoreError> {
    let mut select = db.prepare_cached("SELECT size, partition FROM audit_partition ORDER BY partition")?;
    let rows = select.query_and_then([], |row| {
        let partition: i64 = row.get(1)?;
        RowContext { table: "audit_partition", key: &partition }.unsigned(row, (0, "size"))
    })?;
    rows.collect()
}

pub(super) fn checkpoint(db: &Connection) -> Result<Option<KeptCheckpoint>, StoreError> {
    let mut select = db.prepare_cached("SELECT sequence, note, state FROM audit_checkpoint")?;
    let context = RowContext { table: "audit_checkpoint", key: &1 };
    let mut rows = select.query_and_then([], |row| -> Result<_, StoreError> {
        Ok(KeptCheckpoint {
            sequence: context.unsigned(row, (0, "sequence"))?,
            note: context.get(row, (1, "note"))?,
            state: context.get(row, (2, "state"))?,
        })
    })?;
    rows.next().transpose()
}

/// The audit entries and counts that are stored in the same transaction as a change.
pub(super) struct Records {
    partition: u16,
    audit: Vec<AuditRow>,
    counts: Vec<CountRow>,
}

struct AuditRow {
    at: i64,
    request: Option<[u8; 16]>,
    digest: Digest,
    body: String,
}

impl Records {
    /// `shard` is that of the request that they are about, if they are about one.
    pub(super) fn of(
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        shard: Option<u16>,
    ) -> Result<Records, StoreError> {
        Ok(Records {
            partition: shard.map_or(PARTITIONS, |shard| shard % PARTITIONS),
            audit: audit.iter().map(AuditRow::of).collect::<Result<_, _>>()?,
            counts: counts.into_iter().map(CountRow::of).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn insert(&self, scope: &mut Scope<'_>) -> rusqlite::Result<()> {
        if !self.audit.is_empty() {
            insert_rows(scope.db, self.partition, &self.audit)?;
        }
        scope.count(&self.counts);
        Ok(())
    }
}

/// Numbers entries and stores them.
fn insert_rows(db: &Connection, partition: u16, rows: &[AuditRow]) -> rusqlite::Result<()> {
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let mut grow = db.prepare_cached(
        "UPDATE audit_partition SET size = size + ?2 WHERE partition = ?1 RETURNING size - ?2",
    )?;
    let before: i64 = grow.query_row(params![partition, count], |row| row.get(0))?;
    let mut insert = db.prepare_cached(
        "INSERT INTO audit (partition, number, at, request, digest, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (row, number) in rows.iter().zip(before.saturating_add(1)..) {
        insert.execute(params![partition, number, row.at, row.request, row.digest.as_bytes(), row.body])?;
    }
    Ok(())
}

impl AuditRow {
    fn of(entry: &AuditEntry) -> Result<AuditRow, StoreError> {
        let (body, digest) = encoded(entry)?;
        Ok(AuditRow { at: millis(entry.at), request: entry.request.map(RequestId::to_bytes), digest, body })
    }
}

/// Numbers the entries of an older version, in the order in which they were stored. Their bytes stay as they are.
pub(super) fn number_older(db: &Connection) -> rusqlite::Result<()> {
    let mut sizes: Vec<i64> = vec![0; usize::from(PARTITIONS) + 1];
    let mut select = db.prepare("SELECT seq, at, request, body FROM audit_8 ORDER BY seq")?;
    let mut insert = db.prepare(
        "INSERT INTO audit (seq, partition, number, at, request, digest, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, at, request, body): (i64, i64, Option<Vec<u8>>, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let id: Option<[u8; 16]> = request.as_deref().and_then(|id| id.try_into().ok());
        let partition = id.map_or(PARTITIONS, |id| RequestId::from_bytes(id).shard() % PARTITIONS);
        let Some(size) = sizes.get_mut(usize::from(partition)) else { continue };
        *size += 1;
        let digest = Digest::of(body.as_bytes());
        insert.execute(params![seq, partition, *size, at, request, digest.as_bytes(), body])?;
    }
    let mut store = db.prepare("UPDATE audit_partition SET size = ?2 WHERE partition = ?1")?;
    for (partition, size) in (0..=PARTITIONS).zip(sizes) {
        store.execute(params![partition, size])?;
    }
    db.execute_batch("DROP TABLE audit_8")
}

/// Whether the audit log of the database has numbers: that of an older version, which is read as it is, has none.
pub(super) fn has_numbers(db: &Connection) -> rusqlite::Result<bool> {
    let select = "SELECT 1 FROM sqlite_schema WHERE name = 'audit_partition'";
    Ok(db.query_row(select, [], |_| Ok(())).optional()?.is_some())
}
