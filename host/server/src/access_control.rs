//! The access file in force: read at start, and again on SIGHUP and when the file changes. A file that is wrong changes
//! nothing. Each attempt is audited and counted.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use countersign_access::{ACCESS_BYTES, Access, Authenticator};
use countersign_core::lifecycle::{AuditEntry, Count, Digest};
use countersign_gateway::Gateway;
use countersign_policy::LoadErrors;
use serde_json::{Map, json};
use tokio::signal::unix::{SignalKind, signal};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(2);

/// How many errors of a file that is wrong are audited.
const AUDITED_ERRORS: usize = 10;

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

/// What set off a reload; the values of the metric label `source`.
#[derive(Clone, Copy)]
enum Source {
    Sighup,
    File,
}

impl Source {
    const fn as_str(self) -> &'static str {
        match self {
            Source::Sighup => "sighup",
            Source::File => "file",
        }
    }
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
    pub async fn watch(self: Arc<Self>, gateway: Arc<Gateway>) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        loop {
            let source = tokio::select! {
                _ = hangup.recv() => Source::Sighup,
                () = tokio::time::sleep(POLL) => Source::File,
            };
            self.reload(source, &gateway).await;
        }
    }

    async fn reload(&self, source: Source, gateway: &Gateway) {
        let path = self.path.clone();
        let Ok(text) = tokio::task::spawn_blocking(move || read(&path)).await else { return };
        let digest = Digest::of(text.as_ref().map_or_else(|why| why.as_bytes(), |text| text.as_bytes()));
        let tried =
            std::mem::replace(&mut *self.tried.lock().unwrap_or_else(PoisonError::into_inner), digest);
        // What was tried already is tried again only if somebody asks for it.
        if tried == digest && matches!(source, Source::File) {
            return;
        }
        let before = self.authenticator.access().digest();
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let text = text.map_err(|why| vec![why])?;
            Access::read(&path, &text)
                .map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        let Ok(read) = read.await else { return };
        let mut detail = Map::from_iter([
            ("source".to_owned(), json!(source.as_str())),
            ("previousHash".to_owned(), json!(before)),
        ]);
        let (event, outcome) = match read {
            Ok(access) if access.digest() == before => ("access_reloaded", "unchanged"),
            Ok(access) => {
                detail.insert("hash".to_owned(), json!(access.digest()));
                let callers = access.callers().count();
                gateway.directory().set_people(Arc::clone(access.people()));
                self.authenticator.replace(access);
                tracing::info!(source = source.as_str(), callers, "access file reloaded");
                ("access_reloaded", "ok")
            }
            Err(errors) => {
                for error in errors.iter().take(AUDITED_ERRORS) {
                    tracing::error!(error, "access file rejected; the last one stays in force");
                }
                detail.insert(
                    "errors".to_owned(),
                    json!(errors.iter().take(AUDITED_ERRORS).collect::<Vec<_>>()),
                );
                ("access_reload_failed", "failed")
            }
        };
        let entry = AuditEntry::of_admin(gateway.clock().now(), event, None, detail);
        let labels = [("source", source.as_str()), ("outcome", outcome)];
        let count = Count::one("access_reloads_total", &labels);
        if let Err(error) = gateway.store().append(vec![entry], vec![count]).await {
            tracing::error!(%error, "cannot audit the reload of the access file");
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
