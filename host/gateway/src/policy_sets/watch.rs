//! What sets a change off by itself: the folder changes, or another instance changed the set.
//!
//! An event of the file system is only a hint to look; what the folder holds decides. So it does not matter which events an
//! editor or a mounted volume makes, or whether one is lost: a slow poll looks anyway. A folder is taken only if it is the
//! same before and after a pause in which nothing has happened, and is not half of another one (`PolicySet::doubts`).

use std::sync::Arc;
use std::time::Duration;

use super::notices::Notices;
use super::{By, ChangeTrigger, PolicySets, blocking};
use countersign_policy::Known;

/// The most time between two looks at the folder and at the store.
pub const POLL: Duration = Duration::from_secs(30);

/// The least time between two looks at what is needed in memory.
const TIDY_APART: Duration = Duration::from_secs(2);

/// How a folder is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The most time between two looks.
    pub(super) poll: Duration,
    /// How long nothing must have happened before the folder is looked at, and before it is taken if all of it is known to be
    /// there: a change makes many events.
    pub(super) settle: Duration,
    /// How long nothing must have happened before the folder is taken otherwise: whoever writes it is done by then, as a rule.
    pub(super) quiet: Duration,
    /// How long a folder that is never quiet is waited for, until other instances are looked at.
    pub(super) restless: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            poll: POLL,
            settle: Duration::from_millis(200),
            quiet: Duration::from_secs(2),
            restless: Duration::from_secs(5),
        }
    }
}

impl PolicySets {
    /// Looks at the folder if `files` says so, and at the store, whenever something may have changed; for ever.
    pub async fn watch(self: Arc<Self>, files: bool, poll: Duration) {
        self.watch_at(files, Pace { poll, ..Pace::default() }).await;
    }

    pub(super) async fn watch_at(self: Arc<Self>, files: bool, pace: Pace) {
        let (mut notices, mut warned) = (None, false);
        loop {
            // Watched first and read after, so that nothing falls between the two. Anew each time: a folder that was
            // replaced is another one, of which the old watch says nothing.
            let mut known = Known::Nothing;
            if files {
                (notices, known) = self.watched(notices.take(), &mut warned).await;
            }
            // What went wrong is in the log and the audit log already. First what needs no registry.
            let _ = self.follow().await;
            if files && let Some(found) = self.found(known).await {
                let pause = if found.whole { pace.settle } else { pace.quiet };
                if happened(&mut notices, pause).await {
                    calm(&mut notices, pace).await;
                    continue;
                }
                (notices, known) = self.known(notices.take()).await;
                let by = By::itself(ChangeTrigger::File);
                if let Ok(None) = self.reload_found(found, known, by).await {
                    continue;
                }
            }
            if happened(&mut notices, pace.poll).await {
                calm(&mut notices, pace).await;
            }
        }
    }

    /// Drops what is needed no longer from memory: after a swap, and now and then, as requests end; for ever.
    pub async fn tidy(self: Arc<Self>) {
        loop {
            if let Err(error) = self.settle().await {
                tracing::warn!(%error, "policies that are needed no longer stay in memory for now");
            }
            if let Err(error) = self.keep_used().await {
                tracing::warn!(%error, "the store does not know which policy sets this instance uses");
            }
            // Many swaps in a row wait for one look.
            tokio::time::sleep(TIDY_APART).await;
            let _ = tokio::time::timeout(POLL, self.swapped.notified()).await;
        }
    }

    /// Watches what leads to the files by now, if that can be done; what keeps it from being done is logged once. And what
    /// is known of the folder.
    async fn watched(&self, notices: Option<Notices>, warned: &mut bool) -> (Option<Notices>, Known) {
        let directory = self.directory.clone();
        let watch = move || -> std::io::Result<(Notices, Known)> {
            let mut notices = notices.map_or_else(|| Notices::of(&directory), Ok)?;
            notices.renew()?;
            let known = notices.known();
            Ok((notices, known))
        };
        let error = match blocking(watch).await {
            Ok(Ok((notices, known))) => return (Some(notices), known),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !std::mem::replace(warned, true) {
            tracing::warn!(error, "the policy folder cannot be watched; it is looked at now and then");
        }
        (None, Known::Nothing)
    }

    /// What is known of the folder by now.
    async fn known(&self, notices: Option<Notices>) -> (Option<Notices>, Known) {
        let look = move || notices.map(|notices| (notices.known(), notices));
        match blocking(look).await {
            Ok(Some((known, notices))) => (Some(notices), known),
            Ok(None) | Err(_) => (None, Known::Nothing),
        }
    }
}

/// Whether something happens within this time.
async fn happened(notices: &mut Option<Notices>, within: Duration) -> bool {
    match notices {
        Some(notices) => tokio::time::timeout(within, notices.next()).await.is_ok(),
        None => {
            tokio::time::sleep(within).await;
            false
        }
    }
}

/// Waits until nothing has happened for a while.
async fn calm(notices: &mut Option<Notices>, pace: Pace) {
    let calm = async { while happened(notices, pace.settle).await {} };
    let _ = tokio::time::timeout(pace.restless, calm).await;
}
