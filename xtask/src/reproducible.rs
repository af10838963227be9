//! Proves that the modules are a function of the sources: a copy of them in another folder, compiled from nothing into
//! another target folder, gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::policies::{self, Module};

/// What is no source: what was built, what git keeps, and what npm fetched.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// Builds the policies again, elsewhere, and compares their digests with those of `built`.
pub(crate) fn check(root: &Path, built: &[Module]) -> Result<()> {
    let elsewhere = Elsewhere::new()?;
    let sources = elsewhere.0.join("a").join("copy of the sources");
    copy(root, &sources)?;
    let mut others = Vec::new();
    for (name, digest) in policies::digests(&sources, &elsewhere.0.join("built"))? {
        let here = built.iter().find(|module| module.name == name);
        let here = here.with_context(|| format!("`{name}` was not built"))?;
        if here.digest != digest {
            others.push(format!("  {name}: {} here, {digest} elsewhere", here.digest));
        }
    }
    ensure!(others.is_empty(), "the same sources gave other bytes in another folder:\n{}", others.join("\n"));
    println!("the same bytes from a copy of the sources, compiled from nothing in another folder");
    Ok(())
}

/// A folder outside of the workspace, which is gone with this.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn new() -> Result<Elsewhere> {
        let folder = std::env::temp_dir().join(format!("countersign-elsewhere-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        Ok(Elsewhere(folder))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever clears temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
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
