//! Whether a process of this user could write to a place, found out without writing there.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::Access;

/// Checks that a file can be written to, or be made in its folder, with what lies beside it. Blocks.
///
/// # Errors
/// If it cannot.
pub(crate) fn file(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match folder.metadata() {
        Ok(found) if found.is_dir() => writable(folder, Access::WRITE_OK | Access::EXEC_OK)?,
        Ok(_) => bail!("`{}` is no folder", folder.display()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", folder.display())),
    }
    match path.metadata() {
        Ok(_) => writable(path, Access::WRITE_OK),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

/// Checks that a folder can be written to, or be made: then the nearest one that exists on the way to it can. Blocks.
///
/// # Errors
/// If it cannot.
pub(crate) fn folder(path: &Path) -> anyhow::Result<()> {
    for found in path.ancestors() {
        let found = if found.as_os_str().is_empty() { Path::new(".") } else { found };
        match found.metadata() {
            Ok(metadata) if metadata.is_dir() => return writable(found, Access::WRITE_OK | Access::EXEC_OK),
            Ok(_) => return Err(anyhow!("`{}` is no folder", found.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", found.display())),
        }
    }
    Ok(())
}

fn writable(path: &Path, access: Access) -> anyhow::Result<()> {
    rustix::fs::access(path, access).with_context(|| format!("cannot write to `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Root may write to a closed folder, so for root nothing is wrong with it.
    #[test]
    fn what_cannot_be_written_to_is_named() {
        let work = tempfile::tempdir().unwrap();
        let at = |name: &str| work.path().join(name);
        fs::create_dir(at("closed")).unwrap();
        fs::write(at("closed/file"), "").unwrap();
        fs::write(at("file"), "").unwrap();
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o500)).unwrap();
        let closed = (!rustix::process::geteuid().is_root()).then_some("cannot write to");
        let said = |result: anyhow::Result<()>| result.err().map(|error| format!("{error:#}"));
        for (checked, expected) in [
            (said(file(&at("file"))), None),
            (said(file(&at("new"))), None),
            (said(file(&at("no/such"))), Some("No such file")),
            (said(file(&at("file/new"))), Some("is no folder")),
            (said(file(&at("closed/new"))), closed),
            (said(file(&at("closed/file"))), closed),
            (said(folder(work.path())), None),
            (said(folder(&at("a/b/c"))), None),
            (said(folder(&at("file"))), Some("is no folder")),
            (said(folder(&at("closed/b"))), closed),
        ] {
            let is_said = expected.map(|part| checked.as_ref().is_some_and(|said| said.contains(part)));
            assert!(is_said.unwrap_or(checked.is_none()), "{checked:?}: {expected:?}");
        }
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    }
}
