//! One step towards delivering something: at most one call of Slack, with what it was for stored before
//! and what came of it stored after. It can be cut off between any two of its awaits.

mod case;
mod retry;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, json};

use case::{Case, Next};

use super::Rendering;
use super::budget::Method;
use super::dice::Dice;
use super::step::{Part, Step, settled_at};
use crate::notice::Place;
use crate::{CallError, Found, MAX_SKEW_MS, Message, Posted, Search, SlackClient};
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
pub(super) struct Courier {
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
pub(super) enum Errand {
    /// What waits in the outbox.
    Deliver(RequestId, Effect),
    /// The message of a request that has not changed, for the time that is left.
    Refresh(RequestId),
}

impl Errand {
    pub(super) fn request(self) -> RequestId {
        match self {
            Errand::Deliver(request, _) | Errand::Refresh(request) => request,
        }
    }
}

/// Where to go on looking for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    mark: Mark,
    slack: String,
    pages: u32,
}

/// What an errand needs next, for all that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outlook {
    /// The call; `None` where there is nothing left to call.
    pub(super) method: Option<Method>,
    /// Not before then.
    pub(super) not_before: Timestamp,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// No call was made: there was nothing to do, or something else than was thought.
    NoCall,
    /// Slack did it.
    Delivered {
        /// The channel, as the policy names it.
        channel: String,
    },
    /// Slack let us look.
    Looked {
        /// Where to go on looking.
        cursor: Option<Cursor>,
    },
    /// Slack does not let us look.
    LookRefused {
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
struct Taking<'a> {
    request: &'a Request,
    entry: &'a PolicyEntry,
    claim: Option<&'a OutboxEntry>,
}

/// What the audit log is told of.
#[derive(Clone, Copy)]
enum News {
    /// A message is not delivered before somebody mends what is wrong, or ever.
    Failed,
    /// A message shows less than it should.
    Shortened,
}

/// What to do with the errand after a step.
enum Then {
    /// It is done, as the request stood.
    Finish,
    /// Go on at once.
    GoOn,
    /// Try again then, after a failure.
    Retry(Timestamp),
}

impl Courier {
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        client: Arc<SlackClient>,
        rendering: Rendering,
        dice: Dice,
    ) -> Courier {
        Courier {
            store,
            clock,
            client,
            rendering,
            dice,
            entries: Mutex::default(),
            blocked: Mutex::default(),
        }
    }

    pub(super) fn dice(&self) -> &Dice {
        &self.dice
    }

    /// What an errand needs next; `since` says since when it waits.
    pub(super) async fn outlook(&self, errand: Errand, since: Timestamp) -> Result<Outlook, StoreError> {
        let Some(Case { request, next, now, .. }) = self.case(errand).await? else {
            return Ok(Outlook { method: None, not_before: since });
        };
        Ok(match next {
            Next::Nothing => Outlook { method: None, not_before: now },
            Next::Wait(until) => Outlook { method: None, not_before: until },
            Next::Call(part, step) => {
                let not_before = match errand {
                    Errand::Deliver(_, Effect::ShowRequest) => settled_at(&request, &part.post, since),
                    Errand::Deliver(_, Effect::NotifyEscalation) | Errand::Refresh(_) => since,
                };
                Outlook { method: part.method(&step), not_before }
            }
        })
    }

    /// Takes the next step of an errand, for which one call of `method` may be made.
    pub(super) async fn step(
        &self,
        errand: Errand,
        method: Option<&Method>,
        cursor: Option<&Cursor>,
    ) -> Result<Outcome, StoreError> {
        let claim = match errand {
            Errand::Refresh(_) => None,
            Errand::Deliver(request, effect) => {
                let now = self.clock.now();
                let claim = self.store.claim_outbox(request, effect, now, now.plus(CLAIM_MS)).await?;
                let Some(claim) = claim else { return Ok(Outcome::NoCall) };
                Some(claim)
            }
        };
        let taken = self.claimed(errand, claim.as_ref(), method, cursor).await;
        if let (Err(_), Some(claim)) = (&taken, &claim) {
            // Else it would be tried again when the claim runs out. The first error says what is wrong.
            let _ = self.store.retry_outbox(claim, self.passing(claim.attempts), true).await;
        }
        taken
    }

    async fn claimed(
        &self,
        errand: Errand,
        claim: Option<&OutboxEntry>,
        method: Option<&Method>,
        cursor: Option<&Cursor>,
    ) -> Result<Outcome, StoreError> {
        let Some(Case { request, entry, next, .. }) = self.case(errand).await? else {
            // There is no request that it would be about.
            if let Some(claim) = claim {
                self.store.finish_outbox(claim, u64::MAX).await?;
            }
            return Ok(Outcome::NoCall);
        };
        let taking = Taking { request: &request, entry: &entry, claim };
        let (part, step) = match next {
            Next::Call(part, step) if part.method(&step).as_ref() == method => (part, step),
            Next::Nothing => {
                self.rest(&taking, None).await?;
                return Ok(Outcome::NoCall);
            }
            Next::Wait(until) => {
                self.rest(&taking, Some(until)).await?;
                return Ok(Outcome::NoCall);
            }
            Next::Call(..) => {
                self.then(&taking, Then::GoOn).await?;
                return Ok(Outcome::NoCall);
            }
        };
        // A worker whose claim is about to run out would call while another one does.
        if claim.is_some_and(|claim| self.clock.now().plus(CALL_MS) > claim.claimed_until) {
            return Ok(Outcome::NoCall);
        }
        match step {
            Step::Post => self.post(&taking, *part).await,
            Step::Update { ts } => self.update(&taking, *part, &ts).await,
            Step::Search { since } => self.search(&taking, *part, since, cursor).await,
            Step::Done | Step::Wait(_) => Ok(Outcome::NoCall),
        }
    }

    async fn post(&self, taking: &Taking<'_>, mut part: Part) -> Result<Outcome, StoreError> {
        let message = self.render(taking, &part).await;
        let since = self.clock.now();
        // INVARIANT: that a message may exist is stored before it can.
        part.post.state = PostState::Posting { since, look_at: since.plus(CALL_MS) };
        if !self.keep(taking, &mut part, None).await? {
            self.then(taking, Then::GoOn).await?;
            return Ok(Outcome::NoCall);
        }
        let stored = part.post.clone();
        let Part { channel, thread, mark, .. } = &part;
        match self.client.post_message(channel, thread.as_deref(), &message, mark).await {
            Ok(Posted { channel: id, ts }) => {
                part.post.channel = id;
                part.post.state = PostState::Posted { ts };
                self.shown(taking, part, &message).await
            }
            Err(error) => {
                part.post.state = match error {
                    CallError::Unanswered { .. } => {
                        PostState::Posting { since, look_at: self.clock.now().plus(LATE_MS) }
                    }
                    CallError::RateLimited { .. } | CallError::Rejected { .. } => PostState::Absent,
                };
                self.failed(taking, part, &stored, &error).await
            }
        }
    }

    async fn update(&self, taking: &Taking<'_>, part: Part, ts: &str) -> Result<Outcome, StoreError> {
        let message = self.render(taking, &part).await;
        if part.post.looks == Some(looks(&message)) {
            let mut part = part;
            let refresh_at = self.next_refresh(taking, &part);
            if taking.claim.is_none() || part.post.refresh_at.is_some() != refresh_at.is_some() {
                part.post.refresh_at = refresh_at;
                self.keep(taking, &mut part, None).await?;
            }
            self.then(taking, Then::Finish).await?;
            return Ok(Outcome::NoCall);
        }
        match self.client.update(&part.post.channel, ts, &message, &part.mark).await {
            Ok(()) => self.shown(taking, part, &message).await,
            Err(error) => {
                let stored = part.post.clone();
                self.failed(taking, part, &stored, &error).await
            }
        }
    }

    async fn search(
        &self,
        taking: &Taking<'_>,
        mut part: Part,
        since: Timestamp,
        cursor: Option<&Cursor>,
    ) -> Result<Outcome, StoreError> {
        // The two notices of a request are looked for one after the other.
        let cursor = cursor.filter(|cursor| cursor.mark == part.mark);
        let search = Search {
            channel: &part.channel,
            thread: part.thread.as_deref(),
            // Slack's clock is not ours, and signatures hold us together within this.
            from: since.minus(MAX_SKEW_MS),
            to: since.plus(MAX_SKEW_MS + CALL_MS),
            mark: &part.mark,
            cursor: cursor.map(|cursor| cursor.slack.as_str()),
        };
        let pages = cursor.map_or(0, |cursor| cursor.pages) + 1;
        let (state, outcome) = match self.client.find(search).await {
            Ok(Found::At(ts)) => (Some(PostState::Posted { ts }), Outcome::Looked { cursor: None }),
            Ok(Found::Nowhere) => (Some(PostState::Absent), Outcome::Looked { cursor: None }),
            Ok(Found::NotYet(slack)) if pages < PAGES => {
                (None, Outcome::Looked { cursor: Some(Cursor { mark: part.mark, slack, pages }) })
            }
            Ok(Found::NotYet(_)) => {
                tracing::warn!(request = %part.mark.request, pages, "a message was not found, so it is posted again");
                (Some(PostState::Absent), Outcome::Looked { cursor: None })
            }
            // Then the search begins again.
            Err(CallError::Rejected { code }) if cursor.is_some() && code == "invalid_cursor" => {
                (None, Outcome::Looked { cursor: None })
            }
            Err(CallError::Rejected { code }) if !is_void(&code) => {
                // It cannot be told, and a message too many is better than one that nobody sees.
                tracing::warn!(request = %part.mark.request, code, "a message cannot be looked for, so it is posted again");
                (Some(PostState::Absent), Outcome::LookRefused { code })
            }
            Err(error) => {
                let stored = part.post.clone();
                return self.failed(taking, part, &stored, &error).await;
            }
        };
        if let Some(state) = state {
            // What it shows is not known, and may be older than what was to be shown.
            (part.post.state, part.post.shown, part.post.looks) = (state, 0, None);
            self.keep(taking, &mut part, None).await?;
        }
        self.then(taking, Then::GoOn).await?;
        Ok(outcome)
    }

    /// The message shows the request as it stands.
    async fn shown(
        &self,
        taking: &Taking<'_>,
        mut part: Part,
        message: &Message,
    ) -> Result<Outcome, StoreError> {
        let channel = part.channel.clone();
        let unsure = std::mem::take(&mut part.post.unsure);
        part.post.shown = taking.request.version;
        part.post.looks = Some(looks(message)).filter(|_| !unsure);
        part.post.minimal = part.post.minimal.filter(|version| *version == taking.request.version);
        part.post.failed = None;
        part.post.refresh_at = self.next_refresh(taking, &part);
        if unsure {
            // An update that was not answered may be carried out after this one. So it is sent once more, later.
            part.post.refresh_at = Some(self.clock.now().plus(REFRESH_MS));
        }
        if self.keep(taking, &mut part, None).await? {
            // Of a notice there may be another one.
            let is_all = part.mark.slot == Slot::Main;
            self.then(taking, if is_all { Then::Finish } else { Then::GoOn }).await?;
        } else {
            if part.mark.slot == Slot::Main {
                self.reassert(part.mark).await?;
            }
            self.then(taking, Then::GoOn).await?;
        }
        Ok(Outcome::Delivered { channel })
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

    async fn then(&self, taking: &Taking<'_>, then: Then) -> Result<(), StoreError> {
        let Some(claim) = taking.claim else { return Ok(()) };
        match then {
            Then::Finish => self.store.finish_outbox(claim, taking.request.version).await,
            Then::GoOn => self.store.retry_outbox(claim, self.clock.now(), false).await,
            Then::Retry(at) => self.store.retry_outbox(claim, at, true).await,
        }
    }

    /// There is nothing to be done, or nothing before `until`.
    async fn rest(&self, taking: &Taking<'_>, until: Option<Timestamp>) -> Result<(), StoreError> {
        match (taking.claim, until) {
            (Some(_), None) => self.then(taking, Then::Finish).await,
            (Some(claim), Some(until)) => self.store.retry_outbox(claim, until, false).await,
            (None, until) => {
                let request = taking.request.id;
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
        taking: &Taking<'_>,
        part: &mut Part,
        news: Option<(News, &str)>,
    ) -> Result<bool, StoreError> {
        part.post.revision += 1;
        let mut keep = bare(part.mark, part.post.clone());
        if let Some((news, code)) = news {
            keep.audit = vec![self.audit(taking, part, news, code)];
            keep.counts = vec![counted(code)];
        }
        Ok(self.store.keep_slack_post(keep).await? == Committed::Done)
    }

    fn audit(&self, taking: &Taking<'_>, part: &Part, news: News, code: &str) -> AuditEntry {
        let request = taking.request;
        let event = match news {
            News::Failed => "slack_delivery_failed",
            News::Shortened => "slack_message_shortened",
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
                ("channel".to_owned(), json!(part.channel)),
                ("message".to_owned(), json!(part.mark.slot)),
            ]),
        }
    }

    async fn render(&self, taking: &Taking<'_>, part: &Part) -> Message {
        let Taking { request, entry, .. } = taking;
        let now = self.clock.now();
        let whole = part.post.minimal != Some(request.version);
        let Rendering { message, minimal, escalation } = self.rendering;
        let notice = match part.mark.slot {
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

    fn next_refresh(&self, taking: &Taking<'_>, part: &Part) -> Option<Timestamp> {
        let shows_time = part.mark.slot == Slot::Main && !taking.request.status().is_terminal();
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
