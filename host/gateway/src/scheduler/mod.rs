//! What is due: expiries, escalations, and the wake-ups that policies ask for.
//!
//! The scheduler sleeps until the next thing is due or something nearer is stored. It decides nothing:
//! the gateway does what is due, and the store's version guard makes it happen once, on whichever instance.
//!
//! Each due request has a task of its own, so that none waits for another one's policies, and a panic ends nothing else.
//! What was tried and is still due is held, for longer the more often it is found again (`held.rs`).

mod held;
mod waking;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use self::held::{Held, Pause};
use self::waking::{Outcome, Waking, Woken};
use crate::{Gateway, GatewayError};
use countersign_core::lifecycle::{Refusal, Request, RequestId, Timestamp};
use countersign_store::StoreError;

/// How many due requests are taken from the index at once.
const PAGE: usize = 256;

/// How many of them are worked on at the same time; the store commits them together.
const AT_ONCE: usize = 256;

/// How long what another instance looks after first is left to it, in milliseconds.
const OTHERS_MS: u64 = 300;

/// How long to wait before trying again what failed for a reason that lies outside of the request, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// How often the store may fail, without a success in between, before nothing more is tried for [`PAUSE_MS`].
const MOST_STORE_FAILURES: u32 = 16;

/// How many rows that cannot be read are remembered, so that the log names each once.
const MOST_UNREADABLE: usize = 1_000;

/// Does what is due of a request. The gateway, except in tests.
pub(crate) type Wake =
    Arc<dyn Fn(Arc<Request>) -> BoxFuture<'static, Result<Arc<Request>, GatewayError>> + Send + Sync>;

/// Does what is due, for as long as it is polled.
pub struct Scheduler {
    gateway: Arc<Gateway>,
    interval_ms: u64,
    wake: Wake,
    running: JoinSet<Woken>,
    /// The requests of the tasks in `running`, and with which due time each was listed.
    started: HashMap<RequestId, Timestamp>,
    /// Those of them of which something else was due meanwhile.
    due_again: HashSet<RequestId>,
    /// What was tried, and may still be due.
    held: HashMap<RequestId, Held>,
    /// How often the index was looked through.
    looks: u64,
    /// Whether the last look ended before the end, because as much as may be was running.
    is_full: bool,
    store_failures: u32,
    pause: Option<Pause>,
    /// The requests of which the audit log says that they are in quarantine.
    audited: HashSet<RequestId>,
    /// The rows that the log says cannot be read.
    unreadable: BTreeSet<String>,
}

impl Scheduler {
    /// A scheduler that looks at least every `interval_ms`, whatever it has heard.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, interval_ms: u64) -> Scheduler {
        let waking = Arc::clone(&gateway);
        let wake: Wake = Arc::new(move |request| {
            let gateway = Arc::clone(&waking);
            async move { gateway.wake_loaded(request).await }.boxed()
        });
        Scheduler::waking(gateway, interval_ms, wake)
    }

    pub(crate) fn waking(gateway: Arc<Gateway>, interval_ms: u64, wake: Wake) -> Scheduler {
        Scheduler {
            gateway,
            interval_ms,
            wake,
            running: JoinSet::new(),
            started: HashMap::new(),
            due_again: HashSet::new(),
            held: HashMap::new(),
            looks: 0,
            is_full: false,
            store_failures: 0,
            pause: None,
            audited: HashSet::new(),
            unreadable: BTreeSet::new(),
        }
    }

    /// Does what is due and sleeps, in turns, for ever.
    pub async fn run(mut self) {
        loop {
            let next = self.start().await;
            self.wait(next).await;
        }
    }

    /// Does all that is due now, and returns when to look again.
    pub async fn turn(&mut self) -> Timestamp {
        loop {
            let next = self.start().await;
            if self.running.is_empty() {
                return next;
            }
            while let Some(ended) = self.running.join_next().await {
                self.ended(ended.ok());
            }
        }
    }

    /// Waits until there may be something to start: at `next`, as something nearer is stored, or as there is room again.
    async fn wait(&mut self, mut next: Timestamp) {
        let alarm = Arc::clone(self.gateway.alarm());
        let clock = Arc::clone(self.gateway.clock());
        loop {
            // Never longer than the interval: what is due is due by the wall clock, which may be set ahead meanwhile.
            let wait = Duration::from_millis(next.since(clock.now()).min(self.interval_ms));
            // In this order, so that a run can be repeated.
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => {
                    let is_due_again = self.ended(ended.ok());
                    // Not at each end: to look means to pass over all that is held.
                    if is_due_again || self.is_full && self.running.len() <= AT_ONCE / 2 {
                        return;
                    }
                    next = next.min(self.next_release(clock.now()).unwrap_or(next));
                }
                () = clock.sleep(wait) => return,
                () = alarm.nearer() => return,
            }
        }
    }

    /// Starts what is due now, as far as there is room, and returns when to look again.
    async fn start(&mut self) -> Timestamp {
        let now = self.gateway.clock().now();
        let longest = now.plus(self.interval_ms);
        if let Some(pause) = self.pause.filter(|pause| pause.holds(now)) {
            return pause.until.min(longest);
        }
        let alarm = Arc::clone(self.gateway.alarm());
        alarm.reset();
        let next = async {
            let left = self.look(now).await?;
            let next = self.gateway.store().next_due(now).await?;
            Ok::<_, StoreError>(left.into_iter().chain(next).min())
        };
        match next.await {
            Ok(next) => alarm.known(next),
            Err(error) => {
                tracing::warn!(%error, "cannot tell what is due; trying again soon");
                return longest.min(now.plus(PAUSE_MS));
            }
        }
        let next = [alarm.nearest(), self.next_release(now)].into_iter().flatten().min();
        next.map_or(longest, |next| next.min(longest))
    }

    /// Looks through all that is due, most overdue first, and starts what is neither running nor held. Returns when
    /// to look at what is left to other instances, if anything is.
    async fn look(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.looks += 1;
        self.is_full = false;
        let share = self.gateway.share();
        let (mut after, mut left): (_, Option<Timestamp>) = (None, None);
        loop {
            let due = self.gateway.store().due(now, after, PAGE).await?;
            due.unreadable.iter().for_each(|error| self.log_unreadable(error));
            let is_last = due.requests.len() < PAGE;
            for (id, due_at) in due.requests {
                after = Some((due_at, id));
                if let Some(held) = self.held.get_mut(&id) {
                    *held = held.seen_at(self.looks);
                    if held.holds(due_at, now) {
                        continue;
                    }
                }
                if let Some(started) = self.started.get(&id) {
                    if *started != due_at {
                        self.due_again.insert(id);
                    }
                    continue;
                }
                let others = due_at.plus(OTHERS_MS);
                if others > now && !share.has(id) {
                    left = Some(left.map_or(others, |left| left.min(others)));
                    continue;
                }
                if self.running.len() >= AT_ONCE {
                    self.is_full = true;
                    return Ok(left);
                }
                self.spawn(id, due_at);
            }
            if is_last {
                break;
            }
            tokio::task::yield_now().await;
        }
        // What was not seen has ended, or was done by somebody else.
        let (looks, started) = (self.looks, &self.started);
        self.held.retain(|id, held| held.seen() == looks || started.contains_key(id));
        let held = &self.held;
        self.audited.retain(|id| held.contains_key(id) || started.contains_key(id));
        self.show_quarantine();
        Ok(left)
    }

    fn spawn(&mut self, id: RequestId, due_at: Timestamp) {
        let is_audited = self.audited.contains(&id);
        let waking = Waking { gateway: Arc::clone(&self.gateway), wake: Arc::clone(&self.wake), is_audited };
        self.started.insert(id, due_at);
        self.running.spawn(waking.run(id, due_at));
    }

    /// What came of a request. `None` if its task was stopped, which only happens as the process ends.
    /// Returns whether something else of it was found to be due meanwhile.
    fn ended(&mut self, woken: Option<Woken>) -> bool {
        let Some(Woken { id, due_at, expires_at, outcome }) = woken else { return false };
        self.started.remove(&id);
        let now = self.gateway.clock().now();
        if !matches!(outcome, Outcome::Failed(GatewayError::Store(StoreError::Unavailable { .. }))) {
            self.store_failures = 0;
        }
        let last = self.held.get(&id).filter(|held| held.due_at == due_at);
        let again = Held::again(last, due_at, now);
        let held = match outcome {
            // If it is listed with the same due time once more, it does not become any less due by being woken at once.
            Outcome::Done | Outcome::Failed(GatewayError::Refused(Refusal::NotDue | Refusal::Ended(_))) => {
                again.until_expiry(expires_at)
            }
            Outcome::Failed(error @ GatewayError::Store(StoreError::Unavailable { .. })) => {
                self.store_failures += 1;
                tracing::warn!(request = %id, %error, "what is due of a request could not be stored; trying again soon");
                if self.store_failures >= MOST_STORE_FAILURES {
                    self.store_failures = 0;
                    self.pause = Some(Pause::new(now, PAUSE_MS));
                }
                Held::for_now(last, due_at, now)
            }
            Outcome::Failed(GatewayError::Overloaded | GatewayError::Contended) => {
                Held::for_now(last, due_at, now).until_expiry(expires_at)
            }
            Outcome::Failed(error) if expires_at.is_some_and(|at| at <= now) => {
                tracing::warn!(request = %id, %error, "a request could not expire; trying again soon");
                Held::for_now(last, due_at, now)
            }
            Outcome::Failed(error) => {
                let wait_ms = again.wait_ms();
                tracing::warn!(request = %id, %error, wait_ms, "what is due of a request failed; trying again later");
                again.until_expiry(expires_at)
            }
            Outcome::Broken(why) => {
                tracing::error!(request = %id, why, "request quarantined: what is due of it breaks the gateway");
                self.audited.insert(id);
                Held::in_quarantine(due_at, now).until_expiry(expires_at)
            }
        };
        self.held.insert(id, held.seen_at(self.looks));
        self.show_quarantine();
        self.due_again.remove(&id)
    }

    /// When the first of what is held may be tried again.
    fn next_release(&self, now: Timestamp) -> Option<Timestamp> {
        self.held.values().map(Held::until).filter(|until| *until > now).min()
    }

    fn show_quarantine(&self) {
        let quarantined = self.held.values().filter(|held| held.is_quarantined()).count();
        self.gateway.metrics.quarantined.set(i64::try_from(quarantined).unwrap_or(i64::MAX));
    }

    fn log_unreadable(&mut self, error: &StoreError) {
        let what = error.to_string();
        if self.unreadable.len() < MOST_UNREADABLE && self.unreadable.insert(what) {
            tracing::error!(%error, "a due request cannot be read; it stays open until the row is mended");
        }
    }
}
