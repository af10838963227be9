//! What a job needs next, according to the store. It calls nobody, and changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use countersign_core::lifecycle::{Digest, Effect, Request, RequestId, Timestamp};
use countersign_core::record::{Mark, PolicyEntry, SlackPost, Slot};
use countersign_store::StoreError;

use super::Sender;
use crate::delivery::after_failure::LASTING_BACKOFF;
use crate::delivery::job::Job;
use crate::delivery::step::{Step, TrackedMessage, is_current};

/// How long a notice in the thread waits for the request's message before it looks again, in milliseconds.
const MAIN_MS: u64 = 3_000;

/// How many policy entries are kept in memory.
const ENTRIES: usize = 256;

/// What a job needs next, and what is loaded for it.
pub(super) struct Plan {
    pub(super) request: Request,
    pub(super) entry: Arc<PolicyEntry>,
    pub(super) next: Next,
}

/// What a job needs next.
pub(super) enum Next {
    /// The job is done.
    Nothing,
    /// Nothing before then, by the time of delivery.
    Wait(Timestamp),
    /// A call for this message.
    Call(Box<TrackedMessage>, Step),
}

impl Sender {
    /// What a job needs now; `None` if its request does not exist.
    pub(super) async fn plan(&self, job: Job) -> Result<Option<Plan>, StoreError> {
        let (now, wall) = (self.schedule.now(), self.clock.now());
        let Some(request) = self.store.request(job.request()).await? else { return Ok(None) };
        let entry = self.entry(request.submission.policy_hash).await?;
        let next = match job {
            Job::Outbox(_, Effect::NotifyEscalation) => {
                let channel = entry.escalate.as_ref().and_then(|escalate| escalate.channel.as_deref());
                self.plan_notices(&request, &entry, channel, &[Slot::EscalationThread]).await?
            }
            Job::Outbox(_, Effect::NotifyReplaced) => {
                let replacements = request.replacements();
                let slots: Vec<Slot> = replacements.iter().map(|edit| Slot::Replaced(edit.seq)).collect();
                self.plan_notices(&request, &entry, None, &slots).await?
            }
            Job::Outbox(_, Effect::ShowRequest) | Job::Refresh(_) => {
                let is_refresh = matches!(job, Job::Refresh(_));
                match self.main_message(&request, &entry).await? {
                    Some(tracked) if is_refresh || !is_current(&request, &tracked.post) => {
                        match tracked.step(&request, now, wall) {
                            Step::Done => Next::Nothing,
                            Step::Wait(until) => Next::Wait(until),
                            step => Next::Call(Box::new(tracked), step),
                        }
                    }
                    _ => Next::Nothing,
                }
            }
        };
        Ok(Some(Plan { request, entry, next }))
    }

    /// Notices: one in the escalation `channel`, if there is one, and the others in the thread of the request's message.
    async fn plan_notices(
        &self,
        request: &Request,
        entry: &PolicyEntry,
        channel: Option<&str>,
        in_thread: &[Slot],
    ) -> Result<Next, StoreError> {
        let (now, wall) = (self.schedule.now(), self.clock.now());
        let mut until: Option<Timestamp> = None;
        let mut wait = |at: Timestamp| until = Some(until.map_or(at, |until| until.min(at)));
        let mut notices = Vec::new();
        if let Some(channel) = channel {
            notices.push(self.tracked(request.id, Slot::EscalationChannel, channel, None).await?);
        }
        if let Some(main) = self.main_message(request, entry).await? {
            for slot in in_thread {
                notices.push(self.tracked(request.id, *slot, &main.post.channel, main.post.ts()).await?);
            }
            if main.step(request, now, wall) == Step::Done {
                // The message is not posted any more, so there is no thread to reply in.
                notices.retain(|notice| notice.mark.slot == Slot::EscalationChannel);
            } else if main.post.ts().is_none() {
                // A notice without a thread waits for the message that it replies to.
                let is_wanted = |notice: &TrackedMessage| {
                    notice.mark.slot != Slot::EscalationChannel
                        && notice.step(request, now, wall) != Step::Done
                };
                if notices.iter().any(is_wanted) {
                    let again = if main.post.failed.is_some() { LASTING_BACKOFF.after(0) } else { MAIN_MS };
                    wait(now.plus(again));
                }
                notices.retain(|notice| notice.mark.slot == Slot::EscalationChannel);
            }
        }
        for notice in notices {
            if let Some(until) = self.skipped_until(notice.mark, now) {
                wait(until);
                continue;
            }
            match notice.step(request, now, wall) {
                Step::Done => {}
                Step::Wait(at) => wait(at),
                step => return Ok(Next::Call(Box::new(notice), step)),
            }
        }
        Ok(until.map_or(Next::Nothing, Next::Wait))
    }

    /// The message of a request; `None` if its action has no channel.
    async fn main_message(
        &self,
        request: &Request,
        entry: &PolicyEntry,
    ) -> Result<Option<TrackedMessage>, StoreError> {
        match &entry.channel {
            Some(channel) => self.tracked(request.id, Slot::Main, channel, None).await.map(Some),
            None => Ok(None),
        }
    }

    async fn tracked(
        &self,
        request: RequestId,
        slot: Slot,
        channel: &str,
        thread: Option<&str>,
    ) -> Result<TrackedMessage, StoreError> {
        let post = self.store.slack_post(request, slot).await?.unwrap_or_else(|| SlackPost::new(channel));
        let (channel, thread) = (channel.to_owned(), thread.map(str::to_owned));
        Ok(TrackedMessage { mark: Mark { request, slot }, channel, thread, post })
    }

    async fn entry(&self, hash: Digest) -> Result<Arc<PolicyEntry>, StoreError> {
        if let Some(entry) = self.entries().get(&hash) {
            return Ok(Arc::clone(entry));
        }
        let entry = self.store.policy_entry(hash).await?.ok_or_else(|| StoreError::Corrupt {
            table: "policy_entry",
            column: "hash",
            key: hash.to_string(),
            detail: "it is not there, although a request needs it".to_owned(),
        })?;
        let entry = Arc::new(entry);
        let mut entries = self.entries();
        if entries.len() >= ENTRIES {
            entries.clear();
        }
        entries.insert(hash, Arc::clone(&entry));
        Ok(entry)
    }

    fn skipped_until(&self, mark: Mark, now: Timestamp) -> Option<Timestamp> {
        let mut skipped = self.skipped();
        skipped.retain(|_, until| *until > now);
        skipped.get(&mark).copied()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Digest, Arc<PolicyEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
