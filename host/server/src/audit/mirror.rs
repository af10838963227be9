//! Files that grow by whole parts: entries or checkpoints, for whoever keeps them where the database's owner cannot change
//! them.
//!
//! A part is in the file whole or not at all, also after a full disk or a crash. The file may be renamed at any time: then
//! another one is made under its name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::{begins_with, open, regular};

/// How much of the end of a file is read, in bytes: more than what is appended at once.
const TAIL: u64 = 8 << 20;

/// What a file is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parts {
    /// Lines, each of which is read by itself.
    Lines,
    /// Signed notes of several lines, each of which ends with its signatures.
    Notes,
}

impl Parts {
    /// Where the last whole part of a text ends.
    fn whole(self, text: &[u8]) -> usize {
        match self {
            Parts::Lines => whole_lines(text),
            Parts::Notes => whole_notes(text),
        }
    }
}

/// A file that is appended to.
#[derive(Debug)]
pub(super) struct AppendedFile {
    path: PathBuf,
    parts: Parts,
    open: Option<(File, FileId)>,
}

/// Tells a file from one that took its name.
type FileId = (u64, u64);

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

fn whole_lines(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn whole_notes(text: &[u8]) -> usize {
    let mut end = 0;
    let mut from = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        from += line.len();
        if line.starts_with("\u{2014}".as_bytes()) && line.ends_with(b"\n") {
            end = from;
        }
    }
    end
}

impl AppendedFile {
    pub(super) fn new(path: PathBuf, parts: Parts) -> AppendedFile {
        AppendedFile { path, parts, open: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file begins with this, as far as there is something in it. A file of others would be cut to its last whole
    /// part.
    pub(super) fn begins_with(&self, start: &str) -> io::Result<bool> {
        begins_with(&self.path, &[start.as_bytes()])
    }

    /// The end of the file, up to its last whole part. Empty if there is no file.
    pub(super) fn tail(&self) -> io::Result<Vec<u8>> {
        let Some(mut file) = open(&self.path)? else { return Ok(Vec::new()) };
        let (_, mut text) = read_tail(&mut file)?;
        text.truncate(self.parts.whole(&text));
        Ok(text)
    }

    /// Appends a part, and returns once it is on disk. If that fails, the file is as it was.
    pub(super) fn append(&mut self, part: &[u8]) -> io::Result<()> {
        let appended = self.append_to_open(part);
        if appended.is_err() {
            // The next time it is opened again, and what is not whole is cut off.
            self.open = None;
        }
        appended
    }

    fn append_to_open(&mut self, part: &[u8]) -> io::Result<()> {
        let file = self.current()?;
        let before = file.metadata()?.len();
        let written = file.write_all(part).and_then(|()| file.sync_data());
        if written.is_err() {
            // If this fails too, it is cut off when the file is opened again.
            let _cut = file.set_len(before);
        }
        written
    }

    /// The file that has the name now.
    fn current(&mut self) -> io::Result<&mut File> {
        let named = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => Some(id(&found?)),
        };
        let open = match self.open.take() {
            Some((file, known)) if named == Some(known) => (file, known),
            _ => self.reopen()?,
        };
        Ok(&mut self.open.insert(open).0)
    }

    fn reopen(&self) -> io::Result<(File, FileId)> {
        regular(&self.path)?;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let (start, text) = read_tail(&mut file)?;
        let end = start + self.parts.whole(&text) as u64;
        if end < start + text.len() as u64 {
            match file.set_len(end) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    self.leave_unfinished(&mut file)?;
                }
                cut => cut?,
            }
        }
        let id = id(&file.metadata()?);
        Ok((file, id))
    }

    /// What is not whole stays in a file that may only be appended to (`chattr +a`). A line is ended, so that the next one
    /// begins after it; what is behind a part of a note could not be told from it.
    fn leave_unfinished(&self, file: &mut File) -> io::Result<()> {
        match self.parts {
            Parts::Lines => file.write_all(b"\n"),
            Parts::Notes => Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "its last checkpoint was written in part, and cannot be cut off, since the file may only be appended to: take \
                 that attribute away (`chattr -a`) until the next checkpoint is in it",
            )),
        }
    }
}

/// Where the end begins that was read, and the end.
fn read_tail(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text)?;
    Ok((start, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_whatever_happens_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = AppendedFile::new(path.clone(), Parts::Lines);
        assert_eq!(file.tail().unwrap(), b"");
        file.append(b"one\ntwo\n").unwrap();
        // Somebody renames it, as tools do that rotate logs.
        fs::rename(&path, folder.path().join("file.1")).unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        assert_eq!(fs::read(folder.path().join("file.1")).unwrap(), b"one\ntwo\n");
        // Somebody else takes its place.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "zero\nhal").unwrap();
        assert_eq!(file.tail().unwrap(), b"zero\n");
        file.append(b"four\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"zero\nfour\n");
        assert_eq!(file.path().metadata().unwrap().mode() & 0o777, 0o644 & path.metadata().unwrap().mode());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(file.append(b"five\n").is_err());
        fs::remove_dir(&path).unwrap();
        // A device would take it, and not keep it.
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let refused = [file.append(b"five\n").err(), file.tail().err(), file.begins_with("").err()];
        assert!(
            refused.iter().flatten().all(|error| error.to_string().contains("no regular file")),
            "{refused:?}"
        );
        assert!(refused.iter().all(Option::is_some), "{refused:?}");
        fs::remove_file(&path).unwrap();
        file.append(b"five\n").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), path.metadata().unwrap().mode() & 0o777),
            (b"five\n".to_vec(), 0o600)
        );
    }

    /// Sets or takes away the attribute; false if the file system has none.
    fn append_only(path: &Path, is: bool) -> bool {
        let sign = if is { "+a" } else { "-a" };
        let ran = std::process::Command::new("chattr").arg(sign).arg(path).output();
        ran.is_ok_and(|ran| ran.status.success())
    }

    #[test]
    fn a_file_may_be_append_only() {
        let folder = tempfile::tempdir().unwrap();
        let [lines, notes] = ["lines", "notes"].map(|name| folder.path().join(name));
        fs::write(&lines, "one\nhal").unwrap();
        let note = "origin\n1\nroot\n\n\u{2014} key sig\n";
        fs::write(&notes, format!("{note}origin\n2\n")).unwrap();
        if !append_only(&lines, true) || !append_only(&notes, true) {
            append_only(&lines, false);
            println!("skipped: this file system has no append-only files, or only root may make them");
            return;
        }
        // Nothing may fail before the attribute is taken away: else the folder cannot be removed.
        let mut file = AppendedFile::new(lines.clone(), Parts::Lines);
        let written = [file.append(b"two\n"), file.append(b"three\n")].map(|written| written.is_ok());
        let tail = file.tail().unwrap_or_default();
        let renamed = fs::rename(&lines, folder.path().join("lines.1")).is_ok();
        let mut of_notes = AppendedFile::new(notes.clone(), Parts::Notes);
        let refused = of_notes.append(note.as_bytes());
        for path in [&lines, &notes] {
            append_only(path, false);
        }
        assert_eq!((written, renamed), ([true, true], false));
        assert_eq!(String::from_utf8_lossy(&tail), "one\nhal\ntwo\nthree\n");
        let refused = refused.map_err(|error| error.to_string()).expect_err("it ends in a part of a note");
        assert!(refused.contains("chattr -a"), "{refused}");
        of_notes.append(note.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&notes).unwrap(), note.repeat(2));
        // And now it is so again, from a whole end.
        if append_only(&notes, true) {
            let appended = of_notes.append(note.as_bytes()).is_ok();
            append_only(&notes, false);
            assert!(appended);
        }
    }

    #[test]
    fn a_note_ends_with_its_signature() {
        let note = "origin\n1\nroot\n\n\u{2014} key sig\n\u{2014} other sig\n";
        for cut in 0..note.len() {
            let text = format!("{note}{}", String::from_utf8_lossy(&note.as_bytes()[..cut]));
            let whole = whole_notes(text.as_bytes());
            assert!(text[..whole] == *note || cut > note.find("\n\u{2014} other").unwrap(), "{cut}");
        }
        assert_eq!(whole_notes(b"half a note\n"), 0);
    }
}
