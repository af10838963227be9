//! Policy entries, modules, signatures, policy sets, and the changes of the set in force.

use std::collections::BTreeSet;

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, canonical};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::audit::Records;
use super::column::{RowContext, integer, json, millis, other, row_limit, select_by_digest};
use super::{SqliteStore, open_requests};
use crate::{
    ChangePolicy, Committed, OpenPolicy, Policies, RemovePolicySet, StoreError, StoredSet, policy_set_use,
};

#[async_trait]
impl Policies for SqliteStore {
    async fn pin(&self, entries: Vec<PolicyEntry>, modules: Vec<Vec<u8>>) -> Result<(), StoreError> {
        // Modules are megabytes: hashing them would block the runtime.
        let prepare = move || -> Result<_, StoreError> {
            let entries = entries.iter().map(|entry| {
                let body = canonical_json(entry)?;
                Ok((Digest::of(body.as_bytes()), body))
            });
            let entries = entries.collect::<Result<Vec<_>, StoreError>>()?;
            let modules: Vec<_> = modules.into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
            Ok((entries, modules))
        };
        let (entries, modules) = tokio::task::spawn_blocking(prepare).await.map_err(other)??;
        let pinned = self.writer.write(move |scope| {
            let insert = |sql: &str, digest: &Digest, content: &dyn ToSql| {
                scope.db.prepare_cached(sql)?.execute(params![digest.as_bytes(), content])
            };
            for (hash, body) in &entries {
                insert(
                    "INSERT INTO policy_entry (hash, body, channel, escalation_channel)
                     VALUES (?1, ?2, ?2 ->> '$.channel', ?2 ->> '$.escalate.channel') ON CONFLICT DO NOTHING",
                    hash,
                    body,
                )?;
            }
            for (digest, bytes) in &modules {
                insert(
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
        let read = self.readers.read(move |db| select_policy_entry(db, hash));
        read.await
    }

    async fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(move |db| select_module(db, digest)).await
    }

    async fn modules(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let read = self.readers.read(|db| {
            let mut select =
                db.prepare_cached("SELECT digest, octet_length(bytes) FROM module ORDER BY digest")?;
            let rows = select.query_and_then([], |row| {
                let context = RowContext { table: "module", key: &"a module" };
                Ok((context.digest(row, (0, "digest"))?, context.unsigned(row, (1, "bytes"))?))
            })?;
            rows.collect()
        });
        read.await
    }

    async fn keep_signatures(&self, signatures: Vec<(Digest, Signature)>) -> Result<(), StoreError> {
        if signatures.is_empty() {
            return Ok(());
        }
        let stored = self.writer.write(move |scope| {
            let mut insert = scope.db.prepare_cached(
                "INSERT INTO signature (digest, signature) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?;
            for (digest, signature) in &signatures {
                insert.execute(params![digest.as_bytes(), signature.as_bytes()])?;
            }
            Ok(())
        });
        stored.await
    }

    async fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        self.readers.read(move |db| select_signatures(db, digest)).await
    }

    async fn keep_policy_set(&self, set: StoredSet, document: String) -> Result<(), StoreError> {
        let entries = canonical_json(&set.entries)?;
        let stored = self.writer.write(move |scope| {
            let mut insert = scope.db.prepare_cached(
                "INSERT INTO policy_set (hash, stored_at, entries, document) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?;
            insert.execute(params![set.hash.as_bytes(), millis(set.stored_at), entries, document])?;
            Ok(())
        });
        stored.await
    }

    async fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        self.readers.read(move |db| select_policy_set(db, hash)).await
    }

    async fn policy_document(&self, hash: Digest) -> Result<Option<String>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached("SELECT document FROM policy_set WHERE hash = ?1")?;
            Ok(select.query_row([hash.as_bytes()], |row| row.get(0)).optional()?)
        });
        read.await
    }

    async fn policy_sets(&self) -> Result<Vec<StoredSet>, StoreError> {
        let read = self.readers.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT hash, stored_at, entries FROM policy_set ORDER BY stored_at DESC, rowid DESC",
            )?;
            let rows = select.query_and_then([], stored_set)?;
            rows.collect()
        });
        read.await
    }

    async fn change_policy(&self, change: ChangePolicy) -> Result<Committed, StoreError> {
        let ChangePolicy { change, audit, counts } = change;
        let (in_force, body) = (change.in_force(), json(&change)?);
        let records = Records::of(audit, counts, None)?;
        let changed = self.writer.write(move |scope| {
            // INVARIANT: a conflict has changed nothing up to here, so it needs no savepoint.
            if in_force.is_some() && last_in_force(scope.db)?.and_then(|(_, last)| last.to) != change.from {
                return Ok(Committed::Conflict);
            }
            let mut insert =
                scope.db.prepare_cached("INSERT INTO policy_change (in_force, body) VALUES (?1, ?2)")?;
            insert.execute(params![in_force.as_ref().map(Digest::as_bytes), body])?;
            records.insert(scope)?;
            Ok(Committed::Done)
        });
        changed.await
    }

    async fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        self.readers.read(last_in_force).await
    }

    async fn policy_changes(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<(u64, PolicyChange)>, StoreError> {
        let read = self.readers.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT seq, body FROM policy_change WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
            )?;
            let rows = select.query_and_then(params![integer(before), row_limit(limit)], policy_change)?;
            rows.collect()
        });
        read.await
    }

    async fn remove_policy_set(&self, removal: RemovePolicySet) -> Result<Committed, StoreError> {
        let RemovePolicySet { hash, sets, documents, entries, modules, audit, counts } = removal;
        let sets: BTreeSet<_> = sets.into_iter().collect();
        let records = Records::of(audit, counts, None)?;
        let removed = self.writer.write(move |scope| {
            if !is_as_decided(scope.db, hash, &sets, &documents)? {
                return Ok(Committed::Conflict);
            }
            let delete = |sql: &str, digest: &Digest| {
                scope.db.prepare_cached(sql)?.execute([digest.as_bytes()]).map(drop)
            };
            delete("DELETE FROM policy_set WHERE hash = ?1", &hash)?;
            for entry in &entries {
                delete("DELETE FROM policy_entry WHERE hash = ?1", entry)?;
            }
            for module in &modules {
                delete("DELETE FROM module WHERE digest = ?1", module)?;
            }
            for signed in [&hash].into_iter().chain(&modules) {
                delete("DELETE FROM signature WHERE digest = ?1", signed)?;
            }
            scope.db.prepare_cached("DELETE FROM kept WHERE key = ?1")?.execute([policy_set_use(hash)])?;
            records.insert(scope)?;
            Ok(Committed::Done)
        });
        removed.await
    }

    async fn open_policies(&self) -> Result<Vec<OpenPolicy>, StoreError> {
        self.readers.read(open_requests::by_policy).await
    }
}

pub(super) fn select_policy_entry(db: &Connection, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
    let context = RowContext { table: "policy_entry", key: &hash };
    let sql = "SELECT body FROM policy_entry WHERE hash = ?1";
    let body = select_by_digest(db, sql, context, "body", hash)?;
    body.map(|body| context.json("body", body)).transpose()
}

pub(super) fn select_module(db: &Connection, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let context = RowContext { table: "module", key: &digest };
    select_by_digest(db, "SELECT bytes FROM module WHERE digest = ?1", context, "bytes", digest)
}

pub(super) fn select_signatures(db: &Connection, digest: Digest) -> Result<Vec<Signature>, StoreError> {
    let mut select =
        db.prepare_cached("SELECT signature FROM signature WHERE digest = ?1 ORDER BY signature")?;
    let rows = select.query_and_then([digest.as_bytes()], |row| {
        let context = RowContext { table: "signature", key: &digest };
        context.get(row, (0, "signature")).map(Signature::from_bytes)
    })?;
    rows.collect()
}

pub(super) fn select_policy_set(db: &Connection, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
    let mut select = db.prepare_cached("SELECT hash, stored_at, entries FROM policy_set WHERE hash = ?1")?;
    let mut rows = select.query_and_then([hash.as_bytes()], stored_set)?;
    rows.next().transpose()
}

fn canonical_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(canonical(&serde_json::to_value(value).map_err(other)?))
}

/// From the columns `hash, stored_at, entries`; checks that the entries still have that hash.
fn stored_set(row: &Row<'_>) -> Result<StoredSet, StoreError> {
    let hash = RowContext { table: "policy_set", key: &"a set" }.digest(row, (0, "hash"))?;
    let context = RowContext { table: "policy_set", key: &hash };
    let entries: String = context.get(row, (2, "entries"))?;
    let found = Digest::of(entries.as_bytes());
    if found != hash {
        return Err(context.corrupt("entries", format_args!("their digest is {found}")));
    }
    let stored_at = context.time(row, (1, "stored_at"))?;
    Ok(StoredSet { hash, entries: context.json("entries", entries)?, stored_at })
}

/// From the columns `seq, body`.
fn policy_change(row: &Row<'_>) -> Result<(u64, PolicyChange), StoreError> {
    let seq: i64 = row.get(0)?;
    let context = RowContext { table: "policy_change", key: &seq };
    let body: String = context.get(row, (1, "body"))?;
    Ok((context.unsigned(row, (0, "seq"))?, context.json("body", body)?))
}

/// Whether nothing has changed since the removal of a set was decided.
fn is_as_decided(
    db: &Connection,
    hash: Digest,
    sets: &BTreeSet<Digest>,
    documents: &[(String, Option<Vec<u8>>)],
) -> Result<bool, StoreError> {
    if last_in_force(db)?.is_some_and(|(_, last)| last.to == Some(hash)) || !sets.contains(&hash) {
        return Ok(false);
    }
    let mut select = db.prepare_cached("SELECT hash FROM policy_set")?;
    let context = RowContext { table: "policy_set", key: &"a set" };
    let stored = select.query_and_then([], |row| context.digest(row, (0, "hash")))?;
    if stored.collect::<Result<BTreeSet<Digest>, StoreError>>()? != *sets {
        return Ok(false);
    }
    let mut select = db.prepare_cached("SELECT value FROM kept WHERE key = ?1")?;
    for (key, expected) in documents {
        let value: Option<Vec<u8>> = select.query_row([key], |row| row.get(0)).optional()?;
        if value != *expected {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn last_in_force(db: &Connection) -> Result<Option<(u64, PolicyChange)>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT seq, body FROM policy_change WHERE in_force IS NOT NULL ORDER BY seq DESC LIMIT 1",
    )?;
    let mut rows = select.query_and_then([], policy_change)?;
    rows.next().transpose()
}
