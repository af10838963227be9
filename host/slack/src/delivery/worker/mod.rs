//! The worker: the one place that decides which call is made next.
//!
//! It looks at the jobs that are due, and carries out the steps of the most urgent ones, several requests at a time
//! and each request once. Everything it keeps in memory can be lost.

mod queue;
mod results;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use countersign_core::backoff::Backoff;
use countersign_core::clock::{Clock, Monotonic};
use countersign_core::directory::Directory;
use countersign_core::lifecycle::RequestId;
use countersign_store::{Store, StoreError};
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
use queue::{Priority, QueuedJob};
use results::FinishedStep;

/// The most steps at the same time.
const CONCURRENT_STEPS: usize = 8;

/// The most of them that may be refreshes.
const CONCURRENT_REFRESHES: usize = 3;

/// The longest time between two looks at the outbox, in milliseconds.
const POLL_MS: u64 = 1_000;

/// The shortest time between two looks at the outbox, in milliseconds.
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
    rate_limits: RateLimits,
    breaker: CircuitBreaker,
    rng: fastrand::Rng,
    /// The next call of each job, with the revision of the job that it was computed for.
    next_calls: HashMap<Job, (u64, NextCall)>,
    /// Where searches go on.
    cursors: HashMap<Job, SearchCursor>,
    /// The jobs whose steps are being carried out.
    active: HashMap<RequestId, Job>,
    steps: JoinSet<FinishedStep>,
    /// Whether something was due at the last look.
    is_due: bool,
    /// Times in a row that steps could not be stored.
    store_failures: u32,
    /// Until when nothing is begun, since steps cannot be stored.
    paused_until: Option<Monotonic>,
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
    /// The factor on Slack's rate limits.
    pub rate_factor: f64,
}

impl Worker {
    /// A worker of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Worker {
        Worker::with_rng(parts, fastrand::Rng::new())
    }

    /// The same; `rng` spreads the retries.
    pub(super) fn with_rng(parts: Parts, mut rng: fastrand::Rng) -> Worker {
        let Parts { store, clock, directory, client, notify, health, rendering, rate_factor } = parts;
        let schedule = Schedule::new(Arc::clone(&clock));
        let sender = Sender::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            schedule.clone(),
            directory,
            Arc::clone(&client),
            rendering,
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
            rate_limits: RateLimits::new(rate_factor),
            breaker: CircuitBreaker::new(),
            rng,
            next_calls: HashMap::new(),
            cursors: HashMap::new(),
            active: HashMap::new(),
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
                    () = notify.notified() => clock.sleep_until(earliest).await,
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
        let queue = match self.queue().await {
            Ok(queue) => queue,
            Err(error) => {
                self.pause(now, &error);
                return latest;
            }
        };
        self.is_due =
            !self.active.is_empty() || queue.iter().any(|queued| queued.priority != Priority::Refresh);
        let (mut next, mut exhausted) = (latest, HashSet::new());
        for queued in queue {
            if self.active.len() >= most {
                break;
            }
            match self.start_step(&queued, now, &mut exhausted).await {
                Ok(at) => next = next.min(at),
                Err(error) => {
                    let request = queued.job.request();
                    tracing::error!(%request, %error, "cannot load delivery job; retrying");
                    let not_before = now.plus(UNREADABLE_MS);
                    self.remember(&queued, NextCall { method: None, not_before });
                }
            }
        }
        // The probe of a half-open circuit breaker, if no job can be one.
        let probes = self.breaker.allowed(now) == Allowed::Probe;
        if probes && self.active.is_empty() { self.auth_test().await } else { next }
    }

    /// Starts the step of a job if that is possible now, and returns when to look at it again.
    ///
    /// `exhausted` gathers the methods whose rate limit is exhausted: less urgent jobs must not get ahead.
    async fn start_step(
        &mut self,
        queued: &QueuedJob,
        now: Monotonic,
        exhausted: &mut HashSet<Method>,
    ) -> Result<Monotonic, StoreError> {
        let QueuedJob { job, priority, since, revision } = queued;
        let later = now.plus(POLL_MS);
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
                        // The panic hook has printed the message. Jobs of other requests must not end with this one.
                        tracing::error!(request = %job.request(), "a delivery job panicked; retrying");
                        NextCall { method: None, not_before: now.plus(UNREADABLE_MS) }
                    }
                };
                self.remember(queued, next_call.clone());
                next_call
            }
        };
        if next_call.not_before > now {
            return Ok(next_call.not_before);
        }
        if let Some(method) = &next_call.method {
            if exhausted.contains(method) {
                return Ok(later);
            }
            let free_at = self.rate_limits.free_at(method, now);
            if free_at > now {
                exhausted.insert(method.clone());
                return Ok(free_at);
            }
            if *priority == Priority::Refresh && !self.may_refresh(method, now) {
                return Ok(later);
            }
            self.rate_limits.take(method, now);
        }
        self.spawn_step(*job, next_call.method);
        Ok(later)
    }

    /// Whether a refresh can be sent without delaying anything that people wait for.
    fn may_refresh(&mut self, method: &Method, now: Monotonic) -> bool {
        let refreshes = self.active.values().filter(|job| matches!(job, Job::Refresh(_))).count();
        refreshes < CONCURRENT_REFRESHES
            && (*method != Method::Update || self.rate_limits.has_spare_update(now))
    }

    fn spawn_step(&mut self, job: Job, method: Option<Method>) {
        let (sender, cursor) = (Arc::clone(&self.sender), self.cursors.remove(&job));
        self.active.insert(job.request(), job);
        self.steps.spawn(async move {
            let step = sender.step(job, method.as_ref(), cursor.as_ref());
            let result = AssertUnwindSafe(step).catch_unwind().await.ok();
            FinishedStep { job, method, cursor, result }
        });
    }

    /// Begins nothing for a while, since the store fails. What fails meanwhile is the same failure.
    fn pause(&mut self, now: Monotonic, error: &StoreError) {
        if error.fault().is_none() {
            // A single value cannot be read, which holds up nobody else.
            tracing::warn!(%error, "a step of delivery failed; retrying");
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
