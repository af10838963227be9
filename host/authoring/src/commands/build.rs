//! `countersign policy build`: builds a policy's crate to a module, and verifies that the module imports nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use countersign_policy::Engine;
use countersign_policy_build as policy_build;

use super::inspect::Inspection;
use crate::Answer;
use countersign_console::Progress;

/// Build a policy's module and verify that it imports nothing.
#[derive(Debug, Args)]
pub struct Build {
    /// The crate's folder.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Also write the module to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fail instead of changing `Cargo.lock`, for CI.
    #[arg(long)]
    locked: bool,
    /// Do not show cargo's progress.
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(build: &Build, engine: &Engine) -> Result<Answer> {
    let wanted = policy_build::Build {
        folder: &build.folder,
        target_dir: None,
        locked: build.locked,
        quiet: build.quiet,
    };
    let built = policy_build::build(&wanted)?;
    // Cargo has shown its own progress until here.
    let _progress = Progress::start("compiling and checking the module");
    let mut inspection = Inspection::of(engine, &built.file, &built.bytes);
    if let Some(out) = build.out.as_deref().filter(|_| inspection.good()) {
        replace(out, &built.bytes)?;
        inspection = inspection.at(out);
    }
    let mut text = format!("{} {}\n", built.package, built.version);
    text.push_str(&inspection.summary());
    for folder in &built.outside {
        text.push_str(&format!(
            "\nit depends on `{}`, outside of its own workspace: the module's bytes depend on that path\n",
            folder.display()
        ));
    }
    Ok(Answer::lines(&text, inspection.good()))
}

/// Writes a file atomically: a process that watches it sees either the old content or the new.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_added_extension("new");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&temporary, content))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write `{}`", path.display()))
}
