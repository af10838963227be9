//! Credentials from a file in the format of Docker's `config.json`, which is also that of Kubernetes'
//! `imagePullSecrets`.
//!
//! The file is read again for each call, so that changes take effect at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use countersign_core::secret::Secret;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::RegistryError;
use super::reference::Repository;

/// What Docker's credential helpers print if they have no entry for a registry.
const HELPER_HAS_NO_ENTRY: &str = "credentials not found in native keychain";

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `None` means anonymous access.
    file: Option<PathBuf>,
    /// Whether credential helpers may be run.
    helpers: bool,
}

/// The credential for one registry.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    Password {
        user: String,
        password: Secret,
    },
    /// A refresh token, which the registry's token server exchanges for tokens.
    IdentityToken(Secret),
}

impl Credentials {
    /// Anonymous access to every registry.
    #[must_use]
    pub const fn none() -> Credentials {
        Credentials { file: None, helpers: false }
    }

    /// The `auths` of a file, which must exist and be well-formed at each call. An entry is for a registry, not for a
    /// path; registries without one are accessed anonymously. A gateway runs no credential helpers: it is an error if the
    /// file names one for a registry.
    #[must_use]
    pub const fn file(file: PathBuf) -> Credentials {
        Credentials { file: Some(file), helpers: false }
    }

    /// The same, with the credential helpers that the file names (`credHelpers`, `credsStore`): for commands.
    #[must_use]
    pub fn with_helpers(self) -> Credentials {
        Credentials { helpers: true, ..self }
    }

    /// What `docker login` stored: `$DOCKER_CONFIG/config.json`, or else `$HOME/.docker/config.json`. Anonymous access if
    /// there is no such file. `variable` reads the environment.
    #[must_use]
    pub fn of_docker(variable: impl Fn(&str) -> Option<String>) -> Credentials {
        let named = variable("DOCKER_CONFIG").map(PathBuf::from);
        let folder = named.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let file = folder.map(|folder| folder.join("config.json"));
        Credentials { file: file.filter(|file| file.exists()), helpers: true }
    }

    /// Looks up the credential for a repository's registry.
    pub(super) async fn of(&self, repository: &Repository) -> Result<Option<Credential>, RegistryError> {
        let Some(file) = self.file.clone() else { return Ok(None) };
        let key = docker_name(repository.registry()).to_owned();
        let failed = {
            let (registry, file) = (repository.registry().to_owned(), file.clone());
            move |why| RegistryError::Credentials { registry, file, why }
        };
        let helpers = self.helpers;
        // Reads a file, and may run a credential helper.
        let looked_up = tokio::task::spawn_blocking(move || {
            let file = std::fs::read(file).map_err(|_| "the file cannot be read")?;
            if !helpers && names_helper(&file, &key) {
                return Err("it names a credential helper, and a gateway runs none");
            }
            match docker_credential::get_credential_from_reader(file.as_slice(), &key) {
                Ok(credential) => Ok(Some(credential)),
                Err(error) => fault(&error).map_or(Ok(None), Err),
            }
        });
        match looked_up.await.unwrap_or(Err("the lookup was aborted")) {
            Ok(credential) => Ok(credential.map(Credential::from)),
            Err(why) => Err(failed(why)),
        }
    }
}

impl From<DockerCredential> for Credential {
    fn from(credential: DockerCredential) -> Credential {
        match credential {
            DockerCredential::IdentityToken(token) => Credential::IdentityToken(Secret::new(token)),
            DockerCredential::UsernamePassword(user, password) => {
                Credential::Password { user, password: Secret::new(password) }
            }
        }
    }
}

/// Whether the file names a credential helper for a registry.
fn names_helper(file: &[u8], registry: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Helpers {
        #[serde(default)]
        cred_helpers: BTreeMap<String, IgnoredAny>,
        #[serde(default)]
        creds_store: Option<IgnoredAny>,
    }
    // A malformed file is reported when all of it is parsed.
    serde_json::from_slice(file).is_ok_and(|Helpers { cred_helpers, creds_store }| {
        cred_helpers.contains_key(registry) || creds_store.is_some()
    })
}

/// What is wrong; `None` if there is just no entry. The library's own messages contain what a helper printed.
fn fault(error: &CredentialRetrievalError) -> Option<&'static str> {
    match error {
        CredentialRetrievalError::NoCredentialConfigured => None,
        CredentialRetrievalError::HelperFailure { stdout, .. } if stdout.trim() == HELPER_HAS_NO_ENTRY => {
            None
        }
        CredentialRetrievalError::HelperFailure { .. } => Some("the credential helper failed"),
        CredentialRetrievalError::HelperCommunicationError => Some("cannot run the credential helper"),
        CredentialRetrievalError::MalformedHelperResponse => {
            Some("the credential helper printed an invalid answer")
        }
        CredentialRetrievalError::CredentialDecodingError => {
            Some("an entry's `auth` is not `user:password` in base64")
        }
        CredentialRetrievalError::CredentialMismatchError => {
            Some("an entry's `auth` is not its `username` and `password`")
        }
        CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError => {
            Some("the file is not in the format of Docker's `config.json`")
        }
    }
}

/// The name of a registry in Docker's files and helpers.
fn docker_name(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "https://index.docker.io/v1/",
        registry => registry,
    }
}
