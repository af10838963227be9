//! What can go wrong with a registry, in words of our own: what a registry says is not repeated, for it may hold what
//! is secret, and is written by others.

use std::path::PathBuf;

use hyper::StatusCode;

use super::reference::Repository;
use countersign_core::lifecycle::Digest;

/// Why a registry was not asked, or did not give what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It is none of those that may be asked.
    #[error("`{0}` is not among the registries that may be asked: add it to COUNTERSIGN_REGISTRIES")]
    NotAllowed(Repository),
    /// There should be credentials, and they cannot be had.
    #[error("there are no credentials for `{registry}` to be had from `{}`: {why}", file.display())]
    Credentials {
        /// The registry.
        registry: String,
        /// The file that should have them.
        file: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No connection, or one that broke.
    #[error("`{registry}` cannot be reached: {detail}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// What happened. It holds nothing of what was sent or answered.
        detail: String,
    },
    /// It took too long.
    #[error("`{registry}` does not answer in time")]
    TimedOut {
        /// The registry.
        registry: String,
    },
    /// It refuses whoever we are.
    #[error("`{repository}` may not be read or written {}", as_whom(*with_credentials))]
    Denied {
        /// The repository.
        repository: Repository,
        /// Whether it was asked with credentials.
        with_credentials: bool,
    },
    /// It does not have it.
    #[error("`{repository}` has nothing with the digest sha256:{digest}")]
    NotFound {
        /// The repository.
        repository: Repository,
        /// The digest.
        digest: Digest,
    },
    /// It has it, but it is not the module: registries show the digests of manifests.
    #[error("sha256:{digest} in `{repository}` is the digest of a manifest, not of a module{}", pin(.module.as_ref()))]
    Manifest {
        /// The repository.
        repository: Repository,
        /// The digest of the manifest.
        digest: Digest,
        /// The module that it lists, where that is one.
        module: Option<Digest>,
    },
    /// It sends more than there may be.
    #[error("`{repository}` sends more than {most} bytes")]
    TooLarge {
        /// The repository.
        repository: Repository,
        /// Bytes allowed.
        most: usize,
    },
    /// It sends something else than it was asked for.
    #[error("`{repository}` sends bytes that do not have the digest sha256:{digest}")]
    WrongBytes {
        /// The repository.
        repository: Repository,
        /// The digest that was asked for.
        digest: Digest,
    },
    /// An answer that does not help.
    #[error("`{host}` answers with {status}{}", named(.code.as_deref()))]
    Status {
        /// Who answers: the registry, or where it sends us to.
        host: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the registry calls it: a code as the OCI specification lists them.
        code: Option<String>,
    },
    /// It does not speak as registries do.
    #[error("`{host}` does not answer as a registry does: {why}")]
    Unusable {
        /// Who answers.
        host: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl RegistryError {
    /// Whether the same call may succeed later, although nothing has changed of what asks for it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            // The file may not be mounted yet, or is just being replaced.
            RegistryError::Unreachable { .. }
            | RegistryError::TimedOut { .. }
            | RegistryError::Credentials { .. } => true,
            RegistryError::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            _ => false,
        }
    }
}

fn as_whom(with_credentials: bool) -> &'static str {
    if with_credentials {
        "with the credentials that were sent"
    } else {
        "without credentials, and there are none for this registry"
    }
}

fn pin(module: Option<&Digest>) -> String {
    module.map_or_else(String::new, |module| format!(": pin the module that it lists, sha256:{module}"))
}

fn named(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}
