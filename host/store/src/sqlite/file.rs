//! The database file: creating and locking it, and opening connections to it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::schema;

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
    lock: Option<File>,
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
        let database = Database { path: path.clone(), lock: Some(lock) };

        let sqlite = |cause| OpenError::Sqlite { path: path.clone(), cause };
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
        schema::check(path, &connection)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(sqlite)?;
        connection.pragma_update(None, "synchronous", "full").map_err(sqlite)?;
        connection.pragma_update(None, "cache_size", -65_536).map_err(sqlite)?;
        schema::migrate(&mut connection).map_err(sqlite)?;
        Ok((database, connection))
    }

    /// Makes an empty database in memory, which ends with its last connection.
    #[cfg(any(test, feature = "fixtures"))]
    pub(super) fn in_memory() -> rusqlite::Result<(Database, Connection)> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static MADE: AtomicU64 = AtomicU64::new(0);
        // Connections of one process share a database in memory by this form of name.
        let name = format!("file:/countersign-{}?vfs=memdb", MADE.fetch_add(1, Ordering::Relaxed));
        let database = Database { path: PathBuf::from(name), lock: None };
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = connect(&database.path, access | OpenFlags::SQLITE_OPEN_URI)?;
        schema::migrate(&mut connection)?;
        Ok((database, connection))
    }

    /// Whether the database is in memory, so that reading it never waits for a disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.lock.is_none()
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

/// Opens a connection for reading only, to a database that a gateway may have open at the same time.
///
/// It takes no lock and does not migrate: a database of an older version is read as it is.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let path = &path.canonicalize().map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
    let sqlite = |cause| OpenError::Sqlite { path: path.clone(), cause };
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    schema::check(path, &connection)?;
    Ok(connection)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time, so SQLite needs no mutex.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
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

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let lock = PathBuf::from(name);
    let io = |cause| OpenError::Io { path: lock.clone(), cause };
    let file = owner_only().create(true).truncate(false).open(&lock).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned(), lock }),
        Err(TryLockError::Error(cause)) => Err(io(cause)),
    }
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
