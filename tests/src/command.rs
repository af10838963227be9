//! The other commands of the gateway's program, run to completion.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::ambient;

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
    command.envs(ambient::variable("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)));
    command.output().expect("the program can be run")
}
