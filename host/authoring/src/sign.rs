//! `countersign policy sign`: somebody vouches for a module, or for a policy set.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::table::{cell, columns};
use super::{Answer, file, load};
use countersign_core::record::{SIGNATURES_BYTES, Signature};
use countersign_gateway::fetch;
use countersign_policy::settings::Loading;
use countersign_policy::signing_key::SigningKey;
use countersign_policy::{Engine, Limits, Signed, Source, Trust};

/// What to sign.
#[derive(Debug, Args)]
pub struct Sign {
    /// What to vouch for: a module's file, or a policy set, by its folder or by the `policy-set.yaml` in it. The signature is
    /// added to a file beside it whose name ends with `.sig`.
    #[arg(value_name = "FILE.wasm|SET")]
    what: PathBuf,
    /// The private key: PKCS #8 in PEM, as `countersign policy keygen` or OpenSSL makes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    loading: Loading,
}

impl Sign {
    /// Whose signatures count before this one is made: those of the modules of a set that is to be signed.
    pub(super) fn engine(&self) -> Result<(Trust, Limits)> {
        let modules = self.loading.supply.module_keys.as_deref().filter(|_| self.is_of_set());
        Ok((Trust::read(modules, None)?, self.loading.limits.limits()))
    }

    fn is_of_set(&self) -> bool {
        self.what.is_dir() || self.what.file_name().is_some_and(|name| name == "policy-set.yaml")
    }
}

pub(super) fn run(sign: &Sign, engine: &Engine) -> Result<Answer> {
    let key = SigningKey::read(&sign.key)?;
    // Nobody should vouch for what no gateway would take.
    let (signed, digest, path) = match sign.is_of_set() {
        true => {
            let set = fetch::load(Source::folder(&sign.what), engine, &sign.loading.supply.registries())??;
            (Signed::PolicySet, set.hash(), Source::folder(&sign.what).join("policy-set.yaml"))
        }
        false => (Signed::Module, load(engine, &sign.what)?.digest(), sign.what.clone()),
    };
    let beside = signatures_of(&path);
    let signature = key.sign(signed, &digest);
    let new = add(&beside, signature)?;
    let name = match signed {
        Signed::Module => "digest",
        Signed::PolicySet => "hash",
    };
    let rows = [
        vec![cell("signed"), cell(path.display().to_string())],
        vec![cell(name), cell(format!("sha256:{digest}"))],
        vec![cell("by"), cell(key.public().to_string())],
        vec![cell(if new { "added to" } else { "was in" }), cell(beside.display().to_string())],
    ];
    Ok(Answer { text: columns(0, &rows), good: true })
}

/// The file of the signatures of what is in this file.
pub(super) fn signatures_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Adds a signature to those in the file, unless it is there. The same key makes the same signature each time.
fn add(path: &Path, signature: Signature) -> Result<bool> {
    let name = path.display();
    let mut text = match file::text(path, SIGNATURES_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{name}`")),
    };
    match Signature::read_all(&text) {
        Ok(there) if there.contains(&signature) => return Ok(false),
        Ok(_) => {}
        Err((line, wrong)) => bail!("{name}:{line}: {wrong}; nothing was added to it"),
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("{signature}\n"));
    ensure!(
        text.len() <= SIGNATURES_BYTES,
        "{name}: it has more than {SIGNATURES_BYTES} bytes with one more"
    );
    if let Err((_, wrong)) = Signature::read_all(&text) {
        bail!("{name}: {wrong}; nothing was added to it");
    }
    write(path, &text).with_context(|| format!("cannot write `{name}`"))?;
    Ok(true)
}

/// Writes a file in one step: a gateway may be reading it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
