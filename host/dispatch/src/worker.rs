//! The worker: claims what is ready, tells the targets, and stores what came of it. Several instances may have one each:
//! a claim is one worker's alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::clock::{Clock, Monotonic};
use countersign_core::lifecycle::{Request, RequestId, Timestamp};
use countersign_store::{Claim, Dispatch, Hold, Settled, Store, StoreError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::{DispatchMetrics, Outcome};
use crate::schedule::pause;
use crate::target::{Answer, Target, Telling, What};
use crate::targets::{Targets, is_of_kind};

/// How many calls of one target are under way at a time. Others have their own.
const CALLS_PER_TARGET: usize = 4;

/// How many calls are under way at a time.
const CALLS: usize = 64;

/// How long a call may take, after which it has failed.
const CALL: Duration = Duration::from_secs(30);

/// The longest time between two looks, in milliseconds.
const POLL_MS: u64 = 1_000;

/// The shortest time between two looks, in milliseconds.
const PACE_MS: u64 = 10;

/// How long a dispatch waits whose request cannot be read, in milliseconds.
const UNREADABLE_MS: u64 = 60_000;

/// How many dispatches of a removed target are dropped by one write.
const DROPPED_AT_ONCE: usize = 500;

/// What a worker is made of.
pub struct Parts {
    /// Holds the requests and the dispatches.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub targets: Targets,
    /// Notified of each new dispatch.
    pub notify: Arc<Notify>,
    /// Counts the attempts.
    pub metrics: DispatchMetrics,
}

/// Tells the targets, as long as it is polled.
pub struct Worker {
    shared: Arc<Shared>,
    notify: Arc<Notify>,
    /// What is being told.
    active: HashSet<Key>,
    calls: JoinSet<Key>,
}

type Key = (RequestId, String);

/// What the calls share.
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    targets: Targets,
    metrics: DispatchMetrics,
    /// When the worker was made.
    began: (Timestamp, Monotonic),
}

impl Shared {
    /// The time by which retries are scheduled: a wall clock that is set back does not make them wait. It is compared with
    /// nothing but what workers have stored.
    fn now(&self) -> Timestamp {
        let (wall, monotonic) = self.began;
        wall.plus(self.clock.monotonic().since(monotonic))
    }
}

impl Worker {
    /// A worker of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Worker {
        let Parts { store, clock, targets, notify, metrics } = parts;
        let moment = clock.moment();
        let began = (moment.wall, moment.monotonic);
        let shared = Arc::new(Shared { store, clock, targets, metrics, began });
        Worker { shared, notify, active: HashSet::new(), calls: JoinSet::new() }
    }

    /// Tells until the shutdown begins, and then waits for the calls that are under way.
    ///
    /// What is not told stays in the store, and so does what is cut off: it is told again.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (clock, notify) = (Arc::clone(&self.shared.clock), Arc::clone(&self.notify));
        while !shutdown.is_cancelled() {
            if let Err(error) = self.look().await {
                // What is wrong with the store is logged already.
                tracing::debug!(%error, "cannot look for what targets are to be told");
            }
            let now = clock.monotonic();
            let woken = async {
                tokio::select! {
                    biased;
                    () = clock.sleep_until(now.plus(POLL_MS)) => {}
                    () = notify.notified() => clock.sleep_until(now.plus(PACE_MS)).await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = self.calls.join_next() => self.ended(ended),
                () = woken => {}
            }
        }
        self.finish().await;
    }

    /// Waits for the calls that are under way.
    pub(crate) async fn finish(&mut self) {
        while let Some(ended) = self.calls.join_next().await {
            self.ended(ended);
        }
    }

    /// Starts every call that can be started now. Returns how many were.
    pub(crate) async fn look(&mut self) -> Result<usize, StoreError> {
        while let Some(ended) = self.calls.try_join_next() {
            self.ended(ended);
        }
        let names = self.shared.targets.names();
        if names.is_empty() || self.calls.len() >= CALLS {
            return Ok(0);
        }
        let mut busy: HashMap<String, usize> = HashMap::new();
        for (_, target) in &self.active {
            *busy.entry(target.clone()).or_default() += 1;
        }
        let mut ready = self.shared.store.ready_dispatches(self.shared.now(), CALLS_PER_TARGET * 2).await?;
        // Those with the fewest calls under way come first: targets that hang would take every place that one of them frees.
        ready.sort_by_key(|(_, target)| busy.get(target).copied().unwrap_or_default());
        let mut started = 0;
        for (request, target) in ready {
            let busy = busy.entry(target.clone()).or_default();
            let Some(known) = self.shared.targets.get(&target) else { continue };
            let key = (request, target);
            if *busy >= CALLS_PER_TARGET || self.active.contains(&key) || self.calls.len() >= CALLS {
                continue;
            }
            *busy += 1;
            started += 1;
            self.active.insert(key.clone());
            let shared = Arc::clone(&self.shared);
            self.calls.spawn(async move {
                if let Err(error) = deliver(&shared, &key, known.as_ref()).await {
                    tracing::warn!(request = %key.0, receiver = %key.1, %error, "cannot store that a target was told; it may be told again");
                }
                key
            });
        }
        Ok(started)
    }

    fn ended(&mut self, ended: Result<Key, tokio::task::JoinError>) {
        match ended {
            Ok(key) => drop(self.active.remove(&key)),
            Err(error) => {
                // Which one it was is not known. The claims keep what is under way from being told twice.
                tracing::error!(%error, "a call of a target panicked; it is made again");
                self.active.clear();
            }
        }
    }
}

/// Tells a target of the next milestone of a request, if nobody else does.
async fn deliver(shared: &Shared, (request, target): &Key, known: &dyn Target) -> Result<(), StoreError> {
    let hold = Hold::begin(&*shared.clock);
    let claim = Claim::at(fastrand::u64(..), shared.now());
    let Some(dispatch) = shared.store.claim_dispatch(*request, target, claim).await? else { return Ok(()) };
    let renew = || shared.store.renew_dispatch(*request, target, Claim::at(claim.id, shared.now()));
    match hold.keep(renew, deliver_claimed(shared, &dispatch, known)).await {
        Ok(delivered) => delivered,
        Err(lost) => {
            let error = lost.error.map(tracing::field::display);
            tracing::warn!(%request, receiver = %target, error, "a claim was not kept, so its call is given up; the target is told again");
            Ok(())
        }
    }
}

async fn deliver_claimed(shared: &Shared, dispatch: &Dispatch, known: &dyn Target) -> Result<(), StoreError> {
    let Dispatch { request, target, .. } = dispatch;
    let settled = match shared.store.request(*request).await {
        Ok(Some(request)) => tell(shared, dispatch, &request, known).await,
        Ok(None) => {
            tracing::error!(%request, receiver = %target, "there is no such request; nobody is told of it");
            shared.metrics.dropped(target, 1);
            Settled::Dropped
        }
        Err(error) => {
            tracing::error!(%request, receiver = %target, %error, "cannot read the request that a target is to be told of; retrying");
            Settled::Released { at: shared.now().plus(UNREADABLE_MS) }
        }
    };
    shared.store.settle_dispatch(dispatch, shared.now(), settled).await
}

async fn tell(shared: &Shared, dispatch: &Dispatch, request: &Request, known: &dyn Target) -> Settled {
    let milestones = request.milestones();
    let wanted = |from: u32| {
        let places = (0_u32..).zip(&milestones).filter(|(place, _)| *place >= from);
        places
            .map(|(place, (milestone, at))| (place, *milestone, *at))
            .find(|(_, it, _)| known.wants(request, *it))
    };
    let end = u32::try_from(milestones.len()).unwrap_or(u32::MAX);
    let (position, what) = match wanted(dispatch.position) {
        Some((place, milestone, at)) => (place, What::Reached(milestone, at)),
        // It was told of everything, and held.
        None if dispatch.position >= end && known.again_after_ms(request).is_some() => (end, What::Again),
        None => return Settled::Told { position: end, version: request.version, complete: true },
    };
    let (failed, now) = (dispatch.attempts, shared.clock.now());
    let telling = Telling { request, what, target: &dispatch.target, position, failed, now };
    let answer = tokio::time::timeout(CALL, known.tell(&telling)).await;
    let answer = answer.unwrap_or_else(|_| Answer::failed("it does not answer in time"));
    let (why, wait_ms) = match answer {
        Answer::Told => {
            shared.metrics.attempted(&dispatch.target, Outcome::Told);
            let next = wanted(position.saturating_add(u32::from(what != What::Again)));
            return match (next, known.again_after_ms(request)) {
                (Some((position, ..)), _) => {
                    Settled::Told { position, version: request.version, complete: false }
                }
                (None, Some(wait)) => {
                    let until = shared.now().plus(wait);
                    Settled::Held { position: end, version: request.version, until }
                }
                (None, None) => Settled::Told { position: end, version: request.version, complete: true },
            };
        }
        Answer::Failed { why, wait_ms } => (why, wait_ms),
        Answer::Refused { why } => return died(shared, dispatch, request.id, why),
    };
    let failed = failed.saturating_add(1);
    match pause(failed, wait_ms, &mut fastrand::Rng::new()) {
        Some(pause) => {
            shared.metrics.attempted(&dispatch.target, Outcome::Failed);
            let target = &dispatch.target;
            tracing::warn!(request = %request.id, receiver = %target, failed, %why, again_in_s = pause / 1_000, "a target was not told");
            Settled::Retry { at: shared.now().plus(pause) }
        }
        None => died(shared, dispatch, request.id, why),
    }
}

fn died(shared: &Shared, dispatch: &Dispatch, request: RequestId, failure: String) -> Settled {
    let target = &dispatch.target;
    shared.metrics.attempted(target, Outcome::Dead);
    tracing::error!(%request, receiver = %target, why = %failure, "a target was not told: dead letter");
    Settled::Dead { failure }
}

/// Drops what is stored for targets of a kind that are not there any more. Returns how much that was.
///
/// # Errors
/// If the store fails; then the rest can be dropped later.
pub async fn drop_removed(
    store: &dyn Store,
    kind: &str,
    targets: &Targets,
    metrics: &DispatchMetrics,
) -> Result<u64, StoreError> {
    let known = targets.names();
    let mut dropped = 0;
    for depth in store.dispatch_depth().await? {
        let target = depth.target;
        if !is_of_kind(&target, kind) || known.contains(&target) {
            continue;
        }
        let mut of_target = 0;
        // It may come back meanwhile.
        while !targets.names().contains(&target) {
            let some = store.drop_dispatches(&target, DROPPED_AT_ONCE).await?;
            if some == 0 {
                break;
            }
            of_target += some;
            metrics.dropped(&target, some);
        }
        tracing::error!(receiver = %target, dropped = of_target, "there is no such target any more; what it was not told is dropped");
        dropped += of_target;
    }
    Ok(dropped)
}
