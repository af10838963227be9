//! Proves that the modules depend on the sources alone: a copy of them in another folder, compiled from scratch into
//! another target folder, gives the same bytes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Module};

/// What is not copied: build output, and git's own files.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// Builds the policies again, elsewhere, and compares their digests with those of `built`.
pub(crate) fn check(root: &Path, built: &[Module]) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let sources = folder.path().join("a").join("copy of the sources");
    copy(root, &sources)?;
    let mut others = Vec::new();
    for (name, digest) in policies::digests(&sources, &folder.path().join("built"))? {
        let here = built.iter().find(|module| module.name == name);
        let here = here.with_context(|| format!("`{name}` was not built"))?;
        if here.digest != digest {
            others.push(format!("  {name}: {} here, {digest} elsewhere", here.digest));
        }
    }
    ensure!(others.is_empty(), "the same sources gave other bytes in another folder:\n{}", others.join("\n"));
    println!("a copy of the sources, compiled from scratch in another folder, gives the same bytes");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create `{}`", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list `{}`", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let (from, to) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("cannot copy `{}`", from.display()))?;
        }
    }
    Ok(())
}
