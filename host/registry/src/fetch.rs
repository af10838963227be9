//! Reads modules and signatures from a registry.

use countersign_core::lifecycle::Digest;
use countersign_core::record::SIGNATURES_BYTES;

use super::error::RegistryError;
use super::manifest::{ANY_MANIFEST, MANIFEST, Manifest};
use super::reference::Repository;
use super::session::{Access, Session};
use super::{Registries, signatures_tag};

/// The maximum size of a manifest, in bytes; the OCI specification's limit.
const MANIFEST_BYTES: usize = 4 * 1024 * 1024;

const ANYTHING: &str = "*/*";

impl Registries {
    /// Fetches the blob with this digest, at most `limit` bytes.
    ///
    /// # Errors
    /// If the registry is not allowed, does not answer, refuses, or does not have the blob. If the digest is a
    /// manifest's, the error names the module that the manifest lists.
    pub async fn fetch(
        &self,
        repository: &Repository,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let fetching = async {
            let mut session = self.session(repository, Access::Pull).await?;
            let found = session.blob(digest, limit).await?;
            // Some registries serve manifests as blobs too.
            let (bytes, manifest) = match found {
                Some(bytes) => {
                    let manifest = Manifest::read(&bytes);
                    (Some(bytes), manifest)
                }
                None => (None, session.manifest(digest).await),
            };
            match (bytes, manifest) {
                (_, Some(manifest)) => {
                    let (repository, digest) = (repository.clone(), *digest);
                    Err(RegistryError::Manifest { repository, digest, module: manifest.module() })
                }
                (Some(bytes), None) => Ok(bytes),
                (None, None) => {
                    Err(RegistryError::NotFound { repository: repository.clone(), digest: *digest })
                }
            }
        };
        self.in_time(repository, fetching).await
    }

    /// Fetches the signatures of the module with this digest, a text of at most [`SIGNATURES_BYTES`]; `None` if there
    /// are none.
    ///
    /// # Errors
    /// As for [`Registries::fetch`], and if the tag for signatures refers to something else.
    pub async fn signatures(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<String>, RegistryError> {
        let unusable = || RegistryError::Unusable {
            host: repository.registry().to_owned(),
            why: "the tag for signatures refers to something else",
        };
        let fetching = async {
            let mut session = self.session(repository, Access::Pull).await?;
            let endpoint = format!("manifests/{}", signatures_tag(digest));
            let Some(manifest) = session.read(&endpoint, MANIFEST, MANIFEST_BYTES).await? else {
                return Ok(None);
            };
            let manifest = Manifest::read(&manifest).ok_or_else(unusable)?;
            let layer = manifest.signatures().ok_or_else(unusable)?;
            let digest = layer.digest().ok_or_else(unusable)?;
            // A missing blob means that the signatures are being replaced. That is an error, not the absence of signatures.
            let text = session.blob(&digest, SIGNATURES_BYTES).await?.ok_or_else(unusable)?;
            if text.len() != layer.size {
                return Err(unusable());
            }
            String::from_utf8(text).map(Some).map_err(|_| unusable())
        };
        self.in_time(repository, fetching).await
    }
}

impl Session<'_> {
    /// Reads a blob; `None` if it does not exist.
    async fn blob(&mut self, digest: &Digest, limit: usize) -> Result<Option<Vec<u8>>, RegistryError> {
        let bytes = self.read(&format!("blobs/sha256:{digest}"), ANYTHING, limit).await?;
        match bytes {
            Some(bytes) if Digest::of(&bytes) != *digest => {
                Err(RegistryError::WrongBytes { repository: self.repository().clone(), digest: *digest })
            }
            bytes => Ok(bytes),
        }
    }

    /// Reads a manifest. It only improves an error message, so its own errors are dropped.
    async fn manifest(&mut self, digest: &Digest) -> Option<Manifest> {
        let bytes = self.read(&format!("manifests/sha256:{digest}"), ANY_MANIFEST, MANIFEST_BYTES).await;
        let bytes = bytes.ok().flatten().filter(|bytes| Digest::of(bytes) == *digest)?;
        Manifest::read(&bytes)
    }
}
