//! The keys of an installation: what wait tokens, the compile cache and fingerprints are made with, and what salts are
//! encrypted with.
//!
//! They are derived from one secret, each for its own purpose. The secret is `COUNTERSIGN_SECRET`, or lies in a key file
//! beside the database, so that a copy of the database alone is worth nothing to whoever wants to make a token.
//! Two of them can count at once, so that the secret can be changed while requests are open.

pub(crate) mod command;
mod file;
pub(crate) mod receipts;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use countersign_core::mac::hmac;
use countersign_gateway::audit::AuditKeys;
use countersign_gateway::{SaltKey, SaltKeys};
use countersign_store::{Store, StoreUrl};
use zeroize::Zeroizing;

use file::KeyFile;

const NEEDS_SECRET: &str = "this store needs `COUNTERSIGN_SECRET`";

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

    /// The key for one purpose: HKDF-Expand with SHA-256 (RFC 5869), for the secret is random already. A key is as long as
    /// one block, so the expansion is one HMAC.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        hmac(&self.0, &[purpose.as_bytes(), &[1]].concat())
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
    /// The keys that the salts of payload hashes are encrypted with.
    pub(crate) fn salts(&self) -> SaltKeys {
        let key = |master: &MasterKey| {
            let derived = Zeroizing::new(master.derive("countersign payload salt"));
            SaltKey::new(master.id(), &derived)
        };
        SaltKeys::new(key(&self.current), self.previous.as_ref().map(key))
    }

    /// The keys that checkpoints of the audit log are signed with. A previous one signs too, so that whoever has only its public
    /// half can go on checking.
    pub(crate) fn audit(&self) -> anyhow::Result<AuditKeys> {
        let seeds: Vec<_> =
            self.all().map(|key| Zeroizing::new(key.derive("countersign audit checkpoint"))).collect();
        Ok(AuditKeys::new(seeds.iter().map(|seed| &**seed))?)
    }

    /// Every secret, the current one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

/// The key file of a store: `PATH.key` beside the database `PATH`.
pub(crate) fn key_file(store: &StoreUrl) -> Option<PathBuf> {
    beside(store, ".key")
}

/// The file `PATH` with this ending, beside the database `PATH`.
fn beside(store: &StoreUrl, ending: &str) -> Option<PathBuf> {
    let database = store.file()?;
    let mut name = database.file_name()?.to_owned();
    name.push(ending);
    Some(database.with_file_name(name))
}

/// The keys in the key file of a store, if there is one. Blocks.
///
/// # Errors
/// If it cannot be read, or is not its owner's alone.
pub(crate) fn of_file(store: &StoreUrl) -> anyhow::Result<Option<Keys>> {
    let Some(path) = key_file(store) else { return Ok(None) };
    Ok(KeyFile::read(&path)?.map(|KeyFile(keys)| keys))
}

/// The keys that are configured, else those of the key file, which is made if there is none; those of a store in memory
/// end with it. A secret that an earlier version kept in the database is moved into the key file first. Blocks.
///
/// # Errors
/// If a key file cannot be read or made, or is not its owner's alone.
pub(crate) fn load(store: &StoreUrl, configured: Option<Keys>) -> anyhow::Result<Keys> {
    let path = key_file(store);
    if let Some(keys) = configured {
        take_from_database(store, |secret| match &path {
            // Another secret may still be needed: the key file keeps it, though it is not used now.
            Some(path) if keys.all().all(|key| *key.secret() != secret) => adopt(path, secret),
            _ => Ok(()),
        })?;
        return Ok(keys);
    }
    if store.is_lost_at_exit() {
        return Ok(Keys { current: MasterKey::generate()?, previous: None });
    }
    let path = path.context(NEEDS_SECRET)?;
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

/// Checks that [`load`] would find keys or could make them, and makes none. Blocks.
///
/// # Errors
/// If the key file cannot be read or is not its owner's alone, or if there must be a secret and is none.
pub(crate) fn preview(store: &StoreUrl, configured: Option<&Keys>) -> anyhow::Result<()> {
    if configured.is_some() || store.is_lost_at_exit() {
        return Ok(());
    }
    KeyFile::read(&key_file(store).context(NEEDS_SECRET)?).map(drop)
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

/// The document that says which secret a store was used with, and the ids that it may have, if a gateway over `store` would
/// use one that is known: the one that is configured, or that of the key file. Blocks.
///
/// # Errors
/// If a key file cannot be read.
pub(crate) fn expected(
    store: &StoreUrl,
    configured: Option<Keys>,
) -> anyhow::Result<Option<(String, Vec<Vec<u8>>)>> {
    let keys = match (configured, key_file(store)) {
        (Some(keys), _) => Some(keys),
        (None, Some(path)) => KeyFile::read(&path)?.map(|file| file.0),
        (None, None) => None,
    };
    let ids = |keys: Keys| keys.all().map(|key| key.id().into_bytes()).collect();
    Ok(keys.map(|keys| (DOCUMENT.to_owned(), ids(keys))))
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
             `COUNTERSIGN_SECRET` to what it was. If that key is lost, `countersign keys accept-loss --store {store_url}` \
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

    /// RFC 5869, the step "expand" of test case 3, which has no information, cut to 32 bytes.
    #[test]
    fn derivation_is_the_standard_one() {
        let secret = "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04";
        let secret: [u8; 32] = hex::decode(secret).unwrap().try_into().unwrap();
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
        assert_eq!(hex::encode(MasterKey::new(secret).derive("")), expected);
    }
}
