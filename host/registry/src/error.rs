//! Errors of a registry. They do not repeat its messages, which may contain secrets.

use std::path::PathBuf;

use countersign_core::lifecycle::Digest;
use hyper::StatusCode;

use super::reference::Repository;

/// Why a call to a registry failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The repository is not allowed.
    #[error("`{0}` is not among the registries that may be asked: add it to COUNTERSIGN_REGISTRIES")]
    NotAllowed(Repository),
    /// The credentials cannot be read.
    #[error("cannot read the credentials for `{registry}` from `{}`: {why}", file.display())]
    Credentials {
        /// The registry.
        registry: String,
        /// The file with the credentials.
        file: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The connection failed.
    #[error("`{registry}` cannot be reached: {detail}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// The connection's error. It contains nothing of what was sent or received.
        detail: String,
    },
    /// A timeout.
    #[error("`{registry}` did not answer in time")]
    TimedOut {
        /// The registry.
        registry: String,
    },
    /// The registry denies access.
    #[error("`{repository}` may not be read or written {}", credentials_sent(*with_credentials))]
    Denied {
        /// The repository.
        repository: Repository,
        /// Whether credentials were sent.
        with_credentials: bool,
    },
    /// The registry does not have the digest.
    #[error("`{repository}` has nothing with the digest sha256:{digest}")]
    NotFound {
        /// The repository.
        repository: Repository,
        /// The digest.
        digest: Digest,
    },
    /// The digest is a manifest's. Registries show those, so it is easily pinned by mistake.
    #[error("sha256:{digest} in `{repository}` is the digest of a manifest, not of a module{}", pin_hint(.module.as_ref()))]
    Manifest {
        /// The repository.
        repository: Repository,
        /// The digest of the manifest.
        digest: Digest,
        /// The module that the manifest lists, if it lists exactly one.
        module: Option<Digest>,
    },
    /// The answer is too large.
    #[error("`{repository}` sends more than {limit} bytes")]
    TooLarge {
        /// The repository.
        repository: Repository,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer does not have the requested digest.
    #[error("`{repository}` sends bytes that do not have the digest sha256:{digest}")]
    WrongBytes {
        /// The repository.
        repository: Repository,
        /// The requested digest.
        digest: Digest,
    },
    /// An unexpected HTTP status.
    #[error("`{host}` answers with {status}{}", code_suffix(.code.as_deref()))]
    Status {
        /// The server: the registry, or one that it redirected to.
        host: String,
        /// The HTTP status.
        status: StatusCode,
        /// The error code of the OCI specification, if the answer has one.
        code: Option<String>,
    },
    /// An answer that violates the protocol, or that is not accepted for security.
    #[error("unusable answer from `{host}`: {why}")]
    Unusable {
        /// The server.
        host: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl RegistryError {
    /// Whether the same call may succeed later without a change to the request.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            // The file with the credentials may not be mounted yet, or is being replaced.
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

fn credentials_sent(with_credentials: bool) -> &'static str {
    if with_credentials {
        "with the credentials that were sent"
    } else {
        "without credentials, and there are none for this registry"
    }
}

fn pin_hint(module: Option<&Digest>) -> String {
    module.map_or_else(String::new, |module| format!(": pin the module that it lists, sha256:{module}"))
}

fn code_suffix(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}
