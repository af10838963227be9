//! The access file in force: read at start, and again on SIGHUP and when the file changes. A file that is wrong changes
//! nothing, and neither does one that may be half-written, unless somebody asks for it. Each attempt is audited, counted,
//! and part of the history. Of several instances each has a file of its own, and knows whether another one has a newer.

pub(crate) mod history;
pub(crate) mod newest;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_access::{ACCESS_BYTES, Access, Authenticator, doubts};
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::record::ChangeFault;
use countersign_gateway::Gateway;
use countersign_gateway::policy_sets::Notices;
use countersign_policy::{Known, LoadErrors, Manifest, PolicySet, files};
use countersign_store::{Change, Shared};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use self::history::{Attempt, Outcome, Source, Unrecorded};
use crate::hangups::Hangups;
use crate::state::App;

/// How often the file is looked at. It is taken if it is the same twice in a row.
const POLL: Duration = Duration::from_secs(2);

/// Recognises callers by the access file in force.
pub struct AccessControl {
    path: PathBuf,
    /// Who callers are.
    pub authenticator: Authenticator,
    looks: Mutex<Looks>,
    /// The newest file of all instances, if it is not the one in force here.
    newer: Mutex<Option<Newer>>,
    /// Attempts that the store has not taken yet, the oldest first.
    unrecorded: tokio::sync::Mutex<VecDeque<Unrecorded>>,
}

/// A newer file that another instance has in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Newer {
    version: u64,
    hash: Digest,
}

/// What has been looked at.
struct Looks {
    /// The text in force.
    text: String,
    /// What was last tried, so that a wrong file is told of once.
    tried: Digest,
    /// What was last looked at.
    seen: Digest,
    /// What was known of the file when it was held back.
    held_back: Option<Known>,
}

/// An attempt to put a file in force.
enum Tried {
    Loaded(Box<Access>, String),
    Wrong(Vec<ChangeFault>),
    HeldBack(Vec<ChangeFault>),
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
        let seen = fingerprint(path, &Ok(text.clone()));
        let looks = Mutex::new(Looks { text, tried: seen, seen, held_back: None });
        let (path, authenticator) = (path.to_owned(), Authenticator::new(access));
        Ok(AccessControl {
            path,
            authenticator,
            looks,
            newer: Mutex::default(),
            unrecorded: Default::default(),
        })
    }

    /// Logs what of the file in force may not do what was meant, by itself and beside this policy set.
    pub(crate) fn warn(&self, set: &PolicySet, now: Timestamp) {
        for warning in warnings(&self.authenticator.access(), Some(set), now) {
            tracing::warn!(warning, "the access file may not do what was meant");
        }
    }

    /// Reloads the file on SIGHUP and when it changes, for ever.
    pub(crate) async fn watch(self: Arc<Self>, app: Arc<App>, mut hangups: Hangups) {
        let mut notices = None;
        let mut changes = app.gateway.store().shared().map(Shared::changes);
        loop {
            self.record(None, &app.gateway).await;
            let was_outdated = self.is_outdated();
            if self.compare(&app.gateway).await && was_outdated {
                // What waited for targets that this file does not have was left for instances with a newer one.
                app.dispatching.drop_removed(app.gateway.store().as_ref()).await;
            }
            notices = self.watched(notices).await;
            let source = tokio::select! {
                () = hangups.next() => Source::Sighup,
                () = of_another_instance(&mut changes) => {
                    self.compare(&app.gateway).await;
                    Source::Instance
                }
                () = tokio::time::sleep(POLL) => Source::File,
            };
            // What has happened to the file is looked at before the file is.
            let (watched, known) = self.known(notices).await;
            notices = watched;
            if self.reload(source, known, &app.gateway).await == Some(Outcome::Ok) {
                // Other people may make another set of it.
                app.policy_sets.warn();
                let is_newest = self.compare(&app.gateway).await;
                if app.dispatching.follow(&self.authenticator.access()) && is_newest {
                    app.dispatching.drop_removed(app.gateway.store().as_ref()).await;
                }
            }
        }
    }

    /// Whether the file is not taken by itself, since it may be half-written.
    pub(crate) fn is_held_back(&self) -> bool {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).held_back.is_some()
    }

    /// Whether another instance has a newer file in force.
    pub(crate) fn is_outdated(&self) -> bool {
        self.newer().is_some()
    }

    /// Says to the other instances which file is in force here, and learns whether one of them has a newer one. Returns
    /// whether it is known that none has.
    pub(crate) async fn compare(&self, gateway: &Gateway) -> bool {
        let store = gateway.store().as_ref();
        let Some(shared) = store.shared() else { return true };
        let Some(hash) = self.authenticator.access().digest() else { return false };
        let newest = match newest::record(store, shared, gateway.instance(), hash).await {
            Ok(newest) => newest,
            // What was known before is known until the store can be read again.
            Err(error) => {
                tracing::debug!(%error, "cannot compare the access file with those of other instances");
                return false;
            }
        };
        let newer = newest.hash.filter(|newest| *newest != hash);
        let newer = newer.map(|hash| Newer { version: newest.version, hash });
        let before =
            std::mem::replace(&mut *self.newer.lock().unwrap_or_else(PoisonError::into_inner), newer);
        match newer {
            Some(Newer { version, hash: newest }) if newer != before => {
                tracing::warn!(version, %newest, in_force = %hash, "the access file is older than that of another instance");
            }
            None if before.is_some() => tracing::info!("the access file is the newest one again"),
            _ => {}
        }
        newer.is_none()
    }

    fn newer(&self) -> Option<Newer> {
        *self.newer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches what leads to the file by now, if that can be done; if not, nothing is known of how the file came.
    async fn watched(&self, notices: Option<Notices>) -> Option<Notices> {
        let path = self.path.clone();
        let watch = move || {
            let mut notices = notices.map_or_else(|| Notices::of_file(&path), Ok)?;
            notices.renew().map(|()| notices)
        };
        tokio::task::spawn_blocking(watch).await.ok()?.ok()
    }

    /// What is known of the file from how it came to be as it is.
    async fn known(&self, notices: Option<Notices>) -> (Option<Notices>, Known) {
        let look = move || {
            let mut notices = notices?;
            notices.take();
            Some((notices.known(), notices))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Some((known, notices))) => (Some(notices), known),
            Ok(None) | Err(_) => (None, Known::Nothing),
        }
    }

    /// Reads the file, and puts it in force if it is sound and another one; by itself only if it is the same as at the last
    /// look, and is not half of another one, by what is known of it. `None` if it was not tried.
    pub(crate) async fn reload(&self, source: Source, known: Known, gateway: &Gateway) -> Option<Outcome> {
        let path = self.path.clone();
        let look = move || {
            let text = read(&path);
            (fingerprint(&path, &text), text)
        };
        let (found, text) = tokio::task::spawn_blocking(look).await.ok()?;
        let by_itself = matches!(source, Source::File);
        let hash = text.as_ref().ok().map(|text| Digest::of(text.as_bytes()));
        // All of it is there if it is the same, byte by byte, as the file of another instance.
        if source == Source::Instance && self.newer().is_none_or(|newer| Some(newer.hash) != hash) {
            return None;
        }
        let before = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut looks.seen, found);
            // What was tried already is tried again only if somebody asks for it, or more is known of it.
            let tried = looks.tried == found && looks.held_back.is_none_or(|held| held >= known);
            if by_itself && (tried || before != found) {
                return None;
            }
            (looks.tried, looks.held_back) = (found, None);
            looks.text.clone()
        };
        let previous = self.authenticator.access().digest();
        let doubted = (by_itself && hash != previous).then_some((before, known));
        let (outcome, errors) = match self.load(text, doubted).await {
            Tried::Loaded(..) if hash == previous => (Outcome::Unchanged, Vec::new()),
            Tried::Loaded(access, text) => {
                let callers = access.callers().count();
                gateway.directory().set_people(Arc::clone(access.people()));
                self.authenticator.replace(*access);
                self.looks.lock().unwrap_or_else(PoisonError::into_inner).text = text;
                tracing::info!(source = source.as_str(), callers, "access file reloaded");
                (Outcome::Ok, Vec::new())
            }
            Tried::HeldBack(errors) => {
                self.looks.lock().unwrap_or_else(PoisonError::into_inner).held_back = Some(known);
                let faults: Vec<String> = errors.iter().map(ChangeFault::to_string).collect();
                tracing::error!(
                    faults = faults.join("; "),
                    "access file held back, since it may be half-written; if all of it is there, send SIGHUP, or write its \
                     digest beside it, as `sha256sum` does"
                );
                (Outcome::HeldBack, errors)
            }
            Tried::Wrong(errors) => {
                for error in &errors {
                    tracing::error!(%error, "access file rejected; the last one stays in force");
                }
                (Outcome::Failed, errors)
            }
        };
        let at = gateway.clock().now();
        let attempt = Attempt { at, source, outcome, hash, previous, errors };
        self.record(Some(attempt), gateway).await;
        Some(outcome)
    }

    /// Records an attempt, after those that the store did not take before. What it does not take now is tried again at the
    /// next look.
    async fn record(&self, attempt: Option<Attempt>, gateway: &Gateway) {
        let mut unrecorded = self.unrecorded.lock().await;
        let is_news = attempt.is_some();
        unrecorded.extend(attempt.map(Unrecorded::new));
        if unrecorded.len() > history::MOST {
            tracing::error!("too many reloads of the access file wait to be recorded; the oldest is not");
            unrecorded.pop_front();
        }
        while let Some(next) = unrecorded.front() {
            let recorded =
                history::record(gateway.store().as_ref(), next.clone(), gateway.clock().now()).await;
            match recorded {
                Ok(()) => drop(unrecorded.pop_front()),
                Err(error) if is_news => {
                    return tracing::error!(%error, "cannot record the reload of the access file; trying again soon");
                }
                Err(error) => {
                    return tracing::debug!(%error, "still cannot record a reload of the access file");
                }
            }
        }
    }

    /// What the text of a file says, or what is wrong with it, as far as that is kept. If it is `doubted`, it is compared
    /// with the text before it.
    async fn load(&self, text: Result<String, String>, doubted: Option<(String, Known)>) -> Tried {
        let path = self.path.clone();
        // A large file takes a while.
        let tried = tokio::task::spawn_blocking(move || {
            let text = match text {
                Ok(text) => text,
                Err(why) => return Tried::Wrong(vec![history::fault(path.display().to_string(), &why)]),
            };
            let access = match Access::read(&path, &text) {
                Ok(access) => access,
                Err(errors) => return Tried::Wrong(history::faults(&errors)),
            };
            let doubts = doubted.map(|(before, known)| doubts(&path, (&before, &text), known));
            match doubts {
                Some(Err(errors)) => Tried::HeldBack(history::faults(&errors)),
                Some(Ok(())) | None => Tried::Loaded(Box::new(access), text),
            }
        });
        tried
            .await
            .unwrap_or_else(|stopped| Tried::Wrong(vec![history::fault(String::new(), &stopped.to_string())]))
    }
}

/// What of an access file may not do what was meant, by itself and beside a policy set.
pub(crate) fn warnings(access: &Access, set: Option<&PolicySet>, now: Timestamp) -> Vec<String> {
    let mut warnings: Vec<String> = access.warnings(now).map(ToString::to_string).collect();
    if let Some(set) = set {
        let actions: Vec<&str> = set.policies().map(|policy| policy.entry().action.as_str()).collect();
        // The entry `*` judges every action.
        if !actions.contains(&"*") {
            warnings.extend(access.idle_actions(&actions));
        }
    }
    warnings
}

/// Returns once another instance may have another access file in force; never if the store has one instance only.
async fn of_another_instance(changes: &mut Option<Receiver<Change>>) {
    let Some(receiver) = changes else { return std::future::pending().await };
    loop {
        match receiver.recv().await {
            Ok(Change::Document { key }) if key == newest::KEY => return,
            Ok(Change::Missed) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => {
                *changes = None;
                return;
            }
        }
    }
}

/// A digest of the text of the file, or of why there is none, and of the manifest beside it. Blocks.
fn fingerprint(path: &Path, text: &Result<String, String>) -> Digest {
    let manifest = Manifest::of_file(path, text.as_ref().map_or("", String::as_str));
    let manifest = match &manifest {
        Ok(manifest) => json!(manifest.as_ref().map(|manifest| manifest.digest)),
        Err((_, error)) => json!(error.to_string()),
    };
    Digest::of_json(&json!([text, manifest]))
}

/// The text of the file. Blocks.
fn read(path: &Path) -> Result<String, String> {
    let bytes = files::read(path, ACCESS_BYTES + 1).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > ACCESS_BYTES {
        return Err(format!("it has more than {ACCESS_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}
