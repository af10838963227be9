//! What a copy writes to a database: a record that is there already is compared.

use countersign_core::lifecycle::{Digest, RequestId};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::StoreError;
use crate::copy::{AuditRecord, DispatchRecord, OutboxRecord, Outcome, Record};
use crate::sqlite::column::integer;
use crate::sqlite::request_row::{RequestRow, StoredRequest};
use crate::sqlite::requests::with_supersede_key;
use crate::sqlite::writer::Scope;

/// A record that is about to be written, as far as it could be prepared.
pub(super) enum NewRow {
    Request(Box<RequestRow>, Record),
    Other(Record),
}

impl NewRow {
    pub(super) fn of(record: Record) -> Result<NewRow, StoreError> {
        Ok(match record {
            Record::Request { ref request, ref body } => {
                NewRow::Request(Box::new(RequestRow::stored(request, body)?), record)
            }
            other => NewRow::Other(other),
        })
    }

    pub(super) fn insert(&self, scope: &mut Scope<'_>) -> Result<Outcome, StoreError> {
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
                    "UPDATE request SET seq = (SELECT max(seq) + 1 FROM request) WHERE id = ?1 AND (supersede = ?2 OR subject = ?2)",
                )?;
                for request in requests {
                    put_last.execute(params![request.to_bytes(), key.as_bytes()])?;
                }
            }
            Ok(Outcome::New)
        }
        Record::Audit(AuditRecord { row, partition, number, at, request, digest, body }) => {
            // Without a row it gets the next one.
            let mut insert = db.prepare_cached(
                "INSERT INTO audit (seq, partition, number, at, request, digest, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            let (number, request) = (integer(*number), request.map(RequestId::to_bytes));
            insert.execute(params![row, partition, number, integer(*at), request, digest.as_bytes(), body])?;
            let mut grow =
                db.prepare_cached("UPDATE audit_partition SET size = max(size, ?2) WHERE partition = ?1")?;
            grow.execute(params![partition, number])?;
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
