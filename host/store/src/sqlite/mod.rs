//! The embedded store: one SQLite database in WAL mode, written by one thread, read by many.
//!
//! A write is prepared (serialised, hashed) on its caller's thread, so that the one that writes only writes.

mod archive;
mod file;
mod readers;
mod row;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::types::{ToSql, Type};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};

use self::readers::Readers;
use self::row::Place;
use self::writer::{CountRow, Scope, Writer};
use super::{
    ChangePolicy, Commit, Committed, Create, Created, Idempotency, KeepPost, OpenPolicy, OpenRequests,
    OutboxDepth, OutboxEntry, ReadyEntry, Store, StoreError, StoredSet, Urgency,
};
use countersign_core::lifecycle::{
    AuditEntry, Count, Counter, Digest, Effect, Request, RequestId, RequirementKind, State, Status,
    Timestamp, canonical,
};
use countersign_core::record::PolicyChange;
use countersign_core::record::{PolicyEntry, Signature};
use countersign_core::record::{SlackPost, Slot};

pub use archive::SqliteArchive;
pub use file::OpenError;

const BACKEND: &str = "sqlite";

/// How many idempotency keys and nonces that ran out are removed when one is added: more than one, so that
/// they get fewer, and few, so that nobody waits for it.
const PURGE: i64 = 4;

/// How long to leave an outbox entry alone that cannot be read, in milliseconds.
const UNREADABLE_MS: u64 = 10 * 60 * 1000;

/// The embedded store.
///
/// Dropping it blocks until what was queued is durable.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Arc<Readers>,
}

impl SqliteStore {
    /// Opens the database at `path`, and creates it where there is none; the directory must exist.
    ///
    /// Only one store at a time can have a database open, which a lock on the file `PATH.lock` sees to.
    pub fn open(path: &Path) -> Result<SqliteStore, OpenError> {
        let (database, connection) = file::Database::open(path)?;
        let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
        let checkpointer = database.checkpointer().map_err(sqlite)?;
        let writer = Writer::start(connection, checkpointer)
            .map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
        Ok(SqliteStore { writer, readers: Readers::of(database) })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writer.closing()();
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    async fn close(&self) -> Result<(), StoreError> {
        tokio::task::spawn_blocking(self.writer.closing()).await.map_err(unavailable)
    }

    async fn create(&self, new: Create) -> Result<Created, StoreError> {
        let Create { request, idempotency, audit, effects, counts } = new;
        let row = RequestRow::of(&request)?;
        let rows = Rows::of(&request, audit, &effects, counts)?;
        let made = self.writer.write(move |scope| {
            if let Some(idempotency) = &idempotency
                && let Some(known) = known(scope.db, &idempotency.key, row.submitted_at)?
            {
                return Ok(Made::Known(known));
            }
            // INVARIANT: a create that stores nothing has done nothing up to here, so it needs no savepoint.
            if !row.insert(scope.db)? {
                return Ok(Made::LineageConflict);
            }
            if let Some(idempotency) = &idempotency {
                remember(scope.db, idempotency, &row)?;
            }
            rows.store(scope, &row)?;
            Ok(Made::New)
        });
        Ok(match made.await? {
            Made::New => Created::New,
            Made::LineageConflict => Created::LineageConflict,
            Made::Known((fingerprint, stored)) => Created::Known(fingerprint, Box::new(stored.read()?)),
        })
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let Commit { request, audit, effects, counts } = commit;
        let row = RequestRow::of(&request)?;
        let rows = Rows::of(&request, audit, &effects, counts)?;
        let committed = self.writer.write(move |scope| {
            // INVARIANT: a conflict has done nothing up to here, so it needs no savepoint.
            if !row.update(scope.db)? {
                return Ok(Committed::Conflict);
            }
            rows.store(scope, &row)?;
            Ok(Committed::Done)
        });
        committed.await
    }

    async fn append(&self, audit: Vec<AuditEntry>, counts: Vec<Count>) -> Result<(), StoreError> {
        let audit = AuditRow::all(audit)?;
        let counts = count_rows(counts)?;
        let appended = self.writer.write(move |scope| {
            AuditRow::store(&audit, scope.db)?;
            scope.count(&counts);
            Ok(())
        });
        appended.await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        let stored = self.readers.read(|db| StoredRequest::find(db, id))?;
        stored.map(StoredRequest::read).transpose()
    }

    async fn idempotent(
        &self,
        key: &Digest,
        now: Timestamp,
    ) -> Result<Option<(Digest, Request)>, StoreError> {
        let known = self.readers.read(|db| known(db, key, time(now)))?;
        known.map(|(fingerprint, stored)| Ok((fingerprint, stored.read()?))).transpose()
    }

    async fn lineage(&self, lineage: RequestId) -> Result<Vec<Request>, StoreError> {
        let scan = self.readers.scan(move |db| {
            let mut select = db.prepare_cached(
                "SELECT id, version, body, depth FROM request WHERE id = ?1 AND depth = 0
                 UNION ALL
                 SELECT id, version, body, depth FROM request WHERE lineage = ?1 AND depth > 0
                 ORDER BY depth",
            )?;
            let rows = select.query_and_then([lineage.to_bytes()], |row| {
                let place = Place { table: "request", key: &lineage };
                StoredRequest::of(place.request_id(row, (0, "id"))?, row)?.read()
            })?;
            rows.collect()
        });
        scan.await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<(RequestId, Timestamp)>, StoreError> {
        self.readers.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT id, due_at, seq FROM request WHERE due_at IS NOT NULL AND due_at <= ?1
                 ORDER BY due_at LIMIT ?2",
            )?;
            let rows = select.query_and_then(params![time(now), size(limit)], |row| {
                let seq: i64 = row.get(2)?;
                let place = Place { table: "request", key: &seq };
                Ok((place.request_id(row, (0, "id"))?, place.time(row, (1, "due_at"))?))
            })?;
            rows.collect()
        })
    }

    async fn next_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.readers.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT due_at FROM request WHERE due_at IS NOT NULL AND due_at > ?1 ORDER BY due_at LIMIT 1",
            )?;
            let place = Place { table: "request", key: &"the next one due" };
            let mut rows = select.query_and_then([time(after)], |row| place.time(row, (0, "due_at")))?;
            rows.next().transpose()
        })
    }

    async fn ready_outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<ReadyEntry>, StoreError> {
        let scan = self.readers.scan(move |db| ready_outbox(db, now, limit));
        let (ready, unreadable) = scan.await?;
        if !unreadable.is_empty() {
            // They must not stand in the way of others.
            let later = time(now.plus(UNREADABLE_MS));
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
                 WHERE request = ?1 AND effect = ?2 AND ready_at <= ?3
                 RETURNING revision, attempts, since",
            )?;
            let key = (request.to_bytes(), effect.as_str());
            let mut rows = claim.query(params![key.0, key.1, time(now), time(until)])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let place = Place { table: "outbox", key: &format_args!("{request} {}", effect.as_str()) };
            let entry = OutboxEntry {
                request,
                effect,
                revision: place.unsigned(row, (0, "revision"))?,
                attempts: place.get(row, (1, "attempts"))?,
                since: place.time(row, (2, "since"))?,
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
                // What waits now came after what was delivered.
                let mut release = scope.db.prepare_cached(
                    "UPDATE outbox SET ready_at = since, claimed_until = NULL
                     WHERE request = ?1 AND effect = ?2 AND claimed_until = ?3",
                )?;
                release.execute(params![request, effect, time(claimed_until)])?;
            }
            Ok(())
        });
        finished.await
    }

    async fn retry_outbox(&self, entry: &OutboxEntry, at: Timestamp, failed: bool) -> Result<(), StoreError> {
        let OutboxEntry { request, effect, claimed_until, .. } = *entry;
        let given_back = self.writer.write(move |scope| {
            let mut release = scope.db.prepare_cached(
                "UPDATE outbox SET ready_at = ?4, claimed_until = NULL, attempts = attempts + ?5
                 WHERE request = ?1 AND effect = ?2 AND claimed_until = ?3",
            )?;
            let key = (request.to_bytes(), effect.as_str());
            release.execute(params![key.0, key.1, time(claimed_until), time(at), failed])?;
            Ok(())
        });
        given_back.await
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth, StoreError> {
        let scan = self.readers.scan(|db| {
            let mut select = db.prepare_cached("SELECT count(*), min(since) FROM outbox")?;
            let mut rows = select.query_and_then([], |row| {
                let place = Place { table: "outbox", key: &"the oldest" };
                let oldest = match row.get_ref(1)?.data_type() {
                    Type::Null => None,
                    _ => Some(place.time(row, (1, "since"))?),
                };
                Ok(OutboxDepth { entries: place.unsigned(row, (0, "count(*)"))?, oldest })
            })?;
            rows.next().transpose()
        });
        Ok(scan.await?.unwrap_or_default())
    }

    async fn slack_post(&self, request: RequestId, slot: Slot) -> Result<Option<SlackPost>, StoreError> {
        self.readers.read(|db| {
            let mut select =
                db.prepare_cached("SELECT body FROM slack_post WHERE request = ?1 AND slot = ?2")?;
            let place = Place { table: "slack_post", key: &format_args!("{request} {slot}") };
            let mut rows = select.query_and_then(params![request.to_bytes(), slot.as_str()], |row| {
                place.json("body", place.get::<String>(row, (0, "body"))?)
            })?;
            rows.next().transpose()
        })
    }

    async fn keep_slack_post(&self, keep: KeepPost) -> Result<Committed, StoreError> {
        let KeepPost { request, slot, post, audit, counts } = keep;
        let body = json(&post)?;
        let (audit, counts) = (AuditRow::all(audit)?, count_rows(counts)?);
        let kept = self.writer.write(move |scope| {
            let (request, refresh_at) = (request.to_bytes(), post.refresh_at.map(time));
            let row = params![request, slot.as_str(), integer(post.revision), refresh_at, body];
            // INVARIANT: a conflict has done nothing up to here, so it needs no savepoint.
            let stored = if post.revision == 1 {
                let mut insert = scope.db.prepare_cached(
                    "INSERT INTO slack_post (request, slot, revision, refresh_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO NOTHING",
                )?;
                insert.execute(row)?
            } else {
                let mut update = scope.db.prepare_cached(
                    "UPDATE slack_post SET revision = ?3, refresh_at = ?4, body = ?5
                     WHERE request = ?1 AND slot = ?2 AND revision = ?3 - 1",
                )?;
                update.execute(row)?
            };
            if stored == 0 {
                return Ok(Committed::Conflict);
            }
            AuditRow::store(&audit, scope.db)?;
            scope.count(&counts);
            Ok(Committed::Done)
        });
        kept.await
    }

    async fn stale_slack_posts(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(RequestId, Slot)>, StoreError> {
        self.readers.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT request, slot FROM slack_post WHERE refresh_at IS NOT NULL AND refresh_at <= ?1
                 ORDER BY refresh_at LIMIT ?2",
            )?;
            let rows = select.query_and_then(params![time(now), size(limit)], |row| {
                let slot: String = row.get(1)?;
                let place = Place { table: "slack_post", key: &slot };
                let request = place.request_id(row, (0, "request"))?;
                Ok((request, named(&slot).map_err(|error| place.corrupt("slot", error))?))
            })?;
            rows.collect()
        })
    }

    async fn keep(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        let key = key.to_owned();
        let kept = self.writer.write(move |scope| {
            let mut keep = scope.db.prepare_cached(
                "INSERT INTO kept (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?;
            keep.execute(params![key, value])?;
            Ok(())
        });
        kept.await
    }

    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(|db| {
            let mut select = db.prepare_cached("SELECT value FROM kept WHERE key = ?1")?;
            Ok(select.query_row([key], |row| row.get(0)).optional()?)
        })
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        let scan = self.readers.scan(move |db| {
            let mut select =
                db.prepare_cached("SELECT seq, body FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let rows = select.query_and_then(params![integer(after), size(limit)], |row| {
                let seq: i64 = row.get(0)?;
                let place = Place { table: "audit", key: &seq };
                let body: String = place.get(row, (1, "body"))?;
                Ok((place.unsigned(row, (0, "seq"))?, place.json("body", body)?))
            })?;
            rows.collect()
        });
        scan.await
    }

    async fn pin(&self, entries: Vec<PolicyEntry>, modules: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let prepare = move || -> Result<_, StoreError> {
            let bodies =
                entries.iter().map(|entry| Ok(canonical(&serde_json::to_value(entry).map_err(unavailable)?)));
            let bodies = bodies.collect::<Result<Vec<String>, StoreError>>()?;
            let entries: Vec<_> =
                bodies.into_iter().map(|body| (Digest::of(body.as_bytes()), body)).collect();
            let modules: Vec<_> = modules.into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
            Ok((entries, modules))
        };
        // Some megabytes to hash.
        let (entries, modules) = tokio::task::spawn_blocking(prepare).await.map_err(unavailable)??;
        let pinned = self.writer.write(move |scope| {
            let keep = |sql: &str, digest: &Digest, content: &dyn ToSql| {
                scope.db.prepare_cached(sql)?.execute(params![digest.as_bytes(), content])
            };
            for (hash, body) in &entries {
                keep(
                    "INSERT INTO policy_entry (hash, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    hash,
                    body,
                )?;
            }
            for (digest, bytes) in &modules {
                keep(
                    "INSERT INTO module (digest, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    digest,
                    bytes,
                )?;
            }
            Ok(())
        });
        pinned.await
    }

    async fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        let scan = self.readers.scan(move |db| {
            let place = Place { table: "policy_entry", key: &hash };
            let Some(body) =
                content(db, "SELECT body FROM policy_entry WHERE hash = ?1", place, "body", hash)?
            else {
                return Ok(None);
            };
            place.json("body", body).map(Some)
        });
        scan.await
    }

    async fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let scan = self.readers.scan(move |db| {
            let place = Place { table: "module", key: &digest };
            content(db, "SELECT bytes FROM module WHERE digest = ?1", place, "bytes", digest)
        });
        scan.await
    }

    async fn modules(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let scan = self.readers.scan(|db| {
            let mut select =
                db.prepare_cached("SELECT digest, octet_length(bytes) FROM module ORDER BY digest")?;
            let rows = select.query_and_then([], |row| {
                let place = Place { table: "module", key: &"a module" };
                Ok((place.digest(row, (0, "digest"))?, place.unsigned(row, (1, "bytes"))?))
            })?;
            rows.collect()
        });
        scan.await
    }

    async fn keep_signatures(&self, signatures: Vec<(Digest, Signature)>) -> Result<(), StoreError> {
        if signatures.is_empty() {
            return Ok(());
        }
        let kept = self.writer.write(move |scope| {
            let mut keep = scope.db.prepare_cached(
                "INSERT INTO signature (digest, signature) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?;
            for (digest, signature) in &signatures {
                keep.execute(params![digest.as_bytes(), signature.as_bytes()])?;
            }
            Ok(())
        });
        kept.await
    }

    async fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        self.readers.read(|db| {
            let mut select =
                db.prepare_cached("SELECT signature FROM signature WHERE digest = ?1 ORDER BY signature")?;
            let rows = select.query_and_then([digest.as_bytes()], |row| {
                let place = Place { table: "signature", key: &digest };
                place.get(row, (0, "signature")).map(Signature::from_bytes)
            })?;
            rows.collect()
        })
    }

    async fn keep_policy_set(&self, set: StoredSet, document: String) -> Result<(), StoreError> {
        let entries = canonical(&serde_json::to_value(&set.entries).map_err(unavailable)?);
        let kept = self.writer.write(move |scope| {
            let mut keep = scope.db.prepare_cached(
                "INSERT INTO policy_set (hash, stored_at, entries, document) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?;
            keep.execute(params![set.hash.as_bytes(), time(set.stored_at), entries, document])?;
            Ok(())
        });
        kept.await
    }

    async fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        self.readers.read(|db| {
            let mut select =
                db.prepare_cached("SELECT hash, stored_at, entries FROM policy_set WHERE hash = ?1")?;
            let mut rows = select.query_and_then([hash.as_bytes()], stored_set)?;
            rows.next().transpose()
        })
    }

    async fn policy_document(&self, hash: Digest) -> Result<Option<String>, StoreError> {
        let scan = self.readers.scan(move |db| {
            let mut select = db.prepare_cached("SELECT document FROM policy_set WHERE hash = ?1")?;
            Ok(select.query_row([hash.as_bytes()], |row| row.get(0)).optional()?)
        });
        scan.await
    }

    async fn policy_sets(&self) -> Result<Vec<StoredSet>, StoreError> {
        let scan = self.readers.scan(|db| {
            let mut select = db.prepare_cached(
                "SELECT hash, stored_at, entries FROM policy_set ORDER BY stored_at DESC, rowid DESC",
            )?;
            let rows = select.query_and_then([], stored_set)?;
            rows.collect()
        });
        scan.await
    }

    async fn change_policy(&self, change: ChangePolicy) -> Result<Committed, StoreError> {
        let ChangePolicy { change, audit, counts } = change;
        let (in_force, body) = (change.in_force(), json(&change)?);
        let (audit, counts) = (AuditRow::all(audit)?, count_rows(counts)?);
        let changed = self.writer.write(move |scope| {
            // INVARIANT: a conflict has done nothing up to here, so it needs no savepoint.
            if in_force.is_some() && last_in_force(scope.db)?.and_then(|(_, last)| last.to) != change.from {
                return Ok(Committed::Conflict);
            }
            let mut insert =
                scope.db.prepare_cached("INSERT INTO policy_change (in_force, body) VALUES (?1, ?2)")?;
            insert.execute(params![in_force.as_ref().map(Digest::as_bytes), body])?;
            AuditRow::store(&audit, scope.db)?;
            scope.count(&counts);
            Ok(Committed::Done)
        });
        changed.await
    }

    async fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        self.readers.read(last_in_force)
    }

    async fn policy_changes(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<(u64, PolicyChange)>, StoreError> {
        let scan = self.readers.scan(move |db| {
            let mut select = db.prepare_cached(
                "SELECT seq, body FROM policy_change WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
            )?;
            let rows = select.query_and_then(params![integer(before), size(limit)], policy_change)?;
            rows.collect()
        });
        scan.await
    }

    async fn open_policies(&self) -> Result<Vec<OpenPolicy>, StoreError> {
        let scan = self.readers.scan(|db| {
            // Counted here, since the index has them by action and time: sorting them would take most of the time.
            let mut select = db.prepare_cached(
                "SELECT action, policy_hash FROM request WHERE due_at IS NOT NULL AND policy_hash IS NOT NULL
                 ORDER BY action, status, submitted_at",
            )?;
            let mut counts: BTreeMap<([u8; 32], String), u64> = BTreeMap::new();
            let mut run: Option<(([u8; 32], String), u64)> = None;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let action = row.get_ref(0)?.as_str().map_err(unavailable)?;
                let place = Place { table: "request", key: &format_args!("action {action}") };
                let policy: [u8; 32] = place.get(row, (1, "policy_hash"))?;
                // Those that were made one after the other are under the same rules, as a rule.
                match &mut run {
                    Some(((of, at), count)) if *of == policy && at == action => *count += 1,
                    run => {
                        if let Some((key, count)) = run.replace(((policy, action.to_owned()), 1)) {
                            *counts.entry(key).or_default() += count;
                        }
                    }
                }
            }
            if let Some((key, count)) = run {
                *counts.entry(key).or_default() += count;
            }
            let open = counts.into_iter().map(|((policy, action), count)| OpenPolicy {
                policy: Digest::from_bytes(policy),
                action,
                count,
            });
            Ok(open.collect())
        });
        scan.await
    }

    async fn counters(&self) -> Result<BTreeMap<Counter, u64>, StoreError> {
        let scan = self.readers.scan(|db| {
            let mut select = db.prepare_cached("SELECT metric, labels, value FROM counter")?;
            let rows = select.query_and_then([], |row| {
                let metric: String = row.get(0)?;
                let labels: String = row.get(1)?;
                let key = format!("{metric} {labels}");
                let place = Place { table: "counter", key: &key };
                let labels = place.json("labels", labels)?;
                Ok((Counter { metric, labels }, place.unsigned(row, (2, "value"))?))
            })?;
            rows.collect()
        });
        scan.await
    }

    async fn open_requests(&self) -> Result<Vec<OpenRequests>, StoreError> {
        let scan = self.readers.scan(|db| {
            // The sum is taken in two halves, neither of which can overflow.
            let mut select = db.prepare_cached(
                "SELECT action, status, count(*), min(submitted_at),
                        sum(submitted_at >> 32), sum(submitted_at & 4294967295)
                 FROM request WHERE due_at IS NOT NULL GROUP BY action, status ORDER BY action, status",
            )?;
            let rows = select.query_and_then([], |row| {
                let action: String = row.get(0)?;
                let place = Place { table: "request", key: &format_args!("action {action}") };
                let status: String = place.get(row, (1, "status"))?;
                let high = u128::from(place.unsigned(row, (4, "submitted_at"))?);
                let low = u128::from(place.unsigned(row, (5, "submitted_at"))?);
                Ok(OpenRequests {
                    status: named(&status).map_err(|error| place.corrupt("status", error))?,
                    count: place.unsigned(row, (2, "count(*)"))?,
                    oldest: place.time(row, (3, "submitted_at"))?,
                    sum_submitted_ms: (high << 32).saturating_add(low),
                    action,
                })
            })?;
            rows.collect()
        });
        scan.await
    }

    async fn waiting_personas(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        let scan = self.readers.scan(|db| {
            let mut select = db.prepare_cached(
                "SELECT action, waits_for, count(*) FROM request WHERE waits_for IS NOT NULL
                 GROUP BY action, waits_for",
            )?;
            let mut waiting: BTreeMap<(String, String), u64> = BTreeMap::new();
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let action: String = row.get(0)?;
                let place = Place { table: "request", key: &format_args!("action {action}") };
                let personas: Vec<String> =
                    place.json("waits_for", place.get::<String>(row, (1, "waits_for"))?)?;
                let count = place.unsigned(row, (2, "count(*)"))?;
                for persona in personas {
                    *waiting.entry((action.clone(), persona)).or_default() += count;
                }
            }
            Ok(waiting.into_iter().map(|((action, persona), count)| (action, persona, count)).collect())
        });
        scan.await
    }

    async fn claim_nonce(&self, nonce: Digest, now: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
        let claimed = self.writer.write(move |scope| {
            let mut claim = scope.db.prepare_cached(
                "INSERT INTO nonce (nonce, until) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ?3",
            )?;
            if claim.execute(params![nonce.as_bytes(), time(until), time(now)])? == 0 {
                return Ok(false);
            }
            let mut purge = scope.db.prepare_cached(
                "DELETE FROM nonce WHERE nonce IN (SELECT nonce FROM nonce WHERE until <= ?1 ORDER BY until LIMIT ?2)",
            )?;
            purge.execute(params![time(now), PURGE])?;
            Ok(true)
        });
        claimed.await
    }

    async fn secret(&self, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let kept = self.writer.write(move |scope| {
            scope.db.execute(
                "INSERT INTO meta (key, value) VALUES ('secret', ?1) ON CONFLICT DO NOTHING",
                [fresh],
            )?;
            let mut select = scope.db.prepare("SELECT value FROM meta WHERE key = 'secret'")?;
            let place = Place { table: "meta", key: &"secret" };
            let mut rows = select.query_and_then([], |row| place.get(row, (0, "value")))?;
            rows.next().unwrap_or(Ok(fresh))
        });
        kept.await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // Only a write that reaches the disk shows that the disk takes writes.
        let written = self.writer.write(|scope| {
            let mut write = scope.db.prepare_cached(
                "INSERT INTO meta (key, value) VALUES ('ping', zeroblob(0)) ON CONFLICT DO UPDATE SET value = value",
            )?;
            write.execute([])?;
            Ok(())
        });
        written.await
    }
}

/// What a create found, with the request as it is stored: to read it is not the writer's work.
enum Made {
    New,
    Known((Digest, StoredRequest)),
    LineageConflict,
}

/// A request as it is about to be stored.
struct RequestRow {
    id: [u8; 16],
    version: i64,
    action: String,
    status: &'static str,
    submitted_at: i64,
    due_at: Option<i64>,
    lineage: [u8; 16],
    depth: u32,
    waits_for: Option<String>,
    policy_hash: [u8; 32],
    body: String,
    /// When it came to be as it is.
    changed_at: i64,
}

impl RequestRow {
    fn of(request: &Request) -> Result<RequestRow, StoreError> {
        let submission = &request.submission;
        let waits_for = waits_for(request);
        let changed_at = request.decided_at().or_else(|| request.history.last().map(|event| event.at));
        Ok(RequestRow {
            id: request.id.to_bytes(),
            version: integer(request.version),
            action: submission.action.clone(),
            status: request.status().as_str(),
            submitted_at: time(submission.submitted_at),
            due_at: request.due_at().map(time),
            lineage: submission.lineage.to_bytes(),
            depth: submission.depth,
            waits_for: if waits_for.is_empty() { None } else { Some(json(&waits_for)?) },
            policy_hash: *submission.policy_hash.as_bytes(),
            body: json(request)?,
            changed_at: time(changed_at.unwrap_or(submission.submitted_at)),
        })
    }

    /// False where the id, or the place in the lineage, is taken.
    fn insert(&self, db: &Connection) -> rusqlite::Result<bool> {
        let mut insert = db.prepare_cached(
            "INSERT INTO request
                 (id, version, action, status, submitted_at, due_at, lineage, depth, waits_for, policy_hash, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
        )?;
        let inserted = insert.execute(params![
            self.id,
            self.version,
            self.action,
            self.status,
            self.submitted_at,
            self.due_at,
            self.lineage,
            self.depth,
            self.waits_for,
            self.policy_hash,
            self.body,
        ])?;
        Ok(inserted == 1)
    }

    /// False where the stored request is not the version before, or is terminal.
    fn update(&self, db: &Connection) -> rusqlite::Result<bool> {
        // Only an open request has something due.
        let mut update = db.prepare_cached(
            "UPDATE request SET version = ?2, status = ?3, due_at = ?4, waits_for = ?5, body = ?6
             WHERE id = ?1 AND version = ?2 - 1 AND due_at IS NOT NULL",
        )?;
        let updated = update.execute(params![
            self.id,
            self.version,
            self.status,
            self.due_at,
            self.waits_for,
            self.body,
        ])?;
        Ok(updated == 1)
    }
}

/// The personas that are yet to be acknowledged.
fn waits_for(request: &Request) -> BTreeSet<&str> {
    let State::Open(open) = &request.state else { return BTreeSet::new() };
    let missing = open.requirements.iter().filter(|it| it.kind == RequirementKind::Acknowledgement);
    missing.map(|requirement| requirement.label.as_str()).collect()
}

/// A request as it is stored.
struct StoredRequest {
    id: RequestId,
    version: i64,
    body: String,
}

impl StoredRequest {
    /// From the columns `id, version, body`, of which `id` was read already.
    fn of(id: RequestId, row: &Row<'_>) -> Result<StoredRequest, StoreError> {
        let place = Place { table: "request", key: &id };
        Ok(StoredRequest { id, version: place.get(row, (1, "version"))?, body: place.get(row, (2, "body"))? })
    }

    fn find(db: &Connection, id: RequestId) -> Result<Option<StoredRequest>, StoreError> {
        let mut select = db.prepare_cached("SELECT id, version, body FROM request WHERE id = ?1")?;
        let mut rows = select.query_and_then([id.to_bytes()], |row| StoredRequest::of(id, row))?;
        rows.next().transpose()
    }

    fn read(self) -> Result<Request, StoreError> {
        let place = Place { table: "request", key: &self.id };
        let request: Request = place.json("body", &self.body)?;
        if request.id != self.id {
            return Err(place.corrupt("body", format_args!("it is the request {}", request.id)));
        }
        if integer(request.version) != self.version {
            let detail = format_args!("it has version {}, and the row {}", request.version, self.version);
            return Err(place.corrupt("body", detail));
        }
        Ok(request)
    }
}

/// The fingerprint and the request that an idempotency key was first used for, where it still counts.
fn known(db: &Connection, key: &Digest, now: i64) -> Result<Option<(Digest, StoredRequest)>, StoreError> {
    let place = Place { table: "idempotency", key };
    let mut select =
        db.prepare_cached("SELECT fingerprint, request FROM idempotency WHERE key = ?1 AND until > ?2")?;
    let mut rows = select.query_and_then(params![key.as_bytes(), now], |row| {
        Ok::<_, StoreError>((place.digest(row, (0, "fingerprint"))?, place.request_id(row, (1, "request"))?))
    })?;
    let Some((fingerprint, id)) = rows.next().transpose()? else { return Ok(None) };
    Ok(StoredRequest::find(db, id)?.map(|stored| (fingerprint, stored)))
}

/// Keeps an idempotency key, and forgets some that ran out.
fn remember(db: &Connection, idempotency: &Idempotency, row: &RequestRow) -> rusqlite::Result<()> {
    let Idempotency { key, fingerprint, until } = idempotency;
    let mut purge = db.prepare_cached(
        "DELETE FROM idempotency
         WHERE key IN (SELECT key FROM idempotency WHERE until <= ?1 ORDER BY until LIMIT ?2)",
    )?;
    purge.execute(params![row.submitted_at, PURGE])?;
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (key, fingerprint, request, until) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![key.as_bytes(), fingerprint.as_bytes(), row.id, time(*until)])?;
    Ok(())
}

/// What is stored with a request.
struct Rows {
    audit: Vec<AuditRow>,
    effects: Vec<(&'static str, i64)>,
    counts: Vec<CountRow>,
}

impl Rows {
    fn of(
        request: &Request,
        audit: Vec<AuditEntry>,
        effects: &[Effect],
        counts: Vec<Count>,
    ) -> Result<Rows, StoreError> {
        let urgency = |effect| rank(Urgency::of(request, effect));
        let effects = effects.iter().map(|effect| (effect.as_str(), urgency(*effect))).collect();
        Ok(Rows { audit: AuditRow::all(audit)?, effects, counts: count_rows(counts)? })
    }

    fn store(&self, scope: &mut Scope<'_>, request: &RequestRow) -> rusqlite::Result<()> {
        AuditRow::store(&self.audit, scope.db)?;
        for (effect, urgency) in &self.effects {
            // An entry that is claimed stays so: whoever has it gives it back when it is done with the old state.
            let mut ask = scope.db.prepare_cached(
                "INSERT INTO outbox (request, effect, revision, attempts, since, ready_at, urgency)
                 VALUES (?1, ?2, ?3, 0, ?4, ?4, ?5)
                 ON CONFLICT DO UPDATE SET revision = excluded.revision, attempts = 0,
                     since = min(since, excluded.since), urgency = min(urgency, excluded.urgency),
                     ready_at = iif(claimed_until IS NULL, min(since, excluded.since), ready_at)",
            )?;
            ask.execute(params![request.id, effect, request.version, request.changed_at, urgency])?;
        }
        scope.count(&self.counts);
        Ok(())
    }
}

/// An audit entry as it is about to be stored.
struct AuditRow {
    at: i64,
    event: String,
    action: String,
    status: Option<&'static str>,
    request: Option<[u8; 16]>,
    body: String,
}

impl AuditRow {
    fn all(entries: Vec<AuditEntry>) -> Result<Vec<AuditRow>, StoreError> {
        let rows = entries.into_iter().map(|entry| {
            Ok(AuditRow {
                at: time(entry.at),
                status: entry.status.map(Status::as_str),
                request: entry.request.map(RequestId::to_bytes),
                body: json(&entry)?,
                event: entry.event,
                action: entry.action,
            })
        });
        rows.collect()
    }

    fn store(rows: &[AuditRow], db: &Connection) -> rusqlite::Result<()> {
        for row in rows {
            let mut insert = db.prepare_cached(
                "INSERT INTO audit (at, event, action, status, request, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            insert.execute(params![row.at, row.event, row.action, row.status, row.request, row.body])?;
        }
        Ok(())
    }
}

fn count_rows(counts: Vec<Count>) -> Result<Vec<CountRow>, StoreError> {
    counts.into_iter().map(CountRow::of).collect()
}

/// The key of a row of the outbox, as it is stored.
type OutboxKey = (Vec<u8>, String);

/// What is ready, and the rows that cannot be read.
fn ready_outbox(
    db: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<(Vec<ReadyEntry>, Vec<OutboxKey>), StoreError> {
    // One look for each urgency, so that the index is read from where that one begins.
    let mut select = db.prepare_cached(
        "SELECT request, effect, revision, since FROM outbox WHERE urgency = ?1 AND ready_at <= ?2
         ORDER BY ready_at LIMIT ?3",
    )?;
    let (mut ready, mut unreadable) = (Vec::new(), Vec::new());
    for urgency in Urgency::ALL {
        let mut rows = select.query(params![rank(urgency), time(now), size(limit)])?;
        while let Some(row) = rows.next()? {
            let key: OutboxKey = (row.get(0)?, row.get(1)?);
            match ready_entry(row, &key, urgency) {
                Ok(entry) => ready.push(entry),
                Err(error) => {
                    tracing::error!(%error, "an outbox entry cannot be delivered");
                    unreadable.push(key);
                }
            }
        }
    }
    Ok((ready, unreadable))
}

fn ready_entry(
    row: &Row<'_>,
    (request, effect): &OutboxKey,
    urgency: Urgency,
) -> Result<ReadyEntry, StoreError> {
    let key = format!("{} {effect}", hex::encode(request));
    let place = Place { table: "outbox", key: &key };
    Ok(ReadyEntry {
        request: place.request_id(row, (0, "request"))?,
        effect: named(effect).map_err(|error| place.corrupt("effect", error))?,
        urgency,
        revision: place.unsigned(row, (2, "revision"))?,
        since: place.time(row, (3, "since"))?,
    })
}

/// An urgency as it is stored: the most urgent is the least.
const fn rank(urgency: Urgency) -> i64 {
    match urgency {
        Urgency::Ended => 0,
        Urgency::First => 1,
        Urgency::Changed => 2,
    }
}

/// What is kept under a digest; it must still have that digest.
fn content(
    db: &Connection,
    sql: &str,
    place: Place<'_>,
    column: &'static str,
    digest: Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut select = db.prepare_cached(sql)?;
    let bytes = select.query_row([digest.as_bytes()], |row| {
        // What is null has no digest that anything could be kept under.
        Ok(row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec())
    });
    let Some(bytes) = bytes.optional()? else { return Ok(None) };
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(place.corrupt(column, format_args!("its digest is {found}")));
    }
    Ok(Some(bytes))
}

/// From the columns `hash, stored_at, entries`; the entries must still have that hash.
fn stored_set(row: &Row<'_>) -> Result<StoredSet, StoreError> {
    let hash = Place { table: "policy_set", key: &"a set" }.digest(row, (0, "hash"))?;
    let place = Place { table: "policy_set", key: &hash };
    let entries: String = place.get(row, (2, "entries"))?;
    let found = Digest::of(entries.as_bytes());
    if found != hash {
        return Err(place.corrupt("entries", format_args!("their digest is {found}")));
    }
    let stored_at = place.time(row, (1, "stored_at"))?;
    Ok(StoredSet { hash, entries: place.json("entries", entries)?, stored_at })
}

/// From the columns `seq, body`.
fn policy_change(row: &Row<'_>) -> Result<(u64, PolicyChange), StoreError> {
    let seq: i64 = row.get(0)?;
    let place = Place { table: "policy_change", key: &seq };
    let body: String = place.get(row, (1, "body"))?;
    Ok((place.unsigned(row, (0, "seq"))?, place.json("body", body)?))
}

fn last_in_force(db: &Connection) -> Result<Option<(u64, PolicyChange)>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT seq, body FROM policy_change WHERE in_force IS NOT NULL ORDER BY seq DESC LIMIT 1",
    )?;
    let mut rows = select.query_and_then([], policy_change)?;
    rows.next().transpose()
}

/// A value that is written as its name.
fn named<'a, T: Deserialize<'a>>(name: &'a str) -> Result<T, serde::de::value::Error> {
    T::deserialize(name.into_deserializer())
}

fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(unavailable)
}

/// SQLite's integers are signed. What does not fit is so far off that its order among other such no longer matters.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn time(at: Timestamp) -> i64 {
    integer(at.as_millis())
}

fn size(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn unavailable(detail: impl Display) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, detail: detail.to_string() }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        unavailable(error)
    }
}
