//! Which checks have passed on which commit. A release asks for it, so a check that passes leaves a note, in the folder of
//! git: `countersign-checks/COMMIT/NAME`, with the time in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Notes that a check has passed on the commit that is checked out, unless something is changed: then it has passed on
/// something else.
pub(crate) fn passed(root: &Path, name: &str) -> Result<()> {
    if !changes(root)?.is_empty() {
        println!("not noted for a release: there are changes that are not committed");
        return Ok(());
    }
    let note = note(root, &commit(root)?, name)?;
    let folder = note.parent().context("a note is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let now = output(root, "date", &["--utc", "+%Y-%m-%dT%H:%M:%SZ"])?;
    fs::write(&note, now).with_context(|| format!("cannot write `{}`", note.display()))
}

/// When a check has last passed on a commit.
pub(crate) fn when(root: &Path, commit: &str, name: &str) -> Result<Option<String>> {
    Ok(fs::read_to_string(note(root, commit, name)?).ok().map(|time| time.trim().to_owned()))
}

/// The commit that is checked out.
pub(crate) fn commit(root: &Path) -> Result<String> {
    git(root, &["rev-parse", "--verify", "HEAD"])
}

/// What is not committed, a line for each file; files that git does not know count, too.
pub(crate) fn changes(root: &Path) -> Result<String> {
    git(root, &["status", "--porcelain"])
}

fn note(root: &Path, commit: &str, name: &str) -> Result<PathBuf> {
    let folder = git(root, &["rev-parse", "--path-format=absolute", "--git-common-dir"])?;
    Ok(Path::new(&folder).join("countersign-checks").join(commit).join(name))
}

/// What git answers, without the last line break.
pub(crate) fn git(root: &Path, words: &[&str]) -> Result<String> {
    output(root, "git", words)
}

fn output(root: &Path, program: &str, words: &[&str]) -> Result<String> {
    let ran = Command::new(program).args(words).current_dir(root).output();
    let ran = ran.with_context(|| format!("cannot run `{program}`"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "`{program} {}`: {}", words.join(" "), said.trim());
    let text = String::from_utf8(ran.stdout).with_context(|| format!("`{program}` does not print text"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}
