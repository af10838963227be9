//! Which set is in force when the gateway starts: the newest change wins.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::folder::Look;
use super::stored::{keep, stored, texts};
use super::{ChangeError, ChangeKind, ChangeOutcome, ChangeTrigger, PolicyChange};
use crate::fetch::Fetcher;
use countersign_core::clock::Clock;
use countersign_core::lifecycle::Digest;
use countersign_policy::{Engine, LoadError, LoadErrors, PolicySet};
use countersign_registry::Registries;
use countersign_store::{ChangePolicy, Store, StoreError};

/// Why there is no policy set to start with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy set is wrong; each mistake with its place.
    #[error(transparent)]
    Policies(#[from] LoadErrors),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The set to start with, and the fingerprint of the folder; the set is kept in the store by then.
///
/// Where an admin put a set in force and the folder has not changed since, that set stays in force; else the folder's.
/// An instance of several takes a folder's set only if it was not in force before: an instance with an old folder is
/// restarted, too. One without a folder takes what is in force.
///
/// # Errors
/// Where the set cannot be loaded or kept.
pub async fn at_start(
    store: &Arc<dyn Store>,
    engine: &Engine,
    clock: &Arc<dyn Clock>,
    directory: PathBuf,
    registries: &Registries,
) -> Result<(PolicySet, Digest), StartError> {
    let last =
        store.policy_in_force().await.context("the store does not say which policy set was in force")?;
    let last = last.map(|(_, change)| change);
    let limits = *engine.limits();
    let (look, exists) = blocking(move || (Look::at(&directory, &limits), directory.exists())).await?;
    let folder = look.fingerprint;
    let in_store = last.as_ref().and_then(|last| last.to);
    let stays = last.as_ref().filter(|last| last.by_admin() && last.folder == Some(folder));
    let without_folder = in_store.filter(|_| store.shared().is_some() && !exists);
    let (set, document) = match (stays.and_then(|last| last.to), without_folder) {
        (Some(hash), _) => {
            tracing::info!(%hash, "the policy set that an admin put in force stays: the folder has not changed since");
            (restore(store, engine, hash).await?, None)
        }
        (None, Some(hash)) => {
            tracing::info!(%hash, "there is no policy folder; the policy set is the one in force");
            (restore(store, engine, hash).await?, None)
        }
        (None, None) => {
            let mut source = look.source?;
            let fetcher = Fetcher { store: Some(store.as_ref()), registries, engine };
            let completed = fetcher.complete(&mut source, look.elsewhere).await;
            completed.context("the store does not say which modules it has")?;
            let building = engine.clone();
            let built = blocking(move || (PolicySet::build(&source, &building), source.text));
            let (set, document) = built.await?;
            let set = set?;
            let hash = set.hash();
            if let Some(current) = in_store.filter(|current| *current != hash)
                && is_past(store.as_ref(), hash)
                    .await
                    .context("the store does not say which sets were in force")?
            {
                tracing::warn!(%hash, in_force = %current, "the folder has a policy set that was in force before, and is left alone");
                return Ok((restore(store, engine, current).await?, folder));
            }
            if last.as_ref().is_some_and(|last| last.by_admin()) {
                tracing::warn!(%hash, "the folder has changed since an admin put a policy set in force, and takes its place");
            } else if last.as_ref().is_some_and(|last| last.to == Some(hash)) {
                tracing::info!(%hash, "the policy set is the folder's, as before");
            } else {
                tracing::info!(%hash, "the policy set is the folder's");
            }
            (set, Some(document))
        }
    };
    // Before any request is made under it: one that is open must find its rules after a restart.
    keep(store.as_ref(), &set, document, clock.now())
        .await
        .context("the policies cannot be kept in the store")?;
    let from = last.as_ref().and_then(|last| last.to);
    if from != Some(set.hash()) {
        let change = PolicyChange {
            at: clock.now(),
            what: ChangeKind::Start,
            trigger: ChangeTrigger::Start,
            actor: None,
            call: None,
            outcome: ChangeOutcome::Ok,
            from,
            to: Some(set.hash()),
            folder: Some(folder),
            signed_by: texts(&set.signed_by()),
            faults: Vec::new(),
        };
        let (audit, counts) = (vec![change.audit()], change.counts());
        // Where another instance was faster, this one follows it once it runs.
        store
            .change_policy(ChangePolicy { change, audit, counts })
            .await
            .context("the start cannot be stored")?;
    }
    Ok((set, folder))
}

/// Why a set that was in force before is not taken from a folder by itself.
pub(super) fn past(file: &str) -> LoadErrors {
    LoadErrors(vec![LoadError {
        file: file.to_owned(),
        place: None,
        pointer: None,
        message: "was in force before: of gateways that share a store, one with an old folder must not put it in force for all"
            .to_owned(),
    }])
}

/// Whether instances share the store, and this set was in force before.
pub(super) async fn is_past(store: &dyn Store, hash: Digest) -> Result<bool, StoreError> {
    const PAGE: usize = 100;
    if store.shared().is_none() {
        return Ok(false);
    }
    let mut before = u64::MAX;
    loop {
        let changes = store.policy_changes(before, PAGE).await?;
        if changes.iter().any(|(_, change)| change.outcome == ChangeOutcome::Ok && change.to == Some(hash)) {
            return Ok(true);
        }
        match changes.last() {
            Some((number, _)) if changes.len() == PAGE => before = *number,
            _ => return Ok(false),
        }
    }
}

async fn restore(store: &Arc<dyn Store>, engine: &Engine, hash: Digest) -> Result<PolicySet, StartError> {
    let stored = match stored(store.as_ref(), hash).await {
        Ok(stored) => stored,
        Err(ChangeError::Refused(errors)) => return Err(errors.into()),
        Err(error) => {
            return Err(anyhow::Error::new(error).context("the policy set in force cannot be loaded").into());
        }
    };
    let engine = engine.clone();
    Ok(blocking(move || PolicySet::restore(stored, &engine, &str::to_owned)).await??)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("work was stopped half-way")
}
