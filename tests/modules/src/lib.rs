//! The policy modules that tests load. On a fresh clone they are not there yet: the first test that wants one builds them
//! all, so that a plain `cargo test` works.
//!
//! What is there is taken as it is: `cargo xtask test` builds the modules anew before it runs the tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Written last by the build, so that a build that was interrupted is done again.
const LAST: &str = "examples";

/// The folder of the sample policy set, with `policy-set.yaml`, `modules`, `schemas`, and the cookbook in `examples`.
///
/// # Panics
/// If it is missing and cannot be built.
#[must_use]
pub fn folder() -> PathBuf {
    static BUILT: Once = Once::new();
    let folder = root().join("target/policies");
    BUILT.call_once(|| build(&folder));
    folder
}

/// The file of a module, by the policy's name.
///
/// # Panics
/// If there is no such module.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let path = folder().join("modules").join(format!("{name}.wasm"));
    assert!(path.is_file(), "no policy is called `{name}`: there is no `{}`", path.display());
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

fn build(folder: &Path) {
    if folder.join(LAST).is_dir() {
        return;
    }
    fs::create_dir_all(folder).expect("the target folder can be written to");
    // Test programs run side by side; one of them builds.
    let lock = File::create(folder.join(".lock")).expect("the target folder can be written to");
    lock.lock().expect("the target folder can be locked");
    if folder.join(LAST).is_dir() {
        return;
    }
    eprintln!("building the policies to WebAssembly, once; this takes some minutes");
    let built = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--",
            "policies",
            "--with-misbehaving",
            "--with-examples",
        ])
        .arg("--out")
        .arg(folder)
        .current_dir(root())
        .status();
    let built = built.expect("cargo can be run");
    assert!(built.success(), "the policies do not build: `cargo xtask policies` ended with {built}");
}
