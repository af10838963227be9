//! One step towards delivering something: at most one call of Slack, with what it was for stored before
//! and what came of it stored after. It can be cut off between any two of its awaits.

mod plan;
mod retry;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, json};

use plan::{Next, Plan};

use super::Rendering;
use super::dice::Dice;
use super::rate_limit::Method;
use super::step::{Step, TrackedMessage, settled_at};
use crate::notice::Place;
use crate::{CallError, MAX_SKEW_MS, Message, Posted, Search, SearchResult, SlackClient};
use countersign_core::clock::Clock;
use countersign_core::lifecycle::{AuditEntry, Count, Digest, Effect, Request, RequestId, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_core::record::{Mark, PostState, SlackPost, Slot};
use countersign_store::{Committed, KeepPost, OutboxEntry, Store, StoreError};

/// For how long an outbox entry is claimed, in milliseconds: longer than a call takes, and no longer than people
/// would wait for a message that a process died over.
const CLAIM_MS: u64 = 30_000;

/// How long a call can take, and a little more.
const CALL_MS: u64 = 12_000;

/// How long after a call that was not answered to look for what it did.
const LATE_MS: u64 = 3_000;

/// How often a message that does not change otherwise is looked at again, for the time that is left.
const REFRESH_MS: u64 = 60_000;

/// How many pages of a channel's history to read for a message that may be in it.
const PAGES: u32 = 20;

/// Takes the steps.
pub(super) struct Sender {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    client: Arc<SlackClient>,
    rendering: Rendering,
    dice: Dice,
    entries: Mutex<HashMap<Digest, Arc<PolicyEntry>>>,
    /// Notices that cannot be delivered for now, until when: the other one of the same request can.
    blocked: Mutex<HashMap<Mark, Timestamp>>,
}

/// Something to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Job {
    /// What waits in the outbox.
    Deliver(RequestId, Effect),
    /// The message of a request that has not changed, for the time that is left.
    Refresh(RequestId),
}

impl Job {
    pub(super) fn request(self) -> RequestId {
        match self {
            Job::Deliver(request, _) | Job::Refresh(request) => request,
        }
    }
}

/// Where to go on looking for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SearchCursor {
    mark: Mark,
    slack: String,
    pages: u32,
}

/// What an job needs next, for all that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NextCall {
    /// The call; `None` where there is nothing left to call.
    pub(super) method: Option<Method>,
    /// Not before then.
    pub(super) not_before: Timestamp,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SendResult {
    /// No call was made: there was nothing to do, or something else than was thought.
    NoCall,
    /// Slack did it.
    Delivered {
        /// The channel, as the policy names it.
        channel: String,
    },
    /// Slack let us look.
    Searched {
        /// Where to go on looking.
        cursor: Option<SearchCursor>,
    },
    /// Slack does not let us look.
    SearchRefused {
        /// Its code.
        code: String,
    },
    /// Too many calls.
    Limited {
        /// For how long not to call.
        wait_ms: u64,
    },
    /// No answer.
    Unanswered,
    /// Slack refuses all that we want.
    Unauthorized {
        /// Its code.
        code: String,
        /// What tells of it.
        audit: Box<AuditEntry>,
    },
    /// Slack refused this, for good or for now.
    Refused {
        /// Its code.
        code: String,
        /// The channel, where that is what is wrong.
        channel: Option<String>,
    },
}

/// A step that is being taken.
struct JobContext<'a> {
    request: &'a Request,
    entry: &'a PolicyEntry,
    claim: Option<&'a OutboxEntry>,
}

/// What the audit log is told of.
#[derive(Clone, Copy)]
enum AuditEvent {
    /// A message is not delivered before somebody mends what is wrong, or ever.
    Failed,
    /// A message shows less than it should.
    Shortened,
}

/// What to do with the job after a step.
enum Then {
    /// It is done, as the request stood.
    Finish,
    /// Go on at once.
    GoOn,
    /// Try again then, after a failure.
    Retry(Timestamp),
}

impl Sender {
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        client: Arc<SlackClient>,
        rendering: Rendering,
        dice: Dice,
    ) -> Sender {
        Sender { store, clock, client, rendering, dice, entries: Mutex::default(), blocked: Mutex::default() }
    }

    pub(super) fn dice(&self) -> &Dice {
        &self.dice
    }

    /// What an job needs next; `since` says since when it waits.
    pub(super) async fn next_call(&self, job: Job, since: Timestamp) -> Result<NextCall, StoreError> {
        let Some(Plan { request, next, now, .. }) = self.plan(job).await? else {
            return Ok(NextCall { method: None, not_before: since });
        };
        Ok(match next {
            Next::Nothing => NextCall { method: None, not_before: now },
            Next::Wait(until) => NextCall { method: None, not_before: until },
            Next::Call(tracked, step) => {
                let not_before = match job {
                    Job::Deliver(_, Effect::ShowRequest) => settled_at(&request, &tracked.post, since),
                    Job::Deliver(_, Effect::NotifyEscalation) | Job::Refresh(_) => since,
                };
                NextCall { method: tracked.method(&step), not_before }
            }
        })
    }

    /// Takes the next step of an job, for which one call of `method` may be made.
    pub(super) async fn step(
        &self,
        job: Job,
        method: Option<&Method>,
        cursor: Option<&SearchCursor>,
    ) -> Result<SendResult, StoreError> {
        let claim = match job {
            Job::Refresh(_) => None,
            Job::Deliver(request, effect) => {
                let now = self.clock.now();
                let claim = self.store.claim_outbox(request, effect, now, now.plus(CLAIM_MS)).await?;
                let Some(claim) = claim else { return Ok(SendResult::NoCall) };
                Some(claim)
            }
        };
        let taken = self.claimed(job, claim.as_ref(), method, cursor).await;
        if let (Err(_), Some(claim)) = (&taken, &claim) {
            // Else it would be tried again when the claim runs out. The first error says what is wrong.
            let _ = self.store.retry_outbox(claim, self.passing(claim.attempts), true).await;
        }
        taken
    }

    async fn claimed(
        &self,
        job: Job,
        claim: Option<&OutboxEntry>,
        method: Option<&Method>,
        cursor: Option<&SearchCursor>,
    ) -> Result<SendResult, StoreError> {
        let Some(Plan { request, entry, next, .. }) = self.plan(job).await? else {
            // There is no request that it would be about.
            if let Some(claim) = claim {
                self.store.finish_outbox(claim, u64::MAX).await?;
            }
            return Ok(SendResult::NoCall);
        };
        let context = JobContext { request: &request, entry: &entry, claim };
        let (tracked, step) = match next {
            Next::Call(tracked, step) if tracked.method(&step).as_ref() == method => (tracked, step),
            Next::Nothing => {
                self.rest(&context, None).await?;
                return Ok(SendResult::NoCall);
            }
            Next::Wait(until) => {
                self.rest(&context, Some(until)).await?;
                return Ok(SendResult::NoCall);
            }
            Next::Call(..) => {
                self.then(&context, Then::GoOn).await?;
                return Ok(SendResult::NoCall);
            }
        };
        // A worker whose claim is about to run out would call while another one does.
        if claim.is_some_and(|claim| self.clock.now().plus(CALL_MS) > claim.claimed_until) {
            return Ok(SendResult::NoCall);
        }
        match step {
            Step::Post => self.post(&context, *tracked).await,
            Step::Update { ts } => self.update(&context, *tracked, &ts).await,
            Step::Search { since } => self.search(&context, *tracked, since, cursor).await,
            Step::Done | Step::Wait(_) => Ok(SendResult::NoCall),
        }
    }

    async fn post(
        &self,
        context: &JobContext<'_>,
        mut tracked: TrackedMessage,
    ) -> Result<SendResult, StoreError> {
        let message = self.render(context, &tracked).await;
        let since = self.clock.now();
        // INVARIANT: that a message may exist is stored before it can.
        tracked.post.state = PostState::Posting { since, look_at: since.plus(CALL_MS) };
        if !self.keep(context, &mut tracked, None).await? {
            self.then(context, Then::GoOn).await?;
            return Ok(SendResult::NoCall);
        }
        let stored = tracked.post.clone();
        let TrackedMessage { channel, thread, mark, .. } = &tracked;
        match self.client.post_message(channel, thread.as_deref(), &message, mark).await {
            Ok(Posted { channel: id, ts }) => {
                tracked.post.channel = id;
                tracked.post.state = PostState::Posted { ts };
                self.shown(context, tracked, &message).await
            }
            Err(error) => {
                tracked.post.state = match error {
                    CallError::Unanswered { .. } => {
                        PostState::Posting { since, look_at: self.clock.now().plus(LATE_MS) }
                    }
                    CallError::RateLimited { .. } | CallError::Rejected { .. } => PostState::Absent,
                };
                self.failed(context, tracked, &stored, &error).await
            }
        }
    }

    async fn update(
        &self,
        context: &JobContext<'_>,
        tracked: TrackedMessage,
        ts: &str,
    ) -> Result<SendResult, StoreError> {
        let message = self.render(context, &tracked).await;
        if tracked.post.looks == Some(looks(&message)) {
            let mut tracked = tracked;
            let refresh_at = self.next_refresh(context, &tracked);
            if context.claim.is_none() || tracked.post.refresh_at.is_some() != refresh_at.is_some() {
                tracked.post.refresh_at = refresh_at;
                self.keep(context, &mut tracked, None).await?;
            }
            self.then(context, Then::Finish).await?;
            return Ok(SendResult::NoCall);
        }
        match self.client.update(&tracked.post.channel, ts, &message, &tracked.mark).await {
            Ok(()) => self.shown(context, tracked, &message).await,
            Err(error) => {
                let stored = tracked.post.clone();
                self.failed(context, tracked, &stored, &error).await
            }
        }
    }

    async fn search(
        &self,
        context: &JobContext<'_>,
        mut tracked: TrackedMessage,
        since: Timestamp,
        cursor: Option<&SearchCursor>,
    ) -> Result<SendResult, StoreError> {
        // The two notices of a request are looked for one after the other.
        let cursor = cursor.filter(|cursor| cursor.mark == tracked.mark);
        let search = Search {
            channel: &tracked.channel,
            thread: tracked.thread.as_deref(),
            // Slack's clock is not ours, and signatures hold us together within this.
            from: since.minus(MAX_SKEW_MS),
            to: since.plus(MAX_SKEW_MS + CALL_MS),
            mark: &tracked.mark,
            cursor: cursor.map(|cursor| cursor.slack.as_str()),
        };
        let pages = cursor.map_or(0, |cursor| cursor.pages) + 1;
        let (state, outcome) = match self.client.find(search).await {
            Ok(SearchResult::Found(ts)) => {
                (Some(PostState::Posted { ts }), SendResult::Searched { cursor: None })
            }
            Ok(SearchResult::NotFound) => (Some(PostState::Absent), SendResult::Searched { cursor: None }),
            Ok(SearchResult::NextPage(slack)) if pages < PAGES => (
                None,
                SendResult::Searched { cursor: Some(SearchCursor { mark: tracked.mark, slack, pages }) },
            ),
            Ok(SearchResult::NextPage(_)) => {
                tracing::warn!(request = %tracked.mark.request, pages, "a message was not found, so it is posted again");
                (Some(PostState::Absent), SendResult::Searched { cursor: None })
            }
            // Then the search begins again.
            Err(CallError::Rejected { code }) if cursor.is_some() && code == "invalid_cursor" => {
                (None, SendResult::Searched { cursor: None })
            }
            Err(CallError::Rejected { code }) if !is_void(&code) => {
                // It cannot be told, and a message too many is better than one that nobody sees.
                tracing::warn!(request = %tracked.mark.request, code, "a message cannot be looked for, so it is posted again");
                (Some(PostState::Absent), SendResult::SearchRefused { code })
            }
            Err(error) => {
                let stored = tracked.post.clone();
                return self.failed(context, tracked, &stored, &error).await;
            }
        };
        if let Some(state) = state {
            // What it shows is not known, and may be older than what was to be shown.
            (tracked.post.state, tracked.post.shown, tracked.post.looks) = (state, 0, None);
            self.keep(context, &mut tracked, None).await?;
        }
        self.then(context, Then::GoOn).await?;
        Ok(outcome)
    }

    /// The message shows the request as it stands.
    async fn shown(
        &self,
        context: &JobContext<'_>,
        mut tracked: TrackedMessage,
        message: &Message,
    ) -> Result<SendResult, StoreError> {
        let channel = tracked.channel.clone();
        let unsure = std::mem::take(&mut tracked.post.unsure);
        tracked.post.shown = context.request.version;
        tracked.post.looks = Some(looks(message)).filter(|_| !unsure);
        tracked.post.minimal = tracked.post.minimal.filter(|version| *version == context.request.version);
        tracked.post.failed = None;
        tracked.post.refresh_at = self.next_refresh(context, &tracked);
        if unsure {
            // An update that was not answered may be carried out after this one. So it is sent once more, later.
            tracked.post.refresh_at = Some(self.clock.now().plus(REFRESH_MS));
        }
        if self.keep(context, &mut tracked, None).await? {
            // Of a notice there may be another one.
            let is_all = tracked.mark.slot == Slot::Main;
            self.then(context, if is_all { Then::Finish } else { Then::GoOn }).await?;
        } else {
            if tracked.mark.slot == Slot::Main {
                self.reassert(tracked.mark).await?;
            }
            self.then(context, Then::GoOn).await?;
        }
        Ok(SendResult::Delivered { channel })
    }

    /// Somebody else updated the same message at the same time, and nobody knows which of the two came last.
    async fn reassert(&self, mark: Mark) -> Result<(), StoreError> {
        loop {
            let Some(mut post) = self.store.slack_post(mark.request, mark.slot).await? else { return Ok(()) };
            (post.looks, post.refresh_at) = (None, Some(self.clock.now()));
            post.revision += 1;
            if self.store.keep_slack_post(bare(mark, post)).await? == Committed::Done {
                return Ok(());
            }
        }
    }

    async fn then(&self, context: &JobContext<'_>, then: Then) -> Result<(), StoreError> {
        let Some(claim) = context.claim else { return Ok(()) };
        match then {
            Then::Finish => self.store.finish_outbox(claim, context.request.version).await,
            Then::GoOn => self.store.retry_outbox(claim, self.clock.now(), false).await,
            Then::Retry(at) => self.store.retry_outbox(claim, at, true).await,
        }
    }

    /// There is nothing to be done, or nothing before `until`.
    async fn rest(&self, context: &JobContext<'_>, until: Option<Timestamp>) -> Result<(), StoreError> {
        match (context.claim, until) {
            (Some(_), None) => self.then(context, Then::Finish).await,
            (Some(claim), Some(until)) => self.store.retry_outbox(claim, until, false).await,
            (None, until) => {
                let request = context.request.id;
                let Some(mut post) = self.store.slack_post(request, Slot::Main).await? else { return Ok(()) };
                post.refresh_at = until;
                post.revision += 1;
                self.store.keep_slack_post(bare(Mark { request, slot: Slot::Main }, post)).await.map(drop)
            }
        }
    }

    /// Stores how far a message has come. False where somebody else did.
    async fn keep(
        &self,
        context: &JobContext<'_>,
        tracked: &mut TrackedMessage,
        news: Option<(AuditEvent, &str)>,
    ) -> Result<bool, StoreError> {
        tracked.post.revision += 1;
        let mut keep = bare(tracked.mark, tracked.post.clone());
        if let Some((news, code)) = news {
            keep.audit = vec![self.audit(context, tracked, news, code)];
            keep.counts = vec![counted(code)];
        }
        Ok(self.store.keep_slack_post(keep).await? == Committed::Done)
    }

    fn audit(
        &self,
        context: &JobContext<'_>,
        tracked: &TrackedMessage,
        news: AuditEvent,
        code: &str,
    ) -> AuditEntry {
        let request = context.request;
        let event = match news {
            AuditEvent::Failed => "slack_delivery_failed",
            AuditEvent::Shortened => "slack_message_shortened",
        };
        AuditEntry {
            at: self.clock.now(),
            event: event.to_owned(),
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

    async fn render(&self, context: &JobContext<'_>, tracked: &TrackedMessage) -> Message {
        let JobContext { request, entry, .. } = context;
        let now = self.clock.now();
        let whole = tracked.post.minimal != Some(request.version);
        let Rendering { message, minimal, escalation } = self.rendering;
        let notice = match tracked.mark.slot {
            Slot::Main if whole => return message(request, entry, now),
            Slot::Main => return minimal(request, entry, now),
            Slot::EscalationThread => escalation(request, entry, now, Place::Thread),
            Slot::EscalationChannel => {
                let permalink = self.permalink(request.id).await;
                let place = Place::Channel { permalink: permalink.as_deref() };
                escalation(request, entry, now, place)
            }
        };
        if whole { notice } else { Message { blocks: Vec::new(), ..notice } }
    }

    /// Where the request's message is. A notice without it is still a notice.
    async fn permalink(&self, request: RequestId) -> Option<String> {
        let main = self.store.slack_post(request, Slot::Main).await.ok()??;
        self.client.permalink(&main.channel, main.ts()?).await.ok()
    }

    fn next_refresh(&self, context: &JobContext<'_>, tracked: &TrackedMessage) -> Option<Timestamp> {
        let shows_time = tracked.mark.slot == Slot::Main && !context.request.status().is_terminal();
        shows_time.then(|| self.clock.now().plus(REFRESH_MS))
    }

    fn blocked(&self) -> MutexGuard<'_, HashMap<Mark, Timestamp>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the token is good for nothing; it can be good for posting and not for looking.
fn is_void(code: &str) -> bool {
    matches!(code, "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive")
}

/// Digest of what a message shows.
fn looks(message: &Message) -> Digest {
    Digest::of_json(&json!([message.text, message.blocks]))
}

fn bare(mark: Mark, post: SlackPost) -> KeepPost {
    KeepPost { request: mark.request, slot: mark.slot, post, audit: Vec::new(), counts: Vec::new() }
}

pub(super) fn counted(code: &str) -> Count {
    Count::one("slack_delivery_failures_total", &[("code", code)])
}
