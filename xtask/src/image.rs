//! `cargo xtask image`: builds the image from nothing but Debian's packages and these sources, starts it and asks it. It
//! takes as long as a release build, so it is no part of `cargo xtask test`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::checks;
use crate::step::step;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Also keep the program and its debug information in this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = crate::root()?;
    let out: Vec<&OsStr> = arguments.out.iter().map(|out| out.as_os_str()).collect();
    step("the image, from base images that are made here", || script(&root, "deploy/image/try.sh", &out))?;
    checks::passed(&root, "image")
}

/// Runs a script of the project.
pub(crate) fn script(root: &Path, script: &str, words: &[&OsStr]) -> Result<()> {
    let status = Command::new(root.join(script)).args(words).current_dir(root).status();
    let status = status.with_context(|| format!("cannot run `{script}`"))?;
    ensure!(status.success(), "`{script}` ended with {status}");
    Ok(())
}
