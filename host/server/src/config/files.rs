//! Files that a gateway writes: none of them may be any other file that the settings name or imply. Appending the audit log
//! to the database would destroy both. Nor may another gateway write to them, nor may they be anything but regular files: a
//! pipe or a device has no end that could be read again, and cannot be forced to disk.
//!
//! Files that are only read may be one file: a certificate with its key, or one certificate for several listeners.

use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Config, beside};
use crate::keys;

/// How many symbolic links are followed, one after the other, as the kernel does.
const MOST_LINKS: u8 = 40;

/// A file or folder that the settings name.
struct Named {
    what: String,
    path: PathBuf,
    /// Where it is or will be, without symbolic links.
    place: PathBuf,
    /// Its device and number, if it is there: a file may have several names.
    id: Option<(u64, u64)>,
    /// What it is, if it is there.
    kind: Option<FileType>,
}

/// A file that the gateway makes, changes or appends to, and the setting that names it or the file beside which it lies.
struct Written {
    named: Named,
    setting: &'static str,
}

impl Named {
    fn new(what: impl Into<String>, path: PathBuf) -> Named {
        let place = place_of(&path, MOST_LINKS);
        let found = path.metadata().ok();
        let id = found.as_ref().map(|found| (found.dev(), found.ino()));
        let kind = found.map(|found| found.file_type());
        Named { what: what.into(), path, place, id, kind }
    }

    fn is(&self, other: &Named) -> bool {
        // A device or a pipe is refused by itself.
        let is_special = self.kind.is_some_and(|kind| !kind.is_file() && !kind.is_dir());
        !is_special && (self.place == other.place || (self.id.is_some() && self.id == other.id))
    }
}

impl Config {
    /// A sentence for each file that the gateway would write and cannot, since it is no regular file, for each two settings
    /// that name the same file if the gateway writes to it, and for each file that it would write in a folder whose files are
    /// of another kind. Blocks.
    #[must_use]
    pub fn wrong_files(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (written, read, folders) = (self.written(), self.read(), self.folders());
        for Written { named: Named { what, path, kind, .. }, setting } in &written {
            if kind.is_some_and(|kind| !kind.is_file()) {
                wrong.push(format!("`{}` is {what} (`{setting}`): {NOT_REGULAR}", path.display()));
            }
        }
        let written: Vec<Named> = written.into_iter().map(|it| it.named).collect();
        let mut note = |one: &Named, other: &Named, how: &str| {
            let (path, what) = (one.path.display(), &one.what);
            wrong.push(format!("`{path}` is {what}, and {how} {}: each needs a file of its own", other.what));
        };
        for (index, one) in written.iter().enumerate() {
            let later = written.get(index + 1..).unwrap_or_default();
            for other in later.iter().chain(&read).chain(&folders).filter(|other| one.is(other)) {
                note(one, other, "also");
            }
            for folder in folders.iter().filter(|folder| is_inside(one, folder)) {
                note(one, folder, "lies in");
            }
        }
        for (index, one) in folders.iter().enumerate() {
            for other in folders.get(index + 1..).unwrap_or_default().iter().filter(|other| one.is(other)) {
                note(one, other, "also");
            }
        }
        wrong
    }

    fn written(&self) -> Vec<Written> {
        let storage = &self.storage;
        let database = [
            ("-wal", "the write-ahead log"),
            ("-shm", "the shared memory"),
            ("-journal", "the rollback journal"),
            (".lock", "the lock"),
        ];
        let new = [(".new", "the new version")];
        let audit = [
            (".position", "the position"),
            (".position.new", "the new version of the position"),
            (".lock", "the lock"),
        ];
        let archive =
            [(".lock", "the lock"), (".batch", "the batch"), (".batch.new", "the new version of the batch")];
        let receipts = storage.receipt_keys.clone().or_else(|| keys::receipts::default_file(&storage.store));
        // Each with the endings of the files that lie beside it.
        let files = [
            ("the database", "COUNTERSIGN_STORE", storage.store.file().map(Path::to_owned), &database[..]),
            ("the key file", "COUNTERSIGN_STORE", keys::key_file(&storage.store), &new),
            ("the key file for receipts", "COUNTERSIGN_RECEIPT_KEYS", receipts, &new),
            ("the audit file", "AUDIT_FILE", self.audit.audit_file.clone(), &audit),
            (
                "the file of audit checkpoints",
                "COUNTERSIGN_AUDIT_CHECKPOINT_FILE",
                self.audit.checkpoint_file(),
                &[],
            ),
            (
                "the archive of requests",
                "REQUEST_ARCHIVE_FILE",
                self.retention.archive_file.clone(),
                &archive,
            ),
        ];
        let mut written = Vec::new();
        for (what, setting, file, beside_it) in files {
            let Some(file) = file else { continue };
            let endings = beside_it.iter();
            let beside_it: Vec<Named> = endings
                .map(|(ending, it)| Named::new(format!("{it} of {what}"), beside(&file, ending)))
                .collect();
            let all = [Named::new(what, file)].into_iter().chain(beside_it);
            written.extend(all.map(|named| Written { named, setting }));
        }
        written
    }

    /// What the gateway only reads.
    fn read(&self) -> Vec<Named> {
        let supply = &self.policies.supply;
        let access = self.access.file.as_deref();
        let set = self.policies.directory.join("policy-set.yaml");
        let files = [
            ("the access file", access.map(Path::to_owned)),
            ("the digest of the access file", access.map(|file| beside(file, ".sha256"))),
            ("the list of the policy set's files", Some(beside(&set, ".sha256"))),
            ("the policy set", Some(set)),
            ("the private key of the GitHub App", self.gates.github_key_file.clone()),
            ("the keys that modules are signed with", supply.module_keys.clone()),
            ("the keys that policy sets are signed with", supply.set_keys.clone()),
            ("the passwords of registries", supply.registry_auth_file.clone()),
            (
                "the certificates that a Redis is checked with",
                self.storage.redis.ca_file().map(Path::to_owned),
            ),
        ];
        let mut read: Vec<Named> =
            files.into_iter().filter_map(|(what, file)| Some(Named::new(what, file?))).collect();
        for (listener, files) in self.tls.listeners() {
            let named = [
                ("certificate", Some(files.cert)),
                ("private key", Some(files.key)),
                ("file of authorities", files.ca),
                ("revocation list", files.crl),
            ];
            for (what, file) in named {
                let what = format!("the {what} of the listener for {listener}");
                read.extend(file.map(|file| Named::new(what, file)));
            }
        }
        read
    }

    /// Folders whose files are of one kind.
    fn folders(&self) -> Vec<Named> {
        let folders =
            [("the spool folder", self.spool_dir()), ("the folder of compiled modules", self.cache_dir())];
        let mut folders: Vec<Named> =
            folders.into_iter().filter_map(|(what, folder)| Some(Named::new(what, folder?))).collect();
        folders.push(Named::new("the policy folder", self.policies.directory.clone()));
        folders
    }
}

/// Whether a file lies in a folder that the gateway has for itself. A policy folder may have other things in it.
fn is_inside(file: &Named, folder: &Named) -> bool {
    folder.what != "the policy folder" && file.place.parent() == Some(folder.place.as_path())
}

/// Where a path leads, whether something is there or not.
fn place_of(path: &Path, links: u8) -> PathBuf {
    if let Ok(place) = path.canonicalize() {
        return place;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let (Ok(target), Some(links)) = (path.read_link(), links.checked_sub(1)) {
        // A link to what is not there yet.
        return place_of(&folder.join(target), links);
    }
    match path.file_name() {
        Some(name) if folder != path => place_of(folder, links).join(name),
        _ => path.to_owned(),
    }
}

const NOT_REGULAR: &str = "it is no regular file, and a pipe, a device or a folder cannot be used";

/// Refuses what is there and is no regular file. It is asked before a file is opened: opening a pipe waits for whoever is at
/// its other end, and a device may do anything.
pub(crate) fn regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(found) if !found.is_file() => Err(io::Error::other(NOT_REGULAR)),
        found => found.map(drop),
    }
}

/// Opens a regular file for reading; `None` if there is none.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    regular(path)?;
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether a file begins with one of these, as far as there is something in it. It does if it is not there.
pub(crate) fn begins_with(path: &Path, starts: &[&[u8]]) -> io::Result<bool> {
    let Some(file) = open(path)? else { return Ok(true) };
    let longest = starts.iter().map(|start| start.len()).max().unwrap_or_default();
    let mut found = Vec::new();
    file.take(longest as u64).read_to_end(&mut found)?;
    Ok(starts.iter().any(|start| found.starts_with(start) || start.starts_with(&found)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::tests::read;

    #[test]
    fn what_is_written_is_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(at("links")).unwrap();
        fs::write(at("access.yaml"), "").unwrap();
        fs::hard_link(at("access.yaml"), at("same.yaml")).unwrap();
        symlink(at("countersign.db"), at("links/audit")).unwrap();
        symlink("../countersign.db-wal", at("links/wal")).unwrap();
        symlink(folder.path(), at("links/folder")).unwrap();
        let store = format!("sqlite:{}", at("countersign.db"));
        let check = |flags: &[(&str, String)]| {
            let policies = at("policies");
            let mut words = vec!["--policies", &policies, "--store", &store];
            words.extend(flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]));
            let is_gate = words.contains(&"--github-app");
            let secret = [("COUNTERSIGN_GITHUB_WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef")];
            read(&words, if is_gate { &secret } else { &[] }).unwrap().wrong_files()
        };
        let none: [&str; 0] = [];
        assert_eq!(check(&[]), none);
        let sound = [
            ("--audit-file", at("audit")),
            ("--audit-checkpoint-file", at("checkpoints")),
            ("--access", at("access.yaml")),
            ("--receipt-keys", at("receipts")),
        ];
        assert_eq!(check(&sound), none);
        let null =
            [("--audit-file", "/dev/null".to_owned()), ("--audit-checkpoint-file", "/dev/null".to_owned())];
        let expected = [
            format!("`/dev/null` is the audit file (`AUDIT_FILE`): {NOT_REGULAR}"),
            format!(
                "`/dev/null` is the file of audit checkpoints (`COUNTERSIGN_AUDIT_CHECKPOINT_FILE`): {NOT_REGULAR}"
            ),
        ];
        assert_eq!(check(&null), expected);
        let certificate = ("--tls-cert-file", at("server.pem"));
        assert_eq!(
            check(&[certificate.clone(), ("--tls-key-file", at("server.pem"))]),
            none,
            "both are read"
        );

        let retention = ("--request-retention-sec", "60".to_owned());
        let archive = |name: &str| {
            [
                ("--audit-file", at("audit")),
                ("--audit-checkpoint-file", at("checkpoints")),
                ("--access", at("access.yaml")),
                ("--github-app", "1".to_owned()),
                ("--github-key-file", at("app.pem")),
                retention.clone(),
                ("--request-archive-file", at(name)),
            ]
        };
        assert_eq!(check(&archive("requests.ndjson")), none);
        for (flags, ones, others) in [
            (&[("--audit-file", at("countersign.db"))][..], "the database", "the audit file"),
            (&[("--audit-file", at("links/audit"))], "the database", "the audit file"),
            (&[("--audit-file", at("links/wal"))], "the write-ahead log of the database", "the audit file"),
            (&[("--audit-file", at("links/folder/countersign.db"))], "the database", "the audit file"),
            (&[("--audit-file", at("links/../countersign.db"))], "the database", "the audit file"),
            (&[("--audit-file", at("countersign.db.key"))], "the key file", "the audit file"),
            (&[("--receipt-keys", at("countersign.db.key"))], "the key file", "the key file for receipts"),
            (
                &[("--audit-file", at("a")), ("--audit-checkpoint-file", at("a"))],
                "the audit file",
                "the file of audit checkpoints",
            ),
            (
                &[("--audit-file", at("a")), ("--audit-checkpoint-file", at("a.position"))],
                "the position of the audit file",
                "the file of audit checkpoints",
            ),
            (
                &[("--audit-file", at("access.yaml")), ("--access", at("same.yaml"))],
                "the audit file",
                "the access file",
            ),
            (
                &[("--audit-file", at("x")), certificate.clone(), ("--tls-key-file", at("x"))],
                "the audit file",
                "the private key of the listener for callers",
            ),
            (&[("--audit-file", at("countersign.db.spool/a"))], "the audit file", "the spool folder"),
            (&[("--audit-file", at("countersign.db.lock"))], "the lock of the database", "the audit file"),
            (&archive("audit"), "the audit file", "the archive of requests"),
            (&archive("audit.position"), "the position of the audit file", "the archive of requests"),
            (&archive("countersign.db"), "the database", "the archive of requests"),
            (
                &archive("countersign.db-wal"),
                "the write-ahead log of the database",
                "the archive of requests",
            ),
            (
                &archive("countersign.db-journal"),
                "the rollback journal of the database",
                "the archive of requests",
            ),
            (&archive("countersign.db.key"), "the key file", "the archive of requests"),
            (
                &archive("countersign.db.key.new"),
                "the new version of the key file",
                "the archive of requests",
            ),
            (&archive("checkpoints"), "the file of audit checkpoints", "the archive of requests"),
            (&archive("app.pem"), "the archive of requests", "the private key of the GitHub App"),
            (&archive("access.yaml.sha256"), "the archive of requests", "the digest of the access file"),
            (&archive("policies/policy-set.yaml"), "the archive of requests", "the policy set"),
            (
                &[("--audit-file", at("r.batch")), retention.clone(), ("--request-archive-file", at("r"))],
                "the audit file",
                "the batch of the archive of requests",
            ),
            (
                &[("--spool-dir", at("presses")), ("--cache-dir", at("links/folder/presses"))],
                "the spool folder",
                "the folder of compiled modules",
            ),
            (&[("--spool-dir", at("policies"))], "the spool folder", "the policy folder"),
        ] {
            let found = check(flags);
            let is_said =
                found.iter().any(|said| said.contains(&format!("is {ones}, and")) && said.contains(others));
            assert!(is_said, "{flags:?}: {found:?}");
        }
    }

    /// Without waiting for whoever is at the other end of a pipe.
    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        symlink(at("pipe"), at("link")).unwrap();
        for path in [at("pipe"), at("link"), "/dev/null".into(), folder.path().to_owned()] {
            for refused in [regular(&path).err(), open(&path).err(), begins_with(&path, &[]).err()] {
                assert_eq!(refused.unwrap().to_string(), NOT_REGULAR, "{}", path.display());
            }
        }
        let link = at("link").display().to_string();
        let archive = ["--request-retention-sec", "60", "--request-archive-file", &link];
        let wrong = read(&[&["--policies", "policies"], &archive[..]].concat(), &[]).unwrap().wrong_files();
        assert!(
            wrong.iter().any(|it| it.contains("is the archive of requests (`REQUEST_ARCHIVE_FILE`)")),
            "{wrong:?}"
        );
        assert!(open(&at("none")).unwrap().is_none() && begins_with(&at("none"), &[]).unwrap());
        fs::write(at("file"), "text").unwrap();
        symlink(at("file"), at("to the file")).unwrap();
        assert!(open(&at("to the file")).unwrap().is_some());
    }

    #[test]
    fn links_that_lead_nowhere_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink(at("two"), at("one")).unwrap();
        symlink(at("one"), at("two")).unwrap();
        assert!(place_of(&at("one"), MOST_LINKS).starts_with(folder.path()));
        assert_eq!(place_of(Path::new("/"), 3), Path::new("/"));
        assert_eq!(place_of(Path::new("/no/such/folder/file"), 3), Path::new("/no/such/folder/file"));
        assert_eq!(
            place_of(Path::new("nothing-here"), 3),
            std::env::current_dir().unwrap().join("nothing-here")
        );
    }
}
