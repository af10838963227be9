//! Who we are to a registry: what a file in the format of Docker's `config.json` says, which is also what Kubernetes
//! mounts for `imagePullSecrets`.
//!
//! The file is read anew for each call, so that credentials which are changed count at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::RegistryError;
use super::reference::Repository;
use countersign_core::secret::Secret;

/// What Docker's helpers say of a registry that they know nothing of.
const HELPER_HAS_NONE: &str = "credentials not found in native keychain";

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `None`: every registry is asked anonymously.
    file: Option<PathBuf>,
    /// Whether the file may leave a password to a program.
    programs: bool,
}

/// What a registry gets to know who asks.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    Password {
        user: String,
        password: Secret,
    },
    /// What a token is got for, from where the registry says.
    IdentityToken(Secret),
}

impl Credentials {
    /// None: every registry is asked anonymously.
    #[must_use]
    pub const fn none() -> Credentials {
        Credentials { file: None, programs: false }
    }

    /// Those in a file, which must be there and be well-formed each time; a registry without an entry in it is asked
    /// anonymously. Its `auths` count; an entry is for a registry, not for a path. A gateway runs no programs, so one that
    /// the file leaves a password to is an error.
    #[must_use]
    pub const fn file(file: PathBuf) -> Credentials {
        Credentials { file: Some(file), programs: false }
    }

    /// The same, with the programs that the file names (`credHelpers`, `credsStore`): for commands that a person gives.
    #[must_use]
    pub fn with_programs(self) -> Credentials {
        Credentials { programs: true, ..self }
    }

    /// Those that `docker login` keeps for whoever has this environment: `$DOCKER_CONFIG/config.json`, or else
    /// `$HOME/.docker/config.json`; none where there is no such file.
    #[must_use]
    pub fn of_docker(variable: impl Fn(&str) -> Option<String>) -> Credentials {
        let named = variable("DOCKER_CONFIG").map(PathBuf::from);
        let folder = named.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let file = folder.map(|folder| folder.join("config.json"));
        Credentials { file: file.filter(|file| file.exists()), programs: true }
    }

    /// What they say of a registry.
    pub(super) async fn of(&self, repository: &Repository) -> Result<Option<Credential>, RegistryError> {
        let Some(file) = self.file.clone() else { return Ok(None) };
        let key = docker_name(repository.registry()).to_owned();
        let failed = {
            let (registry, file) = (repository.registry().to_owned(), file.clone());
            move |why| RegistryError::Credentials { registry, file, why }
        };
        let programs = self.programs;
        // Reads a file, and may wait for a helper.
        let looked_up = tokio::task::spawn_blocking(move || {
            let file = std::fs::read(file).map_err(|_| "the file cannot be read")?;
            if !programs && names_program(&file, &key) {
                return Err("it leaves the password to a program, and a gateway runs none");
            }
            match docker_credential::get_credential_from_reader(file.as_slice(), &key) {
                Ok(credential) => Ok(Some(credential)),
                Err(error) => reason(&error).map_or(Ok(None), Err),
            }
        });
        match looked_up.await.unwrap_or(Err("they could not be looked up")) {
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

/// Whether a program would have to be asked for the password of a registry.
fn names_program(file: &[u8], registry: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Programs {
        #[serde(default)]
        cred_helpers: BTreeMap<String, IgnoredAny>,
        #[serde(default)]
        creds_store: Option<IgnoredAny>,
    }
    // What cannot be read is told by whoever reads all of it.
    serde_json::from_slice(file).is_ok_and(|Programs { cred_helpers, creds_store }| {
        cred_helpers.contains_key(registry) || creds_store.is_some()
    })
}

/// What is wrong; nothing where there just are none. The library's own texts hold what a helper printed.
fn reason(error: &CredentialRetrievalError) -> Option<&'static str> {
    match error {
        CredentialRetrievalError::NoCredentialConfigured => None,
        CredentialRetrievalError::HelperFailure { stdout, .. } if stdout.trim() == HELPER_HAS_NONE => None,
        CredentialRetrievalError::HelperFailure { .. } => Some("the helper that it names has failed"),
        CredentialRetrievalError::HelperCommunicationError => Some("the helper that it names cannot be run"),
        CredentialRetrievalError::MalformedHelperResponse => {
            Some("the helper that it names answers with something else")
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

/// How Docker's files and helpers call a registry.
fn docker_name(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "https://index.docker.io/v1/",
        registry => registry,
    }
}
