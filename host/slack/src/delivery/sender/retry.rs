//! What is done about a call that failed: when it is tried again, what is kept of it, and who hears of it.

use super::{AuditEvent, JobContext, REFRESH_MS, SendResult, Sender, Then};
use crate::CallError;
use crate::delivery::failure::Failure;
use crate::delivery::step::TrackedMessage;
use countersign_core::lifecycle::Timestamp;
use countersign_core::record::{SlackPost, Slot};
use countersign_store::StoreError;

/// The first and the longest wait after a failure that may pass.
const PASSING_MS: (u64, u64) = (1_000, 60_000);

/// The first and the longest wait after a failure that somebody has to mend.
pub(super) const LASTING_MS: (u64, u64) = (60_000, 900_000);

/// How often an unknown code may pass before it counts as lasting.
const UNKNOWN_TRIES: u32 = 4;

impl Sender {
    pub(super) async fn failed(
        &self,
        context: &JobContext<'_>,
        mut tracked: TrackedMessage,
        stored: &SlackPost,
        error: &CallError,
    ) -> Result<SendResult, StoreError> {
        let attempts = context.claim.map_or(0, |claim| claim.attempts);
        let is_posted = tracked.post.ts().is_some();
        let (request, slot, channel) = (tracked.mark.request, tracked.mark.slot, tracked.channel.clone());
        let code = match error {
            CallError::Rejected { code } => code.clone(),
            CallError::RateLimited { .. } | CallError::Unanswered { .. } => String::new(),
        };
        // Whoever refreshes has no entry in the outbox to come back by.
        let come_back = |at: Timestamp| context.claim.is_none().then_some(at);
        let mut news = None;
        let (then, outcome) = match Failure::of(error) {
            Failure::Limited(wait_ms) => (Then::GoOn, SendResult::Limited { wait_ms }),
            Failure::Unanswered => {
                tracing::warn!(%request, %slot, %error, "a message was not delivered; trying again later");
                if is_posted {
                    // What it shows now is anybody's guess.
                    (tracked.post.unsure, tracked.post.looks) = (true, None);
                }
                tracked.post.refresh_at = come_back(self.clock.now().plus(self.dice.around(REFRESH_MS)));
                (Then::Retry(self.passing(attempts)), SendResult::Unanswered)
            }
            Failure::Unauthorized => {
                let audit = Box::new(self.audit(context, &tracked, AuditEvent::Failed, &code));
                (Then::GoOn, SendResult::Unauthorized { code, audit })
            }
            Failure::Content if tracked.post.minimal != Some(context.request.version) => {
                tracing::warn!(%request, %slot, code, "Slack does not take a message whole; the least of it is sent");
                tracked.post.minimal = Some(context.request.version);
                news = Some(AuditEvent::Shortened);
                tracked.post.refresh_at = come_back(self.clock.now());
                (Then::GoOn, SendResult::Refused { code, channel: None })
            }
            Failure::Gone if is_posted && context.request.status().is_terminal() => {
                tracing::warn!(%request, code, "the message of a request that has ended is gone");
                tracked.post.failed = Some(code.clone());
                tracked.post.refresh_at = None;
                news = Some(AuditEvent::Failed);
                (Then::Finish, SendResult::Refused { code, channel: None })
            }
            // Nobody waits for it, and where no message can be changed there would be one more each minute.
            Failure::Gone if is_posted && context.claim.is_none() && code != "message_not_found" => {
                tracing::info!(%request, code, "the time that is left cannot be shown");
                tracked.post.refresh_at = None;
                (Then::GoOn, SendResult::Refused { code, channel: None })
            }
            Failure::Gone if is_posted => {
                tracing::info!(%request, code, "the message of an open request is gone; it is posted anew");
                tracked.post = SlackPost { revision: tracked.post.revision, ..SlackPost::new(&channel) };
                tracked.post.refresh_at = come_back(self.clock.now());
                (Then::GoOn, SendResult::Refused { code, channel: None })
            }
            Failure::Unknown if attempts < UNKNOWN_TRIES => {
                tracing::warn!(%request, %slot, code, attempts, "Slack refuses a message; trying again later");
                tracked.post.refresh_at = come_back(self.clock.now().plus(self.dice.around(REFRESH_MS)));
                (Then::Retry(self.passing(attempts)), SendResult::Refused { code, channel: None })
            }
            Failure::Channel | Failure::Content | Failure::Gone | Failure::Unknown => {
                let again_at = match context.claim {
                    Some(_) => self.lasting(attempts),
                    None => self.clock.now().plus(LASTING_MS.1),
                };
                if tracked.post.failed.as_deref() != Some(code.as_str()) {
                    tracing::error!(%request, %slot, channel, code, "Slack refuses a message; somebody has to mend that");
                    news = Some(AuditEvent::Failed);
                    tracked.post.failed = Some(code.clone());
                }
                tracked.post.refresh_at = come_back(again_at);
                let then = if slot == Slot::Main {
                    Then::Retry(again_at)
                } else {
                    self.blocked().insert(tracked.mark, again_at);
                    Then::Retry(self.clock.now())
                };
                (then, SendResult::Refused { code, channel: Some(channel) })
            }
        };
        if tracked.post != *stored || news.is_some() {
            let code = match &outcome {
                SendResult::Refused { code, .. } => code.as_str(),
                _ => "",
            };
            self.keep(context, &mut tracked, news.map(|news| (news, code))).await?;
        }
        self.then(context, then).await?;
        Ok(outcome)
    }

    /// When to try again after a failure that may pass: with full jitter.
    pub(super) fn passing(&self, attempts: u32) -> Timestamp {
        self.clock.now().plus(self.dice.below(growing(PASSING_MS, attempts)))
    }

    /// When to try again after a failure that somebody has to mend.
    fn lasting(&self, attempts: u32) -> Timestamp {
        self.clock.now().plus(self.dice.around(growing(LASTING_MS, attempts)))
    }
}

fn growing((first, longest): (u64, u64), attempts: u32) -> u64 {
    first.saturating_mul(2_u64.saturating_pow(attempts)).min(longest)
}
