//! OCI registries: modules are fetched from them by the digest of their bytes, and pushed to them; signatures too.
//!
//! What a registry answers is never trusted: its bytes count only where they have the digest that was asked for, no
//! more of them is read than there may be, and it can send us nowhere that is not encrypted. Whether a module may be
//! used, and what signatures are worth, is not decided here.
//!
//! Each call begins anew, with connections of its own and with the credentials that the file has by then.

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

#[cfg(test)]
mod tests;

use std::future::Future;

pub use credentials::Credentials;
pub use error::RegistryError;
pub use push::{Artifact, Pushed};
pub use reference::{Allowed, BadReference, Pinned, Repository, Tag, Tagged};

use self::session::{Access, Patience, Session};
use countersign_core::lifecycle::Digest;

/// The registries that may be asked, and who we are to them.
#[derive(Clone, Debug)]
pub struct Registries {
    /// `None`: any.
    allowed: Option<Vec<Allowed>>,
    credentials: Credentials,
    patience: Patience,
}

impl Registries {
    /// Those that `allowed` lists, and no others; none where it is empty.
    #[must_use]
    pub fn new(allowed: Vec<Allowed>, credentials: Credentials) -> Registries {
        Registries { allowed: Some(allowed), ..Registries::any(credentials) }
    }

    /// Any: for commands that a person gives by hand, who names the registry.
    #[must_use]
    pub fn any(credentials: Credentials) -> Registries {
        Registries { allowed: None, credentials, patience: Patience::default() }
    }

    /// A session with a registry, where that may be asked.
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
        let of = repository.clone();
        // The system's certificates are some hundred kilobytes to read.
        let encryption = tokio::task::spawn_blocking(move || session::encryption(&of)).await;
        let encryption = encryption.unwrap_or_else(|stopped| {
            let registry = repository.registry().to_owned();
            Err(RegistryError::Unreachable { registry, detail: stopped.to_string() })
        })?;
        Ok(Session::new(repository, access, credential, self.patience, encryption))
    }

    async fn in_time<T>(
        &self,
        repository: &Repository,
        doing: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let done = tokio::time::timeout(self.patience.whole, doing).await;
        done.unwrap_or_else(|_| Err(RegistryError::TimedOut { registry: repository.registry().to_owned() }))
    }
}

/// The tag that the signatures of a module have. A module's digest is no manifest's, so no other tool means this one.
fn signatures_tag(digest: &Digest) -> String {
    format!("sha256-{digest}.sig")
}
