//! Stores the outcome of a step: the post, its audit entries and counts, and what happens to the outbox entry.

use countersign_core::lifecycle::{AuditEntry, AuditEvent, Count, Effect, Request, Timestamp};
use countersign_core::record::{Mark, SlackPost, Slot};
use countersign_store::{Committed, KeepPost, OutboxEntry, StoreError};
use serde_json::{Map, json};

use super::{ActiveJob, Sender};
use crate::delivery::after_failure::Release;
use crate::delivery::step::TrackedMessage;

/// One failed delivery with this code, for the counter `slack_delivery_failures_total`.
pub(in crate::delivery) fn failure_count(code: &str) -> Count {
    Count::one("slack_delivery_failures_total", &[("code", code)])
}

impl Sender {
    /// Stores the post, and what is audited with its code. Returns false if another worker has stored it meanwhile.
    pub(super) async fn save(
        &self,
        active: &ActiveJob<'_>,
        tracked: &mut TrackedMessage,
        audit: Option<(AuditEvent, &str)>,
    ) -> Result<bool, StoreError> {
        tracked.post.revision += 1;
        let mut keep = keep(tracked.mark, tracked.post.clone());
        if let Some((event, code)) = audit {
            keep.audit = vec![self.audit_entry(active, tracked, event, code)];
            keep.counts = vec![failure_count(code)];
        }
        Ok(self.keep_post(keep).await? == Committed::Done)
    }

    /// If the entry was taken over from a worker that let its claim end: stores that an update of the message may still be on
    /// its way. What may have been posted is stored before it is. Returns false if another worker has stored it meanwhile.
    pub(super) async fn doubt(
        &self,
        active: &ActiveJob<'_>,
        tracked: &mut TrackedMessage,
    ) -> Result<bool, StoreError> {
        let is_taken_over = active.claim.is_some_and(|claim| claim.taken_over);
        if !is_taken_over || tracked.post.ts().is_none() || tracked.post.unsure {
            return Ok(true);
        }
        (tracked.post.unsure, tracked.post.looks) = (true, None);
        self.save(active, tracked, None).await
    }

    /// Has the message updated once more: another worker updated it at the same time, and which update was carried out
    /// last is unknown.
    pub(super) async fn update_again(&self, mark: Mark) -> Result<(), StoreError> {
        self.refresh_now(mark, |post| post.looks = None).await
    }

    /// Has the messages of the requests that this one supersedes, and of the one before it in its lineage, updated: they
    /// lead to this one's message.
    pub(super) async fn refresh_predecessors(&self, request: &Request) -> Result<(), StoreError> {
        for older in &request.superseded {
            self.refresh_now(Mark { request: *older, slot: Slot::Main }, |_| {}).await?;
        }
        let Some(depth) = request.submission.depth.checked_sub(1) else { return Ok(()) };
        let at_depth = self.store.lineage(request.submission.lineage, depth, 1).await?;
        let Some(before) = at_depth.first() else { return Ok(()) };
        self.refresh_now(Mark { request: before.id, slot: Slot::Main }, |_| {}).await
    }

    /// Has a message that was posted updated at once, if it shows anything else than it should.
    async fn refresh_now(&self, mark: Mark, change: impl Fn(&mut SlackPost)) -> Result<(), StoreError> {
        loop {
            let post = self.store.slack_post(mark.request, mark.slot).await?;
            let Some(mut post) = post.filter(|post| post.ts().is_some()) else { return Ok(()) };
            let now = self.schedule.now();
            // What is to be sent again later is sent now and then: an earlier update may still be on its way.
            post.unsure |= post.looks.is_none() && post.refresh_at.is_some_and(|at| at > now);
            change(&mut post);
            post.refresh_at = Some(now);
            post.revision += 1;
            if self.keep_post(keep(mark, post)).await? == Committed::Done {
                return Ok(());
            }
        }
    }

    async fn keep_post(&self, keep: KeepPost) -> Result<Committed, StoreError> {
        let refresh_at = keep.post.refresh_at;
        let kept = self.store.keep_slack_post(keep).await?;
        if let Some(at) = refresh_at {
            self.due().refresh_at(at);
        }
        Ok(kept)
    }

    /// Releases an outbox entry that is to be ready again at `at`.
    pub(super) async fn retry(
        &self,
        claim: &OutboxEntry,
        now: Timestamp,
        at: Timestamp,
        failed: bool,
    ) -> Result<(), StoreError> {
        self.store.retry_outbox(claim, now, at, failed).await?;
        self.due().at(at);
        Ok(())
    }

    /// Releases the claimed outbox entry; a refresh has none.
    pub(super) async fn release(&self, active: &ActiveJob<'_>, release: Release) -> Result<(), StoreError> {
        let Some(claim) = active.claim else { return Ok(()) };
        let now = self.schedule.now();
        match release {
            Release::Finish => self.store.finish_outbox(claim, active.request.version).await,
            Release::DueAt(at) => self.retry(claim, now, at, false).await,
            Release::RetryAt(at) => self.retry(claim, now, at, true).await,
        }
    }

    /// The job needs no call any more.
    pub(super) async fn finish(&self, active: &ActiveJob<'_>) -> Result<(), StoreError> {
        match active.claim {
            Some(claim) => {
                if claim.effect == Effect::ShowRequest {
                    // Before the entry is gone, so that it is not forgotten.
                    self.refresh_predecessors(active.request).await?;
                }
                self.release(active, Release::Finish).await?;
                if claim.effect == Effect::ShowRequest {
                    self.count_unseen(active).await?;
                }
                Ok(())
            }
            None => self.reschedule_refresh(active, None).await,
        }
    }

    /// Counts a request that ended before it could be shown, and so is not posted.
    async fn count_unseen(&self, active: &ActiveJob<'_>) -> Result<(), StoreError> {
        let ActiveJob { request, entry, .. } = active;
        if entry.channel.is_none() || !request.status().is_terminal() {
            return Ok(());
        }
        let post = self.store.slack_post(request.id, Slot::Main).await?;
        if post.is_some_and(|post| post.has_called || post.ts().is_some()) {
            return Ok(());
        }
        let count = Count::one("slack_posts_skipped_total", &[("reason", "ended_unseen")]);
        self.store.append(Vec::new(), vec![count]).await
    }

    /// The job needs no call before `until`.
    pub(super) async fn postpone(&self, active: &ActiveJob<'_>, until: Timestamp) -> Result<(), StoreError> {
        match active.claim {
            Some(_) => self.release(active, Release::DueAt(until)).await,
            None => self.reschedule_refresh(active, Some(until)).await,
        }
    }

    async fn reschedule_refresh(
        &self,
        active: &ActiveJob<'_>,
        refresh_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let mark = Mark { request: active.request.id, slot: Slot::Main };
        let Some(mut post) = self.store.slack_post(mark.request, mark.slot).await? else { return Ok(()) };
        post.refresh_at = refresh_at;
        post.revision += 1;
        self.keep_post(keep(mark, post)).await.map(drop)
    }

    pub(super) fn audit_entry(
        &self,
        active: &ActiveJob<'_>,
        tracked: &TrackedMessage,
        event: AuditEvent,
        code: &str,
    ) -> AuditEntry {
        let request = active.request;
        AuditEntry {
            at: request.time_of_next(self.clock.now()),
            event: event.as_str().to_owned(),
            action: request.submission.action.clone(),
            request: Some(request.id),
            status: Some(request.status()),
            actor: None,
            policy_hash: Some(request.submission.policy_hash),
            payload_hash: None,
            detail: Map::from_iter([
                ("code".to_owned(), json!(code)),
                ("channel".to_owned(), json!(tracked.channel)),
                ("message".to_owned(), json!(tracked.mark.slot)),
            ]),
        }
    }
}

fn keep(mark: Mark, post: SlackPost) -> KeepPost {
    KeepPost { request: mark.request, slot: mark.slot, post, audit: Vec::new(), counts: Vec::new() }
}
