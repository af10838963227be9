//! The one place that decides what is sent to Slack next.
//!
//! It looks at what waits in the outbox, what of that may be sent now, and takes the most urgent step, several
//! requests at the same time and each of them once. All that it remembers can be lost.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

use super::Rendering;
use super::circuit_breaker::{Allowed, CircuitBreaker};
use super::dice::Dice;
use super::health::Health;
use super::rate_limit::{Method, RateLimits};
use super::sender::{Job, NextCall, SearchCursor, SendResult, Sender, counted};
use crate::{CallError, SlackClient};
use countersign_core::clock::Clock;
use countersign_core::lifecycle::{RequestId, Timestamp};
use countersign_core::record::Slot;
use countersign_store::{Store, StoreError, Urgency};
use tokio_util::sync::CancellationToken;

/// How many steps are taken at the same time.
const AT_ONCE: usize = 8;

/// How many of them may be for messages that nobody waits for.
const REFRESHES_AT_ONCE: usize = 3;

/// How many entries of each urgency are looked at: more than can be sent within some minutes.
const WINDOW: usize = 1024;

/// How many messages that are due to be refreshed are looked at.
const REFRESH_WINDOW: usize = 32;

/// How many searches to remember the place of.
const CURSORS: usize = 1024;

/// The longest time between two looks at what waits, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// The shortest.
const PACE_MS: u64 = 25;

/// Delivers to Slack, for as long as it is polled.
pub struct Worker {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    client: Arc<SlackClient>,
    sender: Arc<Sender>,
    /// Rung when something was stored that waits for delivery.
    notify: Arc<Notify>,
    health: Arc<Health>,
    rate_limits: RateLimits,
    breaker: CircuitBreaker,
    /// What is known of the jobs that were looked at, with the revision that it is known of.
    known: HashMap<Job, (u64, NextCall)>,
    /// Where a search goes on.
    cursors: HashMap<Job, SearchCursor>,
    busy: HashMap<RequestId, Job>,
    steps: JoinSet<FinishedStep>,
}

/// What the worker is given.
pub struct Parts {
    /// Where requests and the outbox are.
    pub store: Arc<dyn Store>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// What calls Slack.
    pub client: Arc<SlackClient>,
    /// What is rung when something was stored that waits for delivery.
    pub notify: Arc<Notify>,
    /// Where it says how delivery stands.
    pub health: Arc<Health>,
    /// What makes the messages.
    pub rendering: Rendering,
    /// What Slack's rate limits are multiplied by.
    pub rate_factor: f64,
}

/// A step that was taken.
struct FinishedStep {
    job: Job,
    method: Option<Method>,
    /// From where it went on looking.
    cursor: Option<SearchCursor>,
    /// `None` where it panicked.
    outcome: Option<Result<SendResult, StoreError>>,
}

/// An job that could be run now.
struct Candidate {
    job: Job,
    priority: Priority,
    since: Timestamp,
    revision: u64,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    Waiting(Urgency),
    Refresh,
}

impl Worker {
    /// A worker over its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Worker {
        Worker::with_dice(parts, Dice::random())
    }

    pub(super) fn with_dice(parts: Parts, dice: Dice) -> Worker {
        let Parts { store, clock, client, notify, health, rendering, rate_factor } = parts;
        let sender =
            Sender::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&client), rendering, dice);
        Worker {
            store,
            clock,
            client,
            sender: Arc::new(sender),
            notify,
            health,
            rate_limits: RateLimits::new(rate_factor),
            breaker: CircuitBreaker::new(),
            known: HashMap::new(),
            cursors: HashMap::new(),
            busy: HashMap::new(),
            steps: JoinSet::new(),
        }
    }

    /// Delivers until the shutdown begins, and then ends what is under way.
    /// What it does not come to waits in the outbox, and so does what is cut off.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (clock, notify) = (Arc::clone(&self.clock), Arc::clone(&self.notify));
        while !shutdown.is_cancelled() {
            let next = self.turn().await;
            let soonest = clock.now().plus(PACE_MS);
            let woken = async {
                tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = notify.notified() => clock.sleep_until(soonest).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(taken) = self.steps.join_next() => self.settle(taken).await,
                () = woken => {}
            }
        }
        self.finish().await;
    }

    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Waits for the steps that are being taken.
    pub(super) async fn finish(&mut self) {
        while let Some(taken) = self.steps.join_next().await {
            self.settle(taken).await;
        }
    }

    /// Begins all that can be begun now, and returns when to look again.
    pub(super) async fn turn(&mut self) -> Timestamp {
        while let Some(taken) = self.steps.try_join_next() {
            self.settle(taken).await;
        }
        let now = self.clock.now();
        let next = match self.breaker.permit(now) {
            Allowed::Nothing { until } => until,
            Allowed::Ask if self.busy.is_empty() => self.ask().await,
            Allowed::One if self.busy.is_empty() => self.begin(now, 1).await,
            Allowed::Ask | Allowed::One => now.plus(LOOK_MS),
            Allowed::All => self.begin(now, AT_ONCE).await,
        };
        self.health.stands(self.breaker.standing(), self.breaker.refused_for(), now);
        next
    }

    /// Begins up to `most` steps, the most urgent first, as far as rate_limits go.
    async fn begin(&mut self, now: Timestamp, most: usize) -> Timestamp {
        let longest = now.plus(LOOK_MS);
        if self.busy.len() >= most {
            return longest;
        }
        let candidates = match self.candidates(now).await {
            Ok(candidates) => candidates,
            Err(error) => {
                tracing::warn!(%error, "cannot tell what waits for delivery; looking again later");
                return longest;
            }
        };
        let (mut next, mut full) = (longest, HashSet::new());
        for candidate in candidates {
            if self.busy.len() >= most {
                break;
            }
            match self.consider(&candidate, now, &mut full).await {
                Ok(at) => next = next.min(at),
                Err(error) => {
                    let request = candidate.job.request();
                    tracing::error!(%request, %error, "what is to be delivered cannot be told; trying again later");
                    self.remember(&candidate, NextCall { method: None, not_before: now.plus(60 * LOOK_MS) });
                }
            }
        }
        // Nothing waits, so nothing would show that Slack answers again.
        if most == 1 && self.busy.is_empty() { self.ask().await } else { next }
    }

    /// Begins a step of the job where that can be done now; else says when it can.
    async fn consider(
        &mut self,
        candidate: &Candidate,
        now: Timestamp,
        full: &mut HashSet<Method>,
    ) -> Result<Timestamp, StoreError> {
        let Candidate { job, priority, since, revision } = candidate;
        let later = now.plus(LOOK_MS);
        if self.busy.contains_key(&job.request()) {
            return Ok(later);
        }
        let next_call = match self.known.get(job) {
            Some((known, next_call)) if known == revision => next_call.clone(),
            _ => {
                let next_call = self.sender.next_call(*job, *since).await?;
                self.remember(candidate, next_call.clone());
                next_call
            }
        };
        if next_call.not_before > now {
            return Ok(next_call.not_before);
        }
        if let Some(method) = &next_call.method {
            if full.contains(method) {
                return Ok(later);
            }
            let free_at = self.rate_limits.free_at(method, now);
            if free_at > now {
                full.insert(method.clone());
                return Ok(free_at);
            }
            if *priority == Priority::Refresh && !self.may_refresh(method, now) {
                return Ok(later);
            }
            self.rate_limits.take(method, now);
        }
        self.send(*job, next_call.method);
        Ok(later)
    }

    /// What nobody waits for must not stand in the way of what somebody does.
    fn may_refresh(&mut self, method: &Method, now: Timestamp) -> bool {
        let under_way = self.busy.values().filter(|job| matches!(job, Job::Refresh(_))).count();
        under_way < REFRESHES_AT_ONCE && (*method != Method::Update || self.rate_limits.has_spare_update(now))
    }

    fn send(&mut self, job: Job, method: Option<Method>) {
        let (sender, cursor) = (Arc::clone(&self.sender), self.cursors.remove(&job));
        self.busy.insert(job.request(), job);
        self.steps.spawn(async move {
            let step = sender.step(job, method.as_ref(), cursor.as_ref());
            let outcome = AssertUnwindSafe(step).catch_unwind().await.ok();
            FinishedStep { job, method, cursor, outcome }
        });
    }

    fn remember(&mut self, candidate: &Candidate, next_call: NextCall) {
        self.known.insert(candidate.job, (candidate.revision, next_call));
    }

    /// Everything that could be sent, the most urgent first, and what has waited for longest before the rest.
    async fn candidates(&mut self, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        let ready = self.store.ready_outbox(now, WINDOW).await?;
        let stale = self.store.stale_slack_posts(now, REFRESH_WINDOW).await?;
        let waiting: HashSet<RequestId> = ready.iter().map(|entry| entry.request).collect();
        let mut candidates: Vec<Candidate> = ready
            .into_iter()
            .map(|entry| Candidate {
                job: Job::Deliver(entry.request, entry.effect),
                priority: Priority::Waiting(entry.urgency),
                since: entry.since,
                revision: entry.revision,
            })
            .collect();
        // What is about to be delivered need not be refreshed.
        let stale = stale.into_iter().filter(|(id, slot)| *slot == Slot::Main && !waiting.contains(id));
        candidates.extend(stale.map(|(id, _)| Candidate {
            job: Job::Refresh(id),
            priority: Priority::Refresh,
            since: now,
            revision: 0,
        }));
        let seen: HashSet<Job> = candidates.iter().map(|candidate| candidate.job).collect();
        self.known.retain(|job, _| seen.contains(job));
        // The order of those that are to be refreshed is the store's: the most overdue first.
        candidates.sort_by_key(|candidate| (candidate.priority, candidate.since));
        Ok(candidates)
    }

    /// A search goes on from there. Where that is lost, it begins again.
    fn look_on(&mut self, job: Job, cursor: Option<SearchCursor>) {
        let Some(cursor) = cursor else { return };
        if self.cursors.len() >= CURSORS {
            self.cursors.clear();
        }
        self.cursors.insert(job, cursor);
    }

    /// Takes in what came of a step.
    async fn settle(&mut self, taken: Result<FinishedStep, JoinError>) {
        // A step is never cut off while there is somebody to take it in.
        let Ok(FinishedStep { job, method, cursor, outcome }) = taken else { return };
        self.busy.remove(&job.request());
        // It may be another step now, for a notice also where it was the request's message that was posted.
        self.known.retain(|known, _| known.request() != job.request());
        let (now, request) = (self.clock.now(), job.request());
        let outcome = match outcome {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => {
                tracing::warn!(%request, %error, "a step of delivery was not stored; context it again later");
                return;
            }
            None => {
                // What it said is on the standard error, by the panic hook. What it had claimed comes back by itself.
                tracing::error!(%request, "a step of delivery panicked");
                return;
            }
        };
        match outcome {
            SendResult::NoCall => {
                if let Some(method) = &method {
                    self.rate_limits.give_back(method);
                }
            }
            SendResult::Delivered { channel } => {
                self.breaker.delivered();
                self.health.channel_delivered(&channel);
            }
            SendResult::Searched { cursor } => {
                self.breaker.answered();
                self.health.lookup(None);
                self.look_on(job, cursor);
            }
            SendResult::SearchRefused { code } => {
                self.breaker.answered();
                self.health.lookup(Some(&code));
            }
            SendResult::Limited { wait_ms } => {
                self.breaker.answered();
                self.look_on(job, cursor);
                if let Some(method) = &method {
                    self.rate_limits.shut(method, now.plus(wait_ms));
                }
            }
            SendResult::Unanswered => {
                self.breaker.unanswered(now, self.sender.dice());
                self.look_on(job, cursor);
            }
            SendResult::Refused { code, channel } => {
                self.breaker.answered();
                if let Some(channel) = channel {
                    self.health.channel_failed(&channel, &code, now);
                }
            }
            SendResult::Unauthorized { code, audit } => {
                if self.breaker.unauthorized(now, &code, self.sender.dice()) {
                    tracing::error!(
                        code,
                        "Slack refuses all that is sent; nothing is sent before that is mended"
                    );
                    if let Err(error) = self.store.append(vec![*audit], vec![counted(&code)]).await {
                        tracing::warn!(%error, "the audit log was not told that Slack refuses all");
                    }
                }
            }
        }
    }

    /// Asks whether Slack answers, and knows us.
    async fn ask(&mut self) -> Timestamp {
        let asked = self.client.auth_test().await;
        let (now, dice) = (self.clock.now(), self.sender.dice());
        match asked {
            Ok(_) => self.breaker.authorized(),
            Err(CallError::Rejected { code }) => {
                self.breaker.answered();
                self.breaker.unauthorized(now, &code, dice);
            }
            Err(CallError::RateLimited { .. } | CallError::Unanswered { .. }) => {
                self.breaker.unanswered(now, dice);
            }
        }
        match self.breaker.permit(now) {
            Allowed::Nothing { until } => until,
            Allowed::All | Allowed::One | Allowed::Ask => now,
        }
    }
}
