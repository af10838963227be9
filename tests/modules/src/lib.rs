//! The policy modules that tests load. They are built when they are missing or older than their sources, so that a plain
//! `cargo test` works on a fresh clone, and never tests old modules.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// `cargo xtask policies` gives this file the time at which its newest complete build began.
const STAMP: &str = ".built-for-tests";

/// What the modules, and the policy sets around them, are made of.
const SOURCES: [&str; 10] = [
    "policies",
    "policy-build",
    "policy-sdk",
    "tests/misbehaving",
    "wit",
    "xtask",
    ".cargo",
    "Cargo.lock",
    "Cargo.toml",
    "rust-toolchain.toml",
];

/// The folder of the sample policy set, with `policy-set.yaml`, `modules`, `schemas`, and the cookbook in `examples`.
///
/// # Panics
/// If the modules cannot be built.
#[must_use]
pub fn folder() -> PathBuf {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = root().join("target/policies");
        build(&folder).map(|()| folder)
    });
    built.clone().unwrap_or_else(|problem| panic!("{problem}"))
}

/// The file of a module, by the policy's name.
///
/// # Panics
/// If there is no such module.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let path = folder().join("modules").join(format!("{name}.wasm"));
    assert!(path.is_file(), "no policy is called `{name}`: `{}` does not exist", path.display());
    path
}

/// The bytes of a module, by the policy's name.
///
/// # Panics
/// If there is no such module.
#[must_use]
pub fn bytes(name: &str) -> Vec<u8> {
    let path = path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
}

/// The workspace's folder.
///
/// # Panics
/// Never: this crate is in the workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tests/modules is a folder of the workspace")
}

/// Builds the modules, unless they are up to date.
fn build(folder: &Path) -> Result<(), String> {
    let sources = SOURCES.map(|source| root().join(source));
    let cannot = |what: &str, error: io::Error| format!("cannot {what} `{}`: {error}", folder.display());
    let up_to_date = || {
        is_newer(&folder.join(STAMP), &sources).map_err(|error| format!("cannot read the sources: {error}"))
    };
    if up_to_date()? {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|error| cannot("create", error))?;
    // Test programs may run side by side; one of them builds, and the others wait for it.
    let lock = File::create(folder.join(".lock")).map_err(|error| cannot("write to", error))?;
    lock.lock().map_err(|error| cannot("lock", error))?;
    if up_to_date()? {
        return Ok(());
    }
    eprintln!("building the policies to WebAssembly; the first time takes some minutes");
    let built = Command::new(env!("CARGO"))
        .args(["run", "--package", "xtask", "--", "policies"])
        .args(["--with-misbehaving", "--with-examples", "--allow-unpinned", "--out"])
        .arg(folder)
        .current_dir(root())
        .status();
    match built {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(format!("the policies do not build (see above): `cargo xtask policies` ended with {status}"))
        }
        Err(error) => Err(format!("cannot build the policies: `{}`: {error}", env!("CARGO"))),
    }
}

/// Whether the stamp is there, and newer than every source.
fn is_newer(stamp: &Path, sources: &[PathBuf]) -> io::Result<bool> {
    let stamp = match fs::metadata(stamp) {
        Ok(stamp) => stamp.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for source in sources {
        if newest(source)? >= stamp {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When the newest file below a path was changed. A folder counts too: it changes when a file is removed.
fn newest(path: &Path) -> io::Result<SystemTime> {
    let metadata = fs::metadata(path)?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(self::newest(&entry?.path())?);
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_build_is_up_to_date_until_a_source_changes() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (stamp, source) = (folder.path().join("stamp"), folder.path().join("source"));
        fs::create_dir_all(source.join("inner"))?;
        let file = source.join("inner/file");
        fs::write(&file, "")?;
        let sources = [source.clone()];
        assert!(!is_newer(&stamp, &sources)?, "nothing was built");

        fs::write(&stamp, "")?;
        let later = |seconds| newest(&source).map(|time| time + Duration::from_secs(seconds));
        File::options().write(true).open(&stamp)?.set_modified(later(1)?)?;
        assert!(is_newer(&stamp, &sources)?);

        File::options().write(true).open(&file)?.set_modified(later(2)?)?;
        assert!(!is_newer(&stamp, &sources)?, "a file has changed");
        File::options().write(true).open(&stamp)?.set_modified(later(1)?)?;
        assert!(is_newer(&stamp, &sources)?);

        File::open(source.join("inner"))?.set_modified(later(2)?)?;
        assert!(!is_newer(&stamp, &sources)?, "a folder has changed");
        assert!(is_newer(&stamp, &[folder.path().join("missing")]).is_err());
        Ok(())
    }

    #[test]
    fn the_sources_exist() {
        for source in SOURCES {
            assert!(root().join(source).exists(), "{source}");
        }
    }
}
