//! What is read from a registry.

use super::error::RegistryError;
use super::manifest::{ANY_MANIFEST, MANIFEST, Manifest};
use super::reference::Repository;
use super::session::{Access, Session};
use super::{Registries, signatures_tag};
use countersign_core::lifecycle::Digest;
use countersign_core::record::SIGNATURES_BYTES;

/// The largest manifest, in bytes: registries take no larger ones.
const MANIFEST_BYTES: usize = 4 * 1024 * 1024;

const ANYTHING: &str = "*/*";

impl Registries {
    /// The bytes with this digest, `most` of them at the most.
    ///
    /// # Errors
    /// Where the registry may not be asked, does not answer, refuses, does not have them, or sends others. Where the
    /// digest is a manifest's, the error names the module that it lists.
    pub async fn fetch(
        &self,
        repository: &Repository,
        digest: &Digest,
        most: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let fetching = async {
            let mut session = self.session(repository, Access::Pull).await?;
            let found = session.blob(digest, most).await?;
            // Most registries tell manifests from blobs; some do not.
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

    /// The signatures that were pushed for the module with this digest: a text of at most [`SIGNATURES_BYTES`]; `None`
    /// where there are none.
    ///
    /// # Errors
    /// As for [`Registries::fetch`], and where something else has the tag of signatures.
    pub async fn signatures(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<String>, RegistryError> {
        let unusable = || RegistryError::Unusable {
            host: repository.registry().to_owned(),
            why: "what it has in the place of signatures is something else",
        };
        let fetching = async {
            let mut session = self.session(repository, Access::Pull).await?;
            let place = format!("manifests/{}", signatures_tag(digest));
            let Some(manifest) = session.read(&place, MANIFEST, MANIFEST_BYTES).await? else {
                return Ok(None);
            };
            let manifest = Manifest::read(&manifest).ok_or_else(unusable)?;
            let layer = manifest.signatures().ok_or_else(unusable)?;
            let digest = layer.digest().ok_or_else(unusable)?;
            // Replaced just now, perhaps, and its blob with it; there is no telling what is right.
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
    /// The blob with this digest; `None` where there is none.
    async fn blob(&mut self, digest: &Digest, most: usize) -> Result<Option<Vec<u8>>, RegistryError> {
        let bytes = self.read(&format!("blobs/sha256:{digest}"), ANYTHING, most).await?;
        match bytes {
            Some(bytes) if Digest::of(&bytes) != *digest => {
                Err(RegistryError::WrongBytes { repository: self.repository().clone(), digest: *digest })
            }
            bytes => Ok(bytes),
        }
    }

    /// The manifest with this digest. It only makes an error clearer, so what fails here is no error of its own.
    async fn manifest(&mut self, digest: &Digest) -> Option<Manifest> {
        let bytes = self.read(&format!("manifests/sha256:{digest}"), ANY_MANIFEST, MANIFEST_BYTES).await;
        let bytes = bytes.ok().flatten().filter(|bytes| Digest::of(bytes) == *digest)?;
        Manifest::read(&bytes)
    }
}
