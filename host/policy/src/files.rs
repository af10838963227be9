//! Reads files that somebody else writes: regular files alone, and never more than a limit.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// At most `limit` bytes of a regular file. Links are followed.
///
/// # Errors
/// If it cannot be read, or is a pipe, a device, a socket or a directory.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // A pipe waits for a writer when it is opened, and a device may do anything: so it is looked at before it is opened.
    // It may be another one by then, which neither waits nor is read.
    regular(&fs::metadata(path)?)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is in a directory, in order.
///
/// # Errors
/// If it cannot be read, or has more than `most` entries.
pub fn list(directory: &Path, most: usize) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        if paths.len() == most {
            return Err(io::Error::other(format!("it has more than {most} entries")));
        }
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A pipe would wait for a writer for ever: if it were opened, this test would not end.
    #[test]
    fn only_regular_files_are_read_and_no_more_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("text"), "0123456789").unwrap();
        symlink("text", path("link")).unwrap();
        symlink("circle", path("circle")).unwrap();
        symlink("/dev/zero", path("device")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(read(&path("text"), 100).unwrap(), b"0123456789");
        assert_eq!(read(&path("link"), 4).unwrap(), b"0123");
        for other in ["pipe", "device", "."] {
            assert_eq!(
                read(&path(other), 100).unwrap_err().to_string(),
                "it is not a regular file",
                "{other}"
            );
        }
        assert!(read(&path("circle"), 100).is_err());
        assert_eq!(list(folder.path(), 5).unwrap().len(), 5);
        assert_eq!(list(folder.path(), 4).unwrap_err().to_string(), "it has more than 4 entries");
    }
}
