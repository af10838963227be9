//! TLS of a listener: its certificate, and whose client certificates count.
//!
//! All files of a listener are read together, at start, on SIGHUP and when one has changed. Files that are wrong, or do
//! not fit together, change nothing. What is put in force is a whole configuration of rustls: its sessions are new, so
//! that nobody resumes one that was begun under other authorities or revocation lists.

mod in_force;
mod metrics;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::clock::Clock;
use countersign_core::lifecycle::Digest;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(crate) use self::in_force::InForce;
pub(crate) use self::metrics::TlsMetrics;
use crate::hangups::Hangups;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// The largest file, in bytes: revocation lists can be large.
const FILE_BYTES: u64 = 16 << 20;

/// The files of a listener.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Without it no client certificate is asked for.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) crl: Option<PathBuf>,
    pub(crate) require_client_cert: bool,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("`{file}`: {why}")]
pub struct TlsError {
    file: String,
    why: String,
}

impl TlsError {
    fn new(file: &Path, why: impl Into<String>) -> TlsError {
        TlsError { file: file.display().to_string(), why: why.into() }
    }
}

/// TLS of one listener.
pub struct Tls {
    /// The listener, as metrics and the log call it.
    listener: &'static str,
    files: TlsFiles,
    at_start: Digest,
    in_force: watch::Sender<Arc<InForce>>,
}

/// What the files hold.
struct Contents {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    ca: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files of a listener. Blocks.
    ///
    /// # Errors
    /// If one cannot be read, or is wrong, or they do not fit together.
    pub fn start(listener: &'static str, files: TlsFiles) -> Result<Tls, TlsError> {
        let contents = Contents::read(&files)?;
        let in_force = InForce::new(&files, &contents)?;
        let at_start = contents.digest();
        Ok(Tls { listener, files, at_start, in_force: watch::Sender::new(Arc::new(in_force)) })
    }

    /// What is in force, and whether it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<InForce>> {
        self.in_force.subscribe()
    }

    /// Whether client certificates are asked for.
    pub(crate) fn has_clients(&self) -> bool {
        self.files.ca.is_some()
    }

    /// Reads the files again on SIGHUP and when they change, for ever.
    pub(crate) async fn watch(
        self: Arc<Self>,
        metrics: TlsMetrics,
        clock: Arc<dyn Clock>,
        mut hangups: Hangups,
    ) {
        let (mut tried, mut seen) = (self.at_start, self.at_start);
        let mut ran_out = false;
        metrics.in_force(self.listener, &self.in_force.borrow());
        loop {
            let is_out = self.in_force.borrow().lists_until().is_some_and(|until| clock.now() >= until);
            if is_out && !ran_out {
                tracing::error!(
                    listener = self.listener,
                    "TLS revocation list has run out: client certificates are refused"
                );
            }
            ran_out = is_out;
            let asked = tokio::select! {
                () = hangups.next() => true,
                () = tokio::time::sleep(POLL) => false,
            };
            let this = Arc::clone(&self);
            let read = move || {
                let contents = Contents::read(&this.files);
                let digest = contents
                    .as_ref()
                    .map_or_else(|error| Digest::of(error.to_string().as_bytes()), Contents::digest);
                (digest, contents)
            };
            let Ok((digest, contents)) = tokio::task::spawn_blocking(read).await else { continue };
            // Files that are replaced one by one fit together once nothing more changes.
            let is_settled = std::mem::replace(&mut seen, digest) == digest;
            if !asked && (digest == tried || !is_settled) {
                continue;
            }
            tried = digest;
            self.reload(contents, &metrics).await;
        }
    }

    /// Puts the contents in force, if they are sound.
    async fn reload(self: &Arc<Self>, contents: Result<Contents, TlsError>, metrics: &TlsMetrics) {
        let this = Arc::clone(self);
        let parse = move || contents.and_then(|contents| InForce::new(&this.files, &contents));
        let parsed = match tokio::task::spawn_blocking(parse).await {
            Ok(parsed) => parsed.map_err(|error| error.to_string()),
            Err(stopped) => Err(stopped.to_string()),
        };
        match parsed {
            Ok(in_force) => {
                metrics.in_force(self.listener, &in_force);
                self.in_force.send_replace(Arc::new(in_force));
                metrics.reloaded(self.listener, true);
                tracing::info!(listener = self.listener, "TLS files reloaded");
            }
            Err(error) => {
                metrics.reloaded(self.listener, false);
                tracing::error!(
                    listener = self.listener,
                    %error,
                    "TLS files rejected; the last ones stay in force"
                );
            }
        }
    }
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
        let optional = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
        Ok(Contents {
            cert: read(&files.cert)?,
            key: Zeroizing::new(read(&files.key)?),
            ca: optional(&files.ca)?,
            crl: optional(&files.crl)?,
        })
    }

    /// Of each file, so that nothing can move from one to the next unseen.
    fn digest(&self) -> Digest {
        let files = [Some(&self.cert), Some(&*self.key), self.ca.as_ref(), self.crl.as_ref()];
        let digests = files.map(|file| file.map_or_else(String::new, |bytes| Digest::of(bytes).to_string()));
        Digest::of(digests.join(" ").as_bytes())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |why: String| TlsError::new(path, why);
    let file = std::fs::File::open(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES {
        return Err(wrong(format!("has more than {FILE_BYTES} bytes")));
    }
    Ok(bytes)
}
