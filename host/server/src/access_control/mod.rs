//! The access file in force: read at start, and again on SIGHUP and when the file changes. A file that is wrong changes
//! nothing. Each attempt is audited, counted, and part of the history.

pub(crate) mod history;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use countersign_access::{ACCESS_BYTES, Access, Authenticator};
use countersign_core::lifecycle::Digest;
use countersign_core::record::ChangeFault;
use countersign_gateway::Gateway;
use countersign_gateway::policy_sets::PolicySets;
use countersign_policy::LoadErrors;
use tokio::signal::unix::{SignalKind, signal};

use self::history::{Attempt, Outcome, Source};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(2);

/// Recognises callers by the access file in force.
pub struct AccessControl {
    path: PathBuf,
    /// Who callers are.
    pub authenticator: Authenticator,
    /// SHA-256 of the file as it was last tried, so that a wrong one is told of once.
    tried: Mutex<Digest>,
}

/// Why there is no access file to start with.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It is wrong; each mistake with its place.
    #[error(transparent)]
    Wrong(#[from] LoadErrors),
    /// It cannot be read.
    #[error("cannot read the access file `{0}`: {1}")]
    Unreadable(PathBuf, String),
}

impl AccessControl {
    /// Reads the access file. Blocks.
    ///
    /// # Errors
    /// If it cannot be read, or is wrong.
    pub fn start(path: &Path) -> Result<AccessControl, AccessError> {
        let text = read(path).map_err(|why| AccessError::Unreadable(path.to_owned(), why))?;
        let access = Access::read(path, &text)?;
        let tried = Mutex::new(Digest::of(text.as_bytes()));
        Ok(AccessControl { path: path.to_owned(), authenticator: Authenticator::new(access), tried })
    }

    /// Reloads the file on SIGHUP and when it changes, for ever.
    ///
    /// # Errors
    /// If the signal cannot be listened for.
    pub async fn watch(
        self: Arc<Self>,
        gateway: Arc<Gateway>,
        policy_sets: Arc<PolicySets>,
    ) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        loop {
            let source = tokio::select! {
                _ = hangup.recv() => Source::Sighup,
                () = tokio::time::sleep(POLL) => Source::File,
            };
            if self.reload(source, &gateway).await == Some(Outcome::Ok) {
                // Other people may make another set of it.
                policy_sets.warn();
            }
        }
    }

    /// Reads the file, and puts it in force if it is sound and another one. `None` if it was not tried.
    pub(crate) async fn reload(&self, source: Source, gateway: &Gateway) -> Option<Outcome> {
        let path = self.path.clone();
        let text = tokio::task::spawn_blocking(move || read(&path)).await.ok()?;
        let digest = Digest::of(text.as_ref().map_or_else(|why| why.as_bytes(), |text| text.as_bytes()));
        let tried =
            std::mem::replace(&mut *self.tried.lock().unwrap_or_else(PoisonError::into_inner), digest);
        // What was tried already is tried again only if somebody asks for it.
        if tried == digest && matches!(source, Source::File) {
            return None;
        }
        let hash = text.is_ok().then_some(digest);
        let previous = self.authenticator.access().digest();
        let (outcome, errors) = match self.parse(text).await {
            Ok(_) if hash == previous => (Outcome::Unchanged, Vec::new()),
            Ok(access) => {
                let callers = access.callers().count();
                gateway.directory().set_people(Arc::clone(access.people()));
                self.authenticator.replace(access);
                tracing::info!(source = source.as_str(), callers, "access file reloaded");
                (Outcome::Ok, Vec::new())
            }
            Err(errors) => {
                for error in &errors {
                    tracing::error!(%error, "access file rejected; the last one stays in force");
                }
                (Outcome::Failed, errors)
            }
        };
        let at = gateway.clock().now();
        let attempt = Attempt { at, source, outcome, hash, previous, errors };
        if let Err(error) = history::record(gateway.store().as_ref(), attempt).await {
            tracing::error!(%error, "cannot record the reload of the access file");
        }
        Some(outcome)
    }

    /// What the text of a file says, or what is wrong with it, as far as that is kept.
    async fn parse(&self, text: Result<String, String>) -> Result<Access, Vec<ChangeFault>> {
        let path = self.path.clone();
        let text = text.map_err(|why| vec![history::fault(path.display().to_string(), &why)])?;
        // A large file takes a while.
        let parsed = tokio::task::spawn_blocking(move || Access::read(&path, &text)).await;
        match parsed {
            Ok(read) => read.map_err(|errors| history::faults(&errors)),
            Err(stopped) => Err(vec![history::fault(String::new(), &stopped.to_string())]),
        }
    }
}

/// The text of the file. Blocks.
fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(ACCESS_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > ACCESS_BYTES {
        return Err(format!("it has more than {ACCESS_BYTES} bytes"));
    }
    Ok(text)
}
