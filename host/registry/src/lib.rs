//! A client for OCI registries: fetches modules by the digest of their bytes, pushes modules, and both for signatures.
//!
//! Registries are not trusted: bytes must have the requested digest, sizes are limited, and redirects must be secure.
//! Whether a module may be used, and whether signatures are valid, is not decided here.
//!
//! Each call opens new connections, and reads the credentials again.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod reference;

mod credentials;
mod error;

mod fetch;
mod push;

mod challenge;
mod manifest;
mod session;
mod tls;
mod url;

#[cfg(test)]
mod tests;

use std::future::Future;

use countersign_core::lifecycle::Digest;

use self::session::{Access, Session, Timeouts};

pub use self::credentials::Credentials;
pub use self::error::RegistryError;
pub use self::push::{Artifact, Pushed};
pub use self::reference::{Allowed, BadReference, Pinned, Repository, Tag, Tagged};

/// The allowed registries, and the credentials for them.
#[derive(Clone, Debug)]
pub struct Registries {
    /// `None` allows any.
    allowed: Option<Vec<Allowed>>,
    credentials: Credentials,
    timeouts: Timeouts,
}

impl Registries {
    /// Allows only the registries in `allowed`.
    #[must_use]
    pub fn new(allowed: Vec<Allowed>, credentials: Credentials) -> Registries {
        Registries { allowed: Some(allowed), ..Registries::any(credentials) }
    }

    /// Allows any registry: for commands whose user names it.
    #[must_use]
    pub fn any(credentials: Credentials) -> Registries {
        Registries { allowed: None, credentials, timeouts: Timeouts::default() }
    }

    /// Opens a session, if the repository is allowed.
    async fn session<'a>(
        &self,
        repository: &'a Repository,
        access: Access,
    ) -> Result<Session<'a>, RegistryError> {
        let allowed = self.allowed.as_ref();
        if allowed.is_some_and(|allowed| !allowed.iter().any(|allowed| allowed.covers(repository))) {
            return Err(RegistryError::NotAllowed(repository.clone()));
        }
        let credential = self.credentials.of(repository).await?;
        let owned = repository.clone();
        let tls = tokio::task::spawn_blocking(move || tls::config(&owned)).await;
        let tls = tls.unwrap_or_else(|stopped| {
            let registry = repository.registry().to_owned();
            Err(RegistryError::Unreachable { registry, detail: stopped.to_string() })
        })?;
        Ok(Session::new(repository, access, credential, self.timeouts, tls))
    }

    async fn in_time<T>(
        &self,
        repository: &Repository,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let done = tokio::time::timeout(self.timeouts.total, work).await;
        done.unwrap_or_else(|_| Err(RegistryError::TimedOut { registry: repository.registry().to_owned() }))
    }
}

/// The tag of a module's signatures. It holds the digest of a module, not of a manifest, so no other tool uses it.
fn signatures_tag(digest: &Digest) -> String {
    format!("sha256-{digest}.sig")
}
