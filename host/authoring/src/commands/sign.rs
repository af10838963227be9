//! `countersign policy sign`: signs a module or a policy set.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use countersign_core::record::{SIGNATURES_BYTES, Signature};
use countersign_gateway::fetch;
use countersign_policy::settings::Loading;
use countersign_policy::signing_key::SigningKey;
use countersign_policy::{Engine, Limits, Signed, Source, Trust};

use crate::table::{cell, columns};
use crate::{Answer, file, load};
use countersign_console::Progress;

/// Sign a module or a policy set.
#[derive(Debug, Args)]
pub struct Sign {
    /// What to sign: a module's file, a policy set's folder, or the `policy-set.yaml` in it. The signature is added to a
    /// file of the same name with `.sig` appended.
    #[arg(value_name = "FILE.wasm|SET")]
    target: PathBuf,
    /// The private key: PKCS #8 in PEM, as `countersign policy keygen` or OpenSSL writes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    loading: Loading,
}

impl Sign {
    /// The trusted keys and limits to load the target with. Signatures of modules are verified only when a set is signed.
    pub(crate) fn engine(&self) -> Result<(Trust, Limits)> {
        let modules = self.loading.supply.module_keys.as_deref().filter(|_| self.is_set());
        Ok((Trust::read(modules, None)?, self.loading.limits.limits()))
    }

    fn is_set(&self) -> bool {
        self.target.is_dir() || self.target.file_name().is_some_and(|name| name == "policy-set.yaml")
    }
}

pub(crate) fn run(sign: &Sign, engine: &Engine) -> Result<Answer> {
    let key = SigningKey::read(&sign.key)?;
    let _progress = Progress::start("checking what is signed");
    // Loading it first makes sure that only what a gateway would accept is signed.
    let (signed, digest, path) = match sign.is_set() {
        true => {
            let set = fetch::load(Source::folder(&sign.target), engine, &sign.loading.supply.registries())??;
            (Signed::PolicySet, set.hash(), Source::folder(&sign.target).join("policy-set.yaml"))
        }
        false => (Signed::Module, load(engine, &sign.target)?.digest(), sign.target.clone()),
    };
    let signature_file = signature_file(&path);
    let signature = key.sign(signed, &digest);
    let new = add(&signature_file, signature)?;
    let name = match signed {
        Signed::Module => "digest",
        Signed::PolicySet => "hash",
    };
    let rows = [
        vec![cell("signed"), cell(path.display().to_string())],
        vec![cell(name), cell(format!("sha256:{digest}"))],
        vec![cell("by"), cell(key.public().to_string())],
        vec![cell(if new { "added to" } else { "already in" }), cell(signature_file.display().to_string())],
    ];
    Ok(Answer::lines(&columns(0, &rows), true))
}

/// The file that holds the signatures of a module or a set: its path with `.sig` appended.
pub(super) fn signature_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Adds a signature to a file, and returns whether it is new: the same key always makes the same signature.
fn add(path: &Path, signature: Signature) -> Result<bool> {
    let name = path.display();
    let mut text = match file::text(path, SIGNATURES_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{name}`")),
    };
    match Signature::read_all(&text) {
        Ok(known) if known.contains(&signature) => return Ok(false),
        Ok(_) => {}
        Err((line, wrong)) => bail!("{name}:{line}: {wrong}; nothing was added"),
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("{signature}\n"));
    ensure!(
        text.len() <= SIGNATURES_BYTES,
        "{name}: one more signature would exceed {SIGNATURES_BYTES} bytes"
    );
    if let Err((_, wrong)) = Signature::read_all(&text) {
        bail!("{name}: {wrong}; nothing was added");
    }
    write(path, &text).with_context(|| format!("cannot write `{name}`"))?;
    Ok(true)
}

/// Writes a file atomically, because a gateway may be reading it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
