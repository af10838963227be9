//! The binary's other commands, run to their end.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::ambient;

/// Runs the binary with these arguments and an empty environment, and returns what came of it.
///
/// # Panics
/// Where it cannot be run.
#[must_use]
pub fn countersign<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    countersign_with([], arguments)
}

/// The same with these variables in the environment.
///
/// # Panics
/// Where it cannot be run.
#[must_use]
pub fn countersign_with<A: AsRef<OsStr>>(
    variables: impl IntoIterator<Item = (&'static str, PathBuf)>,
    arguments: impl IntoIterator<Item = A>,
) -> Output {
    let mut command = Command::new(ambient::binary());
    command.args(arguments).env_clear().envs(variables).stdin(Stdio::null());
    command.envs(ambient::variable("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)));
    command.output().expect("the binary can be run")
}
