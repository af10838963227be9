//! The worker: the one place that decides which call is made next.
//!
//! It reads the jobs that are due in batches, keeps those that it has not begun, and carries out the steps of the most
//! urgent ones, several requests at a time and each request once. Channels take turns at everything that they share, so that a flood in one does not silence
//! another. Everything it keeps in memory can be lost.

mod queue;
mod results;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use countersign_core::backoff::Backoff;
use countersign_core::clock::{Clock, Monotonic};
use countersign_core::directory::Directory;
use countersign_core::lifecycle::RequestId;
use countersign_store::{Claim, Store, StoreError};
use countersign_trace::Tracer;
use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Rendering;
use super::circuit_breaker::{Allowed, CircuitBreaker};
use super::health::Health;
use super::job::Job;
use super::rate_limit::{Method, RateLimits};
use super::schedule::Schedule;
use super::sender::{NextCall, SearchCursor, Sender};
use crate::SlackClient;
use queue::{Backlog, Priority, QueuedJob, Turns};
use results::FinishedStep;

/// The most steps at the same time.
const CONCURRENT_STEPS: usize = 8;

/// The most of them that may call Slack for one channel: calls that Slack is slow to answer must not hold up the others.
const CONCURRENT_CHANNEL_CALLS: usize = 3;

/// After how many calls by urgency a method that all channels share is called for the channel whose last turn at it is
/// the longest ago, whatever its urgency.
const URGENT_SHARED_CALLS: u32 = 3;

/// The most of them that may be refreshes.
const CONCURRENT_REFRESHES: usize = 3;

/// The longest time between two looks at what can be started, in milliseconds.
const POLL_MS: u64 = 1_000;

/// The shortest time between two looks, in milliseconds.
const PACE_MS: u64 = 25;

/// How long nothing is begun after a step could not be stored: each further step would fail in the same way, and a call
/// whose outcome cannot be stored is made again.
const STORE_BACKOFF: Backoff = Backoff::new(500, 30_000);

/// How long a job waits whose state cannot be loaded, in milliseconds.
const UNREADABLE_MS: u64 = 60_000;

/// Delivers the outbox to Slack, as long as it is polled.
pub struct Worker {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    schedule: Schedule,
    client: Arc<SlackClient>,
    sender: Arc<Sender>,
    notify: Arc<Notify>,
    health: Arc<Health>,
    rate_limits: Arc<RateLimits>,
    breaker: CircuitBreaker,
    rng: fastrand::Rng,
    /// The jobs that were read and not begun.
    backlog: Backlog,
    /// The next call of each job, with the revision of the job that it was computed for.
    next_calls: HashMap<Job, (u64, NextCall)>,
    /// Where searches go on.
    cursors: HashMap<Job, SearchCursor>,
    /// The jobs whose steps are being carried out.
    active: HashMap<RequestId, ActiveStep>,
    /// The channels' turns at steps.
    turns: Turns,
    /// The channels' turns at the methods that they share.
    shared_turns: Turns,
    /// The calls of shared methods by urgency since the last one by turn.
    shared_calls: u32,
    steps: JoinSet<FinishedStep>,
    /// Whether something was due at the last look.
    is_due: bool,
    /// Times in a row that steps could not be stored.
    store_failures: u32,
    /// Until when nothing is begun, since steps cannot be stored.
    paused_until: Option<Monotonic>,
}

/// A step that is being carried out.
struct ActiveStep {
    job: Job,
    channel: String,
    calls_slack: bool,
    /// Whether something was stored since it began: its own entry may have been enqueued again, and is not read while it is
    /// claimed.
    has_news: bool,
}

/// A look at the jobs that are due.
struct Look {
    now: Monotonic,
    /// When to look again.
    next: Monotonic,
    /// The methods whose rate limit is exhausted.
    exhausted: HashSet<Method>,
    /// Whether somebody waits for a call of a shared method. Refreshes do not count: nobody waits for them.
    is_contended: bool,
}

/// What became of a job that was looked at.
enum Looked {
    /// Its step was started.
    Started,
    /// Not now; look at it again at this time.
    Later(Monotonic),
}

/// Which jobs a look may start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All.
    Any,
    /// Those that call a method that all channels share.
    Shared,
}

/// What a worker is made of.
pub struct Parts {
    /// Holds the requests and the outbox.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who has left Slack.
    pub directory: Arc<Directory>,
    /// Calls Slack.
    pub client: Arc<SlackClient>,
    /// Notified of each new outbox entry.
    pub notify: Arc<Notify>,
    /// Receives the state of delivery.
    pub health: Arc<Health>,
    /// Renders the messages.
    pub rendering: Rendering,
    /// Slack's rate limits.
    pub rate_limits: Arc<RateLimits>,
    /// What is told of each post and update.
    pub tracer: Tracer,
}

impl Worker {
    /// A worker of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Worker {
        Worker::with_rng(parts, fastrand::Rng::new())
    }

    /// The same; `rng` spreads the retries.
    pub(super) fn with_rng(parts: Parts, mut rng: fastrand::Rng) -> Worker {
        let Parts { store, clock, directory, client, notify, health, rendering, rate_limits, tracer } = parts;
        let schedule = Schedule::new(Arc::clone(&clock));
        let sender = Sender::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            schedule.clone(),
            directory,
            Arc::clone(&client),
            rendering,
            tracer,
            rng.fork(),
        );
        Worker {
            store,
            clock,
            schedule,
            client,
            sender: Arc::new(sender),
            notify,
            health,
            rate_limits,
            breaker: CircuitBreaker::new(),
            rng,
            backlog: Backlog::default(),
            next_calls: HashMap::new(),
            cursors: HashMap::new(),
            active: HashMap::new(),
            turns: Turns::default(),
            shared_turns: Turns::default(),
            shared_calls: 0,
            steps: JoinSet::new(),
            is_due: false,
            store_failures: 0,
            paused_until: None,
        }
    }

    /// Delivers until the shutdown begins, and then waits for the steps that are being carried out.
    ///
    /// What is not delivered stays in the outbox, and so does what is cut off.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (clock, notify) = (Arc::clone(&self.clock), Arc::clone(&self.notify));
        while !shutdown.is_cancelled() {
            let next = self.turn().await;
            let earliest = clock.monotonic().plus(PACE_MS);
            let woken = async {
                tokio::select! {
                    biased;
                    () = clock.sleep_until(next) => {}
                    () = notify.notified() => {
                        // The turn takes the notification: this wait may be cut off by a step that ends.
                        notify.notify_one();
                        clock.sleep_until(earliest).await;
                    }
                }
            };
            // In this order, so that a run can be repeated: what is finished is applied before anything new begins.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(finished) = self.steps.join_next() => self.apply(finished).await,
                () = woken => {}
            }
        }
        self.finish().await;
    }

    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        !self.active.is_empty()
    }

    /// Waits for the steps that are being carried out.
    pub(super) async fn finish(&mut self) {
        while let Some(finished) = self.steps.join_next().await {
            self.apply(finished).await;
        }
    }

    /// Starts every step that can be started now, and returns when to look again.
    pub(super) async fn turn(&mut self) -> Monotonic {
        while let Some(finished) = self.steps.try_join_next() {
            self.apply(finished).await;
        }
        if self.notify.notified().now_or_never().is_some() {
            self.backlog.is_outdated = true;
            self.active.values_mut().for_each(|active| active.has_news = true);
        }
        let now = self.clock.monotonic();
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            let (breaker, refused_for) = (self.breaker.state(), self.breaker.refused_for());
            self.health.update(breaker, refused_for, self.is_due, self.clock.moment());
            return until;
        }
        let next = match self.breaker.allowed(now) {
            Allowed::Nothing { until } => until,
            Allowed::AuthTest if self.active.is_empty() => self.auth_test().await,
            Allowed::Probe if self.active.is_empty() => self.start_steps(now, 1).await,
            Allowed::AuthTest | Allowed::Probe => now.plus(POLL_MS),
            // After a pause one step shows whether it can be stored.
            Allowed::All if self.store_failures > 0 && !self.active.is_empty() => now.plus(POLL_MS),
            Allowed::All if self.store_failures > 0 => self.start_steps(now, 1).await,
            Allowed::All => self.start_steps(now, CONCURRENT_STEPS).await,
        };
        let (breaker, refused_for) = (self.breaker.state(), self.breaker.refused_for());
        self.health.update(breaker, refused_for, self.is_due, self.clock.moment());
        next
    }

    /// Starts up to `most` steps, the most urgent first, as far as the rate limits allow.
    async fn start_steps(&mut self, now: Monotonic, most: usize) -> Monotonic {
        let latest = now.plus(POLL_MS);
        self.is_due = true;
        if self.active.len() >= most {
            return latest;
        }
        if let Err(error) = self.read_backlog(now).await {
            self.pause(now, None, &error);
            return latest;
        }
        let queue = self.backlog.take_in_turns(&self.turns);
        // Nobody waits for refreshes, nor for what ended unseen, which needs no call.
        self.is_due = self.active.values().any(|active| active.calls_slack)
            || queue.iter().any(|queued| queued.priority < Priority::Refresh);
        let mut look = Look { now, next: latest, exhausted: HashSet::new(), is_contended: false };
        if self.shared_calls >= URGENT_SHARED_CALLS {
            self.start_shared_by_turn(&queue, &mut look).await;
        }
        for queued in &queue {
            if self.active.len() >= most {
                break;
            }
            self.try_start(queued, Wanted::Any, &mut look).await;
        }
        if !look.is_contended {
            self.shared_calls = 0;
        }
        let active = &self.active;
        let is_begun = |job: Job| active.get(&job.request()).is_some_and(|active| active.job == job);
        self.backlog.put_back(queue, is_begun);
        look.next = look.next.min(self.next_read(now));
        // The probe of a half-open circuit breaker, if no job can be one.
        let probes = self.breaker.allowed(now) == Allowed::Probe;
        if probes && self.active.is_empty() { self.auth_test().await } else { look.next }
    }

    /// Starts one call of a shared method, for the channel whose last turn is the longest ago and that has such a call:
    /// its most urgent one. So the more urgent calls of others cannot keep a channel waiting for ever.
    async fn start_shared_by_turn(&mut self, queue: &[QueuedJob], look: &mut Look) {
        let mut by_turn: Vec<&QueuedJob> =
            queue.iter().filter(|queued| queued.priority < Priority::Refresh).collect();
        by_turn.sort_by_key(|queued| self.shared_turns.last(&queued.channel));
        for queued in by_turn {
            if self.try_start(queued, Wanted::Shared, look).await {
                self.shared_calls = 0;
                return;
            }
        }
    }

    /// Starts the step of a job if that is possible now.
    async fn try_start(&mut self, queued: &QueuedJob, wanted: Wanted, look: &mut Look) -> bool {
        match self.start_step(queued, wanted, look).await {
            Ok(Looked::Started) => true,
            Ok(Looked::Later(at)) => {
                look.next = look.next.min(at);
                false
            }
            Err(error) => {
                let request = queued.job.request();
                tracing::error!(%request, %error, "cannot load delivery job; retrying");
                self.remember(queued, NextCall { method: None, not_before: look.now.plus(UNREADABLE_MS) });
                // If the store fails, the next write would only fail, too.
                if error.fault().is_none() {
                    self.hide(queued.job).await;
                }
                false
            }
        }
    }

    /// Hides a job that cannot be loaded from the next looks, by a claim: it must not take the place of others in its
    /// channel. If this fails too, it is looked at in vain.
    async fn hide(&mut self, job: Job) {
        if let Job::Outbox(request, effect) = job {
            let now = self.schedule.now();
            let claim = Claim { id: self.rng.u64(..), now, until: now.plus(UNREADABLE_MS) };
            let _ = self.store.claim_outbox(request, effect, claim).await;
        }
    }

    async fn start_step(
        &mut self,
        queued: &QueuedJob,
        wanted: Wanted,
        look: &mut Look,
    ) -> Result<Looked, StoreError> {
        let QueuedJob { job, priority, channel, since, revision } = queued;
        let now = look.now;
        let later = Looked::Later(now.plus(POLL_MS));
        if self.active.contains_key(&job.request()) {
            return Ok(later);
        }
        let next_call = match self.next_calls.get(job) {
            Some((known, next_call)) if known == revision => next_call.clone(),
            _ => {
                let next_call = AssertUnwindSafe(self.sender.next_call(*job, *since)).catch_unwind().await;
                let next_call = match next_call {
                    Ok(next_call) => next_call?,
                    Err(_) => {
                        // The panic hook has printed where it was. Jobs of other requests must not end with this one.
                        tracing::error!(request = %job.request(), "a delivery job panicked; retrying");
                        self.hide(*job).await;
                        NextCall { method: None, not_before: now.plus(UNREADABLE_MS) }
                    }
                };
                self.remember(queued, next_call.clone());
                next_call
            }
        };
        if next_call.not_before > now {
            return Ok(Looked::Later(next_call.not_before));
        }
        let is_shared = next_call.method.as_ref().is_some_and(Method::is_shared);
        if wanted == Wanted::Shared && !is_shared {
            return Ok(later);
        }
        let is_urgent = *priority < Priority::Refresh;
        if let Some(method) = &next_call.method {
            // Less urgent jobs must not get ahead.
            if look.exhausted.contains(method) || self.has_enough_calls(channel) {
                look.is_contended |= is_shared && is_urgent;
                return Ok(later);
            }
            let free_at = self.rate_limits.free_at(method, now);
            if free_at > now {
                look.is_contended |= is_shared && is_urgent;
                look.exhausted.insert(method.clone());
                return Ok(Looked::Later(free_at));
            }
            if !is_urgent && !self.may_refresh(method, now) {
                return Ok(later);
            }
            self.rate_limits.take(method, now);
        }
        self.turns.take(channel);
        if is_shared {
            self.shared_turns.take(channel);
            self.shared_calls = self.shared_calls.saturating_add(u32::from(is_urgent));
        }
        self.spawn_step(queued, next_call.method);
        Ok(Looked::Started)
    }

    fn has_enough_calls(&self, channel: &str) -> bool {
        let calls = self.active.values().filter(|active| active.calls_slack && active.channel == channel);
        calls.count() >= CONCURRENT_CHANNEL_CALLS
    }

    /// Whether a refresh can be sent without delaying anything that people wait for.
    fn may_refresh(&mut self, method: &Method, now: Monotonic) -> bool {
        let refreshes = self.active.values().filter(|active| matches!(active.job, Job::Refresh(_))).count();
        refreshes < CONCURRENT_REFRESHES
            && (*method != Method::Update || self.rate_limits.has_spare_update(now))
    }

    fn spawn_step(&mut self, queued: &QueuedJob, method: Option<Method>) {
        let job = queued.job;
        let (sender, cursor) = (Arc::clone(&self.sender), self.cursors.remove(&job));
        let active = ActiveStep {
            job,
            channel: queued.channel.clone(),
            calls_slack: method.is_some(),
            has_news: false,
        };
        self.active.insert(job.request(), active);
        self.steps.spawn(async move {
            let step = sender.step(job, method.as_ref(), cursor.as_ref());
            let result = AssertUnwindSafe(step).catch_unwind().await.ok();
            FinishedStep { job, method, cursor, result }
        });
    }

    /// Begins nothing for a while, since the store fails. What fails meanwhile is the same failure.
    fn pause(&mut self, now: Monotonic, request: Option<RequestId>, error: &StoreError) {
        if error.fault().is_none() {
            // A single value cannot be read, which holds up nobody else.
            let request = request.map(tracing::field::display);
            tracing::warn!(request, %error, "a step of delivery failed; retrying");
            return;
        }
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        let wait_ms = STORE_BACKOFF.around(self.store_failures, &mut self.rng);
        self.store_failures = self.store_failures.saturating_add(1);
        self.paused_until = Some(now.plus(wait_ms));
        tracing::warn!(%error, wait_ms, "delivery pauses: the store fails");
    }

    /// A step was stored.
    fn resume(&mut self) {
        if self.store_failures > 0 {
            tracing::info!("delivery goes on: the store can be written to again");
        }
        (self.store_failures, self.paused_until) = (0, None);
    }

    fn remember(&mut self, queued: &QueuedJob, next_call: NextCall) {
        self.next_calls.insert(queued.job, (queued.revision, next_call));
    }
}
