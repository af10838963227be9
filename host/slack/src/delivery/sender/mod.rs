//! Carries out one step of a delivery job: at most one call, with its purpose stored before and its outcome after.
//!
//! It can be cut off at any await: what it leaves in the store is enough to go on from.

mod apply_failure;
mod due;
mod plan;
mod record;
mod render;
mod search;
mod send;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::clock::{Clock, Moment, Monotonic};
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{AuditEntry, Digest, Effect, Request, Timestamp};
use countersign_core::record::{Mark, PolicyEntry, Slot};
use countersign_store::{Claim, Hold, OutboxEntry, Store, StoreError};
use countersign_trace::Tracer;

use due::Due;
use plan::{Next, Plan};
pub(super) use record::failure_count;
pub(super) use search::SearchCursor;

use super::Rendering;
use super::after_failure::{Release, temporary};
use super::job::Job;
use super::rate_limit::Method;
use super::schedule::Schedule;
use super::step::{Step, debounce_ms};
use crate::SlackClient;

/// The longest that a job waits in the worker's memory rather than in the store, in milliseconds.
const SHORT_WAIT_MS: u64 = 5_000;

/// The longest that a call takes, and a little more, in milliseconds.
pub(super) const CALL_MS: u64 = 12_000;

/// How long a refresh is put off while one is sent, in milliseconds. It is not renewed: it is one call, nobody waits for it,
/// and two that are sent at the same time have the message updated once more.
const REFRESH_CLAIM_MS: u64 = CALL_MS + 3_000;

/// Carries out the steps.
pub(super) struct Sender {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    schedule: Schedule,
    /// When an update may last have been sent of which nothing is stored: before this process took delivery up, or when the
    /// store did not take that an update was not answered.
    unstored_since: Mutex<Moment>,
    directory: Arc<Directory>,
    client: Arc<SlackClient>,
    rendering: Rendering,
    tracer: Tracer,
    rng: Mutex<fastrand::Rng>,
    /// Policy entries that were loaded.
    entries: Mutex<HashMap<Digest, Arc<PolicyEntry>>>,
    /// Notices that failed, and until when by the time of delivery they are skipped in favour of the other notice of their entry.
    skipped: Mutex<HashMap<Mark, Timestamp>>,
    due: Mutex<Due>,
}

/// The next call that a job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NextCall {
    /// The method; `None` if the job needs no call.
    pub(super) method: Option<Method>,
    /// The earliest time for it.
    pub(super) not_before: Monotonic,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SendResult {
    /// No call was made: there was nothing to do, or the job needs another call than expected.
    NoCall,
    /// Slack posted or updated the message.
    Delivered {
        /// The channel, as the policy entry names it.
        channel: String,
    },
    /// A page of the channel's history was searched.
    Searched {
        /// The next page, if the search is not over.
        cursor: Option<SearchCursor>,
    },
    /// Slack does not allow the search.
    SearchRefused {
        /// Slack's code.
        code: String,
    },
    /// Slack's rate limit.
    RateLimited {
        /// How long not to call the method, in milliseconds.
        wait_ms: u64,
    },
    /// Slack did not answer.
    Unanswered,
    /// Slack refuses the token or its scopes.
    Unauthorized {
        /// Slack's code.
        code: String,
        /// The audit entry, for the worker to write if this is new.
        audit: Box<AuditEntry>,
    },
    /// Slack refused the message.
    Refused {
        /// Slack's code.
        code: String,
        /// The channel, if it counts as failing.
        channel: Option<String>,
    },
}

/// A step whose outcome could not be stored.
#[derive(Debug)]
pub(super) struct StepError {
    /// Why.
    pub(super) error: StoreError,
    /// How the call failed before that, if there was one: what Slack says of all calls counts all the same.
    pub(super) failed: Option<SendResult>,
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> StepError {
        StepError { error, failed: None }
    }
}

/// A job whose step is being carried out.
struct ActiveJob<'a> {
    request: &'a Request,
    entry: &'a PolicyEntry,
    /// The outbox entry that was claimed; `None` for a refresh.
    claim: Option<&'a OutboxEntry>,
}

impl Sender {
    #[expect(clippy::too_many_arguments, reason = "it is called once, with the parts of the worker")]
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        schedule: Schedule,
        directory: Arc<Directory>,
        client: Arc<SlackClient>,
        rendering: Rendering,
        tracer: Tracer,
        rng: fastrand::Rng,
    ) -> Sender {
        Sender {
            store,
            unstored_since: Mutex::new(clock.moment()),
            clock,
            schedule,
            directory,
            client,
            rendering,
            tracer,
            rng: Mutex::new(rng),
            entries: Mutex::default(),
            skipped: Mutex::default(),
            due: Mutex::default(),
        }
    }

    /// The next call of a job that has waited since `since`.
    pub(super) async fn next_call(&self, job: Job, since: Timestamp) -> Result<NextCall, StoreError> {
        let (method, wait_ms) = match self.plan(job).await? {
            None => (None, 0),
            Some(Plan { request, next, .. }) => match next {
                Next::Nothing => (None, 0),
                Next::Wait(until) => {
                    let wait_ms = until.since(self.schedule.now());
                    // A step postpones it in the store: it must not take the place of others in its channel for long.
                    let is_postponed = matches!(job, Job::Outbox(..)) && wait_ms > SHORT_WAIT_MS;
                    (None, if is_postponed { 0 } else { wait_ms })
                }
                Next::Call(tracked, step) => {
                    let wait_ms = match job {
                        Job::Outbox(_, Effect::ShowRequest) => {
                            debounce_ms(&request, &tracked.post, since, self.clock.now())
                        }
                        Job::Outbox(_, Effect::NotifyEscalation | Effect::NotifyReplaced)
                        | Job::Refresh(_) => 0,
                    };
                    (tracked.method(&step), wait_ms)
                }
            },
        };
        Ok(NextCall { method, not_before: self.clock.monotonic().plus(wait_ms) })
    }

    /// Carries out the next step of a job, with at most one call of `method`. A search goes on at `cursor`.
    ///
    /// # Errors
    /// If the store fails; then the outbox entry is retried later.
    pub(super) async fn step(
        &self,
        job: Job,
        method: Option<&Method>,
        cursor: Option<&SearchCursor>,
    ) -> Result<SendResult, StepError> {
        let (request, effect) = match job {
            Job::Refresh(request) => {
                let now = self.schedule.now();
                let until = now.plus(REFRESH_CLAIM_MS);
                if !self.store.claim_refresh(request, Slot::Main, now, until).await? {
                    return Ok(SendResult::NoCall);
                }
                return self.claimed_step(job, None, method, cursor).await;
            }
            Job::Outbox(request, effect) => (request, effect),
        };
        let hold = Hold::begin(&*self.clock);
        let claim = Claim::at(self.rng().u64(..), self.schedule.now());
        let Some(entry) = self.store.claim_outbox(request, effect, claim).await? else {
            return Ok(SendResult::NoCall);
        };
        let renew = || self.store.renew_outbox(request, effect, Claim::at(claim.id, self.schedule.now()));
        let result = match hold.keep(renew, self.claimed_step(job, Some(&entry), method, cursor)).await {
            Ok(result) => result,
            // The claim stays as it is, so that whoever takes the entry over knows that a call may have been made.
            Err(lost) => {
                let error = lost.error.map(StepError::from);
                tracing::warn!(%request, "the claim of a delivery was not kept, so its step is given up; it is begun again");
                return error.map_or(Ok(SendResult::NoCall), Err);
            }
        };
        if result.is_err() {
            let now = self.schedule.now();
            let retry_at = temporary(entry.attempts, now, &mut self.rng());
            // If this fails too, the claim runs out; the first error says what is wrong.
            let _ = self.retry(&entry, now, retry_at, true).await;
        }
        result
    }

    async fn claimed_step(
        &self,
        job: Job,
        claim: Option<&OutboxEntry>,
        method: Option<&Method>,
        cursor: Option<&SearchCursor>,
    ) -> Result<SendResult, StepError> {
        let Some(Plan { request, entry, next, .. }) = self.plan(job).await? else {
            // The request does not exist any more.
            if let Some(claim) = claim {
                self.store.finish_outbox(claim, u64::MAX).await?;
            }
            return Ok(SendResult::NoCall);
        };
        let active = ActiveJob { request: &request, entry: &entry, claim };
        let next = match next {
            Next::Call(mut tracked, step) => {
                if !self.doubt(&active, &mut tracked).await? {
                    self.release(&active, Release::DueAt(self.schedule.now())).await?;
                    return Ok(SendResult::NoCall);
                }
                Next::Call(tracked, step)
            }
            other => other,
        };
        let (tracked, step) = match next {
            Next::Call(tracked, step) if tracked.method(&step).as_ref() == method => (tracked, step),
            Next::Nothing => {
                self.finish(&active).await?;
                return Ok(SendResult::NoCall);
            }
            Next::Wait(until) => {
                self.postpone(&active, until).await?;
                return Ok(SendResult::NoCall);
            }
            Next::Call(..) => {
                self.release(&active, Release::DueAt(self.schedule.now())).await?;
                return Ok(SendResult::NoCall);
            }
        };
        match step {
            Step::Post => self.post(&active, *tracked).await,
            Step::Update { ts } => self.update(&active, *tracked, &ts).await,
            Step::Search { since } => self.search(&active, *tracked, since, cursor).await,
            Step::Done | Step::Wait(_) => Ok(SendResult::NoCall),
        }
    }

    /// When something is due that was postponed here.
    pub(super) fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn skipped(&self) -> MutexGuard<'_, HashMap<Mark, Timestamp>> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unstored_since(&self) -> MutexGuard<'_, Moment> {
        self.unstored_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
