//! Writes modules and signatures to a registry.

use bytes::Bytes;
use countersign_core::lifecycle::Digest;
use hyper::{Method, Uri, header};

use super::error::RegistryError;
use super::manifest::{MANIFEST, Parts};
use super::reference::{Repository, Tag};
use super::session::{Access, Answer, Call, Session};
use super::{Registries, signatures_tag};

const BYTES: &str = "application/octet-stream";

/// A module with the metadata that registries show.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a> {
    /// The component itself.
    pub module: &'a [u8],
    /// The policy's name.
    pub name: &'a str,
    /// The policy's version.
    pub version: &'a str,
    /// The policy's summary.
    pub summary: &'a str,
    /// The interfaces that the component exports; it imports none.
    pub exports: &'a [&'a str],
    /// The world that the component targets.
    pub world: &'a str,
}

/// What was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// SHA-256 of the module, which policy sets pin.
    pub module: Digest,
    /// SHA-256 of the manifest, which registries show.
    pub manifest: Digest,
}

impl Registries {
    /// Pushes a module and sets the tag, also if it exists. The same module always has the same manifest.
    ///
    /// # Errors
    /// If the registry is not allowed, does not answer, or refuses.
    pub async fn push(
        &self,
        repository: &Repository,
        tag: &Tag,
        artifact: &Artifact<'_>,
    ) -> Result<Pushed, RegistryError> {
        let manifest = self.store(repository, tag.as_str(), Parts::of_module(artifact)).await?;
        Ok(Pushed { module: Digest::of(artifact.module), manifest })
    }

    /// Replaces the signatures of the module with this digest.
    ///
    /// # Errors
    /// As for [`Registries::push`].
    pub async fn push_signatures(
        &self,
        repository: &Repository,
        digest: &Digest,
        text: &str,
    ) -> Result<(), RegistryError> {
        self.store(repository, &signatures_tag(digest), Parts::of_signatures(text)).await.map(|_| ())
    }

    /// Stores an artifact, and returns the manifest's digest. The manifest is last, because its blobs must exist.
    async fn store(
        &self,
        repository: &Repository,
        tag: &str,
        parts: Parts<'_>,
    ) -> Result<Digest, RegistryError> {
        let storing = async {
            let mut session = self.session(repository, Access::Push).await?;
            session.upload(Bytes::copy_from_slice(parts.blob)).await?;
            session.upload(Bytes::from(parts.config)).await?;
            let digest = Digest::of(parts.manifest.as_bytes());
            let url = session.url(&format!("manifests/{tag}"))?;
            session.put(url, MANIFEST, Bytes::from(parts.manifest)).await?;
            Ok(digest)
        };
        self.in_time(repository, storing).await
    }
}

impl Session<'_> {
    /// Stores a blob at the URL that the registry assigns.
    async fn upload(&mut self, blob: Bytes) -> Result<(), RegistryError> {
        let url = self.url("blobs/uploads/")?;
        let header = (header::CONTENT_TYPE, BYTES);
        let started = self.call(Call { method: Method::POST, url, header, body: Bytes::new() }).await?;
        let started = self.expect(started).await?;
        let target = with_digest(&self.location(&started)?, &Digest::of(&blob));
        let target = target.map_err(|_| RegistryError::Unusable {
            host: self.repository().registry().to_owned(),
            why: "its upload URL is invalid",
        })?;
        self.put(target, BYTES, blob).await
    }

    async fn put(&mut self, url: Uri, kind: &'static str, body: Bytes) -> Result<(), RegistryError> {
        let header = (header::CONTENT_TYPE, kind);
        let put = self.call(Call { method: Method::PUT, url, header, body }).await?;
        self.expect(put).await.map(|_| ())
    }

    /// Turns an unsuccessful answer into an error.
    async fn expect(&self, answer: Answer) -> Result<Answer, RegistryError> {
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }
}

fn with_digest(url: &Uri, digest: &Digest) -> Result<Uri, hyper::http::uri::InvalidUri> {
    let separator = if url.query().is_some() { '&' } else { '?' };
    format!("{url}{separator}digest=sha256:{digest}").parse()
}
