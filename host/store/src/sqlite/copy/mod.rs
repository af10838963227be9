//! What a copy reads from a database, and what it writes to one. Every table and column is accounted for here.

mod reader;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

pub(crate) use super::audit::PARTITIONS;
use super::file::discard;
use super::{OpenError, SqliteStore};
use crate::StoreError;
use crate::copy::{CopyError, Outcome, Record, sqlite_error};
pub(crate) use reader::SqliteReader;
use writer::NewRow;

/// Every table, with its columns. A copy is refused if a database has others: whoever adds one says here what becomes of it,
/// and in the reader and the writer.
///
/// `audit_partition` follows from the entries, and is compared with them. Not copied: `meta`, which is about the file;
/// `open_requests` and `dispatch_depth`, which are counted anew; who has claimed what is in `outbox`; `ended_at`, which follows from the body; and
/// `key_until`, which says less of a copy: that it is not known whether there is an idempotency key.
const TABLES: [(&str, &str); 19] = [
    ("audit", "seq partition number at request digest body"),
    ("audit_checkpoint", "id sequence note state"),
    ("audit_partition", "partition size"),
    ("counter", "metric labels value"),
    ("dispatch", "request target position revision attempts since ready_at claim failure"),
    ("dispatch_depth", "target waiting dead"),
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
        "seq id version action status submitted_at due_at lineage depth waits_for body policy_hash caller salt_key salt supersede subject ended_at key_until",
    ),
    ("signature", "digest signature"),
    ("slack_post", "request slot revision refresh_at body channel"),
];

/// The keys of `meta`, none of which is copied.
const META: [&str; 3] = ["log", "ping", MARK];

/// The key of `meta` that says that the database is a part of a store.
const MARK: &str = "copying";

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
        SqliteReader::of(self)
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
