//! Compiled code on disk is believed only where this server made it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::CompileCache;

const SECRET: [u8; 32] = [7; 32];

fn cached(dir: &Path, secret: &[u8; 32]) -> Engine {
    let limits = Limits { concurrent_calls: 2, ..Limits::default() };
    Engine::new(limits, Some(CompileCache::new(dir, secret)), crate::Trust::default()).unwrap()
}

/// A folder in which the module has been compiled, and the file.
fn filled() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("compiled");
    let module = module(&cached(&folder, &SECRET), "quorum");
    let file = folder.join(format!("{}.cwasm", module.digest()));
    assert!(file.exists());
    (dir, file)
}

/// Whether the cache alone, without compiling, has the module.
fn believes(file: &Path, secret: &[u8; 32]) -> bool {
    let cache = CompileCache::new(file.parent().unwrap(), secret);
    cache.load(&engine().shared.wasm, &Digest::of(&bytes_of("quorum"))).is_some()
}

#[test]
fn is_believed_by_who_made_it() {
    let (_dir, file) = filled();
    assert!(believes(&file, &SECRET));
    assert!(!believes(&file, &[8; 32]), "another server's secret");
}

#[test]
fn is_nobody_elses_to_read() {
    let (_dir, file) = filled();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    let files = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "a temporary file was left");
}

#[test]
fn what_was_tampered_with_is_compiled_again() {
    let (_dir, file) = filled();
    let sound = fs::read(&file).unwrap();
    let other = cached(file.parent().unwrap(), &SECRET).load(&bytes_of("override-guard"), &[]).unwrap();
    let of_other = fs::read(file.with_file_name(format!("{}.cwasm", other.digest()))).unwrap();
    let flip = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    let rows = [
        ("the tag", flip(0)),
        ("the first byte of the code", flip(32)),
        ("the middle of the code", flip(sound.len() / 2)),
        ("the last byte", flip(sound.len() - 1)),
        ("truncated", sound[..sound.len() - 1].to_vec()),
        ("shorter than a tag", sound[..10].to_vec()),
        ("empty", Vec::new()),
        ("another module's", of_other),
        ("no tag at all", sound[32..].to_vec()),
    ];
    for (what, bytes) in rows {
        fs::write(&file, bytes).unwrap();
        assert!(!believes(&file, &SECRET), "{what}");
        let module = module(&cached(file.parent().unwrap(), &SECRET), "quorum");
        assert_eq!(module.descriptor().name, "quorum", "{what}");
        assert!(believes(&file, &SECRET), "not overwritten: {what}");
    }
}

#[test]
fn what_nobody_has_loaded_for_long_is_removed() {
    let (_dir, file) = filled();
    let folder = file.parent().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the ages of files go by the machine's clock")]
    let now = SystemTime::now();
    let made_days_ago = |name: &str, days: u64| {
        let path = folder.join(name);
        let file = fs::File::options().append(true).create(true).open(&path).unwrap();
        file.set_modified(now - Duration::from_secs(days * 86_400)).unwrap();
        path
    };
    let digest = Digest::of(b"a module of long ago");
    let gone =
        [made_days_ago(&format!("{digest}.cwasm"), 91), made_days_ago(&format!(".{digest}.1234.0"), 91)];
    let stay = [
        made_days_ago(&format!("{}.cwasm", Digest::of(b"a module of this summer")), 89),
        made_days_ago(&format!(".{digest}.1234.1"), 0),
        made_days_ago("notes.txt", 400),
        // It is used below.
        made_days_ago(file.file_name().unwrap().to_str().unwrap(), 400),
    ];
    assert!(believes(&file, &SECRET));
    // Something new is compiled and kept.
    cached(folder, &SECRET).load(&bytes_of("override-guard"), &[]).unwrap();
    assert!(gone.iter().all(|path| !path.exists()));
    for path in stay {
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn a_folder_that_cannot_be_written_costs_only_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in-the-way");
    fs::write(&file, "a file, where a folder should be").unwrap();
    assert_eq!(module(&cached(&file, &SECRET), "quorum").descriptor().name, "quorum");
}
