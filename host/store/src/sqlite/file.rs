//! The database file: who may open it, whether it is one of ours, and how each connection is set up.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// Marks the file as ours: "CtSg".
const APPLICATION_ID: i32 = 0x4374_5367;

/// Migration `n` brings a database from version `n` to `n + 1`. What is released is never edited.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];

/// How long to wait for a lock that another program holds on the database: a backup, a shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a database cannot be opened. Each message has its cause in it, so that none is a `source` that is told again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another gateway has it open.
    #[error("the database `{path}` is in use by another gateway, which holds the lock on `{lock}`")]
    InUse {
        /// The database.
        path: PathBuf,
        /// The file that tells.
        lock: PathBuf,
    },
    /// The file holds something else.
    #[error("`{path}` is no Countersign database: {detail}")]
    NotOurs {
        /// The database.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// A newer gateway has written it.
    #[error("the database `{path}` has version {found}, and this gateway knows versions up to {known}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest version that this gateway knows.
        known: usize,
    },
    /// The file cannot be created, locked or resolved.
    #[error("cannot open the database `{path}`: {cause}")]
    Io {
        /// The database.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// SQLite cannot open or migrate it.
    #[error("cannot open the database `{path}`: {cause}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        cause: rusqlite::Error,
    },
}

/// A database that this process alone has open for writing, until the value is dropped.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    _lock: File,
}

impl Database {
    /// Takes the lock and creates the file where there is none. Returns it with the one connection for writing.
    pub(super) fn open(path: &Path) -> Result<(Database, Connection), OpenError> {
        let io = |cause| OpenError::Io { path: path.to_owned(), cause };
        // One file must have one lock, whichever way it is named. An absolute path is also never taken for a URI.
        let path = &resolve(path).map_err(io)?;
        // INVARIANT: the lock comes first. Merely opening and closing the database file
        // would drop the locks that SQLite holds on it elsewhere in this process.
        let lock = lock(path)?;
        create(path).map_err(io)?;
        let database = Database { path: path.clone(), _lock: lock };

        let sqlite = |cause| OpenError::Sqlite { path: path.clone(), cause };
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
        recognise(path, &connection)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(sqlite)?;
        connection.pragma_update(None, "synchronous", "full").map_err(sqlite)?;
        connection.pragma_update(None, "cache_size", -65_536).map_err(sqlite)?;
        migrate(&mut connection).map_err(sqlite)?;
        Ok((database, connection))
    }

    /// One more connection, which can only read.
    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        Ok(connection)
    }

    /// One more connection, which moves what is committed from the log to the database file.
    pub(super) fn checkpointer(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "synchronous", "full")?;
        Ok(connection)
    }
}

/// A connection that can only read, to a database that a gateway may have open at the same time.
///
/// Takes no lock of ours, and changes nothing: a database of an older version is read as it is.
pub(super) fn open_beside(path: &Path) -> Result<Connection, OpenError> {
    let path = &path.canonicalize().map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
    let sqlite = |cause| OpenError::Sqlite { path: path.clone(), cause };
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    recognise(path, &connection)?;
    Ok(connection)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // No connection is shared between threads without a lock of our own, so SQLite need not have one.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// The one absolute path of a file that need not exist, in a directory that must.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    Ok(directory.unwrap_or(Path::new(".")).canonicalize()?.join(name))
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let lock = PathBuf::from(name);
    let io = |cause| OpenError::Io { path: lock.clone(), cause };
    let file = private().create(true).truncate(false).open(&lock).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned(), lock }),
        Err(TryLockError::Error(cause)) => Err(io(cause)),
    }
}

/// Creates the file for its owner's eyes only. SQLite gives the log and the index of the log the same mode.
fn create(path: &Path) -> io::Result<()> {
    match private().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?.sync_all()?,
    }
    match path.parent() {
        Some(directory) if cfg!(unix) => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Refuses what is not ours before anything is written to it.
fn recognise(path: &Path, connection: &Connection) -> Result<(), OpenError> {
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
        // A new file, or one whose creation was cut short.
        let fresh = application == 0 && found == 0 && empty;
        return if fresh { Ok(()) } else { Err(not_ours("it is the SQLite database of another program")) };
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Brings the database to the newest version, whole or not at all.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_one("PRAGMA user_version", [], |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version < MIGRATIONS.len() {
        for migration in MIGRATIONS.iter().skip(version) {
            transaction.execute_batch(migration)?;
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
