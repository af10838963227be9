//! Locks that keep other processes away, as flock(2) has them.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A locked file: nobody else locks it until the value is dropped, in this process or in another one.
///
/// The lock is released then, and not by closing the file. A process that was just started has a copy of all that is open here
/// until it is another program; where closing releases the lock, it is held until then.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Takes the lock `PATH.lock` for the file at `path`, which need not be there and may be renamed meanwhile. Only its owner
    /// can read the file of the lock.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it is held; else if it cannot be made.
    pub fn beside(path: &Path) -> io::Result<FileLock> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(FileLock::exclusive(options.open(FileLock::path(path))?)?)
    }

    /// `PATH.lock`.
    pub(crate) fn path(path: &Path) -> PathBuf {
        with_suffix(path, ".lock")
    }

    /// Locks a file.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if it is locked.
    pub(crate) fn exclusive(file: File) -> Result<FileLock, TryLockError> {
        file.try_lock()?;
        Ok(FileLock(file))
    }

    /// Locks a file that others may lock likewise.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if it is locked in the other way.
    pub(crate) fn shared(file: File) -> Result<FileLock, TryLockError> {
        file.try_lock_shared()?;
        Ok(FileLock(file))
    }

    /// The file that is locked.
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// The path of the file beside this one that has its name and a suffix.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // If it fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a process has it that is just being started.
    #[test]
    fn a_copy_of_the_file_does_not_hold_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let lock = FileLock::beside(&path).unwrap();
        assert_eq!(FileLock::beside(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let copy = lock.file().try_clone().unwrap();
        drop(lock);
        FileLock::beside(&path).unwrap();

        let shared = [(); 2].map(|()| FileLock::shared(File::open(FileLock::path(&path)).unwrap()).unwrap());
        let copies = shared.each_ref().map(|lock| lock.file().try_clone().unwrap());
        assert!(FileLock::exclusive(copy.try_clone().unwrap()).is_err());
        drop(shared);
        FileLock::exclusive(copy).unwrap();
        drop(copies);
    }
}
