//! The shadow: a candidate set that judges every live submission and event beside the set in force, with no effect.
//!
//! It works on a thread of its own, behind a queue: what does not fit is counted and dropped, so that nobody waits for it.
//! How much memory it may take is bounded, in what waits and in the copies of requests that it follows.
//! It keeps nothing but codes, counts and ids; what the candidate's policies remember of a request lives in its memory only.

mod judge;
mod observed;
mod tally;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use arc_swap::ArcSwapOption;
use countersign_core::directory::Directory;
#[cfg(test)]
use countersign_core::lifecycle::RequestId;
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_policy::PolicySet;
use prometheus::{IntCounterVec, Opts, Registry};

use judge::Judge;
pub use observed::Observed;
pub(crate) use observed::{Cause, Observation};
pub use tally::{Difference, Explained, Sample};
use tally::{Tally, Told};

use super::Outcome;

/// How much may wait to be judged by the candidate.
const QUEUE: usize = 4096;

/// How many bytes what waits may take, about.
const QUEUE_BYTES: usize = 32 << 20;

/// Beside the set in force, perhaps a candidate.
#[derive(Debug)]
pub struct Shadow {
    candidate: ArcSwapOption<Candidate>,
    events: IntCounterVec,
}

/// A set that judges in the shadow.
#[derive(Debug)]
struct Candidate {
    shared: Arc<Shared>,
    queue: SyncSender<Waiting>,
}

/// Something observed, on its way to the candidate.
#[derive(Debug)]
struct Waiting {
    observed: Observed,
    /// How many bytes it takes, about.
    bytes: usize,
}

/// What the thread that judges shares with those who ask.
#[derive(Debug)]
struct Shared {
    set: Arc<PolicySet>,
    started: Started,
    directory: Arc<Directory>,
    events: IntCounterVec,
    /// How much was dropped; apart from the tally, which whoever tells of something must not wait for.
    dropped: AtomicU64,
    /// How many bytes wait, about.
    waiting: AtomicUsize,
    tally: Mutex<Tally>,
}

/// Since when there is a shadow, and beside what.
#[derive(Clone, Debug)]
struct Started {
    at: Timestamp,
    by: Option<String>,
    beside: Digest,
}

/// Where the shadow stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The candidate.
    pub hash: Digest,
    /// The set in force that it is compared with.
    pub beside: Digest,
    /// Since when.
    pub started_at: Timestamp,
    /// Who wanted it.
    pub started_by: Option<String>,
    /// How many submissions and events both judged alike.
    pub same: u64,
    /// How many they did not.
    pub different: u64,
    /// How many events the candidate could not judge, as it does not know their requests.
    pub unjudged: u64,
    /// How many were dropped, as too many waited.
    pub dropped: u64,
    /// The differences by action and kind.
    pub differences: Vec<Difference>,
    /// The last differences, the newest first.
    pub samples: Vec<Sample>,
}

/// Why the candidate may not be put in force yet, or cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// There is none, or it is another set.
    #[error("the set {0} is not the shadow")]
    NotTheShadow(Digest),
    /// It has not seen enough.
    #[error("the shadow has judged {judged} of the {wanted} events that are asked for")]
    TooFew {
        /// What it has judged.
        judged: u64,
        /// What is asked for.
        wanted: u64,
    },
    /// It judges otherwise, and nobody says why.
    #[error("{} kinds of difference are unexplained: {}", .0.len(), .0.join("; "))]
    Unexplained(Vec<String>),
}

impl Default for Shadow {
    fn default() -> Shadow {
        let about = "Submissions and events, by whether the shadow judges as the policy set in force does.";
        let events =
            IntCounterVec::new(Opts::new("policy_shadow_events_total", about), &["action", "result"]);
        #[expect(clippy::expect_used, reason = "the name and the labels are constant and sound")]
        let events = events.expect("a metric");
        Shadow { candidate: ArcSwapOption::empty(), events }
    }
}

impl Shadow {
    /// Adds its metric to `registry`.
    ///
    /// # Errors
    /// Where there is one of the same name.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.events.clone()))
    }

    /// Begins to judge by `set` beside the set in force with the hash `beside`, in the place of any earlier candidate.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        &self,
        set: Arc<PolicySet>,
        beside: Digest,
        directory: Arc<Directory>,
        (by, at): (Option<String>, Timestamp),
    ) -> std::io::Result<()> {
        let (candidate, judge, observed) = self.candidate(set, beside, directory, (by, at));
        // It ends once the candidate is dropped, and with it the queue's near end.
        thread::Builder::new().name("policy-shadow".to_owned()).spawn(move || judge.run(&observed))?;
        self.candidate.store(Some(Arc::new(candidate)));
        Ok(())
    }

    /// A candidate, what judges by it, and what that is told of.
    fn candidate(
        &self,
        set: Arc<PolicySet>,
        beside: Digest,
        directory: Arc<Directory>,
        (by, at): (Option<String>, Timestamp),
    ) -> (Candidate, Judge, Receiver<Waiting>) {
        let (queue, observed) = sync_channel(QUEUE);
        let started = Started { at, by, beside };
        let shared = Arc::new(Shared {
            set,
            started,
            directory,
            events: self.events.clone(),
            dropped: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            tally: Mutex::default(),
        });
        let judge = Judge::new(Arc::clone(&shared));
        (Candidate { shared, queue }, judge, observed)
    }

    /// Ends it; says which candidate it was.
    pub fn stop(&self) -> Option<Digest> {
        self.candidate.swap(None).map(|candidate| candidate.shared.set.hash())
    }

    /// Another set is in force: whoever was compared with the one before begins anew, and whoever it is has arrived.
    pub fn in_force(&self, active: Digest, at: Timestamp) {
        let Some(candidate) = self.candidate.load_full() else { return };
        let shared = &candidate.shared;
        if shared.set.hash() == active {
            self.candidate.store(None);
        } else if shared.started.beside != active {
            let (set, directory) = (Arc::clone(&shared.set), Arc::clone(&shared.directory));
            if let Err(error) = self.start(set, active, directory, (shared.started.by.clone(), at)) {
                tracing::error!(%error, "the shadow ends: there is no thread for it");
                self.candidate.store(None);
            }
        }
    }

    /// Tells the candidate, if there is one, of what `observed` makes then. Never waits.
    pub(crate) fn observe(&self, observed: impl FnOnce() -> Observed) {
        // A guard, as nearly every call finds nobody there.
        let candidate = self.candidate.load();
        let Some(candidate) = candidate.as_ref() else { return };
        let observed = observed();
        let shared = &candidate.shared;
        let bytes = observed.bytes();
        // Several at once may each find that the other one does not fit: then both are dropped.
        let waiting = shared.waiting.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let told = if waiting > QUEUE_BYTES {
            Err(observed)
        } else {
            candidate.queue.try_send(Waiting { observed, bytes }).map_err(|full| match full {
                TrySendError::Full(Waiting { observed, .. })
                | TrySendError::Disconnected(Waiting { observed, .. }) => observed,
            })
        };
        if let Err(observed) = told {
            shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            shared.count(&observed.action, "dropped");
        }
    }

    /// Where it stands, where there is one.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let candidate = self.candidate.load_full()?;
        let Shared { set, started, .. } = &*candidate.shared;
        let tally = candidate.shared.tally();
        Some(Standing {
            hash: set.hash(),
            beside: started.beside,
            started_at: started.at,
            started_by: started.by.clone(),
            same: tally.same,
            different: tally.different,
            unjudged: tally.unjudged,
            dropped: candidate.shared.dropped.load(Ordering::Relaxed),
            differences: tally.differences(),
            samples: tally.samples.iter().rev().cloned().collect(),
        })
    }

    /// Says why a kind of difference is as it should be. False if there is no such kind.
    pub fn explain(&self, action: &str, kind: &str, explained: Explained) -> bool {
        let Some(candidate) = self.candidate.load_full() else { return false };
        candidate.shared.tally().explain(action, kind, explained)
    }

    /// Whether `hash` is the shadow, has judged so many submissions and events, and all its differences are explained.
    ///
    /// # Errors
    /// What it lacks.
    pub fn ready(&self, hash: Digest, wanted: u64) -> Result<(), ShadowError> {
        let candidate = self.candidate.load_full().filter(|candidate| candidate.shared.set.hash() == hash);
        let Some(candidate) = candidate else { return Err(ShadowError::NotTheShadow(hash)) };
        let tally = candidate.shared.tally();
        let judged = tally.same + tally.different;
        let unexplained = tally.unexplained();
        if judged < wanted {
            Err(ShadowError::TooFew { judged, wanted })
        } else if !unexplained.is_empty() {
            Err(ShadowError::Unexplained(unexplained))
        } else {
            Ok(())
        }
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Numbers, which no panic leaves half changed.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, action: &str, result: &str) {
        self.events.with_label_values(&[action, result]).inc();
    }

    fn unjudged(&self, action: &str) {
        self.tally().unjudged += 1;
        self.count(action, "unjudged");
    }

    /// Compares what became of something with what would have; true if that is the same.
    fn compare(&self, observed: &Told<'_>, candidate: &Outcome) -> bool {
        let same = self.tally().compare(observed, candidate);
        self.count(observed.action, if same { "same" } else { "different" });
        same
    }
}

#[cfg(test)]
impl Shadow {
    /// As [`Shadow::start`], but what is observed is judged only as [`Held::judge`] says.
    pub(super) fn start_held(&self, set: Arc<PolicySet>, beside: Digest, directory: Arc<Directory>) -> Held {
        let (candidate, judge, observed) = self.candidate(set, beside, directory, (None, Timestamp::EPOCH));
        self.candidate.store(Some(Arc::new(candidate)));
        Held { judge, observed }
    }
}

/// What judges by a candidate, held until a test lets it go on.
#[cfg(test)]
pub(super) struct Held {
    judge: Judge,
    observed: Receiver<Waiting>,
}

#[cfg(test)]
impl Held {
    /// Judges all that waits.
    pub(super) fn judge(&mut self) {
        while let Ok(waiting) = self.observed.try_recv() {
            self.judge.next(waiting);
        }
    }

    /// Judges something about a request on which the judge breaks.
    pub(super) fn break_on(&mut self, request: RequestId) {
        self.judge.isolate(request, "double", |_| panic!("broken on purpose"));
    }

    /// How many bytes wait, and how many the followed requests take.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.judge.shared.waiting.load(Ordering::Relaxed), self.judge.followed.bytes)
    }

    /// How many requests are followed.
    pub(super) fn followed(&self) -> usize {
        self.judge.followed.requests.len()
    }
}
