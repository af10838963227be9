//! What a copy reads from a database: page by page, kind by kind.

use std::sync::Arc;

use countersign_core::lifecycle::{Digest, RequestId};
use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use crate::StoreError;
use crate::copy::{AuditRecord, DispatchRecord, Home, Kind, OutboxRecord, Record};
use crate::sqlite::SqliteStore;
use crate::sqlite::column::RowContext;
use crate::sqlite::readers::Readers;
use crate::sqlite::request_row::StoredRequest;
use crate::sqlite::requests::with_supersede_key;

/// How many rows are read at once.
const PAGE: usize = 200;

/// Reads a database page by page, kind by kind.
pub(crate) struct SqliteReader {
    readers: Arc<Readers>,
    /// The place in [`Kind::ALL`].
    kind: usize,
    /// The key of the last row that was read of this kind.
    after: Option<Vec<Value>>,
}

impl SqliteReader {
    pub(super) fn of(store: &SqliteStore) -> SqliteReader {
        SqliteReader { readers: Arc::clone(&store.readers), kind: 0, after: None }
    }

    /// How many audit entries there are in each partition.
    pub(crate) async fn audit_sizes(&self) -> Result<Vec<u64>, StoreError> {
        self.readers.read(crate::sqlite::audit::sizes).await
    }

    /// The next page; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        while let Some(kind) = Kind::ALL.get(self.kind).copied() {
            let after = self.after.take();
            let Page { records, last } = self.readers.read(move |db| page(db, kind, after)).await?;
            self.after = last;
            if !records.is_empty() {
                return Ok(Some(records));
            }
            self.kind += 1;
            self.after = None;
        }
        Ok(None)
    }
}

struct Page {
    records: Vec<Record>,
    last: Option<Vec<Value>>,
}

/// The rows of a kind whose keys are above `after`.
fn page(db: &Connection, kind: Kind, after: Option<Vec<Value>>) -> Result<Page, StoreError> {
    match kind {
        Kind::Request => {
            let select =
                "SELECT id, version, body, salt_key, salt FROM request WHERE id > ?1 ORDER BY id LIMIT ?2";
            rows(db, select, after, vec![blob()], PAGE, |row| {
                let id = of("request", &"a request").request_id(row, (0, "id"))?;
                let (request, body) = StoredRequest::of(id, row)?.parse_with_body()?;
                Ok(Record::Request { request: Box::new(request), body })
            })
        }
        Kind::Superseding => {
            let select = "SELECT supersede FROM (
                     SELECT DISTINCT supersede FROM request
                     WHERE supersede IS NOT NULL AND due_at IS NOT NULL AND supersede > ?1 ORDER BY supersede LIMIT ?2)
                 UNION SELECT subject FROM (
                     SELECT DISTINCT subject FROM request
                     WHERE subject IS NOT NULL AND due_at IS NOT NULL AND subject > ?1 ORDER BY subject LIMIT ?2)
                 ORDER BY 1 LIMIT ?2";
            rows(db, select, after, vec![blob()], PAGE, |row| {
                let key = of("request", &"a request").digest(row, (0, "supersede"))?;
                Ok(Record::Superseding { key, requests: with_supersede_key(db, key.as_bytes())? })
            })
        }
        Kind::Idempotency => {
            let select = "SELECT key, fingerprint, request, until FROM idempotency WHERE key > ?1 ORDER BY key LIMIT ?2";
            rows(db, select, after, vec![blob()], PAGE, |row| {
                let key = of("idempotency", &"a key").digest(row, (0, "key"))?;
                let context = of("idempotency", &key);
                Ok(Record::Idempotency {
                    key,
                    fingerprint: context.digest(row, (1, "fingerprint"))?,
                    request: context.request_id(row, (2, "request"))?,
                    until: context.unsigned(row, (3, "until"))?,
                })
            })
        }
        Kind::Nonce => {
            let select = "SELECT nonce, until FROM nonce WHERE nonce > ?1 ORDER BY nonce LIMIT ?2";
            rows(db, select, after, vec![blob()], PAGE, |row| {
                let digest = of("nonce", &"a nonce").digest(row, (0, "nonce"))?;
                let until = of("nonce", &digest).unsigned(row, (1, "until"))?;
                Ok(Record::Nonce { home: Home::Whole, digest, until })
            })
        }
        Kind::Outbox => {
            let select =
                "SELECT request, effect, revision, attempts, since, ready_at, urgency, channel FROM outbox
                 WHERE (request, effect) > (?1, ?2) ORDER BY request, effect LIMIT ?3";
            rows(db, select, after, vec![blob(), text()], PAGE, |row| {
                let request = of("outbox", &"an entry").request_id(row, (0, "request"))?;
                let context = of("outbox", &request);
                Ok(Record::Outbox(OutboxRecord {
                    request,
                    effect: context.get(row, (1, "effect"))?,
                    revision: context.unsigned(row, (2, "revision"))?,
                    attempts: context.unsigned(row, (3, "attempts"))?,
                    since: context.unsigned(row, (4, "since"))?,
                    ready_at: context.unsigned(row, (5, "ready_at"))?,
                    urgency: context.unsigned(row, (6, "urgency"))?,
                    channel: context.get(row, (7, "channel"))?,
                }))
            })
        }
        Kind::Dispatch => {
            let select =
                "SELECT request, target, position, revision, attempts, since, ready_at, failure FROM dispatch
                 WHERE (request, target) > (?1, ?2) ORDER BY request, target LIMIT ?3";
            rows(db, select, after, vec![blob(), text()], PAGE, |row| {
                let request = of("dispatch", &"a dispatch").request_id(row, (0, "request"))?;
                let context = of("dispatch", &request);
                Ok(Record::Dispatch(DispatchRecord {
                    request,
                    target: context.get(row, (1, "target"))?,
                    position: context.unsigned(row, (2, "position"))?,
                    revision: context.unsigned(row, (3, "revision"))?,
                    attempts: context.unsigned(row, (4, "attempts"))?,
                    since: context.unsigned(row, (5, "since"))?,
                    ready_at: context.unsigned(row, (6, "ready_at"))?,
                    failure: context.get(row, (7, "failure"))?,
                }))
            })
        }
        Kind::Message => {
            let select = "SELECT request, slot, revision, channel, refresh_at, body FROM slack_post
                 WHERE (request, slot) > (?1, ?2) ORDER BY request, slot LIMIT ?3";
            rows(db, select, after, vec![blob(), text()], PAGE, |row| {
                let request = of("slack_post", &"a message").request_id(row, (0, "request"))?;
                let context = of("slack_post", &request);
                let refresh_at: Option<i64> = context.get(row, (4, "refresh_at"))?;
                let refresh_at = refresh_at.map(u64::try_from).transpose();
                Ok(Record::Message {
                    request,
                    slot: context.get(row, (1, "slot"))?,
                    revision: context.unsigned(row, (2, "revision"))?,
                    channel: context.get(row, (3, "channel"))?,
                    refresh_at: refresh_at.map_err(|error| context.corrupt("refresh_at", error))?,
                    body: context.get(row, (5, "body"))?,
                })
            })
        }
        Kind::Audit => {
            let select = "SELECT seq, partition, number, at, request, digest, body FROM audit
                 WHERE seq > ?1 ORDER BY seq LIMIT ?2";
            rows(db, select, after, vec![Value::Integer(-1)], PAGE, |row| {
                let seq: i64 = row.get(0)?;
                let context = of("audit", &seq);
                let request: Option<[u8; 16]> = context.get(row, (4, "request"))?;
                let partition = context.unsigned(row, (1, "partition"))?;
                Ok(Record::Audit(AuditRecord {
                    row: Some(seq),
                    partition: u16::try_from(partition)
                        .map_err(|error| context.corrupt("partition", error))?,
                    number: context.unsigned(row, (2, "number"))?,
                    at: context.unsigned(row, (3, "at"))?,
                    request: request.map(RequestId::from_bytes),
                    digest: context.digest(row, (5, "digest"))?,
                    body: context.get(row, (6, "body"))?,
                }))
            })
        }
        Kind::Checkpoint => {
            let select =
                "SELECT id, sequence, note, state FROM audit_checkpoint WHERE id > ?1 ORDER BY id LIMIT ?2";
            rows(db, select, after, vec![Value::Integer(0)], PAGE, |row| {
                let context = of("audit_checkpoint", &1);
                let (note, state) = (context.get(row, (2, "note"))?, context.get(row, (3, "state"))?);
                Ok(Record::Checkpoint { sequence: context.unsigned(row, (1, "sequence"))?, note, state })
            })
        }
        Kind::Counter => {
            let select = "SELECT metric, labels, value FROM counter WHERE (metric, labels) > (?1, ?2)
                 ORDER BY metric, labels LIMIT ?3";
            rows(db, select, after, vec![text(), text()], PAGE, |row| {
                let metric: String = row.get(0)?;
                let context = of("counter", &metric);
                let (labels, value) =
                    (context.get(row, (1, "labels"))?, context.unsigned(row, (2, "value"))?);
                Ok(Record::Counter { value, labels, metric: metric.clone() })
            })
        }
        Kind::Entry => {
            let select = "SELECT hash, body FROM policy_entry WHERE hash > ?1 ORDER BY hash LIMIT ?2";
            rows(db, select, after, vec![blob()], PAGE, |row| {
                let hash = of("policy_entry", &"an entry").digest(row, (0, "hash"))?;
                let body: String = of("policy_entry", &hash).get(row, (1, "body"))?;
                checked(of("policy_entry", &hash), "body", hash, body.as_bytes())?;
                Ok(Record::Entry { hash, body })
            })
        }
        Kind::Module => {
            // They are megabytes.
            let select = "SELECT digest, bytes FROM module WHERE digest > ?1 ORDER BY digest LIMIT ?2";
            rows(db, select, after, vec![blob()], 1, |row| {
                let digest = of("module", &"a module").digest(row, (0, "digest"))?;
                let bytes: Vec<u8> = of("module", &digest).get(row, (1, "bytes"))?;
                checked(of("module", &digest), "bytes", digest, &bytes)?;
                Ok(Record::Module { digest, bytes })
            })
        }
        Kind::Signature => {
            let select = "SELECT digest, signature FROM signature WHERE (digest, signature) > (?1, ?2)
                 ORDER BY digest, signature LIMIT ?3";
            rows(db, select, after, vec![blob(), blob()], PAGE, |row| {
                let digest = of("signature", &"a signature").digest(row, (0, "digest"))?;
                let signature = of("signature", &digest).get(row, (1, "signature"))?;
                Ok(Record::Signature { digest, signature })
            })
        }
        Kind::Set => {
            // In the order in which they were stored.
            let select = "SELECT rowid, hash, stored_at, entries, document FROM policy_set WHERE rowid > ?1
                 ORDER BY rowid LIMIT ?2";
            rows(db, select, after, vec![Value::Integer(0)], PAGE, |row| {
                let hash = of("policy_set", &"a set").digest(row, (1, "hash"))?;
                let context = of("policy_set", &hash);
                let entries: String = context.get(row, (3, "entries"))?;
                checked(context, "entries", hash, entries.as_bytes())?;
                let stored_at = context.unsigned(row, (2, "stored_at"))?;
                Ok(Record::Set { hash, stored_at, entries, document: context.get(row, (4, "document"))? })
            })
        }
        Kind::Change => {
            let select = "SELECT seq, in_force, body FROM policy_change WHERE seq > ?1 ORDER BY seq LIMIT ?2";
            rows(db, select, after, vec![Value::Integer(0)], PAGE, |row| {
                let seq: i64 = row.get(0)?;
                let context = of("policy_change", &seq);
                let in_force: Option<[u8; 32]> = context.get(row, (1, "in_force"))?;
                let in_force = in_force.map(Digest::from_bytes);
                Ok(Record::Change { in_force, body: context.get(row, (2, "body"))? })
            })
        }
        Kind::Document => {
            let select = "SELECT key, value FROM kept WHERE key > ?1 ORDER BY key LIMIT ?2";
            rows(db, select, after, vec![text()], PAGE, |row| {
                Ok(Record::Document { key: row.get(0)?, value: row.get(1)? })
            })
        }
    }
}

fn of<'a>(table: &'static str, key: &'a dyn std::fmt::Display) -> RowContext<'a> {
    RowContext { table, key }
}

/// A key that comes before all others.
fn blob() -> Value {
    Value::Blob(Vec::new())
}

/// The same of text. No key is empty.
fn text() -> Value {
    Value::Text(String::new())
}

/// The rows that `select` finds after a key, which is in its first columns and parameters.
fn rows(
    db: &Connection,
    select: &str,
    after: Option<Vec<Value>>,
    first: Vec<Value>,
    limit: usize,
    read: impl Fn(&Row<'_>) -> Result<Record, StoreError>,
) -> Result<Page, StoreError> {
    let keys = first.len();
    let mut parameters = after.unwrap_or(first);
    parameters.push(Value::Integer(crate::sqlite::column::row_limit(limit)));
    let mut select = db.prepare_cached(select)?;
    let mut found = select.query(rusqlite::params_from_iter(parameters))?;
    let mut page = Page { records: Vec::new(), last: None };
    while let Some(row) = found.next()? {
        page.records.push(read(row)?);
        page.last = Some((0..keys).map(|column| row.get(column)).collect::<Result<_, _>>()?);
    }
    Ok(page)
}

/// Checks that a value still has the digest that it is stored under.
fn checked(
    context: RowContext<'_>,
    column: &'static str,
    digest: Digest,
    value: &[u8],
) -> Result<(), StoreError> {
    let found = Digest::of(value);
    if found == digest { Ok(()) } else { Err(context.corrupt(column, format_args!("its digest is {found}"))) }
}
