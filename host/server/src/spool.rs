//! What people did in Slack while the store could not take it: kept on a disk of this machine until it can.
//!
//! Each press is a file of its own, `TIME-IDENTITY.press`, which begins with its MAC: whoever can write to the folder
//! cannot act in anybody's name. A press that is kept twice is one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::mac::hmac;
use countersign_slack::Interaction;
use countersign_store::StoreUrl;
use prometheus::{IntGauge, Registry};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::keys::Keys;

/// The most presses that are kept: people press no faster, and what fills the disk is no press.
const MOST: usize = 10_000;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

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

/// The name of a file that is kept: ordered by when the press came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

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
    count: IntGauge,
}

/// The presses that are kept.
#[derive(Debug, Default)]
struct Known {
    /// By the press's identity.
    names: BTreeMap<Digest, Name>,
    /// Those that somebody is working on.
    held: BTreeSet<Name>,
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
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(identity) = identity(name) {
                names.insert(identity, Name(name.to_owned()));
            } else if name.ends_with(".new") {
                // It was not acknowledged.
                fs::remove_file(folder.join(name))?;
            }
        }
        let keys = keys.all().map(|key| key.derive("countersign spool")).collect();
        let known = Mutex::new(Known { names, held: BTreeSet::new() });
        let spool = Spool { folder: folder.to_owned(), keys, known, count };
        spool.show(&spool.known());
        Ok(spool)
    }

    /// How many presses wait for the store.
    pub(crate) fn waiting(&self) -> usize {
        self.known().names.len()
    }

    /// Keeps a press, which is durable once this returns. Whoever calls it holds the press until [`Spool::release`] or
    /// [`Spool::forget`]. Blocks.
    ///
    /// # Errors
    /// If there is no room, or the disk fails.
    pub(crate) fn keep(&self, press: &Press) -> Result<Name, SpoolError> {
        let identity = press.interaction.identity().ok_or(SpoolError::Nameless)?;
        let name = {
            let mut known = self.known();
            if let Some(name) = known.names.get(&identity).cloned() {
                known.held.insert(name.clone());
                return Ok(name);
            }
            if known.names.len() >= MOST {
                return Err(SpoolError::Full);
            }
            let name = Name(format!("{:015}-{identity}{PRESS}", press.at.as_millis()));
            known.names.insert(identity, name.clone());
            known.held.insert(name.clone());
            self.show(&known);
            name
        };
        let written = self.write(&name, press);
        if written.is_err() {
            self.lose(&name);
        }
        written.map(|()| name)
    }

    /// Whoever kept the press leaves it to [`Spool::next`].
    pub(crate) fn release(&self, name: &Name) {
        self.known().held.remove(name);
    }

    /// The press that came first of those that nobody holds.
    pub(crate) fn next(&self) -> Option<Name> {
        let known = self.known();
        known.names.values().filter(|name| !known.held.contains(name)).min().cloned()
    }

    /// Reads a press. Blocks.
    ///
    /// # Errors
    /// If it is not what was kept, or the disk fails.
    pub(crate) fn read(&self, name: &Name) -> Result<Press, SpoolError> {
        let path = self.path(name);
        if fs::metadata(&path)?.len() > LARGEST {
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

    /// The press is done with. Blocks.
    ///
    /// # Errors
    /// If the disk fails; then it is not returned again by this process, and counts once in the next one, too.
    pub(crate) fn forget(&self, name: &Name) -> io::Result<()> {
        self.lose(name);
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps a file that is no press out of the way. Blocks.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn set_aside(&self, name: &Name) -> io::Result<()> {
        self.lose(name);
        fs::rename(self.path(name), self.folder.join(format!("{}{DAMAGED}", name.0)))
    }

    fn write(&self, name: &Name, press: &Press) -> Result<(), SpoolError> {
        let body = serde_json::to_vec(press).map_err(io::Error::other)?;
        let key = self.keys.first().ok_or(SpoolError::Damaged("there is no key"))?;
        let new = self.folder.join(format!("{}.new", name.0));
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
        known.held.remove(name);
        known.names.retain(|_, known| known != name);
        self.show(&known);
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(&name.0)
    }

    fn show(&self, known: &Known) {
        self.count.set(i64::try_from(known.names.len()).unwrap_or(i64::MAX));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The MAC of a press covers its name, and with it when it came.
fn mac_of(key: &[u8; 32], name: &Name, body: &[u8]) -> [u8; 32] {
    hmac(key, &[name.0.as_bytes(), b"\0", body].concat())
}

/// The identity of a press, by the name of its file.
fn identity(name: &str) -> Option<Digest> {
    let (at, identity) = name.strip_suffix(PRESS)?.split_once('-')?;
    at.bytes().all(|byte| byte.is_ascii_digit()).then(|| identity.parse().ok())?
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

#[cfg(test)]
mod tests {
    use countersign_core::lifecycle::RequestId;
    use countersign_slack::{InteractionKind, Seen, Source, Workspace};
    use tempfile::TempDir;

    use super::*;
    use crate::keys::MasterKey;

    fn keys(current: u8, previous: Option<u8>) -> Keys {
        let key = |number| MasterKey::new([number; 32]);
        Keys { current: key(current), previous: previous.map(key) }
    }

    fn open(folder: &TempDir, keys: &Keys) -> Spool {
        Spool::open(&folder.path().join("spool"), keys, &Registry::new()).unwrap()
    }

    fn press(at: u64, trigger: &str) -> Press {
        let interaction = Interaction {
            user: "U0ALICE".into(),
            workspace: Workspace::default(),
            request: RequestId::new(Timestamp::EPOCH, 1, 2),
            kind: InteractionKind::Deny(Some("a reason".into())),
            seen: Seen::Payload(Digest::of(b"seen")),
            source: Source { trigger: Some(trigger.into()), ..Source::default() },
        };
        Press { at: Timestamp::from_millis(at), interaction }
    }

    #[test]
    fn presses_are_kept_in_order_until_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(&folder, &keys(1, None));
        let (late, early) = (press(20, "late"), press(3, "early"));
        let first = spool.keep(&late).unwrap();
        assert_eq!(spool.next(), None, "whoever kept it holds it");
        assert_eq!(spool.keep(&press(99, "late")).unwrap(), first, "it is delivered again");
        spool.keep(&early).unwrap();
        assert_eq!(spool.count.get(), 2);
        drop(spool);

        // Another process, after the secret was changed.
        let spool = open(&folder, &keys(2, Some(1)));
        assert_eq!(spool.count.get(), 2);
        let next = spool.next().unwrap();
        assert_eq!(spool.read(&next).unwrap(), early);
        spool.forget(&next).unwrap();
        let next = spool.next().unwrap();
        assert_eq!((spool.read(&next).unwrap(), &next), (late, &first));
        spool.forget(&next).unwrap();
        spool.forget(&next).unwrap();
        assert_eq!((spool.next(), spool.count.get()), (None, 0));
        assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 0);
    }

    #[test]
    fn what_was_changed_is_no_press() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(&folder, &keys(1, None));
        let name = spool.keep(&press(3, "one")).unwrap();
        spool.release(&name);
        let path = spool.path(&name);
        let kept = fs::read(&path).unwrap();
        for at in 0..kept.len() {
            let mut changed = kept.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(matches!(spool.read(&name), Err(SpoolError::Damaged(_))), "byte {at}");
        }
        for part in [&kept[..0], &kept[..64], &kept[..65], &kept[..kept.len() - 1]] {
            fs::write(&path, part).unwrap();
            assert!(matches!(spool.read(&name), Err(SpoolError::Damaged(_))), "{} bytes", part.len());
        }
        fs::write(&path, &kept).unwrap();
        assert!(spool.read(&name).is_ok());
        let other = open(&folder, &keys(3, None));
        assert!(matches!(other.read(&name), Err(SpoolError::Damaged(_))), "under another secret");

        // Under another name it would be another press, at another time.
        let renamed = Name(name.0.replace("000000000000003", "000000000000004"));
        fs::rename(&path, spool.path(&renamed)).unwrap();
        let spool = open(&folder, &keys(1, None));
        assert!(matches!(spool.read(&renamed), Err(SpoolError::Damaged(_))));
        spool.set_aside(&renamed).unwrap();
        assert_eq!(open(&folder, &keys(1, None)).next(), None);
        assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 1, "it is still there to be looked at");
    }

    #[test]
    fn a_press_that_slack_does_not_name_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut nameless = press(3, "one");
        nameless.interaction.source.trigger = None;
        let spool = open(&folder, &keys(1, None));
        assert!(matches!(spool.keep(&nameless), Err(SpoolError::Nameless)));
        fs::write(spool.folder.join("half.press.new"), "half").unwrap();
        assert_eq!(open(&folder, &keys(1, None)).next(), None);
        assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 0, "what was not acknowledged is removed");
    }
}
