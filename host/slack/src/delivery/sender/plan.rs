//! What is to be done about an job, for all that is stored now. It calls nobody, and changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::retry::LASTING_MS;
use super::{Job, Sender};
use crate::delivery::step::{Step, TrackedMessage, is_shown};
use countersign_core::lifecycle::{Digest, Effect, Request, RequestId, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_core::record::{Mark, SlackPost, Slot};
use countersign_store::StoreError;

/// How soon to look whether the message that a notice belongs to is there.
const MAIN_MS: u64 = 3_000;

/// How many policy entries to remember.
const ENTRIES: usize = 256;

/// What is to be done about an job, with all that is needed for it.
pub(super) struct Plan {
    pub(super) request: Request,
    pub(super) entry: Arc<PolicyEntry>,
    pub(super) now: Timestamp,
    pub(super) next: Next,
}

pub(super) enum Next {
    Nothing,
    Wait(Timestamp),
    Call(Box<TrackedMessage>, Step),
}

impl Sender {
    /// What is to be done about an job now. `None` where there is no such request.
    pub(super) async fn plan(&self, job: Job) -> Result<Option<Plan>, StoreError> {
        let now = self.clock.now();
        let Some(request) = self.store.request(job.request()).await? else { return Ok(None) };
        let entry = self.entry(request.submission.policy_hash).await?;
        let next = match job {
            Job::Deliver(_, Effect::NotifyEscalation) => self.notify(&request, &entry, now).await?,
            Job::Deliver(_, Effect::ShowRequest) | Job::Refresh(_) => {
                let main = self.main(&request, &entry).await?;
                let refreshes = matches!(job, Job::Refresh(_));
                match main {
                    Some(tracked) if refreshes || !is_shown(&request, &tracked.post) => {
                        match tracked.step(&request, now) {
                            Step::Done => Next::Nothing,
                            Step::Wait(until) => Next::Wait(until),
                            step => Next::Call(Box::new(tracked), step),
                        }
                    }
                    _ => Next::Nothing,
                }
            }
        };
        Ok(Some(Plan { request, entry, now, next }))
    }

    /// The message of a request, where its action has a channel.
    async fn main(
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

    /// The notices of an escalation: one in its own channel, one in the thread of the request's message.
    async fn notify(
        &self,
        request: &Request,
        entry: &PolicyEntry,
        now: Timestamp,
    ) -> Result<Next, StoreError> {
        // Nobody is to be called to what is decided already.
        if request.status().is_terminal() {
            return Ok(Next::Nothing);
        }
        let mut until: Option<Timestamp> = None;
        let mut wait = |at: Timestamp| until = Some(until.map_or(at, |until| until.min(at)));
        let mut parts = Vec::new();
        if let Some(channel) = entry.escalate.as_ref().and_then(|escalate| escalate.channel.as_deref()) {
            parts.push(self.tracked(request.id, Slot::EscalationChannel, channel, None).await?);
        }
        if let Some(main) = self.main(request, entry).await? {
            match main.post.ts() {
                Some(ts) => {
                    let (slot, channel) = (Slot::EscalationThread, &main.post.channel);
                    parts.push(self.tracked(request.id, slot, channel, Some(ts)).await?);
                }
                None if main.post.failed.is_some() => wait(now.plus(LASTING_MS.0)),
                None => wait(now.plus(MAIN_MS)),
            }
        }
        for tracked in parts {
            if let Some(blocked) = self.blocked_until(tracked.mark, now) {
                wait(blocked);
                continue;
            }
            match tracked.step(request, now) {
                Step::Done => {}
                Step::Wait(at) => wait(at),
                step => return Ok(Next::Call(Box::new(tracked), step)),
            }
        }
        Ok(until.map_or(Next::Nothing, Next::Wait))
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

    fn blocked_until(&self, mark: Mark, now: Timestamp) -> Option<Timestamp> {
        let mut blocked = self.blocked();
        blocked.retain(|_, until| *until > now);
        blocked.get(&mark).copied()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Digest, Arc<PolicyEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
