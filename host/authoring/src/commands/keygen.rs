//! `countersign policy keygen`: generates a key pair for signing.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use countersign_policy::signing_key;

use crate::Answer;
use crate::table::{cell, columns};

/// Generate a key pair for signing.
#[derive(Debug, Args)]
pub struct Keygen {
    /// The private key is written to `NAME.pem` and the public key to `NAME.pub.pem`. Neither file may exist.
    #[arg(value_name = "NAME")]
    name: PathBuf,
}

pub(crate) fn run(keygen: &Keygen) -> Result<Answer> {
    let named = |end: &str| {
        let mut name = keygen.name.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let (private, public) = (named(".pem"), named(".pub.pem"));
    let (private_pem, public_pem) =
        signing_key::generate().context("the system's random number generator failed")?;
    // The public key comes first and is removed again if the private one cannot be written: never half a pair.
    write(&public, &public_pem, 0o644)?;
    if let Err(error) = write(&private, &private_pem, 0o600) {
        let _ = fs::remove_file(&public);
        return Err(error);
    }
    let rows = [
        vec![
            cell("private"),
            cell(format!("{}: sign with it; keep it off the gateway's machine", private.display())),
        ],
        vec![
            cell("public"),
            cell(format!(
                "{}: trust it in COUNTERSIGN_MODULE_KEYS or COUNTERSIGN_SET_KEYS",
                public.display()
            )),
        ],
    ];
    Ok(Answer::lines(&columns(0, &rows), true))
}

/// Creates a file, which may not exist yet.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write `{}`", path.display()))
}
