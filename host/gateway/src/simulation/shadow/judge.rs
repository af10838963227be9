//! What judges by the candidate, one thing after the other, and the requests that it follows for that.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Commitments, Digest, RequestId, Submission, Timestamp};
use countersign_policy::decide::{self, Again, Ask, Attempt, Issued};

use super::tally::Told;
use super::{Cause, Observation, Observed, Shared, Waiting};
use crate::simulation::{Outcome, Simulation, Timers};

/// How many open requests are followed; the submissions of others are judged, and their events are not.
const MOST_FOLLOWED: usize = 20_000;

/// How many bytes the copies of followed requests may take, about.
const FOLLOWED_BYTES: usize = 32 << 20;

/// How often to look for requests whose end was missed, if there is no room, in milliseconds.
const PRUNE_MS: u64 = 10_000;

/// Judges what was observed, one after the other.
pub(super) struct Judge {
    pub(super) shared: Arc<Shared>,
    pub(super) followed: Follows,
    /// When those were forgotten last whose end was missed.
    pruned_at: Timestamp,
}

/// A request whose submission the candidate has admitted.
pub(super) struct Followed {
    simulation: Simulation,
    /// The live request's version, as far as its events were seen.
    version: u64,
    /// What will happen to the live request by itself.
    timers: Timers,
}

/// The requests that are followed, and how many bytes their copies take, about.
#[derive(Default)]
pub(super) struct Follows {
    pub(super) requests: HashMap<RequestId, (Followed, usize)>,
    pub(super) bytes: usize,
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
    pub(super) fn new(shared: Arc<Shared>) -> Judge {
        Judge { shared, followed: Follows::default(), pruned_at: Timestamp::EPOCH }
    }

    pub(super) fn run(mut self, observed: &Receiver<Waiting>) {
        while let Ok(waiting) = observed.recv() {
            self.next(waiting);
        }
    }

    pub(super) fn next(&mut self, Waiting { observed, bytes }: Waiting) {
        self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
        let (request, action) = (observed.request, observed.action.clone());
        self.isolate(request, &action, |judge| judge.judge(observed));
    }

    /// Goes on after a panic of `work` about a request. Without the thread it would look as if nothing happened any more.
    pub(super) fn isolate(&mut self, request: RequestId, action: &str, work: impl FnOnce(&mut Judge)) {
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
        Simulation::admit(rules, id, submission, &ask.params, &self.shared.directory, |_| None)
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
