//! The other commands of the gateway's program, run to completion.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::ambient;

/// Puts a program where `path` says: a script with its interpreter in the first line.
///
/// Another process writes it. What this one writes is open, too, in every process that another test is just starting, and what
/// is open for writing cannot be run.
///
/// # Panics
/// If it cannot be written.
pub fn install_script(path: &Path, script: &str) {
    let draft = path.with_added_extension("draft");
    fs::write(&draft, script).expect("a temporary folder can be written to");
    let installed = Command::new("install").args(["-m", "755", "--"]).args([&draft, path]).status();
    assert!(installed.expect("install can be run").success(), "{} is not written", path.display());
}

/// Whether this machine lets the tests mount file systems that only a process and its children see.
#[must_use]
pub fn may_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    let may = tried.is_ok_and(|tried| tried.status.success());
    if !may {
        println!("skipped: this machine does not let the tests mount file systems");
    }
    may
}

/// The program, with what these words of a shell mount for it alone.
pub(crate) fn mounted(mounts: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", &format!("{mounts} && exec \"$0\" \"$@\"")])
        .arg(ambient::binary());
    command
}

/// The same as [`countersign`], in `folder` and with what these words of a shell mount.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn countersign_mounted<A: AsRef<OsStr>>(
    folder: &Path,
    mounts: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Output {
    let mut command = mounted(mounts);
    command.args(arguments).env_clear().env("HOME", "/nonexistent").current_dir(folder).stdin(Stdio::null());
    command.envs(ambient::counters());
    command.output().expect("the program can be run")
}

/// Runs the program with these arguments and an empty environment, and returns its output.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn countersign<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    countersign_with([], arguments)
}

/// The same with these variables in the environment.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn countersign_with<A: AsRef<OsStr>>(
    variables: impl IntoIterator<Item = (&'static str, PathBuf)>,
    arguments: impl IntoIterator<Item = A>,
) -> Output {
    let mut command = Command::new(ambient::binary());
    // Without a home folder of its own, a program finds the real one, and Docker's passwords there.
    command.args(arguments).env_clear().env("HOME", "/nonexistent").envs(variables).stdin(Stdio::null());
    command.envs(ambient::counters());
    command.output().expect("the program can be run")
}
