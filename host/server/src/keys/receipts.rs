//! The keys that receipts are signed with: a file of their own, since they are worth nothing for anything else, and others
//! are worth nothing for receipts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::lifecycle::Timestamp;
use countersign_gateway::receipts::{ReceiptKeys, SigningKey, VerifyingKey};
use countersign_store::{Store, StoreUrl};
use zeroize::Zeroizing;

use super::{beside, file};

/// The document of the store that says which key signed last.
const DOCUMENT: &str = "key:receipts";

const HEADING: &str = "# The keys that receipts of a Countersign gateway are signed with. Keep this secret, and back it up: without it\n\
                       # earlier receipts can no longer be checked.\n\
                       # sign FROM SEED: signs what is decided from this time on. publish KEY: signs nothing any more.\n";

/// The contents of the file.
pub(super) struct ReceiptKeyFile {
    /// By the time from which on they count.
    pub(super) signing: Vec<(Timestamp, Zeroizing<[u8; 32]>)>,
    pub(super) retired: Vec<VerifyingKey>,
}

/// The file of a store's keys: `PATH.receipts.key` beside the database `PATH`.
pub(crate) fn default_file(store: &StoreUrl) -> Option<PathBuf> {
    beside(store, ".receipts.key")
}

/// The keys of the file that is configured, else of the one beside the database, which is made if there is none. `None` for a
/// store that has no file to lie beside, and that several instances may share: they would sign with different keys. Those of
/// a store in memory end with it. Blocks.
///
/// # Errors
/// If the file cannot be read or made, is not its owner's alone, or if the one that is configured is not there.
pub(crate) fn load(
    store: &StoreUrl,
    configured: Option<&Path>,
    now: Timestamp,
) -> anyhow::Result<Option<ReceiptKeys>> {
    let (path, may_be_made) = match (configured, default_file(store)) {
        (Some(path), _) => (path.to_owned(), false),
        (None, Some(path)) => (path, true),
        (None, None) if store.is_lost_at_exit() => {
            return ReceiptKeyFile::generate(Timestamp::EPOCH)?.keys().map(Some);
        }
        (None, None) => return Ok(None),
    };
    if let Some(found) = ReceiptKeyFile::read(&path)? {
        return found.keys().map(Some);
    }
    ensure!(may_be_made, "{}", missing(&path));
    let made = ReceiptKeyFile::generate(Timestamp::EPOCH)?;
    made.create(&path)?;
    tracing::info!(file = %path.display(), at = %now, "key file for receipts made; back it up");
    made.keys().map(Some)
}

fn missing(path: &Path) -> String {
    format!("there is no key file `{}`; `countersign receipt rotate-keys` makes one", path.display())
}

/// Checks that [`load`] would find keys or could make them, and makes none. Blocks.
///
/// # Errors
/// As [`load`].
pub(crate) fn preview(store: &StoreUrl, configured: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = configured.map(Path::to_owned).or_else(|| default_file(store)) else { return Ok(()) };
    match ReceiptKeyFile::read(&path)? {
        Some(found) => found.keys().map(drop),
        None => {
            ensure!(configured.is_none(), "{}", missing(&path));
            Ok(())
        }
    }
}

/// A file of keys, and what was done with it.
pub(crate) struct Rotated {
    pub(crate) done: Done,
    /// The newest key signs what is decided from this time on.
    pub(crate) from: Timestamp,
    /// The ids of the keys that are published, the newest first.
    pub(crate) kids: Vec<String>,
}

/// What was done with a file of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// There was none.
    Made,
    /// It has one key more.
    Rotated,
    /// It is as it was.
    Kept,
}

/// Makes a new key in the file, which is made if it is not there; with `if_missing`, nothing else is done. Blocks.
///
/// # Errors
/// If the file cannot be read or written, or a key of it does not count yet.
pub(crate) fn rotate(
    path: &Path,
    from: Timestamp,
    now: Timestamp,
    if_missing: bool,
) -> anyhow::Result<Rotated> {
    let (file, done) = match ReceiptKeyFile::read(path)? {
        Some(found) if if_missing => (found, Done::Kept),
        Some(found) => {
            let rotated = found.rotated(from, now)?;
            rotated.replace(path)?;
            (rotated, Done::Rotated)
        }
        None => {
            let made = ReceiptKeyFile::generate(Timestamp::EPOCH)?;
            made.create(path)?;
            (made, Done::Made)
        }
    };
    let kids = file.keys()?.published().keys.into_iter().filter_map(|key| key.kid).collect();
    let from = file.signing.last().map_or(Timestamp::EPOCH, |(from, _)| *from);
    Ok(Rotated { done, from, kids })
}

/// Says so if receipts were signed with a key that is no longer published: they can no longer be checked with what this
/// gateway publishes.
///
/// # Errors
/// If the store cannot be read or written to.
pub(crate) async fn check(keys: &ReceiptKeys, store: &dyn Store) -> anyhow::Result<()> {
    let published: Vec<String> = keys.published().keys.into_iter().filter_map(|key| key.kid).collect();
    let used = store.recall(DOCUMENT).await.context("cannot read which key signed receipts")?;
    let used = used.map(|kid| String::from_utf8_lossy(&kid).into_owned());
    if let Some(missing) = used.as_ref().filter(|used| !published.contains(used)) {
        tracing::warn!(
            key = missing,
            "receipts were signed with a key that is not in the key file any more: they cannot be checked with \
             `/.well-known/jwks.json`; put its line back as `publish KEY`"
        );
    }
    match published.first() {
        Some(newest) if used.as_ref() != Some(newest) => store
            .keep(DOCUMENT, newest.clone().into_bytes())
            .await
            .context("cannot store which key signs receipts"),
        _ => Ok(()),
    }
}

impl ReceiptKeyFile {
    /// One new key.
    pub(super) fn generate(from: Timestamp) -> anyhow::Result<ReceiptKeyFile> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).context("the system gives no randomness")?;
        Ok(ReceiptKeyFile { signing: vec![(from, seed)], retired: Vec::new() })
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn read(path: &Path) -> anyhow::Result<Option<ReceiptKeyFile>> {
        let Some(text) = file::read(path)? else { return Ok(None) };
        parse(&text).map(Some).with_context(|| format!("in the key file `{}`", path.display()))
    }

    pub(super) fn create(&self, path: &Path) -> anyhow::Result<()> {
        file::create(path, &self.text())
    }

    pub(super) fn replace(&self, path: &Path) -> anyhow::Result<()> {
        file::replace(path, &self.text())
    }

    /// A new key signs from `from` on. Of the keys before it, those that no longer count at `now` only stay published.
    pub(super) fn rotated(self, from: Timestamp, now: Timestamp) -> anyhow::Result<ReceiptKeyFile> {
        let ReceiptKeyFile { mut signing, mut retired } = self;
        if let Some((last, _)) = signing.iter().find(|(last, _)| *last > now) {
            bail!("a key that was made earlier counts from {last} on; rotate again after that");
        }
        let counts = signing.pop();
        for (from, seed) in signing {
            retired.push(public(from, &seed)?);
        }
        let ReceiptKeyFile { signing: new, .. } = ReceiptKeyFile::generate(from)?;
        Ok(ReceiptKeyFile { signing: counts.into_iter().chain(new).collect(), retired })
    }

    pub(super) fn keys(&self) -> anyhow::Result<ReceiptKeys> {
        let signing = self.signing.iter().map(|(from, seed)| SigningKey::new(*from, seed));
        let signing: Vec<SigningKey> = signing.collect::<Result<_, _>>().context("a key of receipts")?;
        ReceiptKeys::new(signing, self.retired.clone()).context("no key of the file signs receipts")
    }

    fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(HEADING.to_owned());
        for (from, seed) in &self.signing {
            let seed = Zeroizing::new(hex::encode(**seed));
            text.push_str(&format!("sign {from} {}\n", seed.as_str()));
        }
        for key in &self.retired {
            text.push_str(&format!("publish {}\n", URL_SAFE_NO_PAD.encode(key.bytes)));
        }
        text
    }
}

fn public(from: Timestamp, seed: &[u8; 32]) -> anyhow::Result<VerifyingKey> {
    Ok(SigningKey::new(from, seed).context("a key of receipts")?.public().clone())
}

/// Errors name the line, and never repeat what is in it.
fn parse(text: &str) -> anyhow::Result<ReceiptKeyFile> {
    let mut found = ReceiptKeyFile { signing: Vec::new(), retired: Vec::new() };
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["sign", from, secret] => {
                let from = from
                    .parse()
                    .ok()
                    .with_context(|| format!("the time in line {number} is not in RFC 3339"))?;
                let mut seed = Zeroizing::new([0; 32]);
                if hex::decode_to_slice(secret, &mut *seed).is_err() {
                    bail!("the seed in line {number} is not 32 bytes in hexadecimal");
                }
                found.signing.push((from, seed));
            }
            ["publish", key] => {
                let bytes = URL_SAFE_NO_PAD.decode(key).ok().and_then(|bytes| bytes.try_into().ok());
                let bytes = bytes
                    .with_context(|| format!("the key in line {number} is not 32 bytes in base64url"))?;
                found.retired.push(VerifyingKey::new(bytes));
            }
            _ => bail!("line {number} is neither `sign FROM SEED` nor `publish KEY`"),
        }
    }
    found.signing.sort_by_key(|(from, _)| *from);
    ensure!(!found.signing.is_empty(), "there is no line `sign`");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000 + millis)
    }

    fn kids(keys: &ReceiptKeys) -> Vec<String> {
        keys.published().keys.into_iter().filter_map(|key| key.kid).collect()
    }

    #[test]
    fn the_file_is_made_once_and_is_its_owners_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store: StoreUrl = format!("sqlite:{}", folder.path().join("db").display()).parse().unwrap();
        let keys = |configured| load(&store, configured, at(1)).unwrap().unwrap();
        let made = keys(None);
        let path = folder.path().join("db.receipts.key");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(kids(&keys(None)), kids(&made));
        assert_eq!(kids(&keys(Some(&path))), kids(&made));
        let missing = folder.path().join("elsewhere.key");
        let error = load(&store, Some(&missing), at(1)).unwrap_err().to_string();
        assert!(error.contains("there is no key file"), "{error}");
        assert!(!missing.exists());
        let shared: StoreUrl = "redis://127.0.0.1/".parse().unwrap();
        assert!(load(&shared, None, at(1)).unwrap().is_none());
        assert!(load(&shared, Some(&path), at(1)).unwrap().is_some());
    }

    #[test]
    fn keys_are_rotated_with_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let kids_of = |file: &ReceiptKeyFile| kids(&file.keys().unwrap());
        let first = ReceiptKeyFile::generate(Timestamp::EPOCH).unwrap();
        first.create(&path).unwrap();
        let [one] = kids_of(&first).try_into().unwrap();
        let second = first.rotated(at(100), at(0)).unwrap();
        second.replace(&path).unwrap();
        let [two, also_one] = kids_of(&second).try_into().unwrap();
        assert_eq!((also_one, second.signing.len(), second.retired.len()), (one.clone(), 2, 0));
        let read = || ReceiptKeyFile::read(&path).unwrap().unwrap();
        let error = read().rotated(at(200), at(50)).err().unwrap().to_string();
        assert!(error.contains("counts from"), "{error}");
        let third = read().rotated(at(300), at(100)).unwrap();
        assert_eq!((third.signing.len(), third.retired.len()), (2, 1));
        let [_, also_two, also_one] = kids_of(&third).try_into().unwrap();
        assert_eq!((also_one, also_two), (one, two));
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        let seed = hex::encode([7; 32]);
        for (text, expected) in [
            (String::new(), "no line `sign`"),
            ("publish AAAA\n".to_owned(), "line 1 is not 32 bytes in base64url"),
            (format!("sign yesterday {seed}\n"), "line 1 is not in RFC 3339"),
            (format!("# x\nsign 2026-01-01T00:00:00Z {}\n", &seed[2..]), "line 2 is not 32 bytes"),
            (format!("sign {seed}\n"), "line 1 is neither"),
        ] {
            let error = parse(&text).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&seed[2..]), "{error}");
        }
    }
}
