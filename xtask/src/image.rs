//! `cargo xtask image`: builds the image from nothing but Debian's packages and these sources, starts it and asks it, and
//! tells its program every story of the end-to-end tests. It takes as long as a release build, so it is no part of
//! `cargo xtask test`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Pins};
use crate::step::step;
use crate::{cargo, checks, end_to_end, mcp, packages};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder for the image's program and its debug information; `target/image` if it is not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = crate::root()?;
    let out = arguments.out.clone().unwrap_or_else(|| root.join("target/image"));
    let out = std::path::absolute(out).context("the folder has no absolute path")?;
    step("the image, from base images that are made here", || {
        script(&root, "deploy/image/try.sh", &[out.as_os_str()])
    })?;
    step("the programs that the tests start", packages::ensure)?;
    step("policies to WebAssembly", || policies::build_all(&root.join("target/policies"), Pins::Report))?;
    step("programs of other languages for the tests", || {
        ["mcp-client", "webhook-receiver"].into_iter().try_for_each(|program| mcp::install(&root, program))
    })?;
    step("the programs of the tests", || cargo(&root, &["build", "--workspace", "--exclude", "xtask"], &[]))?;
    step("the end-to-end tests, of the image's program", || {
        end_to_end(&root, &out.join("countersign"), &[], &[])
    })?;
    checks::passed(&root, "image")
}

/// Runs a script of the project.
pub(crate) fn script(root: &Path, script: &str, words: &[&OsStr]) -> Result<()> {
    let status = Command::new(root.join(script)).args(words).current_dir(root).status();
    let status = status.with_context(|| format!("cannot run `{script}`"))?;
    ensure!(status.success(), "`{script}` ended with {status}");
    Ok(())
}
