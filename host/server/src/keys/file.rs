//! The key file: a line for each secret, readable by its owner alone, or, if that is root, by the group of its reader.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use zeroize::Zeroizing;

use super::{Keys, MasterKey};
use crate::config::open;

/// The most bytes that a key file may have.
const MOST: u64 = 64 << 10;

const HEADING: &str = "# The keys of a Countersign gateway; its database lies beside this file. Keep this secret, and back it \
                       up apart\n# from the database: either one alone is worth little.\n";

/// The contents of a key file.
pub(super) struct KeyFile(pub(super) Keys);

impl KeyFile {
    /// Reads a key file; `None` if there is none.
    pub(super) fn read(path: &Path) -> anyhow::Result<Option<KeyFile>> {
        let Some(text) = read(path)? else { return Ok(None) };
        let parsed = parse(&text).map(|keys| Some(KeyFile(keys)));
        parsed.with_context(|| format!("in the key file `{}`", path.display()))
    }

    /// Writes a new key file; fails if there is one.
    pub(super) fn create(&self, path: &Path) -> anyhow::Result<()> {
        create(path, &self.text())
    }

    /// Replaces a key file: the new one is complete on disk before it takes the place of the old one.
    pub(super) fn replace(&self, path: &Path) -> anyhow::Result<()> {
        replace(path, &self.text())
    }

    fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(HEADING.to_owned());
        let names = ["current", "previous"];
        for (name, key) in names.into_iter().zip(self.0.all()) {
            let secret = Zeroizing::new(hex::encode(key.secret()));
            text.push_str(&format!("{name} {} {}\n", key.id(), secret.as_str()));
        }
        text
    }
}

/// Reads the text of a file of keys, which must be private, as `is_private` says; `None` if there is none.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<Zeroizing<String>>> {
    let shown = path.display();
    let opened = open(path).with_context(|| format!("cannot open the key file `{shown}`"))?;
    let Some(file) = opened else { return Ok(None) };
    let metadata = file.metadata().with_context(|| format!("cannot read the key file `{shown}`"))?;
    let reader = rustix::process::geteuid().as_raw();
    ensure!(
        is_private(metadata.mode(), metadata.uid(), reader),
        "the key file `{shown}` can be read or changed by others than its owner: `chmod 600 {shown}`"
    );
    let mut text = Zeroizing::new(String::new());
    file.take(MOST)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the key file `{shown}`"))?;
    Ok(Some(text))
}

/// Whether nobody but its owner can read or change a file. One of root's may be read by its group, if it is another user
/// who reads it: that is how Kubernetes mounts a Secret for a group, and it has no other way.
fn is_private(mode: u32, owner: u32, reader: u32) -> bool {
    let of_others = if owner == 0 && reader != 0 { 0o037 } else { 0o077 };
    mode & of_others == 0
}

/// Writes a new file of keys; fails if there is one.
pub(super) fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    write(path, text).with_context(|| format!("cannot make the key file `{}`", path.display()))
}

/// Replaces a file of keys: the new one is complete on disk before it takes the place of the old one.
pub(super) fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let replaced = || -> std::io::Result<()> {
        // One that an interrupted change has left behind is not written into: it might not be its owner's alone.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write(&new, text)?;
        // Root may change the keys of a gateway that runs as another user.
        if let Ok(old) = std::fs::metadata(path) {
            std::os::unix::fs::chown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        std::fs::rename(&new, path)?;
        sync_directory(path)
    };
    replaced().with_context(|| format!("cannot replace the key file `{}`", path.display()))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Errors name the line, and never repeat what is in it.
fn parse(text: &str) -> anyhow::Result<Keys> {
    let (mut current, mut previous) = (None, None);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(id), Some(secret), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("line {number} is not a name, an id and a secret");
        };
        let mut bytes = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(secret, &mut *bytes).is_err() {
            bail!("the secret in line {number} is not 32 bytes in hexadecimal");
        }
        let key = MasterKey::new(*bytes);
        ensure!(key.id() == id, "the secret in line {number} is not the one whose id stands before it");
        let slot = match name {
            "current" => &mut current,
            "previous" => &mut previous,
            _ => bail!("line {number} begins with neither `current` nor `previous`"),
        };
        ensure!(slot.is_none(), "line {number} repeats `{name}`");
        *slot = Some(key);
    }
    Ok(Keys { current: current.context("there is no line `current`")?, previous })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn keys() -> Keys {
        Keys { current: MasterKey::new([1; 32]), previous: Some(MasterKey::new([2; 32])) }
    }

    #[test]
    fn a_key_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.key");
        assert!(KeyFile::read(&path).unwrap().is_none());
        KeyFile(keys()).create(&path).unwrap();
        assert!(KeyFile(keys()).create(&path).is_err(), "it is not overwritten");
        let KeyFile(read) = KeyFile::read(&path).unwrap().unwrap();
        let ids = |keys: &Keys| keys.all().map(MasterKey::id).collect::<Vec<_>>();
        assert_eq!(ids(&read), ids(&keys()));
        KeyFile(Keys { current: MasterKey::new([3; 32]), previous: None }).replace(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ids(&KeyFile::read(&path).unwrap().unwrap().0), [MasterKey::new([3; 32]).id()]);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let error = format!("{:#}", KeyFile::read(&link).err().unwrap());
        assert!(error.contains("no regular file"), "{error}");
        for mode in [0o640, 0o604, 0o660, 0o644] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = KeyFile::read(&path).err().unwrap().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_file_of_root_may_be_read_by_the_group_that_it_is_mounted_for() {
        for (mode, owner, reader, private) in [
            (0o600, 65532, 65532, true),
            (0o640, 65532, 65532, false),
            (0o440, 0, 65532, true),
            (0o640, 0, 65532, true),
            (0o660, 0, 65532, false),
            (0o444, 0, 65532, false),
            (0o440, 0, 0, false),
            (0o440, 1000, 65532, false),
        ] {
            assert_eq!(
                is_private(0o100_000 | mode, owner, reader),
                private,
                "{mode:o} of {owner} for {reader}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        let good = MasterKey::new([1; 32]);
        let (id, secret) = (good.id(), hex::encode(good.secret()));
        for (text, expected) in [
            (String::new(), "no line `current`"),
            (format!("previous {id} {secret}\n"), "no line `current`"),
            (format!("# x\ncurrent {id} {secret} more\n"), "line 2 is not a name, an id and a secret"),
            (format!("current {id} {}\n", &secret[2..]), "line 1 is not 32 bytes"),
            (format!("current 00000000 {secret}\n"), "line 1 is not the one"),
            (format!("current {id} {secret}\ncurrent {id} {secret}\n"), "line 2 repeats"),
            (format!("currant {id} {secret}\n"), "line 1 begins with neither"),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&secret[2..]), "{error}");
        }
    }
}
