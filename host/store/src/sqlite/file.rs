//! The database file: creating and locking it, and opening connections to it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::column::fault;
#[cfg(unix)]
use super::inode::links;
use super::inode::{InodeLock, Place, is_in_use};
use super::log_mark::needs_log;
use super::schema;
use crate::file_lock::with_suffix;
use crate::{FileLock, StoreFault};

/// How large the file of the write-ahead log may stay once its pages were moved, in bytes.
const LOG_SIZE: i64 = 64 << 20;

/// How long to wait for another program's lock on the database, such as a backup's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a database cannot be opened.
///
/// Each message includes its cause, so the cause is not a `source`: an error chain would print it twice.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another gateway has it open.
    #[error("the database `{path}` is in use by another gateway, which holds the lock on `{lock}`")]
    InUse {
        /// The database.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The file has several names.
    #[error(
        "the database `{path}` has {links} names (hard links), and may have one only: its write-ahead log is found by its \
        name; remove the other ones"
    )]
    Linked {
        /// The database.
        path: PathBuf,
        /// How many.
        links: u64,
    },
    /// A part of the database is missing.
    #[error(
        "the database `{path}` is not whole: it was copied without its write-ahead log, or the log `{log}` was removed, \
        and with it what was stored last; put the log beside it, or, to go on without what is lost, an empty file of \
        that name"
    )]
    LogMissing {
        /// The database.
        path: PathBuf,
        /// The write-ahead log.
        log: PathBuf,
    },
    /// The file is not a Countersign database.
    #[error("`{path}` is no Countersign database: {detail}")]
    NotOurs {
        /// The database.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// It was written by a newer gateway.
    #[error("the database `{path}` has version {found}, and this gateway knows versions up to {known}")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest version that this gateway knows.
        known: usize,
    },
    /// A copy into it was interrupted.
    #[error(
        "the database `{path}` has a part of a store: a copy into it was interrupted; copy again with `countersign store copy \
        --restart`"
    )]
    Unfinished {
        /// The database.
        path: PathBuf,
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

/// A database that is locked: only this process has it open for writing, until the value is dropped.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    /// `None` if the database is in memory, where nobody else can have it.
    lock: Option<(FileLock, InodeLock)>,
    /// Where it is; `None` if it is in memory.
    place: Option<Place>,
}

impl Database {
    /// Takes the lock, and creates the file if there is none. Returns the database and its only connection for writing.
    pub(super) fn open(path: &Path) -> Result<(Database, Connection), OpenError> {
        let io = |cause| OpenError::Io { path: path.to_owned(), cause };
        // A file must have the same lock under every name of it. SQLite also never takes an absolute path for a URI.
        let path = &resolve(path).map_err(io)?;
        // INVARIANT: the lock comes first. Opening and closing the database file alone
        // would release the locks that SQLite holds on it elsewhere in this process.
        let lock = lock(path)?;
        create(path).map_err(io)?;
        let inode = InodeLock::take(path).map_err(io)?;
        let inode = inode.ok_or_else(|| OpenError::InUse { path: path.clone(), lock: path.clone() })?;
        #[cfg(unix)]
        match links(&path.metadata().map_err(io)?) {
            1 => {}
            links => return Err(OpenError::Linked { path: path.clone(), links }),
        }
        check_log(path)?;
        let mut database = Database { path: path.clone(), lock: Some((lock, inode)), place: None };

        let sqlite = |cause| OpenError::Sqlite { path: path.clone(), cause };
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
        database.place = Some(Place::of(path).map_err(io)?);
        schema::check(path, &connection)?;
        // Counts for a new database only, before anything is written to it.
        connection.pragma_update(None, "auto_vacuum", "incremental").map_err(sqlite)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(sqlite)?;
        connection.pragma_update(None, "journal_size_limit", LOG_SIZE).map_err(sqlite)?;
        connection.pragma_update(None, "synchronous", "full").map_err(sqlite)?;
        // Not larger: SQLite looks at each page of the cache after a commit that split one.
        connection.pragma_update(None, "cache_size", -8_192).map_err(sqlite)?;
        schema::migrate(&mut connection).map_err(sqlite)?;
        Ok((database, connection))
    }

    /// Makes an empty database in memory, which ends with its last connection.
    pub(super) fn in_memory() -> rusqlite::Result<(Database, Connection)> {
        let (database, mut connection) = Database::named_in_memory()?;
        #[cfg(not(any(test, feature = "fixtures")))]
        schema::migrate(&mut connection)?;
        #[cfg(any(test, feature = "fixtures"))]
        Database::copy_empty(&mut connection)?;
        Ok((database, connection))
    }

    /// Copies a migrated database, since migrating takes longer than most tests that need one.
    #[cfg(any(test, feature = "fixtures"))]
    fn copy_empty(connection: &mut Connection) -> rusqlite::Result<()> {
        use std::sync::{Mutex, PoisonError};
        static EMPTY: Mutex<Option<Connection>> = Mutex::new(None);
        let mut empty = EMPTY.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = match &mut *empty {
            Some(empty) => empty,
            none => {
                let (_, mut connection) = Database::named_in_memory()?;
                schema::migrate(&mut connection)?;
                none.insert(connection)
            }
        };
        rusqlite::backup::Backup::new(empty, connection)?.run_to_completion(i32::MAX, Duration::ZERO, None)
    }

    /// Makes a database in memory without a schema.
    fn named_in_memory() -> rusqlite::Result<(Database, Connection)> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static MADE: AtomicU64 = AtomicU64::new(0);
        // Connections of one process share a database in memory by this form of name.
        let name = format!("file:/countersign-{}?vfs=memdb", MADE.fetch_add(1, Ordering::Relaxed));
        let database = Database { path: PathBuf::from(name), lock: None, place: None };
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = connect(&database.path, access | OpenFlags::SQLITE_OPEN_URI)?;
        Ok((database, connection))
    }

    /// Whether the database is in memory, so that reading it never waits for a disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.lock.is_none()
    }

    /// Where it is; `None` if it is in memory.
    pub(super) fn place(&self) -> Option<Place> {
        self.place.clone()
    }

    /// Opens another connection, for reading only.
    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        let mut access = OpenFlags::SQLITE_OPEN_READ_ONLY;
        access.set(OpenFlags::SQLITE_OPEN_URI, self.is_in_memory());
        let connection = connect(&self.path, access)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        Ok(connection)
    }

    /// Opens another connection, for moving committed pages from the write-ahead log to the database file.
    pub(super) fn checkpointer(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "synchronous", "full")?;
        Ok(connection)
    }
}

/// Removes a database, unless a gateway has it open.
pub(super) fn discard(path: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: path.to_owned(), cause };
    let path = &resolve(path).map_err(io)?;
    let _lock = lock(path)?;
    if is_in_use(path).map_err(io)? {
        return Err(OpenError::InUse { path: path.clone(), lock: path.clone() });
    }
    // INVARIANT: the database goes last. Without it, what is left beside it is nobody's.
    for file in [with_suffix(path, "-wal"), with_suffix(path, "-shm"), path.clone()] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a connection for reading only, to a database that a gateway may have open at the same time.
///
/// It does not migrate: a database of an older version is read as it is. Where nothing can be written beside the database,
/// not even the index of the log, it is read without one, under a lock that keeps gateways out.
pub(super) fn open_read_only(path: &Path) -> Result<(Connection, Option<FileLock>), OpenError> {
    let path = &path.canonicalize().map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
    check_log(path).map_err(|error| match (&error, is_in_use(path)) {
        // Under another name, which has the log beside it.
        (OpenError::LogMissing { .. }, Ok(true)) => {
            OpenError::InUse { path: path.clone(), lock: path.clone() }
        }
        _ => error,
    })?;
    let opened = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|cause| OpenError::Sqlite { path: path.clone(), cause })
        .and_then(|connection| schema::check(path, &connection).map(|()| connection));
    match opened {
        Err(OpenError::Sqlite { cause, .. })
            if matches!(fault(&cause), StoreFault::Io | StoreFault::ReadOnly) =>
        {
            open_alone(path, cause)
        }
        opened => opened.map(|connection| (connection, None)),
    }
}

/// Opens a connection for reading only that uses no index of the log beside the database, with the lock that it needs.
///
/// `cause` is why the database cannot be opened with an index.
fn open_alone(path: &Path, cause: rusqlite::Error) -> Result<(Connection, Option<FileLock>), OpenError> {
    let file = File::open(path).map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
    let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let Ok(lock) = FileLock::shared(file) else { return Err(sqlite(cause)) };
    let log = with_suffix(path, "-wal").metadata().map_or(0, |log| log.len());
    let connection = if log == 0 {
        open_immutable(path).map_err(sqlite)?
    } else {
        // The index is in memory if locks are exclusive, and on a file that cannot be written to there are no such locks.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(path, flags, "unix-none").map_err(sqlite)?;
        connection.pragma_update(None, "locking_mode", "exclusive").map_err(sqlite)?;
        connection
    };
    schema::check(path, &connection)?;
    Ok((connection, Some(lock)))
}

/// Refuses a database that needs its log if the log is missing: SQLite would open it without a word.
fn check_log(path: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: path.to_owned(), cause };
    let sqlite = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let log = with_suffix(path, "-wal");
    // With a rollback journal its creation was interrupted, so it never had a log.
    if log.try_exists().map_err(io)? || with_suffix(path, "-journal").try_exists().map_err(io)? {
        return Ok(());
    }
    let connection = open_immutable(path).map_err(sqlite)?;
    schema::check(path, &connection)?;
    match needs_log(&connection).map_err(sqlite)? {
        true => Err(OpenError::LogMissing { path: path.to_owned(), log }),
        false => Ok(()),
    }
}

/// Reads the file alone, takes no lock and creates no file beside it.
fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

pub(super) fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time, so SQLite needs no mutex.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Otherwise SQLite plans a statement anew for each value that its `LIMIT` is bound to.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// The canonical path of a file that need not exist, in a directory that must.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    Ok(directory.unwrap_or(Path::new(".")).canonicalize()?.join(name))
}

fn lock(path: &Path) -> Result<FileLock, OpenError> {
    FileLock::beside(path).map_err(|cause| {
        let lock = FileLock::path(path);
        match cause.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { path: path.to_owned(), lock },
            _ => OpenError::Io { path: lock, cause },
        }
    })
}

/// Creates the file so that only its owner can read it. SQLite gives the write-ahead log and its index the same mode.
fn create(path: &Path) -> io::Result<()> {
    match owner_only().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?.sync_all()?,
    }
    match path.parent() {
        Some(directory) if cfg!(unix) => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
