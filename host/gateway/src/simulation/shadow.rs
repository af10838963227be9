//! The shadow: a candidate set that judges every live submission and event beside the set in force, with no effect.
//!
//! It works on a thread of its own, behind a queue: what does not fit is counted and dropped, so that nobody waits for it.
//! How much memory it may take is bounded, in what waits and in the copies of requests that it follows.
//! It keeps nothing but codes, counts and ids; what the candidate's policies remember of a request lives in its memory only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use arc_swap::ArcSwapOption;
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Commitments, Digest, Intent, RequestId, Submission, Timestamp};
use countersign_policy::PolicySet;
use countersign_policy::decide::{self, Again, Ask, Attempt, Issued};
use prometheus::{IntCounterVec, Opts, Registry};

use super::{Outcome, Simulation, Timers, size};

/// How much may wait to be judged by the candidate.
const QUEUE: usize = 4096;

/// How many bytes what waits may take, about.
const QUEUE_BYTES: usize = 32 << 20;

/// How many open requests are followed; the submissions of others are judged, and their events are not.
const MOST_FOLLOWED: usize = 20_000;

/// How many bytes the copies of followed requests may take, about.
const FOLLOWED_BYTES: usize = 32 << 20;

/// How often to look for requests whose end was missed, if there is no room, in milliseconds.
const PRUNE_MS: u64 = 10_000;

/// How many differences are kept whole.
const SAMPLES: usize = 100;

/// How many kinds of difference are told apart; codes come from descriptors, so there are few.
const MOST_KINDS: usize = 1000;

/// What is told of a difference of which there are too many kinds.
const OTHER_KINDS: &str = "other";

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

/// What the candidate has judged.
#[derive(Debug, Default)]
struct Tally {
    same: u64,
    different: u64,
    unjudged: u64,
    kinds: BTreeMap<(String, String), Kind>,
    samples: VecDeque<Sample>,
}

#[derive(Debug, Default)]
struct Kind {
    count: u64,
    explained: Option<Explained>,
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

/// A kind of difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The action.
    pub action: String,
    /// What is different.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// Why it is as it should be, if somebody said so.
    pub explained: Option<Explained>,
}

/// Why a kind of difference is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Why.
    pub why: String,
    /// Who says so.
    pub by: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The action.
    pub action: String,
    /// The request.
    pub request: RequestId,
    /// What happened: `admission`, or the name of an act.
    pub event: &'static str,
    /// What became of it under the set in force.
    pub active: String,
    /// What would have become of it under the candidate.
    pub candidate: String,
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

/// A live submission or event, and what became of it.
#[derive(Debug)]
pub struct Observed {
    pub(crate) request: RequestId,
    /// The entry that it was judged by: the action, or `*`.
    pub(crate) action: String,
    pub(crate) at: Timestamp,
    pub(crate) outcome: Outcome,
    pub(crate) what: Observation,
}

/// What was observed.
#[derive(Debug)]
pub(crate) enum Observation {
    /// A submission, with all its parameters. They go no further than the candidate's `admit`.
    Submission {
        /// What was asked for.
        ask: Arc<Ask>,
        /// The request that was made again, and who wanted that.
        again: Option<(Arc<Submission>, Again)>,
        /// What stands for its parameters in the payload hash; nothing if no request was made.
        commitments: Commitments,
        /// What will happen to the request by itself, if one was made.
        timers: Timers,
    },
    /// A request has another version, and nothing has happened to it.
    Note {
        /// Its version before.
        version: u64,
    },
    /// An event of a request.
    Event {
        /// The request's version before it.
        version: u64,
        /// What happened.
        cause: Cause,
        /// What will happen to the request by itself after it, if it counted.
        timers: Timers,
    },
}

/// What happened to a request, by whom.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) intent: Intent,
    /// Who acted; `None` for what happened by itself, and for the caller.
    pub(crate) by: Option<String>,
    /// The payload hash of what they saw, if that is known.
    pub(crate) seen: Option<Digest>,
    /// The commitments to the new values of edits, by parameter.
    pub(crate) commitments: BTreeMap<String, Digest>,
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
        let judge =
            Judge { shared: Arc::clone(&shared), followed: Follows::default(), pruned_at: Timestamp::EPOCH };
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
        let differences = tally.kinds.iter().map(|((action, kind), of)| Difference {
            action: action.clone(),
            kind: kind.clone(),
            count: of.count,
            explained: of.explained.clone(),
        });
        Some(Standing {
            hash: set.hash(),
            beside: started.beside,
            started_at: started.at,
            started_by: started.by.clone(),
            same: tally.same,
            different: tally.different,
            unjudged: tally.unjudged,
            dropped: candidate.shared.dropped.load(Ordering::Relaxed),
            differences: differences.collect(),
            samples: tally.samples.iter().rev().cloned().collect(),
        })
    }

    /// Says why a kind of difference is as it should be. False if there is no such kind.
    pub fn explain(&self, action: &str, kind: &str, explained: Explained) -> bool {
        let Some(candidate) = self.candidate.load_full() else { return false };
        let mut tally = candidate.shared.tally();
        let Some(found) = tally.kinds.get_mut(&(action.to_owned(), kind.to_owned())) else { return false };
        found.explained = Some(explained);
        true
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
        let unexplained = tally.kinds.iter().filter(|(_, of)| of.explained.is_none());
        let unexplained: Vec<String> =
            unexplained.map(|((action, kind), _)| format!("`{action}`: {kind}")).collect();
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
        let Told { request, action, at, event, active } = observed;
        let mut tally = self.tally();
        if *active == candidate {
            tally.same += 1;
            drop(tally);
            self.count(action, "same");
            return true;
        }
        let kind = format!("{event}: {active} -> {candidate}");
        let mut key = ((*action).to_owned(), kind);
        if tally.kinds.len() >= MOST_KINDS && !tally.kinds.contains_key(&key) {
            key.1 = OTHER_KINDS.to_owned();
        }
        tally.kinds.entry(key).or_default().count += 1;
        tally.different += 1;
        if tally.samples.len() >= SAMPLES {
            tally.samples.pop_front();
        }
        tally.samples.push_back(Sample {
            at: *at,
            action: (*action).to_owned(),
            request: *request,
            event,
            active: active.to_string(),
            candidate: candidate.to_string(),
        });
        drop(tally);
        self.count(action, "different");
        false
    }
}

/// What is compared.
struct Told<'a> {
    request: RequestId,
    action: &'a str,
    at: Timestamp,
    event: &'static str,
    active: &'a Outcome,
}

/// Judges what was observed, one after the other.
struct Judge {
    shared: Arc<Shared>,
    followed: Follows,
    /// When those were forgotten last whose end was missed.
    pruned_at: Timestamp,
}

/// A request whose submission the candidate has admitted.
struct Followed {
    simulation: Simulation,
    /// The live request's version, as far as its events were seen.
    version: u64,
    /// What will happen to the live request by itself.
    timers: Timers,
}

/// The requests that are followed, and how many bytes their copies take, about.
#[derive(Default)]
struct Follows {
    requests: HashMap<RequestId, (Followed, usize)>,
    bytes: usize,
}

impl Follows {
    fn has_room(&self) -> bool {
        self.requests.len() < MOST_FOLLOWED && self.bytes < FOLLOWED_BYTES
    }

    /// Takes one out, to be put back if it goes on.
    fn take(&mut self, id: RequestId) -> Option<Followed> {
        let (followed, bytes) = self.requests.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(followed)
    }

    /// Follows a request, if there is room for it.
    fn put(&mut self, id: RequestId, followed: Followed) {
        self.take(id);
        let bytes = followed.simulation.bytes();
        let all = self.bytes.saturating_add(bytes);
        if self.requests.len() < MOST_FOLLOWED && all <= FOLLOWED_BYTES {
            self.bytes = all;
            self.requests.insert(id, (followed, bytes));
        }
    }

    /// Forgets those whose time is over.
    fn prune(&mut self, at: Timestamp) {
        self.requests.retain(|_, (followed, _)| followed.simulation.expires_at() > at);
        self.bytes = self.requests.values().map(|(_, bytes)| bytes).sum();
    }
}

impl Judge {
    fn run(mut self, observed: &Receiver<Waiting>) {
        while let Ok(waiting) = observed.recv() {
            self.next(waiting);
        }
    }

    fn next(&mut self, Waiting { observed, bytes }: Waiting) {
        self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
        let (request, action) = (observed.request, observed.action.clone());
        self.isolate(request, &action, |judge| judge.judge(observed));
    }

    /// Goes on after a panic of `work` about a request. Without the thread it would look as if nothing happened any more.
    fn isolate(&mut self, request: RequestId, action: &str, work: impl FnOnce(&mut Judge)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            tracing::error!(%request, "the shadow broke on a request, and follows it no longer");
            self.followed.take(request);
            self.shared.unjudged(action);
        }
    }

    fn judge(&mut self, observed: Observed) {
        let Observed { request, action, at, outcome, what } = observed;
        let told = |event| Told { request, action: &action, at, event, active: &outcome };
        match what {
            Observation::Submission { ask, again, commitments, timers } => {
                let simulated = self.submit(request, &ask, (again, commitments), at);
                let candidate = match &simulated {
                    Ok(simulation) => Outcome::Admitted(simulation.status()),
                    Err(refused) => refused.clone(),
                };
                self.shared.compare(&told("admission"), &candidate);
                let Ok(simulation) = simulated else { return };
                let open = matches!(outcome, Outcome::Admitted(_)) && !outcome.ended() && !candidate.ended();
                if !self.followed.has_room() && at.since(self.pruned_at) >= PRUNE_MS {
                    // Of some the end was missed.
                    self.followed.prune(at);
                    self.pruned_at = at;
                }
                if open {
                    self.followed.put(request, Followed { simulation, version: 1, timers });
                }
            }
            Observation::Note { version } => {
                if let Some(mut followed) = self.followed.take(request) {
                    followed.version += u64::from(followed.version == version);
                    self.followed.put(request, followed);
                }
            }
            Observation::Event { version, cause, timers } => {
                let Some(mut followed) = self.followed.take(request) else {
                    return self.shared.unjudged(&action);
                };
                if version != followed.version {
                    // Later: something was missed. Earlier: an event that did not count, and is told late.
                    if version < followed.version {
                        self.followed.put(request, followed);
                    }
                    return self.shared.unjudged(&action);
                }
                let candidate = followed.judge(&cause, at, &self.shared.directory);
                if matches!(outcome, Outcome::Counted(_)) {
                    followed.version += 1;
                    followed.timers = timers;
                }
                // Once one of the two has ended there is nothing more to compare.
                let over = outcome.ended() || followed.simulation.status().is_terminal();
                self.shared.compare(&told(cause.intent.name()), &candidate);
                if !over {
                    self.followed.put(request, followed);
                }
            }
        }
    }

    fn submit(
        &self,
        id: RequestId,
        ask: &Ask,
        (again, commitments): (Option<(Arc<Submission>, Again)>, Commitments),
        at: Timestamp,
    ) -> Result<Simulation, Outcome> {
        let Some(rules) = self.shared.set.action(&ask.action) else { return Err(Outcome::unknown_action()) };
        let again = again.as_ref().map(|(earlier, again)| (earlier.as_ref(), again));
        // Nobody ever shows this token.
        let issued = Issued { id, token_hash: Digest::from_bytes([0; 32]), commitments, at };
        let submission = decide::submission(rules, ask, issued, again, &self.shared.directory);
        Simulation::admit(rules, id, submission, &ask.params, |_| None)
    }
}

impl Followed {
    /// What happened to the live request happens to this one.
    fn judge(&mut self, cause: &Cause, at: Timestamp, directory: &Directory) -> Outcome {
        let Followed { simulation, timers, .. } = self;
        if let Err(failed) = simulation.advance(at, *timers)
            && cause.by.is_none()
        {
            return failed;
        }
        let by = cause.by.as_ref().map(|id| simulation.actor(id, directory, at));
        let Cause { intent, seen, commitments, .. } = cause.clone();
        simulation.happen(at, Attempt { intent, by, seen, commitments })
    }
}

impl Observed {
    /// How many bytes it takes, about.
    fn bytes(&self) -> usize {
        let what = match &self.what {
            Observation::Submission { ask, again, commitments, .. } => {
                let again = again.as_ref().map_or(0, |(earlier, _)| size::of_submission(earlier));
                size::of_ask(ask) + again + size::of_map(&commitments.digests, |_| 0)
            }
            Observation::Note { .. } => 0,
            Observation::Event { cause: Cause { intent, by, commitments, .. }, .. } => {
                let by = by.as_ref().map_or(0, String::len);
                size::of_intent(intent) + by + size::of_map(commitments, |_| 0)
            }
        };
        size_of::<Waiting>() + self.action.len() + what
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
