//! What is stored in a registry.

use bytes::Bytes;
use hyper::{Method, Uri, header};

use super::error::RegistryError;
use super::manifest::{MANIFEST, Parts};
use super::reference::{Repository, Tag};
use super::session::{Access, Answer, Call, Session};
use super::{Registries, signatures_tag};
use countersign_core::lifecycle::Digest;

const BYTES: &str = "application/octet-stream";

/// A module, and what a registry's page says of it.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a> {
    /// The component itself.
    pub module: &'a [u8],
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What it does.
    pub summary: &'a str,
    /// The interfaces that it exports; it imports none.
    pub exports: &'a [&'a str],
    /// The world that it is made for.
    pub world: &'a str,
}

/// What was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// SHA-256 of the module: what pins it.
    pub module: Digest,
    /// SHA-256 of the manifest that lists it: what registries show.
    pub manifest: Digest,
}

impl Registries {
    /// Stores a module, and gives it this tag, whatever had it before. The same module has the same manifest each time.
    ///
    /// # Errors
    /// Where the registry may not be asked, does not answer, or refuses.
    pub async fn push(
        &self,
        repository: &Repository,
        tag: &Tag,
        artifact: &Artifact<'_>,
    ) -> Result<Pushed, RegistryError> {
        let manifest = self.store(repository, tag.as_str(), Parts::of_module(artifact)).await?;
        Ok(Pushed { module: Digest::of(artifact.module), manifest })
    }

    /// Stores signatures of the module with this digest, in the place of those that there are.
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

    /// Stores an artifact, the manifest last: it may list nothing that is not there. Returns its digest.
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
            let uri = session.place(&format!("manifests/{tag}"))?;
            session.put(uri, MANIFEST, Bytes::from(parts.manifest)).await?;
            Ok(digest)
        };
        self.in_time(repository, storing).await
    }
}

impl Session<'_> {
    /// Stores a blob: the registry says where to put it.
    async fn upload(&mut self, blob: Bytes) -> Result<(), RegistryError> {
        let uri = self.place("blobs/uploads/")?;
        let header = (header::CONTENT_TYPE, BYTES);
        let begun = self.call(Call { method: Method::POST, uri, header, body: Bytes::new() }).await?;
        let begun = self.expect(begun).await?;
        let place = with_digest(&self.follow(&begun)?, &Digest::of(&blob));
        let place = place.map_err(|_| RegistryError::Unusable {
            host: self.repository().registry().to_owned(),
            why: "where it wants a blob to go is no address",
        })?;
        self.put(place, BYTES, blob).await
    }

    async fn put(&mut self, uri: Uri, kind: &'static str, body: Bytes) -> Result<(), RegistryError> {
        let header = (header::CONTENT_TYPE, kind);
        let put = self.call(Call { method: Method::PUT, uri, header, body }).await?;
        self.expect(put).await.map(|_| ())
    }

    /// An answer that is a yes.
    async fn expect(&self, answer: Answer) -> Result<Answer, RegistryError> {
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }
}

fn with_digest(place: &Uri, digest: &Digest) -> Result<Uri, hyper::http::uri::InvalidUri> {
    let joint = if place.query().is_some() { '&' } else { '?' };
    format!("{place}{joint}digest=sha256:{digest}").parse()
}
