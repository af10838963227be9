//! One step towards delivering something: at most one call of Slack, with what it was for stored before
//! and what came of it stored after. It can be cut off between any two of its awaits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, json};

use super::Rendering;
use super::budget::Method;
use super::dice::Dice;
use super::failure::Failure;
use super::step::{Part, Step, is_shown, settled_at};
use crate::clock::Clock;
use crate::lifecycle::{AuditEntry, Count, Digest, Effect, Request, RequestId, Timestamp};
use crate::policy::PolicyEntry;
use crate::slack::notice::Place;
use crate::slack::{
    CallError, Found, MAX_SKEW_MS, Mark, Message, PostState, Posted, Search, SlackClient, SlackPost, Slot,
};
use crate::store::{Committed, KeepPost, OutboxEntry, Store, StoreError};

/// For how long an outbox entry is claimed, in milliseconds: longer than a call takes, and no longer than people
/// would wait for a message that a process died over.
const CLAIM_MS: u64 = 30_000;

/// How long a call can take, and a little more.
const CALL_MS: u64 = 12_000;

/// How long after a call that was not answered to look for what it did.
const LATE_MS: u64 = 3_000;

/// How often a message that does not change otherwise is looked at again, for the time that is left.
const REFRESH_MS: u64 = 60_000;

/// The first and the longest wait after a failure that may pass.
const PASSING_MS: (u64, u64) = (1_000, 60_000);

/// The first and the longest wait after a failure that somebody has to mend.
const LASTING_MS: (u64, u64) = (60_000, 900_000);

/// How often an unknown code may pass before it counts as lasting.
const UNKNOWN_TRIES: u32 = 4;

/// How many pages of a channel's history to read for a message that may be in it.
const PAGES: u32 = 20;

/// How soon to look whether the message that a notice belongs to is there.
const MAIN_MS: u64 = 3_000;

/// How many policy entries to remember.
const ENTRIES: usize = 256;

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

/// What is to be done about an errand, with all that is needed for it.
struct Case {
    request: Request,
    entry: Arc<PolicyEntry>,
    now: Timestamp,
    next: Next,
}

enum Next {
    Nothing,
    Wait(Timestamp),
    Call(Box<Part>, Step),
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

    /// What is to be done about an errand now. `None` where there is no such request.
    async fn case(&self, errand: Errand) -> Result<Option<Case>, StoreError> {
        let now = self.clock.now();
        let Some(request) = self.store.request(errand.request()).await? else { return Ok(None) };
        let entry = self.entry(request.submission.policy_hash).await?;
        let next = match errand {
            Errand::Deliver(_, Effect::NotifyEscalation) => self.notify(&request, &entry, now).await?,
            Errand::Deliver(_, Effect::ShowRequest) | Errand::Refresh(_) => {
                let main = self.main(&request, &entry).await?;
                let refreshes = matches!(errand, Errand::Refresh(_));
                match main {
                    Some(part) if refreshes || !is_shown(&request, &part.post) => {
                        match part.step(&request, now) {
                            Step::Done => Next::Nothing,
                            Step::Wait(until) => Next::Wait(until),
                            step => Next::Call(Box::new(part), step),
                        }
                    }
                    _ => Next::Nothing,
                }
            }
        };
        Ok(Some(Case { request, entry, now, next }))
    }

    /// The message of a request, where its action has a channel.
    async fn main(&self, request: &Request, entry: &PolicyEntry) -> Result<Option<Part>, StoreError> {
        match &entry.channel {
            Some(channel) => self.part(request.id, Slot::Main, channel, None).await.map(Some),
            None => Ok(None),
        }
    }

    async fn part(
        &self,
        request: RequestId,
        slot: Slot,
        channel: &str,
        thread: Option<&str>,
    ) -> Result<Part, StoreError> {
        let post = self.store.slack_post(request, slot).await?.unwrap_or_else(|| SlackPost::new(channel));
        let (channel, thread) = (channel.to_owned(), thread.map(str::to_owned));
        Ok(Part { mark: Mark { request, slot }, channel, thread, post })
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
            parts.push(self.part(request.id, Slot::EscalationChannel, channel, None).await?);
        }
        if let Some(main) = self.main(request, entry).await? {
            match main.post.ts() {
                Some(ts) => {
                    let (slot, channel) = (Slot::EscalationThread, &main.post.channel);
                    parts.push(self.part(request.id, slot, channel, Some(ts)).await?);
                }
                None if main.post.failed.is_some() => wait(now.plus(LASTING_MS.0)),
                None => wait(now.plus(MAIN_MS)),
            }
        }
        for part in parts {
            if let Some(blocked) = self.blocked_until(part.mark, now) {
                wait(blocked);
                continue;
            }
            match part.step(request, now) {
                Step::Done => {}
                Step::Wait(at) => wait(at),
                step => return Ok(Next::Call(Box::new(part), step)),
            }
        }
        Ok(until.map_or(Next::Nothing, Next::Wait))
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

    async fn failed(
        &self,
        taking: &Taking<'_>,
        mut part: Part,
        stored: &SlackPost,
        error: &CallError,
    ) -> Result<Outcome, StoreError> {
        let attempts = taking.claim.map_or(0, |claim| claim.attempts);
        let is_posted = part.post.ts().is_some();
        let (request, slot, channel) = (part.mark.request, part.mark.slot, part.channel.clone());
        let code = match error {
            CallError::Rejected { code } => code.clone(),
            CallError::RateLimited { .. } | CallError::Unanswered { .. } => String::new(),
        };
        // Whoever refreshes has no entry in the outbox to come back by.
        let come_back = |at: Timestamp| taking.claim.is_none().then_some(at);
        let mut news = None;
        let (then, outcome) = match Failure::of(error) {
            Failure::Limited(wait_ms) => (Then::GoOn, Outcome::Limited { wait_ms }),
            Failure::Unanswered => {
                tracing::warn!(%request, %slot, %error, "a message was not delivered; trying again later");
                if is_posted {
                    // What it shows now is anybody's guess.
                    (part.post.unsure, part.post.looks) = (true, None);
                }
                part.post.refresh_at = come_back(self.clock.now().plus(self.dice.around(REFRESH_MS)));
                (Then::Retry(self.passing(attempts)), Outcome::Unanswered)
            }
            Failure::Unauthorized => {
                let audit = Box::new(self.audit(taking, &part, News::Failed, &code));
                (Then::GoOn, Outcome::Unauthorized { code, audit })
            }
            Failure::Content if part.post.minimal != Some(taking.request.version) => {
                tracing::warn!(%request, %slot, code, "Slack does not take a message whole; the least of it is sent");
                part.post.minimal = Some(taking.request.version);
                news = Some(News::Shortened);
                part.post.refresh_at = come_back(self.clock.now());
                (Then::GoOn, Outcome::Refused { code, channel: None })
            }
            Failure::Gone if is_posted && taking.request.status().is_terminal() => {
                tracing::warn!(%request, code, "the message of a request that has ended is gone");
                part.post.failed = Some(code.clone());
                part.post.refresh_at = None;
                news = Some(News::Failed);
                (Then::Finish, Outcome::Refused { code, channel: None })
            }
            // Nobody waits for it, and where no message can be changed there would be one more each minute.
            Failure::Gone if is_posted && taking.claim.is_none() && code != "message_not_found" => {
                tracing::info!(%request, code, "the time that is left cannot be shown");
                part.post.refresh_at = None;
                (Then::GoOn, Outcome::Refused { code, channel: None })
            }
            Failure::Gone if is_posted => {
                tracing::info!(%request, code, "the message of an open request is gone; it is posted anew");
                part.post = SlackPost { revision: part.post.revision, ..SlackPost::new(&channel) };
                part.post.refresh_at = come_back(self.clock.now());
                (Then::GoOn, Outcome::Refused { code, channel: None })
            }
            Failure::Unknown if attempts < UNKNOWN_TRIES => {
                tracing::warn!(%request, %slot, code, attempts, "Slack refuses a message; trying again later");
                part.post.refresh_at = come_back(self.clock.now().plus(self.dice.around(REFRESH_MS)));
                (Then::Retry(self.passing(attempts)), Outcome::Refused { code, channel: None })
            }
            Failure::Channel | Failure::Content | Failure::Gone | Failure::Unknown => {
                let again_at = match taking.claim {
                    Some(_) => self.lasting(attempts),
                    None => self.clock.now().plus(LASTING_MS.1),
                };
                if part.post.failed.as_deref() != Some(code.as_str()) {
                    tracing::error!(%request, %slot, channel, code, "Slack refuses a message; somebody has to mend that");
                    news = Some(News::Failed);
                    part.post.failed = Some(code.clone());
                }
                part.post.refresh_at = come_back(again_at);
                let then = if slot == Slot::Main {
                    Then::Retry(again_at)
                } else {
                    self.blocked().insert(part.mark, again_at);
                    Then::Retry(self.clock.now())
                };
                (then, Outcome::Refused { code, channel: Some(channel) })
            }
        };
        if part.post != *stored || news.is_some() {
            let code = match &outcome {
                Outcome::Refused { code, .. } => code.as_str(),
                _ => "",
            };
            self.keep(taking, &mut part, news.map(|news| (news, code))).await?;
        }
        self.then(taking, then).await?;
        Ok(outcome)
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

    fn next_refresh(&self, taking: &Taking<'_>, part: &Part) -> Option<Timestamp> {
        let shows_time = part.mark.slot == Slot::Main && !taking.request.status().is_terminal();
        shows_time.then(|| self.clock.now().plus(REFRESH_MS))
    }

    /// When to try again after a failure that may pass: with full jitter.
    fn passing(&self, attempts: u32) -> Timestamp {
        self.clock.now().plus(self.dice.below(growing(PASSING_MS, attempts)))
    }

    /// When to try again after a failure that somebody has to mend.
    fn lasting(&self, attempts: u32) -> Timestamp {
        self.clock.now().plus(self.dice.around(growing(LASTING_MS, attempts)))
    }

    fn blocked_until(&self, mark: Mark, now: Timestamp) -> Option<Timestamp> {
        let mut blocked = self.blocked();
        blocked.retain(|_, until| *until > now);
        blocked.get(&mark).copied()
    }

    fn blocked(&self) -> MutexGuard<'_, HashMap<Mark, Timestamp>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Digest, Arc<PolicyEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn growing((first, longest): (u64, u64), attempts: u32) -> u64 {
    first.saturating_mul(2_u64.saturating_pow(attempts)).min(longest)
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
