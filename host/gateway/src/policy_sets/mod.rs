//! Policy sets as values that come and go while the gateway runs.
//!
//! A set is made whole before it is put in force: fetched, hashed, checked, compiled, tried and kept in the store, all off
//! the request path and one at a time. Then one pointer is swapped. Whatever goes wrong before that changes nothing.
//! Each attempt leaves one entry in the audit log, one in the history and one count, in one atomic write.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod change;
mod folder;
mod notices;
mod places;
mod removal;
mod shadow;
mod start;
mod stored;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore};

use self::stored::texts;
pub use change::{By, ChangeError, Changed};
use countersign_core::record::{ChangeFault, ChangeKind, ChangeOutcome, ChangeTrigger, PolicyChange};
pub use notices::Notices;
pub use start::{StartError, at_start};
pub use stored::{Inspection, PolicySetStored, Sent, archived};
pub use watch::POLL;

use self::folder::Look;
use crate::fetch::{Fetched, Fetcher};
use crate::{Gateway, traces};
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_policy::{Engine, Known, Policies, PolicySet, Source};
use countersign_registry::{Registries, RegistryError};
use countersign_store::{ChangePolicy, Committed, Store, StoreError};
use countersign_trace::{Key, Name, Span};

/// How many documents that admins send are parsed at the same time.
const PARSED_AT_ONCE: usize = 2;

/// The one place through which the set in force changes.
pub struct PolicySets {
    gateway: Arc<Gateway>,
    directory: PathBuf,
    registries: Registries,
    /// One change at a time.
    changing: Mutex<Seen>,
    /// Why the set in the folder is not taken by itself, if it is not.
    held_back: std::sync::Mutex<Vec<ChangeFault>>,
    /// What admins send is parsed off the runtime's threads, and little at a time: the machine has other work.
    parsing: Semaphore,
    /// Another set is in force, and what the one before needed may be needed no longer.
    swapped: Notify,
}

/// What has been looked at already, so that it is not tried again and again.
#[derive(Debug)]
struct Seen {
    /// The fingerprint of the folder when it was last read.
    folder: Digest,
    /// The number of the change that was last followed in vain.
    unfollowable: u64,
    /// The fingerprint of the folder whose set could not be fetched when it was last tried.
    unfetched: Option<Digest>,
    /// What was known of the folder when its set was held back.
    held_back: Option<Known>,
}

/// A folder that is another one than when it was last read.
#[derive(Debug)]
struct Found {
    fingerprint: Digest,
    /// Something says that all of it is there.
    whole: bool,
}

/// Which set is wanted.
enum Wanted {
    /// The one in the folder. Where somebody has changed the set while it was fetched, after the folder had changed:
    /// instead of which set it was wanted. Where nobody asked for it: what is known of the folder.
    Folder { overtaken: Option<Digest>, by_itself: Option<Known> },
    /// A stored one, in the place of the one that is expected to be in force.
    Stored { hash: Digest, expected: Digest, seen_in_shadow: Option<u64> },
    /// The one that was in force before the one that is expected to be.
    Before { expected: Digest },
    /// The one that another instance has put in force.
    Followed { hash: Digest },
}

/// A set that is ready to be put in force.
enum Made {
    /// It is in force.
    Same,
    /// It is not, and was read from this document, or came from the store.
    Other(PolicySet, Option<String>),
}

impl PolicySets {
    /// Changes the policies of `gateway`, which have their set and `folder` its fingerprint from [`at_start`].
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        directory: PathBuf,
        registries: Registries,
        folder: Digest,
    ) -> Arc<PolicySets> {
        let changing = Mutex::new(Seen { folder, unfollowable: 0, unfetched: None, held_back: None });
        let held_back = std::sync::Mutex::default();
        let (parsing, swapped) = (Semaphore::new(PARSED_AT_ONCE), Notify::new());
        Arc::new(PolicySets { gateway, directory, registries, changing, held_back, parsing, swapped })
    }

    /// Reads the folder again, and puts its set in force.
    ///
    /// # Errors
    /// Where its set is wrong or cannot be kept: then nothing has changed.
    pub async fn reload(self: &Arc<Self>, by: By) -> Result<Changed, ChangeError> {
        let sets = Arc::clone(self);
        whole(async move {
            let began = sets.policies().active().hash();
            let (mut seen, look) = match sets.folder().await {
                Ok(found) => found,
                Err(error) => return Err(sets.untried(ChangeKind::Reload, by, error).await),
            };
            // Whoever took the folder's set back meanwhile knew of it: theirs is the newer word.
            let changed = sets.policies().active().hash() != began && look.fingerprint == seen.folder;
            let wanted = Wanted::Folder { overtaken: changed.then_some(began), by_itself: None };
            sets.change(&mut seen, look, (ChangeKind::Reload, by), wanted).await
        })
        .await
    }

    /// The folder, if it is not what it was when it was last read, or if more is known of one that was held back.
    async fn found(&self, known: Known) -> Option<Found> {
        let seen = self.changing.lock().await;
        let look = self.look().await.ok()?;
        if look.fingerprint == seen.folder && seen.held_back.is_none_or(|held| held >= known) {
            return None;
        }
        let manifest = look.source.ok().and_then(|source| source.manifest);
        let whole = known == Known::Everything || manifest.is_some_and(|manifest| manifest.fits.is_ok());
        Some(Found { fingerprint: look.fingerprint, whole })
    }

    /// As [`PolicySets::reload`], but by itself: if the folder is the one that was found, and is not half of another one.
    /// `None` if it is another one by now.
    ///
    /// # Errors
    /// As for [`PolicySets::reload`], and if it might be half of another one.
    async fn reload_found(
        self: &Arc<Self>,
        found: Found,
        known: Known,
        by: By,
    ) -> Result<Option<Changed>, ChangeError> {
        let sets = Arc::clone(self);
        whole(async move {
            let (mut seen, look) = match sets.folder().await {
                Ok(read) => read,
                Err(error) => return Err(sets.untried(ChangeKind::Reload, by, error).await),
            };
            if look.fingerprint != found.fingerprint {
                return Ok(None);
            }
            let wanted = Wanted::Folder { overtaken: None, by_itself: Some(known) };
            sets.change(&mut seen, look, (ChangeKind::Reload, by), wanted).await.map(Some)
        })
        .await
    }

    /// Why the set in the folder is not taken by itself; nothing if it is.
    #[must_use]
    pub fn held_back(&self) -> Vec<ChangeFault> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a stored set in force, if the one in force is the expected one. Where `seen_in_shadow` is said, it must have
    /// judged so much in the shadow, and all the differences that it made must be explained.
    ///
    /// # Errors
    /// Where another is in force, or the wanted one has not, is not stored or can no longer be loaded: then nothing has
    /// changed.
    pub async fn activate(
        self: &Arc<Self>,
        hash: Digest,
        expected: Digest,
        seen_in_shadow: Option<u64>,
        by: By,
    ) -> Result<Changed, ChangeError> {
        self.whole(ChangeKind::Activate, by, Wanted::Stored { hash, expected, seen_in_shadow }).await
    }

    /// Puts the set in force again that was in force before, if the one in force is the expected one.
    ///
    /// # Errors
    /// As for [`PolicySets::activate`], and if there was none before.
    pub async fn rollback(self: &Arc<Self>, expected: Digest, by: By) -> Result<Changed, ChangeError> {
        self.whole(ChangeKind::Rollback, by, Wanted::Before { expected }).await
    }

    /// Puts the set in force that another instance has, if one has.
    ///
    /// # Errors
    /// Where it cannot be loaded: then nothing has changed, and it is not tried again.
    pub async fn follow(self: &Arc<Self>) -> Result<Option<Changed>, ChangeError> {
        let sets = Arc::clone(self);
        whole(async move {
            let mut seen = sets.changing.lock().await;
            let Some((number, last)) = sets.store().policy_in_force().await? else { return Ok(None) };
            let Some(hash) = last.to.filter(|hash| *hash != sets.policies().active().hash()) else {
                return Ok(None);
            };
            if seen.unfollowable == number {
                return Ok(None);
            }
            let look = sets.look().await?;
            let by = By { trigger: ChangeTrigger::Store, actor: last.actor, call: last.call };
            let followed =
                sets.change(&mut seen, look, (ChangeKind::Follow, by), Wanted::Followed { hash }).await;
            if matches!(followed, Err(ChangeError::Refused(_) | ChangeError::Unknown(_))) {
                seen.unfollowable = number;
            }
            followed.map(Some)
        })
        .await
    }

    /// Drops from memory what no open request needs. It stays in the store.
    ///
    /// # Errors
    /// Where the store does not say what is needed.
    pub async fn settle(&self) -> Result<(), StoreError> {
        if !self.policies().has_earlier() {
            return Ok(());
        }
        let open = self.store().open_policies().await?;
        let needed: BTreeSet<Digest> = open.into_iter().map(|open| open.policy).collect();
        self.policies().retain(|hash| needed.contains(hash));
        Ok(())
    }

    fn store(&self) -> &dyn Store {
        self.gateway.store().as_ref()
    }

    fn policies(&self) -> &Policies {
        self.gateway.policies()
    }

    fn now(&self) -> Timestamp {
        self.gateway.clock().now()
    }

    async fn whole(
        self: &Arc<Self>,
        what: ChangeKind,
        by: By,
        wanted: Wanted,
    ) -> Result<Changed, ChangeError> {
        let sets = Arc::clone(self);
        whole(async move {
            let mut seen = sets.changing.lock().await;
            let look = sets.look().await?;
            sets.change(&mut seen, look, (what, by), wanted).await
        })
        .await
    }

    /// Reads the folder while nothing else changes, with what it pins in registries.
    async fn folder(&self) -> Result<(MutexGuard<'_, Seen>, Look), ChangeError> {
        let mut fetched = Fetched::default();
        loop {
            let seen = self.changing.lock().await;
            let mut look = self.look().await?;
            let Ok(source) = &mut look.source else { return Ok((seen, look)) };
            let lacking = fetched.lacking(&look.elsewhere);
            if lacking.is_empty() {
                fetched.add_to(source, &look.elsewhere);
                return Ok((seen, look));
            }
            // A registry may take its time, and who wants to take a set back must not wait for it. The folder may be
            // another one after that.
            drop(seen);
            self.fetcher().fetch(lacking, &source.signatures, &mut fetched).await?;
        }
    }

    fn fetcher(&self) -> Fetcher<'_> {
        let (registries, engine) = (&self.registries, self.policies().engine());
        Fetcher { store: Some(self.store()), registries, engine }
    }

    async fn look(&self) -> Result<Look, ChangeError> {
        let (directory, limits) = (self.directory.clone(), *self.policies().engine().limits());
        blocking(move || Look::at(&directory, &limits)).await
    }

    /// One attempt, from the set that is wanted to the one that is in force.
    async fn change(
        &self,
        seen: &mut Seen,
        look: Look,
        (what, by): (ChangeKind, By),
        wanted: Wanted,
    ) -> Result<Changed, ChangeError> {
        let span = self.span(what, &by);
        let changed = span.around(self.change_within(seen, look, (what, by), wanted)).await;
        traces::say_reloaded(&span, &changed);
        changed
    }

    async fn change_within(
        &self,
        seen: &mut Seen,
        look: Look,
        (what, by): (ChangeKind, By),
        wanted: Wanted,
    ) -> Result<Changed, ChangeError> {
        let folder = look.fingerprint;
        let mut change = self.attempt(what, by, Some(folder));
        let by_itself = match wanted {
            Wanted::Folder { by_itself, .. } => by_itself,
            _ => None,
        };
        let changed = self.put_in_force(&mut change, look, wanted).await;
        let settled = match (what, &changed) {
            // Whatever kept the folder's set from being put in force: it was not the set.
            (
                ChangeKind::Reload,
                Err(
                    ChangeError::Unfetched(_)
                    | ChangeError::Store(_)
                    | ChangeError::Stopped(_)
                    | ChangeError::Conflict { .. },
                ),
            ) => false,
            (ChangeKind::Reload, _) => true,
            // An admin's choice is newer than whatever the folder holds by now.
            (ChangeKind::Activate | ChangeKind::Rollback, Ok(changed)) => {
                changed.outcome == ChangeOutcome::Ok
            }
            _ => false,
        };
        if settled {
            seen.folder = folder;
            let held_back = match &changed {
                Err(error @ ChangeError::HeldBack(_)) => error.faults(),
                _ => Vec::new(),
            };
            seen.held_back = by_itself.filter(|_| !held_back.is_empty());
            *self.held_back.lock().unwrap_or_else(PoisonError::into_inner) = held_back;
        }
        let unfetched = matches!(changed, Err(ChangeError::Unfetched(_))).then_some(folder);
        let told =
            unfetched.is_some() && seen.unfetched == unfetched && change.trigger == ChangeTrigger::File;
        seen.unfetched = unfetched;
        // A folder that is tried again because a registry is away: once is enough.
        if !told {
            self.tell(change, &changed).await;
        }
        changed
    }

    fn span(&self, what: ChangeKind, by: &By) -> Span {
        let span = self.gateway.tracer().start(Name::Reload);
        span.set_word(Key::Change, what.as_str()).set_word(Key::Trigger, by.trigger.as_str());
        span
    }

    /// An attempt, before anything has come of it.
    fn attempt(&self, what: ChangeKind, by: By, folder: Option<Digest>) -> PolicyChange {
        PolicyChange {
            at: self.now(),
            what,
            trigger: by.trigger,
            actor: by.actor,
            call: by.call,
            outcome: ChangeOutcome::Ok,
            from: Some(self.policies().active().hash()),
            to: None,
            folder,
            signed_by: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Tells of an attempt that failed before there was anything to be tried.
    async fn untried(&self, what: ChangeKind, by: By, error: ChangeError) -> ChangeError {
        traces::say_not_reloaded(&self.span(what, &by), &error);
        self.tell_failure(self.attempt(what, by, None), &error).await;
        error
    }

    /// Tells of an attempt, once it is over, and records it if it failed.
    async fn tell(&self, change: PolicyChange, changed: &Result<Changed, ChangeError>) {
        let (what, source) = (change.what.as_str(), change.trigger.as_str());
        match changed {
            Ok(Changed { outcome: ChangeOutcome::Ok, hash, previous, .. }) => {
                tracing::info!(what, source, %hash, %previous, "another policy set is in force");
            }
            Ok(Changed { hash, .. }) => {
                tracing::info!(what, source, %hash, "the policy set in force is the one that is wanted");
            }
            Err(error) => self.tell_failure(change, error).await,
        }
    }

    async fn tell_failure(&self, mut change: PolicyChange, error: &ChangeError) {
        let (what, source) = (change.what.as_str(), change.trigger.as_str());
        if let ChangeError::Conflict { expected, current } = error {
            change.outcome = ChangeOutcome::Conflict;
            self.record(change.failed(error.faults())).await;
            tracing::warn!(what, source, %expected, %current, "somebody else has changed the policy set in force");
            return;
        }
        let faults = error.faults();
        let held_back = matches!(error, ChangeError::HeldBack(_));
        if held_back {
            change.outcome = ChangeOutcome::HeldBack;
        }
        self.record(change.failed(faults.clone())).await;
        let faults: Vec<String> = faults.iter().map(ChangeFault::to_string).collect();
        let faults = faults.join("; ");
        if held_back {
            tracing::error!(
                what,
                source,
                faults,
                "the policy set in the folder is held back, since it may be half-written, or an old one; if it is what is \
                 wanted, send SIGHUP, or call `POST /api/admin/reload-policy`"
            );
            return;
        }
        tracing::error!(what, source, %error, faults, "the policy set in force stays as it is");
    }

    async fn put_in_force(
        &self,
        change: &mut PolicyChange,
        look: Look,
        wanted: Wanted,
    ) -> Result<Changed, ChangeError> {
        let made = self.make(change, look, wanted).await?;
        let previous = self.policies().active();
        let Made::Other(set, document) = made else {
            change.to = Some(previous.hash());
            change.signed_by = texts(&previous.signed_by());
            change.outcome = ChangeOutcome::Unchanged;
            self.recorded(change).await?;
            return Ok(Changed::of(ChangeOutcome::Unchanged, &previous, &previous));
        };
        self.keep(&set, document).await?;
        change.to = Some(set.hash());
        change.signed_by = texts(&set.signed_by());
        change.at = self.now();
        // INVARIANT: it is in the store, as the set in force, before any request is made under it.
        self.recorded(change).await?;
        self.policies().activate(set);
        let active = self.policies().active();
        self.warn();
        self.gateway.shadow().in_force(active.hash(), self.now());
        self.swapped.notify_one();
        Ok(Changed::of(ChangeOutcome::Ok, &active, &previous))
    }

    /// Logs what whoever wrote the set in force may not want, as far as people and user groups are known by now. Its
    /// policies are asked for that, so it does not wait for the answer.
    pub fn warn(&self) {
        let (set, now) = (self.policies().active(), self.now());
        let directory = Arc::clone(self.gateway.directory());
        tokio::task::spawn_blocking(move || {
            for warning in set.warnings(&directory, now) {
                tracing::warn!(hash = %set.hash(), warning, "the policy set may not do what was meant");
            }
        });
    }

    /// Makes the set that is wanted; says its hash as soon as it has one.
    async fn make(&self, change: &mut PolicyChange, look: Look, wanted: Wanted) -> Result<Made, ChangeError> {
        let current = self.policies().active().hash();
        let as_expected = |expected: Digest| {
            if expected == current { Ok(()) } else { Err(ChangeError::Conflict { expected, current }) }
        };
        let hash = match wanted {
            Wanted::Folder { overtaken, by_itself } => {
                let source = look.source.map_err(ChangeError::Refused)?;
                let (engine, name) = (self.policies().engine().clone(), source.name.clone());
                let before = self.policies().active();
                // What is asked for is not doubted.
                let text = match by_itself {
                    Some(_) => self.store().policy_document(before.hash()).await?,
                    None => None,
                };
                let built = move || -> Result<_, ChangeError> {
                    let set = build(&source, &engine)?;
                    let doubts = match by_itself {
                        Some(known) => set.doubts(&source, (&before, text.as_deref()), known),
                        None => Ok(()),
                    };
                    Ok((set, source.text, doubts))
                };
                let (set, document, doubts) = blocking(built).await??;
                if set.hash() == current {
                    // Somebody may have signed it since, with a key that is going to be the only one.
                    self.keep(&set, Some(document)).await?;
                    return Ok(Made::Same);
                }
                if let Some(expected) = overtaken {
                    return Err(ChangeError::Conflict { expected, current });
                }
                change.to = Some(set.hash());
                doubts.map_err(ChangeError::HeldBack)?;
                if by_itself.is_some() && start::is_past(self.store(), set.hash()).await? {
                    return Err(ChangeError::HeldBack(start::past(&name)));
                }
                return Ok(Made::Other(set, Some(document)));
            }
            Wanted::Stored { hash, expected, seen_in_shadow } => {
                change.to = Some(hash);
                as_expected(expected)?;
                if let Some(events) = seen_in_shadow {
                    self.gateway.shadow().ready(hash, events)?;
                }
                hash
            }
            Wanted::Before { expected } => {
                as_expected(expected)?;
                let last = self.store().policy_in_force().await?.map(|(_, last)| last);
                let before = last.filter(|last| last.to == Some(current)).and_then(|last| last.from);
                before.ok_or(ChangeError::NothingBefore)?
            }
            Wanted::Followed { hash } => hash,
        };
        change.to = Some(hash);
        if hash == current {
            return Ok(Made::Same);
        }
        Ok(Made::Other(self.restored(hash, str::to_owned).await?, None))
    }

    /// Stores a change, unless it only follows one that is stored.
    async fn recorded(&self, change: &PolicyChange) -> Result<(), ChangeError> {
        if change.what == ChangeKind::Follow { Ok(()) } else { self.stored(change.clone()).await }
    }

    /// Stores what happened; a conflict means that another instance was faster.
    async fn stored(&self, change: PolicyChange) -> Result<(), ChangeError> {
        let expected = change.from.unwrap_or(Digest::from_bytes([0; 32]));
        let (audit, counts) = (vec![change.audit()], change.counts());
        match self.store().change_policy(ChangePolicy { change, audit, counts }).await? {
            Committed::Done => Ok(()),
            Committed::Conflict | Committed::Repeated => {
                let last = self.store().policy_in_force().await?;
                let current = last.and_then(|(_, last)| last.to).unwrap_or(expected);
                Err(ChangeError::Conflict { expected, current })
            }
        }
    }

    /// Stores that an attempt failed. Where even that fails, the log has it.
    async fn record(&self, change: PolicyChange) {
        if let Err(error) = self.stored(change).await {
            tracing::error!(%error, "the failed attempt to change the policy set is missing from the audit log");
        }
    }
}

/// Makes a set of its files. Blocks.
fn build(source: &Source, engine: &Engine) -> Result<PolicySet, ChangeError> {
    PolicySet::build(source, engine).map_err(|errors| {
        if source.unfetched.values().any(RegistryError::may_pass) {
            ChangeError::Unfetched(errors)
        } else {
            ChangeError::Refused(errors)
        }
    })
}

/// Does `work` to its end, even if whoever asked for it goes away half-way.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, ChangeError> {
    tokio::spawn(work).await.map_err(|stopped| ChangeError::Stopped(stopped.to_string()))?
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ChangeError> {
    tokio::task::spawn_blocking(work).await.map_err(|stopped| ChangeError::Stopped(stopped.to_string()))
}
