//! What a copy reads from a database, and what it writes to one. Every table and column is accounted for here.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use countersign_core::lifecycle::{Digest, RequestId};
use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

pub(crate) use super::audit::PARTITIONS;
use super::column::{RowContext, integer};
use super::file::discard;
use super::readers::Readers;
use super::request_row::{RequestRow, StoredRequest};
use super::requests::with_supersede_key;
use super::writer::Scope;
use super::{OpenError, SqliteStore};
use crate::StoreError;
use crate::copy::{
    AuditRecord, CopyError, DispatchRecord, Home, Kind, OutboxRecord, Outcome, Record, sqlite_error,
};

/// Every table, with its columns. A copy is refused if a database has others: whoever adds one says here, and below, what
/// becomes of it.
///
/// `audit_partition` follows from the entries, and is compared with them. Not copied: `meta`, which is about the file;
/// `open_requests`, which is counted anew; who has claimed what is in `outbox`; `ended_at`, which follows from the body; and
/// `key_until`, which says less of a copy: that it is not known whether there is an idempotency key.
const TABLES: [(&str, &str); 18] = [
    ("audit", "seq partition number at request digest body"),
    ("audit_checkpoint", "id sequence note state"),
    ("audit_partition", "partition size"),
    ("counter", "metric labels value"),
    ("dispatch", "request target position revision attempts since ready_at claim failure"),
    ("idempotency", "key fingerprint request until"),
    ("kept", "key value"),
    ("meta", "key value"),
    ("module", "digest bytes"),
    ("nonce", "nonce until"),
    ("open_requests", "caller action status waits_for policy_hash requests submitted"),
    ("outbox", "request effect revision attempts since ready_at claimed_until urgency channel claim"),
    ("policy_change", "seq in_force body"),
    ("policy_entry", "hash body channel escalation_channel"),
    ("policy_set", "hash stored_at entries document"),
    (
        "request",
        "seq id version action status submitted_at due_at lineage depth waits_for body policy_hash caller salt_key salt supersede ended_at key_until",
    ),
    ("signature", "digest signature"),
    ("slack_post", "request slot revision refresh_at body channel"),
];

/// The keys of `meta`, none of which is copied.
const META: [&str; 3] = ["log", "ping", MARK];

/// The key of `meta` that says that the database is a part of a store.
const MARK: &str = "copying";

/// How many rows are read at once.
const PAGE: usize = 200;

impl SqliteStore {
    /// Creates the database that a copy is written to, or opens an empty one; with `restart` also one that has a part of a
    /// copy, which is removed. Blocks.
    pub(crate) fn open_target(path: &Path, restart: bool) -> Result<SqliteStore, CopyError> {
        let error = |error| sqlite_error("destination", error);
        if path.exists() && has_mark_at(path).map_err(error)? {
            if !restart {
                return Err(CopyError::Interrupted);
            }
            discard(path).map_err(error)?;
        }
        SqliteStore::open(path).map_err(error)
    }

    /// Refuses a database with something that a copy would leave out.
    pub(crate) async fn can_be_copied(&self) -> Result<(), CopyError> {
        match self.readers.read(unknown).await? {
            Some(unknown) => Err(CopyError::Unknown(unknown)),
            None => Ok(()),
        }
    }

    /// Marks the database as a part of a store, if it is empty.
    pub(crate) async fn begin_copy(&self) -> Result<(), CopyError> {
        if let Some(unknown) = self.readers.read(unknown).await? {
            return Err(CopyError::Unknown(unknown));
        }
        let begun = self.writer.write(|scope| {
            for (table, _) in TABLES.iter().filter(|(table, _)| *table != "meta") {
                // There is a row for each partition from the beginning.
                let used = if *table == "audit_partition" { "size > 0" } else { "true" };
                let has = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {used})");
                if scope.db.query_one(&has, [], |row| row.get(0))? {
                    return Ok(Some(*table));
                }
            }
            scope.db.execute("INSERT INTO meta (key, value) VALUES (?1, x'01')", [MARK])?;
            Ok(None)
        });
        match begun.await? {
            Some(table) => Err(CopyError::NotEmpty(format!("rows in the table `{table}`"))),
            None => Ok(()),
        }
    }

    /// Removes the mark, and closes the database.
    pub(crate) async fn finish_copy(&self) -> Result<(), StoreError> {
        let finished = self.writer.write(|scope| {
            scope.db.execute("DELETE FROM meta WHERE key = ?1", [MARK])?;
            Ok(())
        });
        finished.await?;
        crate::Store::close(self).await
    }

    /// Reads all that is copied.
    pub(crate) fn copy_reader(&self) -> SqliteReader {
        SqliteReader { readers: Arc::clone(&self.readers), kind: 0, after: None }
    }

    /// Writes records, all or nothing.
    pub(crate) async fn write_copied(&self, records: Vec<Record>) -> Result<Vec<Outcome>, StoreError> {
        let rows = records.into_iter().map(NewRow::of).collect::<Result<Vec<_>, _>>()?;
        let written = self.writer.write(move |scope| rows.iter().map(|row| row.insert(scope)).collect());
        written.await
    }
}

/// Whether a database is a part of a store. One that cannot be read without a log has none, and is refused elsewhere.
pub(super) fn has_mark(db: &Connection) -> rusqlite::Result<bool> {
    if !super::schema::has_meta(db)? {
        return Ok(false);
    }
    db.query_one("SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?1)", [MARK], |row| row.get(0))
}

fn has_mark_at(path: &Path) -> Result<bool, OpenError> {
    let (connection, _lock) = super::file::open_read_only(path)?;
    has_mark(&connection).map_err(|cause| OpenError::Sqlite { path: path.to_owned(), cause })
}

/// The first thing in the database that a copy does not know of.
fn unknown(db: &Connection) -> Result<Option<String>, StoreError> {
    let mut tables = db.prepare(
        "SELECT name, (SELECT group_concat(name, ' ') FROM pragma_table_info(sqlite_schema.name)) FROM sqlite_schema
         WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name",
    )?;
    let tables = tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let columns = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    for table in tables {
        let (table, found) = table?;
        let Some((_, known)) = TABLES.iter().find(|(known, _)| *known == table) else {
            return Ok(Some(format!("a table `{table}`")));
        };
        let known = columns(known);
        if let Some(column) = columns(&found).difference(&known).next() {
            return Ok(Some(format!("a column `{column}` in its table `{table}`")));
        }
    }
    let mut keys = db.prepare("SELECT key FROM meta")?;
    let keys = keys.query_map([], |row| row.get::<_, String>(0))?;
    for key in keys {
        let key = key?;
        if !META.contains(&key.as_str()) {
            return Ok(Some(format!("a value `{key}` in its table `meta`")));
        }
    }
    Ok(None)
}

/// Reads a database page by page, kind by kind.
pub(crate) struct SqliteReader {
    readers: Arc<Readers>,
    /// The place in [`Kind::ALL`].
    kind: usize,
    /// The key of the last row that was read of this kind.
    after: Option<Vec<Value>>,
}

impl SqliteReader {
    /// How many audit entries there are in each partition.
    pub(crate) async fn audit_sizes(&self) -> Result<Vec<u64>, StoreError> {
        self.readers.read(super::audit::sizes).await
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
            let select = "SELECT DISTINCT supersede FROM request
                 WHERE supersede IS NOT NULL AND due_at IS NOT NULL AND supersede > ?1 ORDER BY supersede LIMIT ?2";
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
    parameters.push(Value::Integer(super::column::row_limit(limit)));
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

/// A record that is about to be written, as far as it could be prepared.
enum NewRow {
    Request(Box<RequestRow>, Record),
    Other(Record),
}

impl NewRow {
    fn of(record: Record) -> Result<NewRow, StoreError> {
        Ok(match record {
            Record::Request { ref request, ref body } => {
                NewRow::Request(Box::new(RequestRow::stored(request, body)?), record)
            }
            other => NewRow::Other(other),
        })
    }

    fn insert(&self, scope: &mut Scope<'_>) -> Result<Outcome, StoreError> {
        match self {
            NewRow::Request(row, record) => {
                if row.insert(scope)? {
                    return Ok(Outcome::New);
                }
                let Record::Request { request, body } = record else { return Ok(Outcome::Clash) };
                let Some(stored) = StoredRequest::find(scope.db, request.id)? else {
                    return Ok(Outcome::Clash);
                };
                let (stored, stored_body) = stored.parse_with_body()?;
                let same = *body == stored_body && request.submission.salt == stored.submission.salt;
                Ok(if same { Outcome::Same } else { Outcome::Clash })
            }
            NewRow::Other(record) => insert_other(scope.db, record),
        }
    }
}

fn insert_other(db: &Connection, record: &Record) -> Result<Outcome, StoreError> {
    match record {
        Record::Request { .. } => Ok(Outcome::Clash),
        Record::Superseding { key, requests } => {
            // Their order is that of their rows.
            if with_supersede_key(db, key.as_bytes())? != *requests {
                let mut put_last = db.prepare_cached(
                    "UPDATE request SET seq = (SELECT max(seq) + 1 FROM request) WHERE id = ?1 AND supersede = ?2",
                )?;
                for request in requests {
                    put_last.execute(params![request.to_bytes(), key.as_bytes()])?;
                }
            }
            Ok(Outcome::New)
        }
        Record::Audit(AuditRecord { partition, number, at, request, digest, body }) => {
            let mut insert = db.prepare_cached(
                "INSERT INTO audit (partition, number, at, request, digest, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            let request = request.map(RequestId::to_bytes);
            insert.execute(params![partition, integer(*number), integer(*at), request, digest.as_bytes(), body])?;
            let mut grow =
                db.prepare_cached("UPDATE audit_partition SET size = max(size, ?2) WHERE partition = ?1")?;
            grow.execute(params![partition, integer(*number)])?;
            Ok(Outcome::New)
        }
        Record::Checkpoint { sequence, note, state } => one(
            db,
            "INSERT INTO audit_checkpoint (id, sequence, note, state) VALUES (1, ?1, ?2, ?3) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM audit_checkpoint WHERE sequence = ?1 AND note = ?2 AND state = ?3",
            params![integer(*sequence), note, state],
        ),
        Record::Idempotency { key, fingerprint, request, until } => one(
            db,
            "INSERT INTO idempotency (key, fingerprint, request, until) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM idempotency WHERE key = ?1 AND fingerprint = ?2 AND request = ?3 AND until = ?4",
            params![key.as_bytes(), fingerprint.as_bytes(), request.to_bytes(), integer(*until)],
        ),
        Record::Nonce { home, digest, until } => {
            let mut select = db.prepare_cached("SELECT until FROM nonce WHERE nonce = ?1")?;
            let before: Option<i64> = select.query_row([digest.as_bytes()], |row| row.get(0)).optional()?;
            if before.is_some_and(|before| before >= integer(*until)) {
                return Ok(Outcome::Same);
            }
            let mut keep = db.prepare_cached("INSERT OR REPLACE INTO nonce (nonce, until) VALUES (?1, ?2)")?;
            keep.execute(params![digest.as_bytes(), integer(*until)])?;
            let nonce = |until: i64| Record::Nonce { home: *home, digest: *digest, until: until.cast_unsigned() };
            Ok(before.map_or(Outcome::New, |before| Outcome::Replaced(Box::new(nonce(before)))))
        }
        Record::Outbox(OutboxRecord {
            request,
            effect,
            revision,
            attempts,
            since,
            ready_at,
            urgency,
            channel,
        }) => one(
            db,
            "INSERT INTO outbox (request, effect, revision, attempts, since, ready_at, urgency, channel)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM outbox WHERE request = ?1 AND effect = ?2 AND revision = ?3 AND attempts = ?4 AND since = ?5
             AND ready_at = ?6 AND urgency = ?7 AND channel = ?8",
            params![
                request.to_bytes(),
                effect,
                integer(*revision),
                integer(*attempts),
                integer(*since),
                integer(*ready_at),
                integer(*urgency),
                channel
            ],
        ),
        Record::Dispatch(DispatchRecord {
            request,
            target,
            position,
            revision,
            attempts,
            since,
            ready_at,
            failure,
        }) => one(
            db,
            "INSERT INTO dispatch (request, target, position, revision, attempts, since, ready_at, failure)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM dispatch WHERE request = ?1 AND target = ?2 AND position = ?3 AND revision = ?4 AND attempts = ?5
             AND since = ?6 AND ready_at = ?7 AND failure IS ?8",
            params![
                request.to_bytes(),
                target,
                integer(*position),
                integer(*revision),
                integer(*attempts),
                integer(*since),
                integer(*ready_at),
                failure
            ],
        ),
        Record::Message { request, slot, revision, channel, refresh_at, body } => one(
            db,
            "INSERT INTO slack_post (request, slot, revision, channel, refresh_at, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM slack_post WHERE request = ?1 AND slot = ?2 AND revision = ?3 AND channel = ?4
             AND refresh_at IS ?5 AND body = ?6",
            params![request.to_bytes(), slot, integer(*revision), channel, refresh_at.map(integer), body],
        ),
        Record::Counter { metric, labels, value } => {
            let mut add = db.prepare_cached(
                "INSERT INTO counter (metric, labels, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET value = value + excluded.value",
            )?;
            add.execute(params![metric, labels, integer(*value)])?;
            Ok(Outcome::New)
        }
        Record::Entry { hash, body } => one(
            db,
            "INSERT INTO policy_entry (hash, body, channel, escalation_channel)
             VALUES (?1, ?2, ?2 ->> '$.channel', ?2 ->> '$.escalate.channel') ON CONFLICT DO NOTHING",
            "SELECT 1 FROM policy_entry WHERE hash = ?1 AND body = ?2",
            params![hash.as_bytes(), body],
        ),
        Record::Module { digest, bytes } => one(
            db,
            "INSERT INTO module (digest, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM module WHERE digest = ?1 AND bytes = ?2",
            params![digest.as_bytes(), bytes],
        ),
        Record::Signature { digest, signature } => one(
            db,
            "INSERT INTO signature (digest, signature) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM signature WHERE digest = ?1 AND signature = ?2",
            params![digest.as_bytes(), signature],
        ),
        Record::Set { hash, stored_at, entries, document } => one(
            db,
            "INSERT INTO policy_set (hash, stored_at, entries, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM policy_set WHERE hash = ?1 AND stored_at = ?2 AND entries = ?3 AND document = ?4",
            params![hash.as_bytes(), integer(*stored_at), entries, document],
        ),
        Record::Change { in_force, body } => {
            let mut insert =
                db.prepare_cached("INSERT INTO policy_change (in_force, body) VALUES (?1, ?2)")?;
            insert.execute(params![in_force.as_ref().map(Digest::as_bytes), body])?;
            Ok(Outcome::New)
        }
        Record::Document { key, value } => one(
            db,
            "INSERT INTO kept (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            "SELECT 1 FROM kept WHERE key = ?1 AND value = ?2",
            params![key, value],
        ),
    }
}

/// Inserts a row. If there is one of its key, `same` finds it if it is the same in all columns.
fn one(db: &Connection, insert: &str, same: &str, row: &[&dyn ToSql]) -> Result<Outcome, StoreError> {
    if db.prepare_cached(insert)?.execute(row)? == 1 {
        return Ok(Outcome::New);
    }
    let is_same = db.prepare_cached(same)?.exists(row)?;
    Ok(if is_same { Outcome::Same } else { Outcome::Clash })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds a table or a column has to say what a copy does with it.
    #[tokio::test]
    async fn every_table_is_accounted_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).unwrap();
        crate::Store::ping(&store).await.unwrap();
        assert_eq!(store.readers.read(unknown).await.unwrap(), None);
        let known = store.readers.read(|db| {
            let mut all = Vec::new();
            for (table, columns) in TABLES {
                let found = db.prepare(&format!("SELECT * FROM {table}"))?;
                let found: Vec<String> = found.column_names().map(ToOwned::to_owned).collect();
                all.push((table, columns, found.join(" ")));
            }
            Ok(all)
        });
        for (table, columns, found) in known.await.unwrap() {
            let sorted = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<BTreeSet<_>>();
            assert_eq!(sorted(columns), sorted(&found), "{table}");
        }
        for change in [
            "CREATE TABLE approval (id)",
            "ALTER TABLE request ADD COLUMN colour TEXT",
            "INSERT INTO meta VALUES ('secret', x'00')",
        ] {
            let undo = rusqlite::Connection::open(&path).unwrap();
            undo.execute_batch(&format!("BEGIN; {change}")).unwrap();
            let found = unknown(&undo).unwrap();
            assert!(found.is_some(), "{change}");
            undo.execute_batch("ROLLBACK").unwrap();
        }
    }
}
