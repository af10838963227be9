//! The files outside of the store to which a gateway appends: signed checkpoints, and entries of the audit log.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};
use countersign_core::audit::checkpoint::{Checkpoint, ORIGIN};
use countersign_core::lifecycle::Digest;
use countersign_gateway::audit::{AuditKeys, verify};
use countersign_store::{AuditCursor, FileLock, LogEntry, LogPage};

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
    lock: Option<FileLock>,
    position: PathBuf,
    pub(super) after: AuditCursor,
    /// The last entry of each partition that is in the file, up to this place.
    last: Last,
    /// Whether both are in the file of the position.
    is_noted: bool,
    /// Whether the log was seen to have what the file has last. A log that was restored may not have it.
    pub(super) is_compared: bool,
    /// Whether the log was read again from its beginning, so that the place is one of this store.
    was_read_again: bool,
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
    /// The lowest number of each partition among them: what comes before it is further up in the file, or in one that it was
    /// renamed to.
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
        let lock = match FileLock::beside(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("{}", in_use(path)),
            // It is made before something is appended.
            locked => locked.ok(),
        };
        let known = Known::of(&file).with_context(named)?;
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
        let last = last.collect();
        Ok(Entries {
            file,
            lock,
            position,
            after,
            last,
            is_noted: true,
            is_compared: false,
            was_read_again: false,
            known,
        })
    }

    /// Whether a log of these sizes, with these entries right before the place that was read last and this page after it, has
    /// what the file has, and nothing in between.
    pub(super) fn goes_on(&self, sizes: &[u64], before: &[LogEntry], page: &LogPage) -> bool {
        let is_long_enough = self.last.iter().all(|(partition, (number, _))| {
            sizes.get(usize::from(*partition)).is_some_and(|size| size >= number)
        });
        let is_the_same = before.iter().all(|entry| {
            self.last.get(&entry.partition).is_none_or(|last| *last == (entry.number, entry.digest))
        });
        is_long_enough && is_the_same && (self.was_read_again || self.follows(sizes, page))
    }

    /// Whether the entries of a page come right after those that the file has, and those of the last page reach these sizes.
    /// A copy of a store may have its entries in another order, where the place that was read last is another one.
    fn follows(&self, sizes: &[u64], page: &LogPage) -> bool {
        let numbers = self.last.iter().map(|(partition, (number, _))| (*partition, *number));
        let mut last: BTreeMap<u16, u64> = numbers.collect();
        for entry in &page.entries {
            let before = last.insert(entry.partition, entry.number);
            if before.is_some_and(|before| entry.number != before.saturating_add(1)) {
                return false;
            }
        }
        let reaches = |(partition, size): (u16, &u64)| last.get(&partition).is_some_and(|last| last >= size);
        !page.is_last || (0..).zip(sizes).filter(|(_, size)| **size > 0).all(reaches)
    }

    /// Whether the file of the position says how far the log is in the file.
    pub(super) fn is_noted(&self) -> bool {
        self.is_noted
    }

    /// Goes through the log from its beginning.
    pub(super) fn start_again(&mut self) -> Result<(), String> {
        let path = self.file.path().display();
        self.known = Known::whole(self.file.path(), COMPARED)
            .map_err(|error| format!("cannot read `{path}`: {error}"))?;
        self.after = AuditCursor::default();
        self.last = Last::default();
        self.was_read_again = true;
        Ok(())
    }

    /// Appends what is not in the file yet of a page of a log that had these sizes before, and then remembers how far the log
    /// is in it: of what was appended before a crash, the end of the file tells.
    pub(super) fn append(&mut self, page: &LogPage, sizes: &[u64]) -> Result<(), String> {
        if self.lock.is_none() {
            let path = self.file.path();
            let locked = FileLock::beside(path);
            self.lock = Some(locked.map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => in_use(path),
                _ => failure(path, &error),
            })?);
        }
        self.known.limit(sizes);
        let mut text = Vec::new();
        let mut last = self.last.clone();
        for entry in &page.entries {
            if self.known.differs(entry) {
                return Err(format!(
                    "entry {} of partition {} is another one in `{}`, and those before it cannot be compared: name another file",
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
        // They are on disk, and are not appended again whatever becomes of the position.
        self.after = page.next.clone();
        self.last = last;
        self.is_noted = false;
        let mut position = self.after.as_str().to_owned();
        for (partition, (number, digest)) in &self.last {
            position.push_str(&format!("\n{partition} {number} {digest}"));
        }
        replace(&self.position, &position).map_err(|error| failure(&self.position, &error))?;
        self.is_noted = true;
        Ok(())
    }
}

impl Known {
    fn of(file: &AppendedFile) -> io::Result<Known> {
        let mut known = Known::default();
        for entry in String::from_utf8_lossy(&file.tail()?).lines().filter_map(line::read) {
            known.add(entry.partition, entry.number, entry.digest);
        }
        Ok(known)
    }

    /// The last `most` entries of each partition in a file.
    fn whole(path: &Path, most: usize) -> io::Result<Known> {
        let mut known = Known::default();
        let Some(file) = crate::config::open(path)? else { return Ok(known) };
        let mut last: BTreeMap<u16, VecDeque<(u64, Digest)>> = BTreeMap::new();
        for text in io::BufReader::new(file).split(b'\n') {
            let text = text?;
            let Some(entry) = str::from_utf8(&text).ok().and_then(line::read) else { continue };
            let last = last.entry(entry.partition).or_default();
            last.push_back((entry.number, entry.digest));
            if last.len() > most {
                last.pop_front();
            }
        }
        for (partition, last) in last {
            last.into_iter().for_each(|(number, digest)| known.add(partition, number, digest));
        }
        Ok(known)
    }

    fn add(&mut self, partition: u16, number: u64, digest: Digest) {
        self.entries.insert((partition, number, digest));
        let first = self.first.entry(partition).or_insert(number);
        *first = number.min(*first);
    }

    /// Of a log of these sizes that ends before the lowest number, nothing shows that what comes before that one is the same:
    /// a store that was restored has others.
    fn limit(&mut self, sizes: &[u64]) {
        let size = |partition: u16| sizes.get(usize::from(partition)).copied().unwrap_or_default();
        self.first.retain(|partition, first| size(*partition) >= *first);
    }

    /// Whether the file has another entry in its place, and others come before that, which are not known.
    fn differs(&self, entry: &LogEntry) -> bool {
        let LogEntry { partition, number, digest, .. } = entry;
        let is_first = *number > 1 && self.first.get(partition) == Some(number);
        is_first && !self.entries.contains(&(*partition, *number, *digest))
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
        entries.append(&page(1..=3), &sizes(3)).expect("it is written");
        entries.start_again().expect("it is read");
        assert_eq!(entries.after, AuditCursor::default());
        entries.append(&page(1..=4), &sizes(4)).expect("it is written");
        assert_eq!(numbers(&path), [1, 2, 3, 4]);
    }

    /// The sizes of a log that has this many entries in the one partition.
    fn sizes(entries: u64) -> [u64; 4] {
        [0, 0, 0, entries]
    }

    /// The numbers of the entries in a file.
    fn numbers(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).expect("it is there");
        text.lines().filter_map(line::read).map(|line| line.number).collect()
    }

    /// As on a full disk, which has room for the entries and none for the position.
    #[test]
    fn entries_are_in_the_file_once_though_the_position_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        let new = crate::config::beside(&path, ".position.new");
        fs::create_dir(&new).expect("it can be made");
        for (read, last) in [(page(1..=2), 2), (page(3..=3), 3), (nothing(), 3), (nothing(), 3)] {
            let failed = entries.append(&read, &sizes(last)).expect_err("the position is not written");
            assert!(failed.contains("audit.position"), "{failed}");
            assert!(!entries.is_noted() && entries.goes_on(&sizes(last), &[], &nothing()));
            // From where the log is read on.
            assert_eq!(entries.after, AuditCursor::parse("9"));
        }
        assert_eq!(numbers(&path), [1, 2, 3]);
        fs::remove_dir(&new).expect("it is there");
        entries.append(&nothing(), &sizes(3)).expect("there is nothing but the position");
        assert!(entries.is_noted());
        drop(entries);
        let mut entries = Entries::open(&path).expect("it is read");
        assert_eq!(entries.after, AuditCursor::parse("9"));
        entries.append(&page(4..=4), &sizes(4)).expect("it is written");
        assert_eq!(numbers(&path), [1, 2, 3, 4]);
    }

    /// The end of the log.
    fn nothing() -> LogPage {
        LogPage { entries: Vec::new(), next: AuditCursor::parse("9"), is_last: true }
    }

    /// As in a copy of a store that came by way of another kind: its entries are in another order, and after the place that
    /// was read last comes something else.
    #[test]
    fn what_is_left_out_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        entries.append(&page(1..=3), &sizes(3)).expect("it is written");
        assert!(entries.goes_on(&sizes(3), &[], &nothing()), "nothing was added");
        assert!(entries.goes_on(&sizes(5), &[], &page(4..=5)));
        assert!(!entries.goes_on(&sizes(5), &[], &nothing()), "two were added before the place");
        assert!(!entries.goes_on(&sizes(5), &[], &page(4..=4)), "one was added before it");
        assert!(!entries.goes_on(&sizes(5), &[], &page(5..=5)), "one was added before it");
        assert!(!entries.goes_on(&sizes(3), &[], &page(2..=3)), "they are in the file");
        assert!(
            !entries.goes_on(&[1, 0, 0, 3], &[], &nothing()),
            "of a partition that the file has nothing of"
        );
        let unfinished = LogPage { is_last: false, ..page(4..=4) };
        assert!(entries.goes_on(&sizes(5), &[], &unfinished), "there is more");
        // What is not there either when all of the log is read is gone.
        entries.start_again().expect("it is read");
        entries.append(&page(5..=5), &sizes(5)).expect("it is written");
        assert!(entries.goes_on(&[1, 0, 0, 7], &[], &page(7..=7)));
    }

    /// Of a partition that has entries in the file, those before them are in the one that the file was renamed to.
    #[test]
    fn what_was_rotated_away_is_not_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        entries.append(&page(1..=31), &sizes(31)).expect("it is written");
        fs::rename(&path, folder.path().join("audit.1")).expect("it is there");
        entries.append(&page(32..=36), &sizes(36)).expect("it is written");
        entries.start_again().expect("it is read");
        entries.append(&page(1..=37), &sizes(37)).expect("it is written");
        assert_eq!(numbers(&path), (32..=37).collect::<Vec<_>>());

        // A store that was restored from before that may have others there.
        entries.start_again().expect("it is read");
        let mut restored = page(1..=20);
        restored.entries.extend(other(21..=25).entries);
        entries.append(&restored, &sizes(25)).expect("it is written");
        assert_eq!(numbers(&path), (32..=37).chain(1..=25).collect::<Vec<_>>());
        // Or others from the beginning on.
        entries.start_again().expect("it is read");
        entries.append(&restored, &sizes(25)).expect("it is written");
        assert_eq!(numbers(&path), (32..=37).chain(1..=25).collect::<Vec<_>>(), "they are in the file");
        let anew = folder.path().join("anew");
        let mut other_file = Entries::open(&anew).expect("a new file");
        other_file.append(&page(1..=3), &sizes(3)).expect("it is written");
        other_file.start_again().expect("it is read");
        other_file.append(&other(1..=3), &sizes(3)).expect("it is written");
        assert_eq!(numbers(&anew), [1, 2, 3, 1, 2, 3]);
        // Also if it ended in the midst of that.
        drop(entries);
        let mut entries = Entries::open(&path).expect("it is read");
        entries.append(&other(26..=40), &sizes(40)).expect("it is written");
        assert_eq!(numbers(&path), (32..=37).chain(1..=40).collect::<Vec<_>>());
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
        Entries::open(&path).expect("a new file").append(&page(1..=5), &sizes(5)).expect("it is written");
        let mut entries = Entries::open(&path).expect("it is read");
        let [.., last] = &*page(1..=5).entries else { panic!("there are five") };
        let added = page(6..=9);
        assert!(entries.goes_on(&sizes(9), std::slice::from_ref(last), &added));
        assert!(entries.goes_on(&sizes(9), &[], &added), "it was removed");
        assert!(!entries.goes_on(&sizes(4), &[], &nothing()), "it is gone");
        let [.., another] = &*other(4..=5).entries else { panic!("there are two") };
        assert!(!entries.goes_on(&sizes(9), std::slice::from_ref(another), &added), "it is another one");

        entries.start_again().expect("it is read");
        let mut restored = page(1..=3);
        restored.entries.extend(other(4..=7).entries);
        entries.append(&restored, &sizes(7)).expect("it is written");
        let text = fs::read_to_string(&path).expect("it is there");
        let digests: Vec<Digest> = text.lines().filter_map(line::read).map(|line| line.digest).collect();
        let expected = page(1..=5).entries.into_iter().chain(other(4..=7).entries);
        assert_eq!(digests, expected.map(|entry| entry.digest).collect::<Vec<_>>());
        drop(entries);
        let entries = Entries::open(&path).expect("it is read");
        let [.., last] = &*restored.entries else { panic!("there are some") };
        assert!(entries.goes_on(&sizes(7), std::slice::from_ref(last), &nothing()));
    }

    #[test]
    fn a_log_that_is_another_one_further_back_than_is_compared_is_not_appended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        entries.append(&page(1..=5), &sizes(5)).expect("it is written");
        entries.start_again().expect("it is read");
        entries.known = Known::whole(&path, 2).expect("it is read");
        assert!(entries.append(&page(1..=6), &sizes(6)).is_ok(), "the same one");
        entries.known = Known::whole(&path, 2).expect("it is read");
        let refused = entries.append(&other(2..=7), &sizes(7)).expect_err("another one");
        assert!(refused.contains("name another file"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("it is there").lines().count(), 6);
    }

    /// Two would write each entry twice.
    #[test]
    fn one_gateway_alone_appends_to_an_audit_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit");
        let mut entries = Entries::open(&path).expect("a new file");
        entries.append(&page(1..=1), &sizes(1)).expect("it is written");
        // As tools do that rotate logs.
        fs::rename(&path, folder.path().join("audit.1")).expect("it is there");
        let refused = Entries::open(&path).err().expect("it is in use").to_string();
        assert!(refused.contains("in use by another gateway"), "{refused}");
        entries.append(&page(2..=2), &sizes(2)).expect("it is written");
        // Where no lock can be made at the start, it is made before something is written.
        let folder = folder.path().join("later");
        let mut entries = Entries::open(&folder.join("audit")).expect("nothing is written yet");
        assert!(entries.append(&page(1..=1), &sizes(1)).is_err());
        fs::create_dir(&folder).expect("it can be made");
        entries.append(&page(1..=1), &sizes(1)).expect("it is written");
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
