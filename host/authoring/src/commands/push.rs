//! `countersign policy push`: pushes a module to an OCI registry, and prints the line that pins it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use countersign_core::lifecycle::Digest;
use countersign_core::record::{SIGNATURES_BYTES, Signature};
use countersign_gateway::fetch::wait;
use countersign_policy::Engine;
use countersign_registry::{Artifact, Credentials, Pinned, Registries, Repository, Tag, Tagged};
use serde::Serialize;

use super::sign::signature_file;
use crate::shown::plain;
use crate::table::{cell, columns};
use crate::{Answer, Format, file, load};
use countersign_console::Progress;

/// The interface that every policy module exports, and the world that it targets.
const INTERFACE: &str = "countersign:policy/policy@0.2.0";
const WORLD: &str = "countersign:policy/policy-module@0.2.0";

/// Push a module to an OCI registry and print the line that pins it.
#[derive(Debug, Args)]
pub struct Push {
    /// The module. Signatures in `FILE.wasm.sig` are pushed too.
    #[arg(value_name = "FILE.wasm")]
    module: PathBuf,
    /// Where to push it: `oci://host[:port]/path[:tag]`. The default tag is the module's version.
    #[arg(value_name = "REFERENCE")]
    to: Tagged,
    /// A file with credentials in the format of Docker's `config.json` [default: what `docker login` stored].
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// The output format.
    #[arg(long, default_value = "text")]
    format: Format,
}

pub(crate) fn run(push: &Push, engine: &Engine) -> Result<Answer> {
    let progress = Progress::start("checking the module");
    let module = load(engine, &push.module)?;
    let descriptor = module.descriptor();
    let tag = match &push.to.tag {
        Some(tag) => tag.clone(),
        None => descriptor.version.parse().map_err(|_| {
            anyhow!(
                "the module's version, `{}`, is not a valid tag: name one, `{}:TAG`",
                descriptor.version,
                push.to
            )
        })?,
    };
    let signatures = signatures(&push.module)?;
    let credentials = match &push.auth_file {
        Some(file) => Credentials::file(file.clone()).with_helpers(),
        None => Credentials::of_docker(variable),
    };
    let artifact = Artifact {
        module: module.bytes(),
        name: &descriptor.name,
        version: &descriptor.version,
        summary: &descriptor.summary,
        exports: &[INTERFACE],
        world: WORLD,
    };
    let repository = &push.to.repository;
    let registries = Registries::any(credentials);
    progress.next("pushing");
    let pushed = wait(async {
        // Signatures first, so that they are there once the tag is.
        if let Some((_, text)) = &signatures {
            registries.push_signatures(repository, &module.digest(), text).await?;
        }
        registries.push(repository, &tag, &artifact).await
    })?;
    let report = Report {
        name: &descriptor.name,
        version: &descriptor.version,
        repository,
        tag: &tag,
        digest: pushed.module,
        bytes: module.bytes().len(),
        manifest: pushed.manifest,
        signatures: signatures.map(|(path, _)| path),
    };
    match push.format {
        Format::Text => Ok(Answer::lines(&report.text(), true)),
        Format::Json => report.json(),
    }
}

/// A module's signature file and its content, if there is one.
fn signatures(module: &Path) -> Result<Option<(PathBuf, String)>> {
    let path = signature_file(module);
    if !path.exists() {
        return Ok(None);
    }
    let text = file::text(&path, SIGNATURES_BYTES);
    let text = text.with_context(|| format!("cannot read the signatures `{}`", path.display()))?;
    if let Err((line, wrong)) = Signature::read_all(&text) {
        bail!("{}:{line}: {wrong}", path.display());
    }
    Ok(Some((path, text)))
}

/// What was pushed, and where to.
struct Report<'a> {
    name: &'a str,
    version: &'a str,
    repository: &'a Repository,
    tag: &'a Tag,
    digest: Digest,
    bytes: usize,
    manifest: Digest,
    signatures: Option<PathBuf>,
}

impl Report<'_> {
    fn pin(&self) -> Pinned {
        Pinned { repository: self.repository.clone(), digest: self.digest }
    }

    fn reference(&self) -> Tagged {
        Tagged { repository: self.repository.clone(), tag: Some(self.tag.clone()) }
    }

    fn text(&self) -> String {
        let mut text = format!("{} {}\n", plain(self.name), plain(self.version));
        let signatures = self.signatures.as_ref().map_or("none".into(), |path| path.display().to_string());
        text.push_str(&columns(
            0,
            &[
                vec![cell("pushed to"), cell(self.reference().to_string())],
                vec![cell("digest"), cell(format!("sha256:{}", self.digest))],
                vec![cell("size"), cell(format!("{} bytes", self.bytes))],
                vec![cell("signatures"), cell(signatures)],
                vec![cell("manifest"), cell(format!("sha256:{}", self.manifest))],
            ],
        ));
        // Not in a table, which would wrap it: it is one line to copy.
        let _ = write!(text, "\nin a policy set, under `modules`\n  {}: {}\n", plain(self.name), self.pin());
        text
    }

    fn json(&self) -> Result<Answer> {
        let view = View {
            name: self.name,
            version: self.version,
            reference: self.reference().to_string(),
            pin: self.pin().to_string(),
            digest: format!("sha256:{}", self.digest),
            bytes: self.bytes,
            manifest: format!("sha256:{}", self.manifest),
            signatures: self.signatures.as_ref().map(|path| path.display().to_string()),
        };
        Answer::json(&view, true)
    }
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    version: &'a str,
    reference: String,
    pin: String,
    digest: String,
    bytes: usize,
    manifest: String,
    /// The signature file; null if there is none.
    signatures: Option<String>,
}

/// Docker's own variables locate its credentials.
#[expect(clippy::disallowed_methods, reason = "these are Docker's settings, not the gateway's")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use countersign_policy::ModuleError;

    use super::*;

    /// What a registry shows of a module agrees with the contract.
    #[test]
    fn the_interface_is_that_of_the_contract() {
        let error = ModuleError::Interface(String::new()).to_string();
        assert!(error.contains(&format!("`{INTERFACE}`")), "{error}");
        let contract = include_str!("../../../../wit/policy.wit");
        for (kind, name) in [("world", WORLD), ("interface", INTERFACE)] {
            let name = name.strip_prefix("countersign:policy/").and_then(|name| name.strip_suffix("@0.2.0"));
            assert!(contract.contains(&format!("{kind} {} {{", name.unwrap())), "{kind}");
        }
        assert!(contract.contains("package countersign:policy@0.2.0;"));
    }
}
