//! The files that an approval, or the wait token of a request, is written to.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// Where the approved parameters go, and where the receipt.
#[derive(Debug)]
pub(super) struct Outputs {
    params: Option<Output>,
    receipt: Option<Output>,
}

/// A file that only its owner reads.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// What it held before is replaced. A pipe or a device, or what this process prints to as well, is only written to.
    is_replaced: bool,
}

impl Outputs {
    /// Opens them, and writes nothing yet.
    ///
    /// # Errors
    /// If one cannot be written, or both are the same.
    pub(super) fn open(params: Option<&Path>, receipt: Option<&Path>) -> Result<Outputs, String> {
        let (params, receipt) =
            (params.map(Output::open).transpose()?, receipt.map(Output::open).transpose()?);
        if let (Some(params), Some(receipt)) = (&params, &receipt) {
            let is_same = is_same(&params.file, &receipt.file).map_err(|error| error.to_string())?;
            if is_same || params.path == receipt.path {
                return Err("`--params-out` and `--receipt-out` are the same file".to_owned());
            }
        }
        Ok(Outputs { params, receipt })
    }

    /// Writes what was approved.
    ///
    /// # Errors
    /// If that fails.
    pub(super) fn write(self, params: &str, receipt: &str) -> Result<(), String> {
        let outputs = [(self.params, params), (self.receipt, receipt)];
        outputs.into_iter().try_for_each(|(output, content)| match output {
            Some(output) => output.write(content),
            None => Ok(()),
        })
    }
}

impl Output {
    /// Opens it, and writes nothing yet.
    ///
    /// # Errors
    /// If it cannot be written, or is somebody else's.
    pub(super) fn open(path: &Path) -> Result<Output, String> {
        Output::opened(path).map_err(|error| format!("cannot write `{}`: {error}", path.display()))
    }

    fn opened(path: &Path) -> io::Result<Output> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let printed = [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
        for printed in printed {
            let printed = File::from(printed?);
            if is_same(&file, &printed)? {
                // As `/dev/stdout` is: through this descriptor it is written after what was printed, not over it.
                return Ok(Output { path: path.to_owned(), file: printed, is_replaced: false });
            }
        }
        let metadata = file.metadata()?;
        let is_replaced = metadata.is_file();
        if is_replaced {
            // Whoever it belongs to could read what is written, whatever its mode.
            if metadata.uid() != geteuid().as_raw() {
                return Err(io::Error::other("it belongs to somebody else"));
            }
            // Only its owner reads it.
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(Output { path: path.to_owned(), file, is_replaced })
    }

    /// Writes this.
    ///
    /// # Errors
    /// If that fails.
    pub(super) fn write(mut self, content: &str) -> Result<(), String> {
        let emptied = if self.is_replaced { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(content.as_bytes()));
        written.map_err(|error| format!("`{}` cannot be written: {error}", self.path.display()))
    }
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (params, receipt) = (folder.path().join("params"), folder.path().join("receipt"));
        std::fs::write(&params, "something longer").unwrap();
        std::fs::set_permissions(&params, Permissions::from_mode(0o644)).unwrap();
        let outputs = Outputs::open(Some(&params), Some(&receipt)).unwrap();
        assert_eq!(std::fs::read_to_string(&params).unwrap(), "something longer", "nothing is approved yet");
        assert_eq!((mode(&params), mode(&receipt)), (0o600, 0o600));
        outputs.write("{}", "a.b.c").unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&params), read(&receipt)), ("{}".into(), "a.b.c".into()));
    }

    /// Only root can make such a file, and only for root it could be opened.
    #[test]
    fn what_belongs_to_somebody_else_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "before").unwrap();
        let theirs = if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
            path.as_path()
        } else {
            Path::new("/proc/1/environ")
        };
        let refused = Output::open(theirs).unwrap_err();
        assert!(refused.starts_with("cannot write"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    }

    /// As root the mode of a device would be changed for everybody.
    #[test]
    fn what_is_no_file_is_only_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let receipt = folder.path().join("receipt");
        let pipe = folder.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo").args(["-m", "640"]).arg(&pipe).status().unwrap().success()
        );
        let mut options = OpenOptions::new();
        let mut reader = options.read(true).write(true).open(&pipe).unwrap();
        Outputs::open(Some(&pipe), Some(&receipt)).unwrap().write("{}", "a.b.c").unwrap();
        let mut heard = [0; 2];
        io::Read::read_exact(&mut reader, &mut heard).unwrap();
        assert_eq!((&heard, mode(&pipe)), (b"{}", 0o640));

        let null = Path::new("/dev/null");
        let before = mode(null);
        let outputs = Outputs::open(Some(&receipt), Some(null)).unwrap();
        assert!(!outputs.receipt.as_ref().unwrap().is_replaced);
        outputs.write("{}", "a.b.c").unwrap();
        assert_eq!(mode(null), before);
    }

    #[test]
    fn one_file_is_not_for_both() {
        let folder = tempfile::tempdir().unwrap();
        let (params, link) = (folder.path().join("params"), folder.path().join("link"));
        std::fs::write(&params, "").unwrap();
        std::os::unix::fs::symlink(&params, &link).unwrap();
        for other in [&params, &link] {
            let refused = Outputs::open(Some(&params), Some(other)).unwrap_err();
            assert!(refused.contains("the same file"), "{refused}");
        }
        assert!(Outputs::open(Some(folder.path()), None).unwrap_err().contains("cannot write"));
    }
}
