//! The archive: a file to which requests are appended before they are removed from the store, each once.
//!
//! A batch is noted beside the file (`FILE.batch`) before it is appended, with the place that it will have and what it holds.
//! The note goes once its requests were removed. So after a crash it is known whether the batch is in the file: if it is,
//! its requests are removed without being appended again, and if it is not, what there is of it is cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use countersign_core::lifecycle::{Digest, RequestId};
use countersign_gateway::retention::counts;
use countersign_store::{FileLock, Removal, RemovedRequest};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::config::{begins_with, beside, regular};

/// What an archive begins with: the first line, or the member of gzip that has it.
const STARTS: [&[u8]; 2] = [br#"{"archived_request""#, &[0x1f, 0x8b]];

/// An archive, which this process alone appends to.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    /// Tells it from other archives of the same store.
    id: u64,
    _lock: FileLock,
}

/// A batch as it is noted.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    /// The file that it is appended to, whatever its name is by now: device and inode.
    file: (u64, u64),
    /// The length of the file before.
    before: u64,
    /// How many bytes it has.
    length: u64,
    /// SHA-256 of them.
    sha256: Digest,
    removals: Vec<Noted>,
}

/// A removal as it is noted.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    lineage: RequestId,
    newest: RequestId,
    /// Id, version, and the number of events.
    requests: Vec<(RequestId, u64, u32)>,
}

impl Noted {
    fn of(removal: &Removal) -> Noted {
        let requests = removal.requests.iter().map(|it| (it.id, it.version, it.events));
        Noted { lineage: removal.lineage, newest: removal.newest, requests: requests.collect() }
    }

    fn removal(self) -> Removal {
        let Noted { lineage, newest, requests } = self;
        let requests: Vec<_> = requests
            .into_iter()
            .map(|(id, version, events)| RemovedRequest { id, version, events })
            .collect();
        Removal { lineage, newest, counts: counts(requests.len(), true), requests }
    }
}

impl Archive {
    /// Opens an archive. Blocks.
    ///
    /// # Errors
    /// If another process has it open, it is a file of something else, or its files cannot be made.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Archive> {
        let named = || format!("cannot use the archive `{}`", path.display());
        let is_ours = begins_with(path, &STARTS).with_context(named)?;
        ensure!(is_ours, "the archive `{}` has something else in it; name another file", path.display());
        let lock = match FileLock::beside(path) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("the archive `{}` is in use by another gateway", path.display())
            }
            locked => locked.with_context(named)?,
        };
        let mut file = lock.file();
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(named)?;
        let id = match u64::from_str_radix(text.trim(), 16) {
            Ok(id) => id,
            Err(_) => {
                let id = getrandom::u64().context("the system gives no randomness")?;
                file.set_len(0).with_context(named)?;
                file.rewind().with_context(named)?;
                writeln!(file, "{id:016x}").and_then(|()| file.sync_all()).with_context(named)?;
                id
            }
        };
        Ok(Archive { path: path.to_owned(), id, _lock: lock })
    }

    /// Its id.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Appends lines, each with its line feed, and notes what is to be removed; returns once both are on disk. If that fails,
    /// nothing was appended. Blocks.
    pub(crate) fn append(&self, lines: &[u8], removals: &[Removal]) -> io::Result<()> {
        regular(&self.path)?;
        self.write(&self.encoded(lines)?, removals)
    }

    fn write(&self, bytes: &[u8], removals: &[Removal]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let metadata = file.metadata()?;
        let before = metadata.len();
        let batch = Batch {
            file: (metadata.dev(), metadata.ino()),
            before,
            length: bytes.len() as u64,
            sha256: Digest::of(bytes),
            removals: removals.iter().map(Noted::of).collect(),
        };
        self.note(&batch)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let written = written.and_then(|()| sync_folder(&self.path));
        if written.is_err() {
            // If this fails too, it is cut off before the next batch.
            let _cut = file.set_len(before).and_then(|()| self.forget());
        }
        written
    }

    /// What is still to be removed of a batch that is in the archive. One that is not whole is cut off. Blocks.
    pub(crate) fn left_over(&self) -> io::Result<Vec<Removal>> {
        let text = match fs::read(self.batch()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let batch: Batch = serde_json::from_slice(&text)?;
        match self.find(batch.file)? {
            Some(file) if batch.is_in(&file)? => {
                return Ok(batch.removals.into_iter().map(Noted::removal).collect());
            }
            Some(file) => {
                if file.metadata()?.is_file() && file.metadata()?.len() > batch.before {
                    file.set_len(batch.before)?;
                    file.sync_all()?;
                }
            }
            None => {
                tracing::warn!(
                    archive = %self.path.display(),
                    "the file that the last batch was appended to is gone; its requests are appended again"
                );
            }
        }
        self.forget()?;
        Ok(Vec::new())
    }

    /// Forgets the batch: its requests were removed, or it is not in the archive. Blocks.
    pub(crate) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.batch()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => sync_folder(&self.path),
        }
    }

    fn batch(&self) -> PathBuf {
        beside(&self.path, ".batch")
    }

    fn note(&self, batch: &Batch) -> io::Result<()> {
        let new = beside(&self.path, ".batch.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(batch)?)?;
        file.sync_all()?;
        fs::rename(&new, self.batch())?;
        sync_folder(&self.path)
    }

    /// With gzip each batch is a member of its own, so that the file can be read to wherever it ends.
    fn encoded(&self, lines: &[u8]) -> io::Result<Vec<u8>> {
        if self.path.extension().is_none_or(|extension| extension != "gz") {
            return Ok(lines.to_vec());
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(lines)?;
        encoder.finish()
    }

    /// The file with this identity: the archive, or one in its folder, if it was renamed.
    fn find(&self, id: (u64, u64)) -> io::Result<Option<File>> {
        let is_it = |path: &Path| match fs::metadata(path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()) == id,
            Err(_) => false,
        };
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).map(Some);
        if is_it(&self.path) {
            return open(&self.path);
        }
        for entry in fs::read_dir(folder(&self.path))? {
            let path = entry?.path();
            if is_it(&path) {
                return open(&path);
            }
        }
        Ok(None)
    }
}

impl Batch {
    fn is_in(&self, mut file: &File) -> io::Result<bool> {
        if file.metadata()?.len() < self.before.saturating_add(self.length) {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(self.before))?;
        let mut bytes = Vec::new();
        file.take(self.length).read_to_end(&mut bytes)?;
        Ok(Digest::of(&bytes) == self.sha256)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that was made or removed is so after a power failure, too.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;

    use countersign_store::fixtures;
    use flate2::bufread::MultiGzDecoder;

    use super::*;

    fn removals(numbers: std::ops::Range<u64>) -> Vec<Removal> {
        let removals = numbers.map(|number| {
            let id = fixtures::id(number);
            let requests = vec![RemovedRequest { id, version: 2, events: 3 }];
            Removal { lineage: id, newest: id, requests, counts: counts(1, true) }
        });
        removals.collect()
    }

    #[test]
    fn a_batch_is_known_until_it_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("requests.ndjson");
        let archive = Archive::open(&path).expect("a new one");
        assert!(Archive::open(&path).is_err(), "it is in use");
        assert_eq!(archive.left_over().expect("it is read"), []);
        archive.append(b"{\"archived_request\":1}\n", &removals(0..1)).expect("it is appended");
        assert_eq!(archive.left_over().expect("it is read"), removals(0..1));
        let id = archive.id();
        drop(archive);
        let archive = Archive::open(&path).expect("the same");
        assert_eq!((archive.id(), archive.left_over().expect("it is read")), (id, removals(0..1)));
        archive.forget().expect("it is forgotten");
        assert_eq!(archive.left_over().expect("it is read"), []);
        archive.append(b"two\nthree\n", &removals(1..3)).expect("it is appended");
        // Somebody renames it, as tools do that rotate logs.
        fs::rename(&path, folder.path().join("requests.ndjson.1")).expect("it can be renamed");
        assert_eq!(archive.left_over().expect("it is read"), removals(1..3));
        archive.forget().expect("it is forgotten");
        archive.append(b"four\n", &removals(3..4)).expect("it is appended");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it is there");
        assert_eq!(
            (read("requests.ndjson.1").as_str(), read("requests.ndjson").as_str()),
            ("{\"archived_request\":1}\ntwo\nthree\n", "four\n")
        );
    }

    /// Wherever the process is killed while it appends, the batch is whole, or there is nothing of it.
    #[test]
    fn a_batch_that_is_not_whole_is_cut_off() {
        for name in ["requests.ndjson", "requests.ndjson.gz"] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(name);
            let archive = Archive::open(&path).expect("a new one");
            archive.append(b"one\n", &removals(0..1)).expect("it is appended");
            archive.forget().expect("it is forgotten");
            let before = fs::metadata(&path).expect("it is there").len();
            archive.append(b"two\nthree\n", &removals(1..3)).expect("it is appended");
            let (whole, note) =
                (fs::read(&path).expect("it is there"), fs::read(archive.batch()).expect("it is there"));
            let before_len = usize::try_from(before).expect("short");
            for end in before_len..=whole.len() {
                fs::write(archive.batch(), &note).expect("it can be written");
                fs::write(&path, &whole[..end]).expect("it can be written");
                let left = archive.left_over().expect("it is read");
                let is_whole = end == whole.len();
                assert_eq!(left, if is_whole { removals(1..3) } else { vec![] }, "{end}");
                assert_eq!(archive.batch().exists(), is_whole);
                let kept = if is_whole { end } else { before_len };
                assert_eq!(fs::read(&path).expect("it is there"), whole[..kept]);
            }
            // The file is gone.
            fs::write(archive.batch(), &note).expect("it can be written");
            fs::remove_file(&path).expect("it was there");
            assert_eq!(archive.left_over().expect("it is read"), []);
            assert!(!archive.batch().exists());
        }
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("requests.ndjson");
        for foreign in ["SQLite format 3\0", "# keys\n", "{\"partition\":1}\n"] {
            fs::write(&path, foreign).expect("it can be written");
            let refused = Archive::open(&path).expect_err("it is no archive").to_string();
            assert!(refused.contains("has something else in it"), "{refused}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), foreign);
            assert!(!beside(&path, ".lock").exists());
        }
        // What was written in part when the power went.
        fs::write(&path, "{\"arch").expect("it can be written");
        assert!(Archive::open(&path).is_ok());
    }

    #[test]
    fn members_follow_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("requests.gz");
        let archive = Archive::open(&path).expect("a new one");
        for line in [b"one\n".as_slice(), b"two\n"] {
            archive.append(line, &[]).expect("it is appended");
        }
        let file = io::BufReader::new(File::open(&path).expect("it is there"));
        let lines: Vec<String> =
            io::BufReader::new(MultiGzDecoder::new(file)).lines().collect::<Result<_, _>>().expect("text");
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_disk_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("requests.ndjson");
        let archive = Archive::open(&path).expect("a new one");
        std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
        let full = archive.write(b"one\n", &removals(0..1)).expect_err("it is full");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(archive.left_over().expect("it is read"), []);
        // A device is otherwise not even opened.
        let refused = archive.append(b"one\n", &removals(0..1)).expect_err("it is a device").to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        assert!(Archive::open(&path).is_err());
        assert!(!archive.batch().exists());
        fs::remove_file(&path).expect("it was there");
        archive.append(b"one\n", &removals(0..1)).expect("there is room");
        assert_eq!(fs::read(&path).expect("it is there"), b"one\n");
    }
}
