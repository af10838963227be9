//! What the result of a step means for the rate limits, the circuit breaker and the health report.

use countersign_core::clock::Monotonic;
use tokio::task::JoinError;

use super::Worker;
use crate::CallError;
use crate::delivery::circuit_breaker::Allowed;
use crate::delivery::job::Job;
use crate::delivery::rate_limit::Method;
use crate::delivery::sender::{SearchCursor, SendResult, StepError, failure_count};

/// The most searches whose next page is kept.
const CURSORS: usize = 1024;

/// A step that has ended.
pub(super) struct FinishedStep {
    pub(super) job: Job,
    pub(super) method: Option<Method>,
    /// Where a search went on.
    pub(super) cursor: Option<SearchCursor>,
    /// `None` if the step panicked.
    pub(super) result: Option<Result<SendResult, StepError>>,
}

impl Worker {
    /// Applies the result of a step.
    pub(super) async fn apply(&mut self, finished: Result<FinishedStep, JoinError>) {
        // A step catches its panics, and is aborted only when the worker is dropped.
        let Ok(FinishedStep { job, method, cursor, result }) = finished else { return };
        let (now, request) = (self.clock.moment(), job.request());
        let has_news = self.active.remove(&request).is_some_and(|active| active.has_news);
        self.backlog.is_outdated |= has_news;
        // The step may have changed what the request's other jobs need: a notice waits for the request's message.
        self.next_calls.retain(|known, _| known.request() != request);
        let result = match result {
            Some(Ok(result)) => {
                self.resume();
                result
            }
            Some(Err(StepError { error, failed })) => {
                self.pause(now.monotonic, Some(request), &error);
                let Some(failed) = failed else { return };
                failed
            }
            None => {
                // The panic hook has printed where it was. The claim runs out by itself.
                tracing::error!(%request, "a step of delivery panicked");
                return;
            }
        };
        let has_moved = match &result {
            SendResult::Delivered { .. }
            | SendResult::Searched { .. }
            | SendResult::SearchRefused { .. }
            | SendResult::Refused { .. } => true,
            SendResult::NoCall
            | SendResult::RateLimited { .. }
            | SendResult::Unanswered
            | SendResult::Unauthorized { .. } => false,
        };
        // Nobody waits for a refresh.
        if has_moved && matches!(job, Job::Outbox(..)) {
            self.health.moved();
        }
        match result {
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
                self.keep_cursor(job, cursor);
            }
            SendResult::SearchRefused { code } => {
                self.breaker.answered();
                self.health.lookup(Some(&code));
            }
            SendResult::RateLimited { wait_ms } => {
                self.breaker.answered();
                self.keep_cursor(job, cursor);
                if let Some(method) = &method {
                    self.rate_limits.block(method, now.monotonic.plus(wait_ms));
                }
            }
            SendResult::Unanswered => {
                self.breaker.unanswered(now, &mut self.rng);
                self.keep_cursor(job, cursor);
            }
            SendResult::Refused { code, channel } => {
                self.breaker.answered();
                if let Some(channel) = channel {
                    self.health.channel_failed(&channel, &code, now);
                }
            }
            SendResult::Unauthorized { code, audit } => {
                if self.breaker.unauthorized(now, &code, &mut self.rng) {
                    tracing::error!(code, "Slack refuses the token; delivery stops until it is accepted");
                    if let Err(error) = self.store.append(vec![*audit], vec![failure_count(&code)]).await {
                        tracing::warn!(%error, "cannot write to the audit log that Slack refuses the token");
                    }
                }
            }
        }
    }

    /// Probes whether Slack answers and accepts the token: `auth.test`. Returns when to look again.
    pub(super) async fn auth_test(&mut self) -> Monotonic {
        let result = self.client.auth_test().await;
        let now = self.clock.moment();
        match result {
            Ok(_) => self.breaker.authorized(),
            Err(CallError::Rejected { code }) => {
                self.breaker.answered();
                self.breaker.unauthorized(now, &code, &mut self.rng);
            }
            Err(CallError::RateLimited { .. } | CallError::Unanswered { .. }) => {
                self.breaker.unanswered(now, &mut self.rng);
            }
        }
        match self.breaker.allowed(now.monotonic) {
            Allowed::Nothing { until } => until,
            Allowed::All | Allowed::Probe | Allowed::AuthTest => now.monotonic,
        }
    }

    /// Keeps where a search goes on. If that is lost, the search starts over.
    fn keep_cursor(&mut self, job: Job, cursor: Option<SearchCursor>) {
        let Some(cursor) = cursor else { return };
        if self.cursors.len() >= CURSORS {
            self.cursors.clear();
        }
        self.cursors.insert(job, cursor);
    }
}
