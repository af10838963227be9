//! The gates of CI systems that are configured: how their deliveries are verified, and the calls of their APIs.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use countersign_access::{Access, GateSystem};
use countersign_gates::Verifier;
use countersign_gates::github::{self, AppKey};
use countersign_gates::gitlab::Gitlab;
use countersign_policy::files;

use crate::config::Config;

/// The largest file with a private key, in bytes.
const KEY_BYTES: u64 = 64 << 10;

/// The gates that are configured.
#[derive(Default)]
pub(crate) struct Gates {
    pub(crate) github: Option<Gate<github::App>>,
    pub(crate) gitlab: Option<Gate<Gitlab>>,
}

/// The gate of a system.
pub(crate) struct Gate<A> {
    pub(crate) verifier: Verifier,
    pub(crate) api: A,
}

impl Gates {
    /// Reads the key file, and sets up the clients. Blocks.
    ///
    /// # Errors
    /// If the key cannot be read, or the certificate authorities of the system cannot.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Gates> {
        const AUTHORITIES: &str = "the system's certificates cannot be read";
        let (settings, secrets) = (&config.gates, &config.secrets);
        let mut gates = Gates::default();
        if let (Some(app), Some(file), Some(secret)) =
            (&settings.github_app, &settings.github_key_file, &secrets.github_webhook)
        {
            let key = key(file)?;
            let verifier =
                Verifier::github(secret).context("the webhook secret of GitHub cannot be a key")?;
            let api =
                github::App::new(app.clone(), key, settings.github_api_url.clone()).context(AUTHORITIES)?;
            gates.github = Some(Gate { verifier, api });
        }
        if let (Some(token), Some(secret)) = (&secrets.gitlab, &secrets.gitlab_webhook) {
            let verifier =
                Verifier::gitlab(secret).context("the webhook secret of GitLab cannot be a key")?;
            let api = Gitlab::new(token.clone(), settings.gitlab_api_url.clone()).context(AUTHORITIES)?;
            gates.gitlab = Some(Gate { verifier, api });
        }
        Ok(gates)
    }

    /// The systems that are configured.
    pub(crate) fn systems(&self) -> impl Iterator<Item = GateSystem> {
        let systems =
            [(GateSystem::Github, self.github.is_some()), (GateSystem::Gitlab, self.gitlab.is_some())];
        systems.into_iter().filter(|(_, is)| *is).map(|(system, _)| system)
    }

    /// What of the access file does not fit the settings, one sentence each.
    pub(crate) fn doubts(&self, access: &Access) -> Vec<String> {
        let in_file = access.gate_systems();
        let configured: Vec<GateSystem> = self.systems().collect();
        let unconfigured = in_file.iter().filter(|system| !configured.contains(system)).map(|system| {
            format!(
                "the access file has callers with gates of {0}, but the settings of {0} are missing: they ask for nothing",
                system.as_str()
            )
        });
        let unused = configured.iter().filter(|system| !in_file.contains(system)).map(|system| {
            format!(
                "{} is configured, but no caller of the access file has a gate of it: every delivery is refused",
                system.as_str()
            )
        });
        unconfigured.chain(unused).collect()
    }
}

fn key(file: &Path) -> anyhow::Result<AppKey> {
    let cannot = || format!("cannot use the private key `{}` of the GitHub App", file.display());
    let pem = files::read(file, KEY_BYTES + 1).with_context(cannot)?;
    if u64::try_from(pem.len()).unwrap_or(u64::MAX) > KEY_BYTES {
        return Err(anyhow!("it has more than {KEY_BYTES} bytes")).with_context(cannot);
    }
    AppKey::from_pem(&zeroize::Zeroizing::new(pem)).with_context(cannot)
}
