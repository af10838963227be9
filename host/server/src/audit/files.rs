//! The files outside of the store to which a gateway appends: signed checkpoints, and entries of the audit log.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};
use countersign_core::audit::checkpoint::{Checkpoint, ORIGIN};
use countersign_core::lifecycle::Digest;
use countersign_gateway::audit::{AuditKeys, verify};
use countersign_store::{AuditCursor, LogEntry, LogPage};

use super::line;
use super::mirror::{AppendedFile, Parts};
use super::verify::split_notes;

/// The file of checkpoints.
pub(super) struct Notes {
    file: AppendedFile,
    /// The last one that is in it.
    last: String,
}

/// The file of entries, and how far the log is in it.
pub(super) struct Entries {
    file: AppendedFile,
    /// Keeps other gateways away; `None` while it cannot be made, as on a full disk.
    lock: Option<fs::File>,
    position: PathBuf,
    pub(super) after: AuditCursor,
    /// The last entry of each partition that is in the file.
    last: Last,
    /// Whether the log was seen to have what the file has last. A log that was restored may not have it.
    pub(super) is_compared: bool,
    /// What was in the file at the start, until the log was read to its end once: a crash can come between the file and the
    /// position.
    known: Known,
}

/// The last entry of each partition: its number and digest.
type Last = BTreeMap<u16, (u64, Digest)>;

/// The entries at the end of the file.
#[derive(Default)]
struct Known {
    entries: HashSet<(u16, u64, Digest)>,
    /// The lowest number of each partition among them: what comes before it is further up in the file.
    first: BTreeMap<u16, u64>,
}

/// How many entries of each partition are compared with those of a log that was restored.
const COMPARED: usize = 1 << 16;

impl Notes {
    /// Also returns the last checkpoint in the file, if there is one.
    pub(super) fn open(path: PathBuf, keys: &AuditKeys) -> anyhow::Result<(Notes, Option<Checkpoint>)> {
        let named = || format!("the file of audit checkpoints `{}`", path.display());
        let file = AppendedFile::new(path.clone(), Parts::Notes);
        let is_ours = file.begins_with(ORIGIN).with_context(|| format!("cannot read {}", named()))?;
        ensure!(is_ours, "{} has something else in it; name another file", named());
        let tail = file.tail().with_context(|| format!("cannot read {}", named()))?;
        let last = split_notes(&String::from_utf8_lossy(&tail)).pop().unwrap_or_default();
        if last.is_empty() {
            return Ok((Notes { file, last }, None));
        }
        let origin = last.lines().next().unwrap_or_default();
        let known = verify(&last, &keys.public(origin)).with_context(|| {
            format!("the last checkpoint of {} does not count; name another file for another log", named())
        })?;
        Ok((Notes { file, last }, Some(known)))
    }

    pub(super) fn append(&mut self, note: String) -> Result<(), String> {
        if self.last != note {
            self.file.append(note.as_bytes()).map_err(|error| failure(self.file.path(), &error))?;
            self.last = note;
        }
        Ok(())
    }
}

impl Entries {
    pub(super) fn open(path: &Path) -> anyhow::Result<Entries> {
        let named = || format!("cannot read the audit file `{}`", path.display());
        let file = AppendedFile::new(path.to_owned(), Parts::Lines);
        let is_ours = file.begins_with(line::START).with_context(named)?;
        ensure!(is_ours, "the audit file `{}` has something else in it; name another file", path.display());
        let lock = match crate::config::lock(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("{}", in_use(path)),
            // It is made before something is appended.
            locked => locked.ok(),
        };
        let (known, at_the_end) = Known::of(&file).with_context(named)?;
        let position = crate::config::beside(path, ".position");
        let text = match fs::read_to_string(&position) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", position.display())),
        };
        let mut lines = text.lines();
        let after = AuditCursor::parse(lines.next().unwrap_or_default().trim());
        let last = lines.filter_map(|line| {
            let [partition, number, digest] = *line.split(' ').collect::<Vec<_>>() else { return None };
            Some((partition.parse().ok()?, (number.parse().ok()?, digest.parse().ok()?)))
        });
        let mut last: Last = last.collect();
        // An earlier version has not written it.
        if last.is_empty() {
            last = at_the_end;
        }
        Ok(Entries { file, lock, position, after, last, is_compared: false, known })
    }

    /// Whether a log of these sizes, with these entries right before the place that was read last, has what the file has.
    pub(super) fn goes_on(&self, sizes: &[u64], before: &[LogEntry]) -> bool {
        let is_long_enough = self.last.iter().all(|(partition, (number, _))| {
            sizes.get(usize::from(*partition)).is_some_and(|size| size >= number)
        });
        let is_the_same = before.iter().all(|entry| {
            self.last.get(&entry.partition).is_none_or(|last| *last == (entry.number, entry.digest))
        });
        is_long_enough && is_the_same
    }

    /// Goes through the log from its beginning.
    pub(super) fn start_again(&mut self) -> Result<(), String> {
        let path = self.file.path().display();
        self.known = Known::whole(self.file.path(), COMPARED)
            .map_err(|error| format!("cannot read `{path}`: {error}"))?;
        self.after = AuditCursor::default();
        self.last = Last::default();
        Ok(())
    }

    /// Appends what is not in the file yet, and then remembers how far the log is in it: of what was appended before a crash,
    /// the end of the file tells.
    pub(super) fn append(&mut self, page: &LogPage) -> Result<(), String> {
        if self.lock.is_none() {
            let path = self.file.path();
            let locked = crate::config::lock(path);
            self.lock = Some(locked.map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => in_use(path),
                _ => failure(path, &error),
            })?);
        }
        let mut text = Vec::new();
        let mut last = self.last.clone();
        for entry in &page.entries {
            if self.known.differs(entry) {
                return Err(format!(
                    "entry {} of partition {} is another one in `{}`, too far from its end to be put right: name another file",
                    entry.number,
                    entry.partition,
                    self.file.path().display()
                ));
            }
            if !self.known.has(entry) {
                line::write(entry, &mut text);
            }
            last.insert(entry.partition, (entry.number, entry.digest));
        }
        if !text.is_empty() {
            self.file.append(&text).map_err(|error| failure(self.file.path(), &error))?;
        }
        if page.is_last {
            self.known = Known::default();
        }
        let mut position = page.next.as_str().to_owned();
        for (partition, (number, digest)) in &last {
            position.push_str(&format!("\n{partition} {number} {digest}"));
        }
        replace(&self.position, &position).map_err(|error| failure(&self.position, &error))?;
        self.after = page.next.clone();
        self.last = last;
        Ok(())
    }
}

impl Known {
    /// Also returns the last entry of each partition.
    fn of(file: &AppendedFile) -> io::Result<(Known, Last)> {
        let (mut known, mut last) = (Known::default(), Last::default());
        for entry in String::from_utf8_lossy(&file.tail()?).lines().filter_map(line::read) {
            known.entries.insert((entry.partition, entry.number, entry.digest));
            known.first.entry(entry.partition).or_insert(entry.number);
            last.insert(entry.partition, (entry.number, entry.digest));
        }
        Ok((known, last))
    }

    /// The last `most` entries of each partition in a file.
    fn whole(path: &Path, most: usize) -> io::Result<Known> {
        let mut known = Known::default();
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Ok(known);
        }
        let mut last: BTreeMap<u16, VecDeque<(u64, Digest)>> = BTreeMap::new();
        for text in io::BufReader::new(file).split(b'\n') {
            let text = text?;
            let Some(entry) = str::from_utf8(&text).ok().and_then(line::read) else { continue };
            let last = last.entry(entry.partition).or_default();
            last.push_back((entry.number, entry.digest));
            if last.len() > most {
                last.pop_front();
                // Which one it is turns out at the end.
                known.first.insert(entry.partition, 0);
            }
        }
        for (partition, last) in last {
            if let Some(first) = known.first.get_mut(&partition) {
                *first = last.iter().map(|(number, _)| *number).min().unwrap_or_default();
            }
            known.entries.extend(last.into_iter().map(|(number, digest)| (partition, number, digest)));
        }
        Ok(known)
    }

    /// Whether the file has another entry in its place, and what comes before that is not known.
    fn differs(&self, entry: &LogEntry) -> bool {
        let LogEntry { partition, number, digest, .. } = entry;
        self.first.get(partition) == Some(number) && !self.entries.contains(&(*partition, *number, *digest))
    }

    fn has(&self, entry: &LogEntry) -> bool {
        let LogEntry { partition, number, digest, .. } = entry;
        self.entries.contains(&(*partition, *number, *digest))
            || self.first.get(partition).is_some_and(|first| number < first)
    }
}

/// Replaces a small file in one step. One that is lost with the power is an older one, whose entries the file has already.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = crate::config::beside(path, ".new");
    fs::write(&new, format!("{text}\n"))?;
    fs::rename(&new, path)
}

fn in_use(path: &Path) -> String {
    format!("the audit file `{}` is in use by another gateway: each needs one of its own", path.display())
}

fn failure(path: &Path, error: &io::Error) -> String {
    format!("cannot write `{}`: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(numbers: std::ops::RangeInclusive<u64>) -> LogPage {
        let entries = numbers.map(|number| {
            let body = format!(r#"{{"action":"a","at":{number},"event":"e"}}"#);
            let digest = Digest::of(body.as_bytes());
            LogEntry { partition: 3, number, digest, body, columns: None }
        });
        LogPage { entries: entries.collect(), next: AuditCursor::parse("9"), is_last: true }
    }

    #[test]
    fn entries_are_in_the_file_once_also_if_the_log_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        entries.append(&page(1..=3)).expect("it is written");
        entries.start_again().expect("it is read");
        assert_eq!(entries.after, AuditCursor::default());
        entries.append(&page(1..=4)).expect("it is written");
        let text = fs::read_to_string(&path).expect("it is there");
        let numbers: Vec<u64> = text.lines().filter_map(line::read).map(|line| line.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    fn other(numbers: std::ops::RangeInclusive<u64>) -> LogPage {
        let mut page = page(numbers);
        for entry in &mut page.entries {
            entry.body = entry.body.replace(r#""event":"e""#, r#""event":"after the restore""#);
            entry.digest = Digest::of(entry.body.as_bytes());
        }
        page
    }

    /// A log that was restored has others under the numbers of those that it has lost.
    #[test]
    fn what_a_restored_log_has_is_in_the_file_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        Entries::open(&path).expect("a new file").append(&page(1..=5)).expect("it is written");
        let mut entries = Entries::open(&path).expect("it is read");
        let [.., last] = &*page(1..=5).entries else { panic!("there are five") };
        assert!(entries.goes_on(&[0, 0, 0, 9], std::slice::from_ref(last)));
        assert!(entries.goes_on(&[0, 0, 0, 9], &[]), "it was removed");
        assert!(!entries.goes_on(&[0, 0, 0, 4], &[]), "it is gone");
        let [.., another] = &*other(4..=5).entries else { panic!("there are two") };
        assert!(!entries.goes_on(&[0, 0, 0, 9], std::slice::from_ref(another)), "it is another one");

        entries.start_again().expect("it is read");
        let mut restored = page(1..=3);
        restored.entries.extend(other(4..=7).entries);
        entries.append(&restored).expect("it is written");
        let text = fs::read_to_string(&path).expect("it is there");
        let digests: Vec<Digest> = text.lines().filter_map(line::read).map(|line| line.digest).collect();
        let expected = page(1..=5).entries.into_iter().chain(other(4..=7).entries);
        assert_eq!(digests, expected.map(|entry| entry.digest).collect::<Vec<_>>());
        drop(entries);
        let entries = Entries::open(&path).expect("it is read");
        let [.., last] = &*restored.entries else { panic!("there are some") };
        assert!(entries.goes_on(&[0, 0, 0, 7], std::slice::from_ref(last)));
    }

    #[test]
    fn a_log_that_is_another_one_further_back_than_is_compared_is_not_appended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        entries.append(&page(1..=5)).expect("it is written");
        entries.start_again().expect("it is read");
        entries.known = Known::whole(&path, 2).expect("it is read");
        assert!(entries.append(&page(1..=6)).is_ok(), "the same one");
        entries.known = Known::whole(&path, 2).expect("it is read");
        let refused = entries.append(&other(2..=7)).expect_err("another one");
        assert!(refused.contains("name another file"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("it is there").lines().count(), 6);
    }

    /// Two would write each entry twice.
    #[test]
    fn one_gateway_alone_appends_to_an_audit_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        entries.append(&page(1..=1)).expect("it is written");
        // As tools do that rotate logs.
        fs::rename(&path, folder.path().join("audit.1")).expect("it is there");
        let refused = Entries::open(&path).err().expect("it is in use").to_string();
        assert!(refused.contains("in use by another gateway"), "{refused}");
        entries.append(&page(2..=2)).expect("it is written");
        // Where no lock can be made at the start, it is made before something is written.
        let folder = folder.path().join("later");
        let mut entries = Entries::open(&folder.join("audit")).expect("nothing is written yet");
        assert!(entries.append(&page(1..=1)).is_err());
        fs::create_dir(&folder).expect("it can be made");
        entries.append(&page(1..=1)).expect("it is written");
        assert!(Entries::open(&folder.join("audit")).is_err(), "it is in use");
    }

    #[test]
    fn a_file_with_something_else_in_it_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let keys = AuditKeys::new([&[1; 32]]).expect("a key");
        for foreign in ["SQLite format 3\0", "# notes\n", "{\"x\":1}\n"] {
            fs::write(&path, foreign).expect("it can be written");
            assert!(Entries::open(&path).is_err(), "{foreign}");
            assert!(Notes::open(path.clone(), &keys).is_err(), "{foreign}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), foreign);
        }
        // What was written in part when the power went.
        fs::write(&path, "countersign-au").expect("it can be written");
        assert!(Notes::open(path.clone(), &keys).is_ok());
        fs::write(&path, "{\"part").expect("it can be written");
        assert!(Entries::open(&path).is_ok());
    }
}
