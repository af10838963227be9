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
use super::budget::{Budgets, Method};
use super::courier::{Courier, Cursor, Errand, Outcome, Outlook, counted};
use super::dice::Dice;
use super::gate::{Gate, Permit};
use super::health::Health;
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
    courier: Arc<Courier>,
    /// Rung when something was stored that waits for delivery.
    bell: Arc<Notify>,
    health: Arc<Health>,
    budgets: Budgets,
    gate: Gate,
    /// What is known of the errands that were looked at, with the revision that it is known of.
    known: HashMap<Errand, (u64, Outlook)>,
    /// Where a search goes on.
    cursors: HashMap<Errand, Cursor>,
    busy: HashMap<RequestId, Errand>,
    steps: JoinSet<Taken>,
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
    pub bell: Arc<Notify>,
    /// Where it says how delivery stands.
    pub health: Arc<Health>,
    /// What makes the messages.
    pub rendering: Rendering,
    /// What Slack's rate limits are multiplied by.
    pub rate_factor: f64,
}

/// A step that was taken.
struct Taken {
    errand: Errand,
    method: Option<Method>,
    /// From where it went on looking.
    cursor: Option<Cursor>,
    /// `None` where it panicked.
    outcome: Option<Result<Outcome, StoreError>>,
}

/// An errand that could be run now.
struct Candidate {
    errand: Errand,
    rank: Rank,
    since: Timestamp,
    revision: u64,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
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
        let Parts { store, clock, client, bell, health, rendering, rate_factor } = parts;
        let courier =
            Courier::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&client), rendering, dice);
        Worker {
            store,
            clock,
            client,
            courier: Arc::new(courier),
            bell,
            health,
            budgets: Budgets::new(rate_factor),
            gate: Gate::new(),
            known: HashMap::new(),
            cursors: HashMap::new(),
            busy: HashMap::new(),
            steps: JoinSet::new(),
        }
    }

    /// Delivers until the shutdown begins, and then ends what is under way.
    /// What it does not come to waits in the outbox, and so does what is cut off.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (clock, bell) = (Arc::clone(&self.clock), Arc::clone(&self.bell));
        while !shutdown.is_cancelled() {
            let next = self.turn().await;
            let soonest = clock.now().plus(PACE_MS);
            let woken = async {
                tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = bell.notified() => clock.sleep_until(soonest).await,
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
        let next = match self.gate.permit(now) {
            Permit::Nothing { until } => until,
            Permit::Ask if self.busy.is_empty() => self.ask().await,
            Permit::One if self.busy.is_empty() => self.begin(now, 1).await,
            Permit::Ask | Permit::One => now.plus(LOOK_MS),
            Permit::All => self.begin(now, AT_ONCE).await,
        };
        self.health.stands(self.gate.standing(), self.gate.refused_for(), now);
        next
    }

    /// Begins up to `most` steps, the most urgent first, as far as budgets go.
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
                    let request = candidate.errand.request();
                    tracing::error!(%request, %error, "what is to be delivered cannot be told; trying again later");
                    self.remember(&candidate, Outlook { method: None, not_before: now.plus(60 * LOOK_MS) });
                }
            }
        }
        // Nothing waits, so nothing would show that Slack answers again.
        if most == 1 && self.busy.is_empty() { self.ask().await } else { next }
    }

    /// Begins a step of the errand where that can be done now; else says when it can.
    async fn consider(
        &mut self,
        candidate: &Candidate,
        now: Timestamp,
        full: &mut HashSet<Method>,
    ) -> Result<Timestamp, StoreError> {
        let Candidate { errand, rank, since, revision } = candidate;
        let later = now.plus(LOOK_MS);
        if self.busy.contains_key(&errand.request()) {
            return Ok(later);
        }
        let outlook = match self.known.get(errand) {
            Some((known, outlook)) if known == revision => outlook.clone(),
            _ => {
                let outlook = self.courier.outlook(*errand, *since).await?;
                self.remember(candidate, outlook.clone());
                outlook
            }
        };
        if outlook.not_before > now {
            return Ok(outlook.not_before);
        }
        if let Some(method) = &outlook.method {
            if full.contains(method) {
                return Ok(later);
            }
            let free_at = self.budgets.free_at(method, now);
            if free_at > now {
                full.insert(method.clone());
                return Ok(free_at);
            }
            if *rank == Rank::Refresh && !self.may_refresh(method, now) {
                return Ok(later);
            }
            self.budgets.take(method, now);
        }
        self.send(*errand, outlook.method);
        Ok(later)
    }

    /// What nobody waits for must not stand in the way of what somebody does.
    fn may_refresh(&mut self, method: &Method, now: Timestamp) -> bool {
        let under_way = self.busy.values().filter(|errand| matches!(errand, Errand::Refresh(_))).count();
        under_way < REFRESHES_AT_ONCE && (*method != Method::Update || self.budgets.has_spare_update(now))
    }

    fn send(&mut self, errand: Errand, method: Option<Method>) {
        let (courier, cursor) = (Arc::clone(&self.courier), self.cursors.remove(&errand));
        self.busy.insert(errand.request(), errand);
        self.steps.spawn(async move {
            let step = courier.step(errand, method.as_ref(), cursor.as_ref());
            let outcome = AssertUnwindSafe(step).catch_unwind().await.ok();
            Taken { errand, method, cursor, outcome }
        });
    }

    fn remember(&mut self, candidate: &Candidate, outlook: Outlook) {
        self.known.insert(candidate.errand, (candidate.revision, outlook));
    }

    /// Everything that could be sent, the most urgent first, and what has waited for longest before the rest.
    async fn candidates(&mut self, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        let ready = self.store.ready_outbox(now, WINDOW).await?;
        let stale = self.store.stale_slack_posts(now, REFRESH_WINDOW).await?;
        let waiting: HashSet<RequestId> = ready.iter().map(|entry| entry.request).collect();
        let mut candidates: Vec<Candidate> = ready
            .into_iter()
            .map(|entry| Candidate {
                errand: Errand::Deliver(entry.request, entry.effect),
                rank: Rank::Waiting(entry.urgency),
                since: entry.since,
                revision: entry.revision,
            })
            .collect();
        // What is about to be delivered need not be refreshed.
        let stale = stale.into_iter().filter(|(id, slot)| *slot == Slot::Main && !waiting.contains(id));
        candidates.extend(stale.map(|(id, _)| Candidate {
            errand: Errand::Refresh(id),
            rank: Rank::Refresh,
            since: now,
            revision: 0,
        }));
        let seen: HashSet<Errand> = candidates.iter().map(|candidate| candidate.errand).collect();
        self.known.retain(|errand, _| seen.contains(errand));
        // The order of those that are to be refreshed is the store's: the most overdue first.
        candidates.sort_by_key(|candidate| (candidate.rank, candidate.since));
        Ok(candidates)
    }

    /// A search goes on from there. Where that is lost, it begins again.
    fn look_on(&mut self, errand: Errand, cursor: Option<Cursor>) {
        let Some(cursor) = cursor else { return };
        if self.cursors.len() >= CURSORS {
            self.cursors.clear();
        }
        self.cursors.insert(errand, cursor);
    }

    /// Takes in what came of a step.
    async fn settle(&mut self, taken: Result<Taken, JoinError>) {
        // A step is never cut off while there is somebody to take it in.
        let Ok(Taken { errand, method, cursor, outcome }) = taken else { return };
        self.busy.remove(&errand.request());
        // It may be another step now, for a notice also where it was the request's message that was posted.
        self.known.retain(|known, _| known.request() != errand.request());
        let (now, request) = (self.clock.now(), errand.request());
        let outcome = match outcome {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => {
                tracing::warn!(%request, %error, "a step of delivery was not stored; taking it again later");
                return;
            }
            None => {
                // What it said is on the standard error, by the panic hook. What it had claimed comes back by itself.
                tracing::error!(%request, "a step of delivery panicked");
                return;
            }
        };
        match outcome {
            Outcome::NoCall => {
                if let Some(method) = &method {
                    self.budgets.give_back(method);
                }
            }
            Outcome::Delivered { channel } => {
                self.gate.delivered();
                self.health.channel_delivered(&channel);
            }
            Outcome::Looked { cursor } => {
                self.gate.answered();
                self.health.lookup(None);
                self.look_on(errand, cursor);
            }
            Outcome::LookRefused { code } => {
                self.gate.answered();
                self.health.lookup(Some(&code));
            }
            Outcome::Limited { wait_ms } => {
                self.gate.answered();
                self.look_on(errand, cursor);
                if let Some(method) = &method {
                    self.budgets.shut(method, now.plus(wait_ms));
                }
            }
            Outcome::Unanswered => {
                self.gate.unanswered(now, self.courier.dice());
                self.look_on(errand, cursor);
            }
            Outcome::Refused { code, channel } => {
                self.gate.answered();
                if let Some(channel) = channel {
                    self.health.channel_failed(&channel, &code, now);
                }
            }
            Outcome::Unauthorized { code, audit } => {
                if self.gate.unauthorized(now, &code, self.courier.dice()) {
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
        let (now, dice) = (self.clock.now(), self.courier.dice());
        match asked {
            Ok(_) => self.gate.authorized(),
            Err(CallError::Rejected { code }) => {
                self.gate.answered();
                self.gate.unauthorized(now, &code, dice);
            }
            Err(CallError::RateLimited { .. } | CallError::Unanswered { .. }) => {
                self.gate.unanswered(now, dice);
            }
        }
        match self.gate.permit(now) {
            Permit::Nothing { until } => until,
            Permit::All | Permit::One | Permit::Ask => now,
        }
    }
}
