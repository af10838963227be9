//! What people did in Slack while the store could not take it: kept on a disk of this machine until it can.
//!
//! Each press is a file of its own, `TIME-IDENTITY.press`, which begins with its MAC: whoever can write to the folder
//! cannot act in anybody's name. A press that is kept twice is one file.
//!
//! What one person does on one request stays in the order in which they did it: see [`Spool::turn`],
//! [`Spool::is_behind`] and [`Spool::next`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::lifecycle::{Digest, RequestId, Timestamp};
use countersign_core::mac::hmac;
use countersign_slack::{Interaction, InteractionKind};
use countersign_store::StoreUrl;
use prometheus::{IntGauge, Registry};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::keys::Keys;

#[cfg(test)]
mod tests;

/// The most presses that are kept: people press no faster, and what fills the disk is no press.
const MOST: usize = 10_000;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The longest pause before a file that cannot be read is tried again, and between two lines of the log about it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

const PRESS: &str = ".press";

/// What a file ends with that is set aside, since it is not what was kept.
const DAMAGED: &str = ".damaged";

/// A press, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Press {
    /// When it came.
    pub(crate) at: Timestamp,
    /// What was pressed, by whom, in front of what.
    pub(crate) interaction: Interaction,
}

impl Press {
    /// Whose it is, on which request.
    pub(crate) fn subject(&self) -> Subject {
        Subject { user: self.interaction.user.clone(), request: self.interaction.request }
    }

    /// Whether it can help a request to be approved.
    pub(crate) fn agrees(&self) -> bool {
        use InteractionKind::{Acknowledge, Approve, Overrides, ReviewPage};
        matches!(self.interaction.kind, Approve | Acknowledge(_) | Overrides { .. } | ReviewPage)
    }

    /// Whether it says that the person does not agree, whatever they agreed to before.
    pub(crate) fn disagrees(&self) -> bool {
        self.denies() || self.interaction.kind == InteractionKind::Withdraw
    }

    /// Whether it is a denial.
    pub(crate) fn denies(&self) -> bool {
        matches!(self.interaction.kind, InteractionKind::Deny(_) | InteractionKind::DenyBecause(_))
    }
}

/// A person and a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    user: String,
    request: RequestId,
}

/// Names a file that is kept: ordered by when the press came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    at: Timestamp,
    identity: Digest,
}

/// Why a press is not kept, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("Slack did not say which press it is")]
    Nameless,
    #[error("there are {MOST} presses already")]
    Full,
    #[error("it is not what was kept: {0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How many presses wait in the folder beside an embedded store. Blocks.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn waiting(store: &StoreUrl) -> io::Result<usize> {
    let Some(folder) = crate::config::default_spool(store) else { return Ok(0) };
    match fs::read_dir(folder) {
        Ok(files) => {
            let names = files.map(|file| Ok(file?.file_name())).collect::<io::Result<Vec<_>>>()?;
            Ok(names.iter().filter(|name| name.to_str().is_some_and(|name| name.ends_with(PRESS))).count())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// The folder with the presses.
pub(crate) struct Spool {
    folder: PathBuf,
    keys: Vec<[u8; 32]>,
    known: Mutex<Known>,
    /// A file was written or removed, or that failed.
    settled: Condvar,
    turns: Mutex<BTreeMap<Subject, Arc<tokio::sync::Mutex<()>>>>,
    count: IntGauge,
}

/// Whoever has it handles the presses of one person on one request.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// The presses that are kept.
type Known = BTreeMap<Name, Kept>;

/// A press that is kept, or about to be.
#[derive(Debug)]
struct Kept {
    /// What is in the file. `None` if it could not be read as the folder was opened.
    about: Option<About>,
    /// Whether the file is being written or removed, so that nobody may rely on it.
    is_changing: bool,
    /// How many work on it.
    holders: usize,
    /// Whether it may have been said that it is kept.
    is_promised: bool,
    put_off: Option<PutOff>,
}

/// What must be known of a press without reading it.
#[derive(Debug)]
struct About {
    subject: Subject,
    disagrees: bool,
}

/// A file that cannot be read for now.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    until: Instant,
    pause: Duration,
    logged: Instant,
}

impl Kept {
    /// One that was found in the folder.
    fn found(about: Option<About>) -> Kept {
        Kept { about, is_changing: false, holders: 0, is_promised: true, put_off: None }
    }

    fn is_of(&self, subject: &Subject) -> bool {
        self.about.as_ref().is_some_and(|about| about.subject == *subject)
    }
}

impl About {
    fn of(press: &Press) -> About {
        About { subject: press.subject(), disagrees: press.disagrees() }
    }
}

impl Spool {
    /// Opens the folder, and makes it if there is none. Blocks.
    ///
    /// # Errors
    /// If it cannot be made or read, or a metric of the same name is registered already.
    pub(crate) fn open(folder: &Path, keys: &Keys, registry: &Registry) -> anyhow::Result<Spool> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let count =
            IntGauge::new("slack_presses_spooled", "Presses in Slack that wait on disk for the store.")?;
        registry.register(Box::new(count.clone()))?;
        let spool = Spool {
            folder: folder.to_owned(),
            keys: keys.all().map(|key| key.derive("countersign spool")).collect(),
            known: Mutex::default(),
            settled: Condvar::new(),
            turns: Mutex::default(),
            count,
        };
        let mut known = Known::new();
        for entry in fs::read_dir(folder)? {
            let file = entry?.file_name();
            let Some(file) = file.to_str() else { continue };
            if let Some(name) = Name::parse(file) {
                // Whoever applies it says what is wrong with it.
                known.insert(name, Kept::found(spool.read(&name).ok().as_ref().map(About::of)));
            } else if file.ends_with(".new") {
                // It was not acknowledged.
                fs::remove_file(folder.join(file))?;
            }
        }
        spool.show(&known);
        *spool.known() = known;
        Ok(spool)
    }

    /// How many presses wait for the store.
    pub(crate) fn waiting(&self) -> usize {
        self.known().len()
    }

    /// Waits until nobody handles an earlier press of this person on this request: a write that takes long must not let
    /// the next one overtake it.
    pub(crate) async fn turn(&self, subject: &Subject) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(subject.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Whether a press has to wait, since an earlier one of the same person on the same request does. A file that cannot be
    /// read lets others pass: what it says is judged by what they did since.
    pub(crate) fn is_behind(&self, press: &Press) -> bool {
        let (identity, subject) = (press.interaction.identity(), press.subject());
        self.known()
            .iter()
            .take_while(|(name, _)| Some(name.identity) != identity)
            .any(|(_, kept)| kept.put_off.is_none() && kept.is_of(&subject))
    }

    /// When a press came first, if it is kept.
    pub(crate) fn kept_since(&self, press: &Press) -> Option<Timestamp> {
        let identity = press.interaction.identity()?;
        self.known().keys().find(|name| name.identity == identity).map(|name| name.at)
    }

    /// Whether the same person took it back on the same request later than `at`, by a press that is kept, too.
    pub(crate) fn is_taken_back(&self, subject: &Subject, at: Timestamp) -> bool {
        self.known().iter().any(|(name, kept)| {
            name.at > at
                && kept.about.as_ref().is_some_and(|about| about.disagrees && about.subject == *subject)
        })
    }

    /// Whether something of this person on this request is kept.
    pub(crate) fn has(&self, subject: &Subject) -> bool {
        self.known().values().any(|kept| kept.is_of(subject))
    }

    /// Keeps a press, which is durable once this returns. Whoever calls it holds the press until [`Spool::release`],
    /// [`Spool::abandon`] or [`Spool::forget`]. If it is being kept already, that is waited for. Blocks.
    ///
    /// # Errors
    /// If there is no room, or the disk fails.
    pub(crate) fn keep(&self, press: &Press) -> Result<Name, SpoolError> {
        match self.begin(press)? {
            Begun::Durable(name) => Ok(name),
            Begun::Write(name) => self.finish(name, self.write(&name, press)),
        }
    }

    fn begin(&self, press: &Press) -> Result<Begun, SpoolError> {
        let identity = press.interaction.identity().ok_or(SpoolError::Nameless)?;
        let mut known = self.known();
        loop {
            match known.iter_mut().find(|(name, _)| name.identity == identity) {
                None => break,
                Some((_, kept)) if kept.is_changing => {}
                Some((name, kept)) => {
                    kept.holders += 1;
                    return Ok(Begun::Durable(*name));
                }
            }
            known = self.settled.wait(known).unwrap_or_else(PoisonError::into_inner);
        }
        if known.len() >= MOST {
            return Err(SpoolError::Full);
        }
        let name = Name { at: press.at, identity };
        let about = Some(About::of(press));
        known.insert(name, Kept { about, is_changing: true, holders: 1, is_promised: false, put_off: None });
        self.show(&known);
        Ok(Begun::Write(name))
    }

    fn finish(&self, name: Name, written: Result<(), SpoolError>) -> Result<Name, SpoolError> {
        if written.is_err() {
            // A part of it may be there, and must not be found later: nobody is told that it is kept.
            let _ = fs::remove_file(self.path(&name));
            self.lose(&name);
        } else if let Some(kept) = self.known().get_mut(&name) {
            kept.is_changing = false;
        }
        self.settled.notify_all();
        written.map(|()| name)
    }

    /// Whoever kept the press says so, and leaves it to [`Spool::next`].
    pub(crate) fn release(&self, name: &Name) {
        if let Some(kept) = self.known().get_mut(name) {
            kept.holders = kept.holders.saturating_sub(1);
            kept.is_promised = true;
        }
    }

    /// Whoever kept the press has said that it is not kept. It is removed, unless somebody else relies on it. Blocks.
    ///
    /// # Errors
    /// As [`Spool::forget`].
    pub(crate) fn abandon(&self, name: &Name) -> io::Result<()> {
        if let Some(kept) = self.known().get_mut(name) {
            kept.holders = kept.holders.saturating_sub(1);
            if kept.holders > 0 || kept.is_promised {
                return Ok(());
            }
            kept.is_changing = true;
        }
        self.forget(name)
    }

    /// The press that came first of those that can be applied now: nobody holds it, nor an earlier one of the same person on
    /// the same request.
    pub(crate) fn next(&self, now: Instant) -> Option<Name> {
        let known = self.known();
        let mut held = BTreeSet::new();
        for (name, kept) in &*known {
            let subject = kept.about.as_ref().map(|about| &about.subject);
            if kept.is_changing || kept.holders > 0 {
                held.extend(subject);
            } else if kept.put_off.is_none_or(|put_off| put_off.until <= now)
                && subject.is_none_or(|subject| !held.contains(subject))
            {
                return Some(*name);
            }
        }
        None
    }

    /// The press cannot be read for now: it is tried again later, and others are applied meanwhile. Whether that is to be
    /// logged: it is once a minute.
    pub(crate) fn put_off(&self, name: &Name, now: Instant) -> bool {
        let mut known = self.known();
        let Some(kept) = known.get_mut(name) else { return false };
        let pause = kept.put_off.map_or(Duration::from_secs(1), |before| before.pause * 2).min(LONGEST_PAUSE);
        let logged = kept.put_off.map(|before| before.logged).filter(|logged| now < *logged + LONGEST_PAUSE);
        kept.put_off = Some(PutOff { until: now + pause, pause, logged: logged.unwrap_or(now) });
        logged.is_none()
    }

    /// Reads a press. Blocks.
    ///
    /// # Errors
    /// If it is not what was kept, or the disk fails.
    pub(crate) fn read(&self, name: &Name) -> Result<Press, SpoolError> {
        let path = self.path(name);
        let file = fs::metadata(&path)?;
        if !file.is_file() {
            return Err(SpoolError::Damaged("it is no file"));
        }
        if file.len() > LARGEST {
            return Err(SpoolError::Damaged("it is too large"));
        }
        let text = fs::read(path)?;
        let mac = text.get(..64).zip(text.get(64..65)).filter(|(_, end)| *end == b"\n");
        let (mac, _) = mac.ok_or(SpoolError::Damaged("it has no MAC"))?;
        let body = text.get(65..).unwrap_or_default();
        let is_ours = |key: &[u8; 32]| bool::from(hex::encode(mac_of(key, name, body)).as_bytes().ct_eq(mac));
        if !self.keys.iter().any(is_ours) {
            return Err(SpoolError::Damaged("its MAC is wrong"));
        }
        serde_json::from_slice(body).map_err(|_| SpoolError::Damaged("it is of another version"))
    }

    /// The press is done with, whoever else holds it. Blocks.
    ///
    /// # Errors
    /// If the disk fails; then it is not returned again by this process, and counts once in the next one, too.
    pub(crate) fn forget(&self, name: &Name) -> io::Result<()> {
        self.remove(name, |path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Keeps a file that is no press out of the way. Blocks.
    ///
    /// # Errors
    /// If the disk fails; then it is not returned again by this process.
    pub(crate) fn set_aside(&self, name: &Name) -> io::Result<()> {
        self.remove(name, |path| fs::rename(path, self.folder.join(format!("{name}{DAMAGED}"))))
    }

    /// The file goes before its name does: else one that is kept again meanwhile would go in its place.
    fn remove(&self, name: &Name, file: impl FnOnce(PathBuf) -> io::Result<()>) -> io::Result<()> {
        if let Some(kept) = self.known().get_mut(name) {
            kept.is_changing = true;
        }
        let removed = file(self.path(name));
        self.lose(name);
        self.settled.notify_all();
        removed
    }

    fn write(&self, name: &Name, press: &Press) -> Result<(), SpoolError> {
        let body = serde_json::to_vec(press).map_err(io::Error::other)?;
        let key = self.keys.first().ok_or(SpoolError::Damaged("there is no key"))?;
        let new = self.folder.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(hex::encode(mac_of(key, name, &body)).as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&new, self.path(name))?;
        Ok(File::open(&self.folder)?.sync_all()?)
    }

    fn lose(&self, name: &Name) {
        let mut known = self.known();
        known.remove(name);
        self.show(&known);
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(name.to_string())
    }

    fn show(&self, known: &Known) {
        self.count.set(i64::try_from(known.len()).unwrap_or(i64::MAX));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it takes to keep a press.
enum Begun {
    /// It is kept already.
    Durable(Name),
    /// Whoever is told this has to write it.
    Write(Name),
}

impl Name {
    /// `None` if there is no press in a file of this name.
    fn parse(file: &str) -> Option<Name> {
        let (at, identity) = file.strip_suffix(PRESS)?.split_once('-')?;
        let name = Name { at: Timestamp::from_millis(at.parse().ok()?), identity: identity.parse().ok()? };
        (name.to_string() == file).then_some(name)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:015}-{}{PRESS}", self.at.as_millis(), self.identity)
    }
}

/// The MAC of a press covers its name, and with it when it came.
fn mac_of(key: &[u8; 32], name: &Name, body: &[u8]) -> [u8; 32] {
    hmac(key, &[name.to_string().as_bytes(), b"\0", body].concat())
}

/// Does something with the spool on a thread that may block.
///
/// # Errors
/// As what is done, or if it panics.
pub(crate) async fn blocking<T: Send + 'static>(
    spool: &Arc<Spool>,
    work: impl FnOnce(&Spool) -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    let spool = Arc::clone(spool);
    let done = tokio::task::spawn_blocking(move || work(&spool)).await;
    done.unwrap_or_else(|stopped| Err(io::Error::other(stopped).into()))
}
