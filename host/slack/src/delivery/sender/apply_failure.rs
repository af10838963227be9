//! Applies what a failed call leads to, as [`after_failure`] says.

use countersign_core::lifecycle::AuditEvent;
use countersign_core::record::SlackPost;
use countersign_store::StoreError;
use tracing::Level;

use super::{ActiveJob, SendResult, Sender, StepError};
use crate::CallError;
use crate::delivery::after_failure::{AfterFailure, FailedCall, LogLine, PostChange, after_failure};
use crate::delivery::failure::Failure;
use crate::delivery::step::TrackedMessage;

impl Sender {
    /// Stores and logs what the failed call leads to. `stored` is the post as the store has it.
    pub(super) async fn failed(
        &self,
        active: &ActiveJob<'_>,
        mut tracked: TrackedMessage,
        stored: &SlackPost,
        error: &CallError,
    ) -> Result<SendResult, StepError> {
        let failure = Failure::of(error);
        let version = active.request.version;
        let code = match error {
            CallError::Rejected { code } => code.as_str(),
            CallError::RateLimited { .. } | CallError::Unanswered { .. } => "",
        };
        let call = FailedCall {
            failure,
            code,
            slot: tracked.mark.slot,
            is_posted: tracked.post.ts().is_some(),
            is_terminal: active.request.status().is_terminal(),
            attempts: active.claim.map(|claim| claim.attempts),
            is_minimal: tracked.post.minimal == Some(version),
            failed_for: tracked.post.failed.as_deref(),
            now: self.schedule.now(),
        };
        let AfterFailure { post, release, audit, log: line, channel_failed, skip_until } =
            after_failure(&call, &mut self.rng());
        if let Some(line) = line {
            log(line, &call, &tracked, error);
        }
        post.apply(&mut tracked.post, &tracked.channel, version, code);
        if let Some(until) = skip_until {
            self.skipped().insert(tracked.mark, until);
        }
        let is_unsure = matches!(post, PostChange::Unsure { .. });
        let kept = async {
            if tracked.post != *stored || audit.is_some() {
                let saved = self.save(active, &mut tracked, audit.map(|event| (event, code))).await;
                if is_unsure && !matches!(saved, Ok(true)) {
                    *self.unstored_since() = self.clock.moment();
                }
                saved?;
            }
            self.release(active, release).await
        };
        let kept: Result<(), StoreError> = kept.await;
        let code = code.to_owned();
        let result = match failure {
            Failure::RateLimited(wait_ms) => SendResult::RateLimited { wait_ms },
            Failure::Unanswered => SendResult::Unanswered,
            Failure::Unauthorized => {
                let audit = self.audit_entry(active, &tracked, AuditEvent::SlackDeliveryFailed, &code);
                SendResult::Unauthorized { code, audit: Box::new(audit) }
            }
            Failure::Channel | Failure::Content | Failure::Gone | Failure::Unknown => {
                SendResult::Refused { code, channel: channel_failed.then_some(tracked.channel) }
            }
        };
        match kept {
            Ok(()) => Ok(result),
            Err(error) => Err(StepError { error, failed: Some(result) }),
        }
    }
}

fn log(line: LogLine, call: &FailedCall<'_>, tracked: &TrackedMessage, error: &CallError) {
    let FailedCall { code, slot, attempts, .. } = *call;
    let (request, channel, message) = (tracked.mark.request, tracked.channel.as_str(), line.message);
    if line.level == Level::ERROR {
        tracing::error!(%request, %slot, channel, code, attempts, %error, "{message}");
    } else if line.level == Level::WARN {
        tracing::warn!(%request, %slot, channel, code, attempts, %error, "{message}");
    } else {
        tracing::info!(%request, %slot, channel, code, attempts, %error, "{message}");
    }
}
