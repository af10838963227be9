//! The schema: recognising a Countersign database, and migrating it.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::{OpenError, audit};

/// SQLite's `application_id`, which marks the file as a Countersign database: "CtSg".
const APPLICATION_ID: i32 = 0x4374_5367;

/// Migration `n` brings a database from version `n` to `n + 1`. A released migration is never edited.
const MIGRATIONS: [&str; 14] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
    include_str!("schema_10.sql"),
    include_str!("schema_11.sql"),
    include_str!("schema_12.sql"),
    include_str!("schema_13.sql"),
    include_str!("schema_14.sql"),
];

/// From this version on entries of the audit log have numbers and digests, which SQL alone cannot make.
const AUDIT_NUMBERS: usize = 9;

/// Refuses a file of another program, or of a newer gateway, before anything is written to it.
pub(super) fn check(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let not_ours = |detail: &str| OpenError::NotOurs { path: path.to_owned(), detail: detail.to_owned() };
    let read = |sql| {
        connection.query_one(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| {
            match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase) => not_ours("it is no SQLite database"),
                Some(ErrorCode::DatabaseCorrupt) => not_ours("it is damaged"),
                _ => OpenError::Sqlite { path: path.to_owned(), cause: error },
            }
        })
    };
    let application = read("PRAGMA application_id")?;
    let empty = read("SELECT count(*) FROM sqlite_schema")? == 0;
    let found = usize::try_from(read("PRAGMA user_version")?).unwrap_or(usize::MAX);
    let known = MIGRATIONS.len();
    if application != i64::from(APPLICATION_ID) {
        // A new file, or one whose creation was interrupted.
        let fresh = application == 0 && found == 0 && empty;
        return if fresh { Ok(()) } else { Err(not_ours("it is the SQLite database of another program")) };
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Whether the database has the table `meta`: one whose creation was interrupted has none.
pub(super) fn has_meta(connection: &Connection) -> rusqlite::Result<bool> {
    let count = "SELECT count(*) FROM sqlite_schema WHERE name = 'meta'";
    connection.query_one(count, [], |row| Ok(row.get::<_, i64>(0)? > 0))
}

/// Whether the database has salts: one of an older version, which is read as it is, has none.
pub(super) fn has_salts(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_one("PRAGMA user_version", [], |row| Ok(row.get::<_, i64>(0)? >= 6))
}

/// Brings the database to the newest version, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_one("PRAGMA user_version", [], |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version < MIGRATIONS.len() {
        for migration in MIGRATIONS.iter().skip(version) {
            transaction.execute_batch(migration)?;
        }
        if version < AUDIT_NUMBERS {
            audit::number_older(&transaction)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(
            None,
            "user_version",
            i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX),
        )?;
    }
    transaction.commit()
}
