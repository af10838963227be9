//! The lock on the database file itself: one file, one gateway, whatever names the file has.
//!
//! The lock on `PATH.lock` is found by the name. A hard link or a bind mount gives the file another one, and SQLite finds the
//! write-ahead log and its index by the name, too: two gateways would have two logs, and destroy the database.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::FileLock;

/// The device and the number of a file.
type Identity = (u64, u64);

/// The files that this process has locked.
static OURS: Mutex<BTreeSet<Identity>> = Mutex::new(BTreeSet::new());

/// The lock, until the value is dropped.
#[derive(Debug)]
pub(super) struct InodeLock {
    identity: Identity,
    /// `None` where it would conflict with SQLite's locks.
    _lock: Option<FileLock>,
}

/// The name of an open database, and the file that it leads to as long as nobody puts another one in its place.
///
/// SQLite goes on with the file that it has open, whoever replaces or removes it: what is written then is lost.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: PathBuf,
    identity: Identity,
}

impl Place {
    /// The place of a database that SQLite has opened for writing: on some file systems that gives it another number.
    pub(super) fn of(path: &Path) -> io::Result<Place> {
        Ok(Place { path: path.to_owned(), identity: identity(&path.metadata()?) })
    }

    /// Fails if the database was replaced or removed, with an error of the kind [`io::ErrorKind::StaleNetworkFileHandle`],
    /// or if that cannot be told.
    pub(super) fn check(&self) -> io::Result<()> {
        let is_there = match self.path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            found => identity(&found?) == self.identity,
        };
        if is_there { Ok(()) } else { Err(io::ErrorKind::StaleNetworkFileHandle.into()) }
    }
}

impl InodeLock {
    /// Locks an existing file; `None` if another gateway has locked it, under any name.
    ///
    /// The lock is that of flock(2), which on Linux is independent of the byte ranges that SQLite locks. Elsewhere the two may
    /// conflict, so there only this process is excluded.
    pub(super) fn take(path: &Path) -> io::Result<Option<InodeLock>> {
        // INVARIANT: a file that this process has locked is not opened again. Closing it would release the locks that SQLite
        // holds on it.
        let identity = identity(&path.metadata()?);
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        if ours.contains(&identity) {
            return Ok(None);
        }
        let mut lock = None;
        if cfg!(target_os = "linux") {
            match FileLock::exclusive(File::open(path)?) {
                Ok(taken) => lock = Some(taken),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        ours.insert(identity);
        Ok(Some(InodeLock { identity, _lock: lock }))
    }
}

/// Whether a gateway has locked an existing file, under any name.
pub(super) fn is_in_use(path: &Path) -> io::Result<bool> {
    let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    if ours.contains(&identity(&path.metadata()?)) {
        return Ok(true);
    }
    Ok(cfg!(target_os = "linux")
        && matches!(FileLock::shared(File::open(path)?), Err(TryLockError::WouldBlock)))
}

impl Drop for InodeLock {
    fn drop(&mut self) {
        OURS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.identity);
    }
}

#[cfg(unix)]
fn identity(file: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (file.dev(), file.ino())
}

/// How many names the file has.
#[cfg(unix)]
pub(super) fn links(file: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(file)
}
