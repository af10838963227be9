//! The keys of an installation: what wait tokens, the compile cache and fingerprints are made with.
//!
//! They are derived from one secret, each for its own purpose. The secret is `COUNTERSIGN_SECRET`, or lies in a key file
//! beside the database, so that a copy of the database alone is worth nothing to whoever wants to make a token.
//! Two of them can count at once, so that the secret can be changed while requests are open.

pub(crate) mod command;
mod file;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use countersign_store::{Store, StoreUrl};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use file::KeyFile;

/// The document of the store that says which secret it was used with.
const DOCUMENT: &str = "key:id";

/// The secrets of an installation.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// What new things are made with.
    pub(crate) current: MasterKey,
    /// What older things were made with, if that is still to count.
    pub(crate) previous: Option<MasterKey>,
}

/// One secret, from which keys are derived.
#[derive(Clone)]
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    pub(crate) fn new(secret: [u8; 32]) -> MasterKey {
        MasterKey(Zeroizing::new(secret))
    }

    fn generate() -> anyhow::Result<MasterKey> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).context("the system gives no randomness")?;
        Ok(MasterKey(secret))
    }

    /// The key for one purpose: HKDF-Expand with SHA-256 (RFC 5869), for the secret is random already.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        // Neither can fail: the secret has the length of a hash, and so has the key.
        if let Ok(secret) = Hkdf::<Sha256>::from_prk(&*self.0) {
            let _ = secret.expand(purpose.as_bytes(), &mut key);
        }
        key
    }

    /// Its name: eight hexadecimal digits that say nothing of it.
    pub(crate) fn id(&self) -> String {
        hex::encode(self.derive("countersign key id")).chars().take(8).collect()
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

impl Keys {
    /// Every secret, the current one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

/// The key file of a store: `PATH.key` beside the database `PATH`.
pub(crate) fn key_file(store: &StoreUrl) -> Option<PathBuf> {
    let database = store.file()?;
    let mut name = database.file_name()?.to_owned();
    name.push(".key");
    Some(database.with_file_name(name))
}

/// The keys that are configured, else those of the key file, which is made if there is none. A secret that an
/// earlier version kept in the database is moved into the key file first. Blocks.
///
/// # Errors
/// If a key file cannot be read or made, or is not its owner's alone.
pub(crate) fn load(store: &StoreUrl, configured: Option<Keys>) -> anyhow::Result<Keys> {
    if let Some(keys) = configured {
        // Whoever sets the variable has the secret elsewhere; what lies in the database is not needed any more.
        take_from_database(store, |_| Ok(()))?;
        return Ok(keys);
    }
    let path = key_file(store).context("this store needs `COUNTERSIGN_SECRET`")?;
    take_from_database(store, |secret| adopt(&path, secret))?;
    match KeyFile::read(&path)? {
        Some(file) => Ok(file.0),
        None => {
            let keys = Keys { current: MasterKey::generate()?, previous: None };
            KeyFile(keys.clone()).create(&path)?;
            tracing::info!(
                file = %path.display(),
                key = keys.current.id(),
                "key file made; back it up apart from the database"
            );
            Ok(keys)
        }
    }
}

/// Moves a secret out of the database of an earlier version; `keep` has it on disk elsewhere once it returns.
fn take_from_database(
    store: &StoreUrl,
    keep: impl FnOnce([u8; 32]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let taken = store.take_secret(keep).context("cannot move the secret out of the database")?;
    if taken {
        tracing::warn!(
            "the secret of wait tokens was moved out of the database; \
             copies of the database that were made before still hold it"
        );
    }
    Ok(())
}

/// Makes the key file of a secret, unless there is one with it, as after a stop half-way.
fn adopt(path: &Path, secret: [u8; 32]) -> std::io::Result<()> {
    let key = MasterKey::new(secret);
    match KeyFile::read(path).map_err(std::io::Error::other)? {
        None => KeyFile(Keys { current: key, previous: None }).create(path).map_err(std::io::Error::other),
        Some(KeyFile(keys)) if keys.all().any(|known| known.secret() == key.secret()) => Ok(()),
        Some(_) => Err(std::io::Error::other(format!(
            "`{}` is the key file of another database: its keys are not the one in this database",
            path.display()
        ))),
    }
}

/// Checks that the store was used with one of these keys, and remembers the current one.
///
/// # Errors
/// If it was used with others: tokens of open requests and what was hidden would be lost without a word.
pub(crate) async fn check(keys: &Keys, store: &dyn Store, store_url: &StoreUrl) -> anyhow::Result<()> {
    let current = keys.current.id();
    let used = store.recall(DOCUMENT).await.context("cannot read which key the store was used with")?;
    match used.map(|id| String::from_utf8_lossy(&id).into_owned()) {
        Some(used) if used == current => return Ok(()),
        Some(used) if keys.all().all(|key| key.id() != used) => bail!(
            "the store was used with the key `{used}`, and this gateway has {}: put its key file back, or set \
             `COUNTERSIGN_SECRET` to what it was. If that key is lost, `countersign keys accept-loss --store sqlite:{store_url}` \
             lets the store be used with the present one",
            keys.all().map(|key| format!("`{}`", key.id())).collect::<Vec<_>>().join(" and ")
        ),
        Some(_) | None => {}
    }
    store.keep(DOCUMENT, current.into_bytes()).await.context("cannot store which key the store is used with")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_other_purposes_and_of_other_secrets_differ() {
        let (one, two) = (MasterKey::new([1; 32]), MasterKey::new([2; 32]));
        assert_eq!(one.derive("a"), MasterKey::new([1; 32]).derive("a"));
        assert_ne!(one.derive("a"), one.derive("b"));
        assert_ne!(one.derive("a"), two.derive("a"));
        assert_ne!(one.id(), two.id());
        assert_eq!(one.id().len(), 8);
        assert_eq!(format!("{one:?}"), format!("MasterKey({})", one.id()));
    }

    /// RFC 5869, the step "expand" of test case 1, cut to 32 bytes.
    #[test]
    fn derivation_is_the_standard_one() {
        let secret = hex::decode("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5").unwrap();
        let mut key = [0; 32];
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        Hkdf::<Sha256>::from_prk(&secret).unwrap().expand(&info, &mut key).unwrap();
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf";
        assert_eq!(hex::encode(key), expected);
    }
}
