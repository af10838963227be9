//! `countersign policy keygen`: a key to sign with.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use countersign_policy::signing_key;

use super::Answer;
use super::table::{cell, columns};

/// A new key.
#[derive(Debug, Args)]
pub struct Keygen {
    /// What to call it: the private key is written to `NAME.pem`, the public one to `NAME.pub.pem`. Neither may be there.
    #[arg(value_name = "NAME")]
    name: PathBuf,
}

pub(super) fn run(keygen: &Keygen) -> Result<Answer> {
    let named = |end: &str| {
        let mut name = keygen.name.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let (private, public) = (named(".pem"), named(".pub.pem"));
    let (private_pem, public_pem) = signing_key::generate().context("the system gives no randomness")?;
    // A private key that is there alone is one that nobody knows what to do with.
    write(&public, &public_pem, 0o644)?;
    if let Err(error) = write(&private, &private_pem, 0o600) {
        let _ = fs::remove_file(&public);
        return Err(error);
    }
    let rows = [
        vec![
            cell("private"),
            cell(format!("{}, to sign with: keep it where no gateway is", private.display())),
        ],
        vec![
            cell("public"),
            cell(format!("{}, to trust: COUNTERSIGN_MODULE_KEYS, COUNTERSIGN_SET_KEYS", public.display())),
        ],
    ];
    Ok(Answer { text: columns(0, &rows), good: true })
}

/// Writes a file that was not there.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write `{}`", path.display()))
}
