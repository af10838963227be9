//! Posting and updating a message, and what is stored once Slack shows it.

use countersign_core::lifecycle::{Digest, Request, Timestamp, Usage};
use countersign_core::record::{PostState, Slot};
use countersign_store::LONGEST_WAIT_MS;
use countersign_trace::{Key, Name, Span};
use serde_json::json;

use super::render::{Link, Rendered};
use super::{ActiveJob, CALL_MS, SendResult, Sender, StepError};
use crate::delivery::after_failure::{Release, temporary};
use crate::delivery::job::REFRESH_MS;
use crate::delivery::step::TrackedMessage;
use crate::{CallError, Message, Posted};

/// How long after a post without an answer to search for the message, in milliseconds.
const LATE_MS: u64 = 3_000;

/// How soon a message that was posted without mentions is updated, in milliseconds.
const SETTLE_MS: u64 = 1_000;

/// How long an update of which nothing is stored may still be carried out, in milliseconds.
const OVERLAP_MS: u64 = REFRESH_MS;

/// For how long after its request was superseded a message is looked at again for the link to the newer one, in
/// milliseconds. Once it is posted the newer message has the older ones updated, but it may not say which they are, or never
/// come.
const LINK_MS: u64 = 10 * 60_000;

/// For how long after its request has ended a link is asked for that the store or Slack could not be asked for, in
/// milliseconds.
const ASK_MS: u64 = 24 * 60 * 60_000;

/// How many attempts of a notice wait for the link to the request's message, if that cannot be asked for: a notice is useful
/// without it.
const LINK_TRIES: u32 = 4;

/// What Slack has just done.
enum Done {
    /// It posted the message; one that is provisional is updated soon.
    Posted {
        is_provisional: bool,
    },
    Updated,
}

impl Sender {
    pub(super) async fn post(
        &self,
        active: &ActiveJob<'_>,
        mut tracked: TrackedMessage,
    ) -> Result<SendResult, StepError> {
        let (rendered, is_provisional) = self.render_new(active, &tracked).await;
        if self.waits_for_link(active, &tracked, rendered.link).await? {
            return Ok(SendResult::NoCall);
        }
        // Slack's names for messages are times of its wall clock.
        let since = self.clock.now();
        // INVARIANT: the store has that a message may exist before it can exist.
        tracked.post.state = PostState::Posting { since, look_at: self.schedule.now().plus(CALL_MS) };
        if !self.save(active, &mut tracked, None).await? {
            self.release(active, Release::DueAt(self.schedule.now())).await?;
            return Ok(SendResult::NoCall);
        }
        let stored = tracked.post.clone();
        let TrackedMessage { channel, thread, mark, .. } = &tracked;
        let span = self.span((Name::SlackPost, "chat.postMessage"), active.request, mark.slot);
        let posted =
            span.around(self.client.post_message(channel, thread.as_deref(), &rendered.message, mark));
        let posted = posted.await;
        say(span, &posted);
        match posted {
            Ok(Posted { channel: id, ts }) => {
                tracked.post.channel = id;
                tracked.post.state = PostState::Posted { ts };
                tracked.post.has_called = true;
                self.delivered(active, tracked, &rendered, Done::Posted { is_provisional }).await
            }
            Err(error) => {
                tracked.post.state = match error {
                    CallError::Unanswered { .. } => {
                        PostState::Posting { since, look_at: self.schedule.now().plus(LATE_MS) }
                    }
                    CallError::RateLimited { .. } | CallError::Rejected { .. } => PostState::Absent,
                };
                self.failed(active, tracked, &stored, &error).await
            }
        }
    }

    pub(super) async fn update(
        &self,
        active: &ActiveJob<'_>,
        mut tracked: TrackedMessage,
        ts: &str,
    ) -> Result<SendResult, StepError> {
        let rendered = self.render(active, &tracked).await;
        if self.waits_for_link(active, &tracked, rendered.link).await? {
            return Ok(SendResult::NoCall);
        }
        let message = &rendered.message;
        let is_main = tracked.mark.slot == Slot::Main;
        if is_main && tracked.post.looks == Some(digest(message)) {
            let refresh_at = self.next_refresh(active, &tracked, rendered.link);
            if active.claim.is_none() || tracked.post.refresh_at.is_some() != refresh_at.is_some() {
                tracked.post.refresh_at = refresh_at;
                self.save(active, &mut tracked, None).await?;
            }
            if active.claim.is_some() {
                self.finish(active).await?;
            }
            return Ok(SendResult::NoCall);
        }
        let span = self.span((Name::SlackUpdate, "chat.update"), active.request, tracked.mark.slot);
        let updated =
            span.around(self.client.update(&tracked.post.channel, ts, message, &tracked.mark)).await;
        say(span, &updated);
        match updated {
            Ok(()) => self.delivered(active, tracked, &rendered, Done::Updated).await,
            Err(error) => {
                let stored = tracked.post.clone();
                self.failed(active, tracked, &stored, &error).await
            }
        }
    }

    /// The span of a call, linked to that which made the request: it may have been made long ago.
    fn span(&self, (name, method): (Name, &'static str), request: &Request, slot: Slot) -> Span {
        let span = self.tracer.start(name);
        span.set(Key::Request, || request.id.to_string())
            .set(Key::Action, || request.submission.action.clone())
            .set_word(Key::Status, request.status().as_str())
            .set_word(Key::SlackMethod, method)
            .set(Key::SlackMessage, || slot.to_string())
            .link(request.trace.as_ref());
        span
    }

    /// Puts a notice off if the link in it could not be asked for: nobody adds it later. Returns whether it did.
    async fn waits_for_link(
        &self,
        active: &ActiveJob<'_>,
        tracked: &TrackedMessage,
        link: Link,
    ) -> Result<bool, StepError> {
        let Some(claim) = active.claim else { return Ok(false) };
        if tracked.mark.slot == Slot::Main || link != Link::Unknown || claim.attempts >= LINK_TRIES {
            return Ok(false);
        }
        let now = self.schedule.now();
        let until = temporary(claim.attempts, now, &mut self.rng());
        // The other notice of the same entry can be sent at once.
        self.skipped().insert(tracked.mark, until);
        self.release(active, Release::RetryAt(now)).await?;
        Ok(true)
    }

    /// Stores that Slack shows `message`.
    async fn delivered(
        &self,
        active: &ActiveJob<'_>,
        mut tracked: TrackedMessage,
        Rendered { message, link }: &Rendered,
        done: Done,
    ) -> Result<SendResult, StepError> {
        let channel = tracked.channel.clone();
        let is_main = tracked.mark.slot == Slot::Main;
        // A notice is updated to one content only, so a late update of it does no harm.
        // None can have been sent before the message was posted.
        let may_overlap = matches!(done, Done::Updated) && self.may_overlap(active.request);
        let was_unsure = std::mem::take(&mut tracked.post.unsure) || may_overlap;
        let now = self.schedule.now();
        // The earlier update may be carried out after this one, so this one is repeated later; and so is each one that is
        // sent before that.
        let is_repeated = |at: &Timestamp| is_main && tracked.post.looks.is_none() && *at > now;
        let planned = tracked.post.refresh_at.filter(is_repeated);
        let repeat_at = if was_unsure && is_main { Some(now.plus(REFRESH_MS)) } else { planned };
        tracked.post.shown = active.request.version;
        tracked.post.looks = Some(digest(message)).filter(|_| repeat_at.is_none());
        tracked.post.minimal = tracked.post.minimal.filter(|version| *version == active.request.version);
        tracked.post.failed = None;
        tracked.post.refresh_at = self.next_refresh(active, &tracked, *link);
        if matches!(done, Done::Posted { is_provisional: true }) {
            tracked.post.refresh_at = Some(now.plus(SETTLE_MS));
        }
        tracked.post.refresh_at = repeat_at.or(tracked.post.refresh_at);
        let is_saved = self.save(active, &mut tracked, None).await?;
        if !is_saved && is_main {
            self.update_again(tracked.mark).await?;
        }
        if is_main && active.claim.is_none() && matches!(done, Done::Posted { .. }) {
            // A refresh has posted it anew, and has no entry that sees to this.
            self.refresh_predecessors(active.request).await?;
        }
        // After a notice, the entry may have another one; and the messages of older requests may have to lead to this one.
        let is_last = is_main && !has_predecessors(active.request);
        let release = if is_saved && is_last { Release::Finish } else { Release::DueAt(self.schedule.now()) };
        self.release(active, release).await?;
        Ok(SendResult::Delivered { channel })
    }

    /// Whether an update of the request's message may still be on its way without anything in the store saying so: one of a
    /// process before this one, which died during the call, or one of this process, after which the store failed.
    fn may_overlap(&self, request: &Request) -> bool {
        let since = *self.unstored_since();
        self.clock.monotonic().since(since.monotonic) < OVERLAP_MS
            && request.submission.submitted_at < since.wall
    }

    /// When the message is refreshed: while it shows the remaining time, when an approval that nobody has used lapses, and
    /// for a while if it lacks the link to the message of a newer request, or may lack one.
    fn next_refresh(
        &self,
        active: &ActiveJob<'_>,
        tracked: &TrackedMessage,
        link: Link,
    ) -> Option<Timestamp> {
        if tracked.mark.slot != Slot::Main {
            return None;
        }
        let (request, wall) = (active.request, self.clock.now());
        let look_ms = match link {
            Link::Settled => 0,
            Link::Awaited => LINK_MS,
            Link::Unknown => ASK_MS,
        };
        let lacks_link = || request.decided_at().is_some_and(|at| wall.since(at) < look_ms);
        let wait_ms = if !request.status().is_terminal() || lacks_link() {
            REFRESH_MS
        } else if request.usage(wall) == Some(Usage::Unused) {
            // Nothing waits longer than that.
            request.valid_until()?.since(wall).clamp(1, LONGEST_WAIT_MS)
        } else {
            return None;
        };
        Some(self.schedule.now().plus(wait_ms))
    }
}

/// Whether messages of older requests lead to that of this one.
fn has_predecessors(request: &Request) -> bool {
    request.submission.depth > 0 || !request.superseded.is_empty()
}

fn digest(message: &Message) -> Digest {
    Digest::of_json(&json!([message.text, message.blocks]))
}

/// Ends the span of a call with what came of it: `ok`, or a code.
fn say<T>(span: Span, called: &Result<T, CallError>) {
    let failed = match called {
        Ok(_) => {
            span.set_word(Key::Outcome, "ok");
            return;
        }
        Err(CallError::RateLimited { .. }) => "rate_limited",
        Err(CallError::Unanswered { .. }) => "unanswered",
        Err(CallError::Rejected { code }) => {
            span.set(Key::Outcome, || code.clone());
            return span.fail("rejected");
        }
    };
    span.set_word(Key::Outcome, failed);
    span.fail(failed);
}
