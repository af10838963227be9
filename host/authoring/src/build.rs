//! `countersign policy build`: from a policy's crate to its module, and the proof that it imports nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use countersign_policy_build as policy_build;

use super::Answer;
use super::inspect::Inspection;
use countersign_policy::Engine;

/// A policy's crate.
#[derive(Debug, Args)]
pub struct Build {
    /// The folder of the crate.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Also write the module here.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fail rather than change `Cargo.lock`: for CI.
    #[arg(long)]
    locked: bool,
    /// Do not tell how cargo gets on.
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(build: &Build, engine: &Engine) -> Result<Answer> {
    let wanted = policy_build::Build {
        folder: &build.folder,
        target_dir: None,
        locked: build.locked,
        quiet: build.quiet,
    };
    let built = policy_build::build(&wanted)?;
    let mut inspection = Inspection::of(engine, &built.file, &built.bytes);
    if let Some(out) = build.out.as_deref().filter(|_| inspection.good()) {
        replace(out, &built.bytes)?;
        inspection = inspection.at(out);
    }
    let mut text = format!("{} {}\n", built.package, built.version);
    text.push_str(&inspection.summary());
    for folder in &built.outside {
        text.push_str(&format!(
            "\nit depends on `{}`, outside of its own folder: its bytes depend on where that is\n",
            folder.display()
        ));
    }
    Ok(Answer { text, good: inspection.good() })
}

/// Writes a file so that whoever watches it sees the old content or the new, and nothing between.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_added_extension("new");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&beside, content))
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write `{}`", path.display()))
}
