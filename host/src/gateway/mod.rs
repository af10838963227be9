//! The shell around the core: load, ask the policies, step, commit, tell.
//!
//! Nothing is announced before it is stored: watchers hear of a version after the store has it,
//! and whatever else must happen is in the outbox by then.

#[cfg(test)]
mod tests;
mod token;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use tokio::sync::Notify;

pub use token::{Tokens, WaitToken, keyed};
pub use watch::{Seen, Watch, Watchers};

use crate::clock::Clock;
use crate::lifecycle::{
    self, Act, Actor, AuditEntry, Change, Digest, Edit, Escalation, FailureKind, Link, Origin, Party,
    PolicyFailure, Reason, Refusal, Request, RequestId, State, Status, Step, Submission, Timestamp,
    parameter_digests,
};
use crate::policy::{ActionPolicy, Directory, NotAdmitted, Policies, RestoreError};
use crate::rehearsal::{self, Observation, Observed, Outcome, Shadow, Timers};
use crate::store::{Commit, Committed, Create, Created, Idempotency, Store, StoreError};

/// How long an idempotency key counts, in milliseconds.
const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1000;

/// How often a change is tried again when others got in first.
///
/// Each conflict means that somebody else's change was stored, so the number only bounds how many
/// people can act on one request at the same instant.
const MOST_CONFLICTS: usize = 256;

/// The gateway: every way in which a request comes to be, moves on and ends.
pub struct Gateway {
    store: Arc<dyn Store>,
    policies: Arc<Policies>,
    clock: Arc<dyn Clock>,
    tokens: Tokens,
    directory: Arc<Directory>,
    watchers: Watchers,
    alarm: Arc<Alarm>,
    outbox_bell: Arc<Notify>,
    shadow: Arc<Shadow>,
}

/// What a caller asks for. Already well-formed; the policies have not seen it yet.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The action.
    pub action: String,
    /// The parameters, whole.
    pub params: Map<String, Value>,
    /// Where the request comes from.
    pub origin: Origin,
    /// Who wants the action done.
    pub requester: Party,
    /// Why.
    pub justification: String,
    /// Where to read more.
    pub links: Vec<Link>,
    /// What the caller would like of the policy.
    pub policy_hints: Option<Value>,
}

/// An idempotency key, as its caller sent it.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey {
    /// Digest of the caller and its key.
    pub key: Digest,
    /// Digest of the body that came with it.
    pub fingerprint: Digest,
}

/// A request that was made, and the token that opens it.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The request.
    pub request: Arc<Request>,
    /// Its wait token.
    pub token: WaitToken,
}

/// What a person does to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// Acknowledges a persona.
    Acknowledge {
        /// Its name.
        persona: String,
    },
    /// Approves, with new values for some parameters; `None` removes one.
    Approve {
        /// New values by key.
        edits: BTreeMap<String, Option<Value>>,
    },
    /// Denies.
    Deny {
        /// Why.
        reason: Option<String>,
    },
    /// Takes back their own approval and acknowledgements.
    Withdraw,
}

/// Why the gateway did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No policy knows the action.
    #[error("no policy admits the action `{0}`")]
    UnknownAction(String),
    /// The policies do not admit the request.
    #[error("the policy does not admit this request")]
    Denied(Vec<Reason>),
    /// A policy gave no usable answer; nothing was changed.
    #[error("a policy gave no usable answer, so nothing was changed")]
    PolicyFailed(Vec<PolicyFailure>),
    /// The idempotency key was used with another body.
    #[error("this idempotency key was used with another body")]
    KeyReused,
    /// There is no such request, or the token is not its.
    #[error("no such request")]
    NotFound,
    /// The request cannot be made again.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// It is too early to make the request again.
    #[error("this request can be made again in {} s", .retry_after_ms.div_ceil(1000))]
    Cooldown {
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
    /// The lineage has had its share for now.
    #[error("this request was made {limit} times within the allowed window")]
    LineageLimit {
        /// How many are allowed.
        limit: u32,
        /// How long to wait, in milliseconds.
        retry_after_ms: u64,
    },
    /// The event does not count.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many others act on the same request at this instant.
    #[error("too many others act on this request at this instant")]
    Contended,
    /// The rules that the request was made under cannot be made ready again.
    #[error("the rules that this request was made under cannot be loaded: {0}")]
    Rules(#[from] RestoreError),
    /// The store has no entry or module with this hash, although a request needs it.
    #[error("the rules that this request was made under are not in the store: nothing has the hash {0}")]
    RulesLost(Digest),
    /// Work was stopped half-way, by a panic or a shutdown.
    #[error("work was stopped half-way: {0}")]
    Stopped(String),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Randomness(String),
}

impl Gateway {
    /// A gateway over its parts.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        policies: Arc<Policies>,
        clock: Arc<dyn Clock>,
        tokens: Tokens,
    ) -> Gateway {
        Gateway {
            store,
            policies,
            clock,
            tokens,
            directory: Arc::default(),
            watchers: Watchers::default(),
            alarm: Arc::default(),
            outbox_bell: Arc::default(),
            shadow: Arc::default(),
        }
    }

    /// Where requests are kept.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What requests are judged by.
    #[must_use]
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Where the time comes from.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Who is in the user groups of Slack.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Who waits for a request's next version.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// What tells the scheduler that something nearer was stored.
    #[must_use]
    pub fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// What is rung when something was stored that waits for delivery. There is one who hears it.
    #[must_use]
    pub fn outbox_bell(&self) -> &Arc<Notify> {
        &self.outbox_bell
    }

    /// What judges beside the policies in force, with no effect.
    #[must_use]
    pub fn shadow(&self) -> &Arc<Shadow> {
        &self.shadow
    }

    /// Makes a request, where the policies admit it.
    ///
    /// # Errors
    /// Where no policy knows the action, one does not admit it or fails, or the store is out of reach.
    pub async fn create(
        &self,
        ask: Ask,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Receipt, GatewayError> {
        let now = self.clock.now();
        if let Some(sent) = &idempotency
            && let Some((fingerprint, request)) = self.store.idempotent(&sent.key, now).await?
        {
            return self.known(sent, fingerprint, request);
        }
        let random = random_bits()?;
        let shard = u16::try_from(random & 0xffff).unwrap_or_default();
        let id = RequestId::new(now, shard, random_bits()?);
        let rules = self.policies.active().action(&ask.action).cloned();
        let submitted = Submitted { id, rules: rules.as_deref(), ask: &ask, again: None, at: now };
        let step = match &rules {
            Some(rules) => {
                let submission = self.submission(rules, &ask, id, None, now);
                let admission = Admitting { id, submission, params: &ask.params, by: &ask.requester.id };
                self.admit(rules, admission).await
            }
            None => {
                self.audit_unmade(now, &ask.action, &ask.requester.id, "unknown_action", &[]).await?;
                Err(GatewayError::UnknownAction(ask.action.clone()))
            }
        };
        let step = step.inspect_err(|error| self.observe_submission(&submitted, Err(error)))?;
        let idempotency = idempotency.map(|sent| Idempotency {
            key: sent.key,
            fingerprint: sent.fingerprint,
            until: now.plus(IDEMPOTENCY_MS),
        });
        match self.store_new(step, idempotency).await? {
            Ok(receipt) => {
                self.observe_submission(&submitted, Ok(&receipt.request));
                Ok(receipt)
            }
            Err(Created::Known(fingerprint, request)) => match idempotency {
                Some(Idempotency { key, fingerprint: sent, .. }) => {
                    self.known(&IdempotencyKey { key, fingerprint: sent }, fingerprint, *request)
                }
                None => Err(GatewayError::Contended),
            },
            Err(Created::New | Created::LineageConflict) => Err(GatewayError::Contended),
        }
    }

    /// Makes an ended request again, in the same lineage, under the rules that are active now.
    ///
    /// Redacted values are not kept, so the policies admit the new request without them.
    ///
    /// # Errors
    /// Where there is no such request, its rules do not allow it or not yet, and as for [`Gateway::create`].
    pub async fn rerequest(&self, original: RequestId, actor: Party) -> Result<Receipt, GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            let now = self.clock.now();
            let original = self.store.request(original).await?.ok_or(GatewayError::NotFound)?;
            let lineage = self.store.lineage(original.submission.lineage).await?;
            let last = lineage.last().ok_or(GatewayError::NotFound)?;
            let earlier = &last.submission;
            let rules = self
                .policies
                .active()
                .action(&earlier.action)
                .cloned()
                .ok_or_else(|| GatewayError::UnknownAction(earlier.action.clone()))?;
            allow_rerequest(&rules, &lineage, last, now)?;

            let id = RequestId::new(now, original.id.shard(), random_bits()?);
            let ask = Ask {
                action: earlier.action.clone(),
                params: earlier.params.clone(),
                origin: earlier.origin.clone(),
                // Still the first requester: were it whoever pressed the button, a requester who may not
                // approve could have somebody else press it, and then approve.
                requester: earlier.requester.clone(),
                justification: earlier.justification.clone(),
                links: earlier.links.clone(),
                policy_hints: earlier.policy_hints.clone(),
            };
            let submission = self.submission(&rules, &ask, id, Some((earlier, actor.clone())), now);
            let params = submission.params.clone();
            let admission = Admitting { id, submission, params: &params, by: &actor.id };
            let again = Some((earlier, &actor));
            let submitted = Submitted { id, rules: Some(&*rules), ask: &ask, again, at: now };
            let step = self
                .admit(&rules, admission)
                .await
                .inspect_err(|error| self.observe_submission(&submitted, Err(error)))?;
            match self.store_new(step, None).await? {
                Ok(receipt) => {
                    self.observe_submission(&submitted, Ok(&receipt.request));
                    return Ok(receipt);
                }
                Err(Created::LineageConflict) => {}
                Err(Created::New | Created::Known(..)) => return Err(GatewayError::Contended),
            }
        }
        Err(GatewayError::Contended)
    }

    /// A person acts on a request.
    ///
    /// # Errors
    /// Where there is no such request, or the act does not count: then only the audit log has changed.
    pub async fn act(
        &self,
        id: RequestId,
        actor: &str,
        intent: &Intent,
    ) -> Result<Arc<Request>, GatewayError> {
        self.act_on(id, actor, intent, None).await
    }

    /// As [`Gateway::act`], by somebody who saw the parameters with the payload hash `seen`.
    ///
    /// # Errors
    /// [`Refusal::ParametersChanged`] where they are others by now, and as for [`Gateway::act`].
    pub async fn act_on(
        &self,
        id: RequestId,
        actor: &str,
        intent: &Intent,
        seen: Option<Digest>,
    ) -> Result<Arc<Request>, GatewayError> {
        self.change(id, &Cause::Person { actor, intent, seen }).await
    }

    /// Whether an act would count now. Nothing is changed; a refusal is audited, as the person is told of it.
    ///
    /// # Errors
    /// As for [`Gateway::act_on`].
    pub async fn check(
        &self,
        id: RequestId,
        actor: &str,
        intent: &Intent,
        seen: Option<Digest>,
    ) -> Result<Arc<Request>, GatewayError> {
        let request = self.store.request(id).await?.ok_or(GatewayError::NotFound)?;
        let rules = self.rules_of(request.submission.policy_hash).await?;
        let now = self.clock.now();
        let event = self.event(&request, &rules, now, &Cause::Person { actor, intent, seen });
        self.judge(&request, &rules, now, event).await?;
        Ok(Arc::new(request))
    }

    /// What is due of a request happens: its expiry, else its escalation, else the wake-up that a policy asked for.
    ///
    /// # Errors
    /// [`Refusal::NotDue`] where nothing is due (any more), and as for [`Gateway::act`].
    pub async fn wake(&self, id: RequestId) -> Result<Arc<Request>, GatewayError> {
        let request = self.store.request(id).await?.ok_or(GatewayError::NotFound)?;
        let now = self.clock.now();
        let State::Open(open) = &request.state else { return Err(Refusal::Ended(request.status()).into()) };
        if now >= request.submission.expires_at {
            return self.end(id, |at| Change::Expire { at }).await;
        }
        let escalates = matches!(open.escalation, Escalation::At(at) if at <= now);
        self.change(id, if escalates { &Cause::Escalated } else { &Cause::Tick }).await
    }

    /// The caller takes its request back.
    ///
    /// # Errors
    /// Where the token opens no request, or the request has ended.
    pub async fn cancel(&self, token: &str, reason: Option<String>) -> Result<Arc<Request>, GatewayError> {
        let request = self.opened_by(token).await?;
        self.end(request.id, |at| Change::Cancel { at, reason: reason.clone() }).await
    }

    /// The request that a token opens.
    ///
    /// # Errors
    /// [`GatewayError::NotFound`] whether the token is broken, names no request, or is another's.
    pub async fn opened_by(&self, token: &str) -> Result<Arc<Request>, GatewayError> {
        let id = Tokens::names(token).ok_or(GatewayError::NotFound)?;
        let request = self.store.request(id).await?.ok_or(GatewayError::NotFound)?;
        if !Tokens::opens(token, &request) {
            return Err(GatewayError::NotFound);
        }
        Ok(Arc::new(request))
    }

    /// The token of a request: the same each time.
    #[must_use]
    pub fn token_of(&self, id: RequestId) -> WaitToken {
        self.tokens.of(id)
    }

    /// The rules that a request is judged by, from memory or from the store.
    ///
    /// # Errors
    /// Where the store is out of reach or what it has cannot be loaded.
    pub async fn rules_of(&self, policy_hash: Digest) -> Result<Arc<ActionPolicy>, GatewayError> {
        if let Some(rules) = self.policies.by_hash(&policy_hash) {
            return Ok(rules);
        }
        let entry =
            self.store.policy_entry(policy_hash).await?.ok_or(GatewayError::RulesLost(policy_hash))?;
        let (mut modules, mut signatures) = (Vec::new(), Vec::new());
        for digest in entry.policies.iter().map(|used| used.digest).collect::<BTreeSet<_>>() {
            modules.push(self.store.module(digest).await?.ok_or(GatewayError::RulesLost(digest))?);
            signatures.extend(self.store.signatures(digest).await?);
        }
        let policies = Arc::clone(&self.policies);
        let restored =
            tokio::task::spawn_blocking(move || policies.restore(entry, &modules, &signatures)).await;
        Ok(restored.map_err(|stopped| GatewayError::Stopped(stopped.to_string()))??)
    }

    fn known(
        &self,
        sent: &IdempotencyKey,
        fingerprint: Digest,
        request: Request,
    ) -> Result<Receipt, GatewayError> {
        if sent.fingerprint != fingerprint {
            return Err(GatewayError::KeyReused);
        }
        Ok(Receipt { token: self.tokens.of(request.id), request: Arc::new(request) })
    }

    fn submission(
        &self,
        rules: &ActionPolicy,
        ask: &Ask,
        id: RequestId,
        again: Option<(&Submission, Party)>,
        now: Timestamp,
    ) -> Submission {
        submission(rules, ask, (id, self.tokens.of(id).hash()), again, &self.directory, now)
    }

    /// Asks the policies whether the request may be made, and where it stands when it is.
    async fn admit(&self, rules: &ActionPolicy, admitting: Admitting<'_>) -> Result<Step, GatewayError> {
        let Admitting { id, submission, params, by } = admitting;
        let (at, action) = (submission.submitted_at, submission.action.clone());
        let memos = match rules.admit(id, &submission, params) {
            Ok(memos) => memos,
            Err(NotAdmitted::Denied(reasons)) => {
                self.audit_unmade(at, &action, by, "policy_denied", &reasons).await?;
                return Err(GatewayError::Denied(reasons));
            }
            Err(NotAdmitted::Failed(failure)) => {
                return self.admission_failed(at, &action, by, vec![failure]).await;
            }
        };
        if memos.iter().any(|memo| repeats_hidden(memo, params, &submission.redacted)) {
            let failure = PolicyFailure {
                policy: "*".into(),
                kind: FailureKind::Malformed,
                detail: "a memo repeats a redacted parameter, and memos are stored".into(),
            };
            return self.admission_failed(at, &action, by, vec![failure]).await;
        }
        let draft = lifecycle::draft(id, submission.clone(), memos.clone());
        let event = draft.next_event(at, None, Act::Submitted)?;
        let verdicts = rules.judge(&draft, &event);
        match lifecycle::submit(id, submission, memos, verdicts) {
            Ok(step) => Ok(step),
            Err(Refusal::Objected(reasons)) => {
                self.audit_unmade(at, &action, by, "policy_denied", &reasons).await?;
                Err(GatewayError::Denied(reasons))
            }
            Err(Refusal::PolicyFailed(failures)) => self.admission_failed(at, &action, by, failures).await,
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn admission_failed<T>(
        &self,
        at: Timestamp,
        action: &str,
        by: &str,
        failures: Vec<PolicyFailure>,
    ) -> Result<T, GatewayError> {
        log_failures(&failures, None);
        let reasons = failures.iter().map(|failure| Reason {
            code: failure.kind.to_string(),
            message: failure.to_string(),
            path: None,
        });
        self.audit_unmade(at, action, by, "policy_failure", &reasons.collect::<Vec<_>>()).await?;
        Err(GatewayError::PolicyFailed(failures))
    }

    /// The audit log tells of requests that were not made, too.
    async fn audit_unmade(
        &self,
        at: Timestamp,
        action: &str,
        by: &str,
        event: &str,
        reasons: &[Reason],
    ) -> Result<(), StoreError> {
        let entry = AuditEntry {
            at,
            event: event.into(),
            action: action.into(),
            request: None,
            status: None,
            actor: Some(by.into()),
            policy_hash: None,
            payload_hash: None,
            // Codes, not messages: the policies saw every parameter, and a message may quote one.
            detail: Map::from_iter([(
                "reasons".to_owned(),
                reasons.iter().map(|reason| json!(reason.code)).collect(),
            )]),
        };
        self.store.append(vec![entry], Vec::new()).await
    }

    async fn store_new(
        &self,
        step: Step,
        idempotency: Option<Idempotency>,
    ) -> Result<Result<Receipt, Created>, GatewayError> {
        let Step { request, audit, effects, counts } = step;
        let token = self.tokens.of(request.id);
        let created = Arc::new(request.clone());
        let delivers = !effects.is_empty();
        let create = Create { request, idempotency, audit, effects, counts };
        let (store, alarm, bell) =
            (Arc::clone(&self.store), Arc::clone(&self.alarm), Arc::clone(&self.outbox_bell));
        whole(async move {
            match store.create(create).await? {
                Created::New => {
                    alarm.set(created.due_at());
                    if delivers {
                        bell.notify_one();
                    }
                    Ok(Ok(Receipt { request: created, token }))
                }
                other => Ok(Err(other)),
            }
        })
        .await
    }

    /// Load, make the event, ask the policies, step, commit; again from the start where others got in first.
    async fn change(&self, id: RequestId, cause: &Cause<'_>) -> Result<Arc<Request>, GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            let request = self.store.request(id).await?.ok_or(GatewayError::NotFound)?;
            let rules = self.rules_of(request.submission.policy_hash).await?;
            let now = self.clock.now();
            let event = self.event(&request, &rules, now, cause);
            let step = self
                .judge(&request, &rules, now, event)
                .await
                .inspect_err(|error| self.observe_event(&request, now, cause, Err(error)))?;
            if let Some(stored) = self.commit(step).await? {
                self.observe_event(&request, now, cause, Ok(&stored));
                return Ok(stored);
            }
        }
        Err(GatewayError::Contended)
    }

    fn event(&self, request: &Request, rules: &ActionPolicy, now: Timestamp, cause: &Cause<'_>) -> Event {
        match cause {
            Cause::Person { actor, intent, seen } => {
                let by = Some(rules.entry().actor(actor, &self.directory, now));
                Event { act: act_of(request, rules, intent), by, seen: *seen }
            }
            Cause::Escalated => Event { act: Act::Escalated, by: None, seen: None },
            Cause::Tick | Cause::Ended(_) => Event { act: Act::Tick, by: None, seen: None },
        }
    }

    /// Tells the shadow what became of a submission, where the policies had a part in that.
    fn observe_submission(&self, submitted: &Submitted<'_>, made: Result<&Request, &GatewayError>) {
        let outcome = match made {
            Ok(request) => Some(Outcome::Admitted(request.status())),
            Err(error) => Outcome::of_submission(error),
        };
        let Some(outcome) = outcome else { return };
        let Submitted { id, rules, ask, again, at } = submitted;
        self.shadow.observe(|| {
            let again = again.map(|(earlier, actor)| (Arc::clone(earlier), actor.clone()));
            Observed {
                request: *id,
                action: rules.map_or("*", |rules| &rules.entry().action).to_owned(),
                at: *at,
                outcome,
                what: Observation::Submission {
                    ask: Box::new((*ask).clone()),
                    again,
                    timers: made.map(Timers::of).unwrap_or_default(),
                },
            }
        });
    }

    /// Tells the shadow what became of an event, where the policies had a part in that.
    fn observe_event(
        &self,
        request: &Request,
        at: Timestamp,
        cause: &Cause<'_>,
        stored: Result<&Request, &GatewayError>,
    ) {
        let outcome = match stored {
            Ok(stored) => Some(Outcome::Counted(stored.status())),
            Err(error) => Outcome::of_event(error),
        };
        let Some(outcome) = outcome else { return };
        // What happens by itself and is not due is no news: another instance was faster.
        let of_a_person = matches!(cause, Cause::Person { .. });
        if !of_a_person && matches!(outcome, Outcome::Refused(_)) {
            return;
        }
        self.shadow.observe(|| {
            let cause = match cause {
                Cause::Person { actor, intent, seen } => rehearsal::Cause::Person {
                    actor: (*actor).to_owned(),
                    intent: (*intent).clone(),
                    seen: *seen,
                },
                Cause::Escalated => rehearsal::Cause::Escalated,
                Cause::Tick => rehearsal::Cause::Tick,
                Cause::Ended(Status::Cancelled) => rehearsal::Cause::Cancelled,
                Cause::Ended(_) => rehearsal::Cause::Expired,
            };
            Observed {
                request: request.id,
                action: request.submission.rules.clone(),
                at,
                outcome,
                what: Observation::Event {
                    version: request.version,
                    cause,
                    timers: stored.map(Timers::of).unwrap_or_default(),
                },
            }
        });
    }

    /// What would become of the request; a refusal is audited.
    async fn judge(
        &self,
        request: &Request,
        rules: &ActionPolicy,
        now: Timestamp,
        event: Event,
    ) -> Result<Step, GatewayError> {
        let Event { act, by, seen } = event;
        let judged = request.next_event(now, by.clone(), act.clone()).and_then(|event| {
            if seen.is_some_and(|seen| seen != request.payload_hash()) {
                return Err(Refusal::ParametersChanged);
            }
            let verdicts = rules.judge(request, &event);
            lifecycle::step(request.clone(), Change::Judged { event, verdicts })
        });
        match judged {
            Ok(step) => Ok(step),
            Err(refusal) => {
                self.audit_refusal(request, now, by.as_ref(), &act, &refusal).await?;
                Err(refusal.into())
            }
        }
    }

    /// Ends a request in a way that no policy is asked about.
    async fn end(
        &self,
        id: RequestId,
        change: impl Fn(Timestamp) -> Change,
    ) -> Result<Arc<Request>, GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            let request = self.store.request(id).await?.ok_or(GatewayError::NotFound)?;
            let now = self.clock.now();
            let step = lifecycle::step(request.clone(), change(now))?;
            if let Some(stored) = self.commit(step).await? {
                self.observe_event(&request, now, &Cause::Ended(stored.status()), Ok(&stored));
                return Ok(stored);
            }
        }
        Err(GatewayError::Contended)
    }

    /// Stores a step, and then tells of it. `None` where others got in first.
    async fn commit(&self, step: Step) -> Result<Option<Arc<Request>>, GatewayError> {
        let Step { request, audit, effects, counts } = step;
        let stored = Arc::new(request.clone());
        let delivers = !effects.is_empty();
        let commit = Commit { request, audit, effects, counts };
        let (store, watchers, alarm, bell) = (
            Arc::clone(&self.store),
            self.watchers.clone(),
            Arc::clone(&self.alarm),
            Arc::clone(&self.outbox_bell),
        );
        whole(async move {
            match store.commit(commit).await? {
                Committed::Conflict => Ok(None),
                Committed::Done => {
                    alarm.set(stored.due_at());
                    watchers.publish(&stored);
                    if delivers {
                        bell.notify_one();
                    }
                    Ok(Some(stored))
                }
            }
        })
        .await
    }

    async fn audit_refusal(
        &self,
        request: &Request,
        at: Timestamp,
        by: Option<&Actor>,
        act: &Act,
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        if let Refusal::PolicyFailed(failures) = refusal {
            log_failures(failures, Some(request.id));
        }
        // What happens by itself and is not due is no news: another instance was faster.
        if by.is_none() && !matches!(refusal, Refusal::PolicyFailed(_)) {
            return Ok(());
        }
        self.store.append(vec![refusal.audit(request, at, by, act)], refusal.counts(request, act)).await
    }
}

/// Does `work` to its end, even where whoever asked for it goes away half-way:
/// what was stored must be told of, and a caller who hangs up must not keep others from hearing it.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, GatewayError>> + Send + 'static,
) -> Result<T, GatewayError> {
    tokio::spawn(work).await.map_err(|stopped| GatewayError::Stopped(stopped.to_string()))?
}

/// An event without its time and place, which are known only once the request is loaded.
struct Event {
    act: Act,
    by: Option<Actor>,
    /// The payload hash of the parameters that whoever acts has seen, where that is known.
    seen: Option<Digest>,
}

/// What happens to a request, by whom.
enum Cause<'a> {
    /// A person acts, who saw the parameters with the payload hash `seen`, where that is known.
    Person { actor: &'a str, intent: &'a Intent, seen: Option<Digest> },
    /// The escalation comes.
    Escalated,
    /// A wake-up comes.
    Tick,
    /// It ended so, in a way that no policy was asked about.
    Ended(Status),
}

/// A submission, as the shadow is told of it.
struct Submitted<'a> {
    id: RequestId,
    rules: Option<&'a ActionPolicy>,
    ask: &'a Ask,
    again: Option<(&'a Arc<Submission>, &'a Party)>,
    at: Timestamp,
}

/// A submission on its way to the policies.
struct Admitting<'a> {
    id: RequestId,
    submission: Submission,
    /// The parameters, whole. They go no further than `admit`.
    params: &'a Map<String, Value>,
    by: &'a str,
}

/// What is asked for, as a request under these rules has it: with its id and the digest of its token.
pub(crate) fn submission(
    rules: &ActionPolicy,
    ask: &Ask,
    (id, token_hash): (RequestId, Digest),
    again: Option<(&Submission, Party)>,
    directory: &Directory,
    now: Timestamp,
) -> Submission {
    let entry = rules.entry();
    let expires_at = now.plus(entry.timeout_ms);
    let (mut params, mut redacted) = entry.redact.apply(&ask.params);
    let digests = match &again {
        Some((earlier, _)) => {
            // What was hidden when it was first made stays hidden: only its digest is known.
            redacted.extend(earlier.redacted.iter().cloned());
            for key in &earlier.redacted {
                params.insert(key.clone(), lifecycle::REDACTED.into());
            }
            earlier.digests.clone()
        }
        None => parameter_digests(&ask.params),
    };
    Submission {
        action: ask.action.clone(),
        rules: entry.action.clone(),
        lineage: again.as_ref().map_or(id, |(earlier, _)| earlier.lineage),
        depth: again.as_ref().map_or(0, |(earlier, _)| earlier.depth.saturating_add(1)),
        rerequested_by: again.map(|(_, actor)| actor),
        requester: ask.requester.clone(),
        requester_groups: entry.actor(&ask.requester.id, directory, now).groups,
        origin: ask.origin.clone(),
        justification: ask.justification.clone(),
        links: ask.links.clone(),
        policy_hints: ask.policy_hints.clone(),
        params,
        redacted,
        digests,
        policy_hash: rules.hash(),
        token_hash,
        submitted_at: now,
        expires_at,
        escalate_at: entry.escalate.as_ref().map(|escalate| expires_at.minus(escalate.before_ms)),
        unattended: entry.unattended,
    }
}

/// Whether a memo holds a text or a long number of a hidden parameter.
///
/// A policy sees hidden values when it admits, and what it remembers is stored. This catches the policy that
/// remembers one as it is; one that disguises it cannot be caught, so read the policies that you pin.
pub(crate) fn repeats_hidden(memo: &str, params: &Map<String, Value>, hidden: &BTreeSet<String>) -> bool {
    fn repeats(memo: &str, value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Array(values) => values.iter().any(|value| repeats(memo, value)),
            Value::Object(members) => members.values().any(|value| repeats(memo, value)),
            // Shorter ones stand in a memo by chance.
            Value::Number(number) => {
                Some(number.to_string()).is_some_and(|text| text.len() > 5 && memo.contains(&text))
            }
            Value::String(text) => {
                let escaped = value.to_string();
                let inner = escaped.get(1..escaped.len().saturating_sub(1)).unwrap_or_default();
                text.len() > 3 && memo.contains(inner)
            }
        }
    }
    hidden.iter().filter_map(|key| params.get(key)).any(|value| repeats(memo, value))
}

/// What a person does, with what the request and the action's schema say of each edit.
pub(crate) fn act_of(request: &Request, rules: &ActionPolicy, intent: &Intent) -> Act {
    match intent {
        Intent::Acknowledge { persona } => Act::Acknowledge { persona: persona.clone() },
        Intent::Deny { reason } => Act::Deny { reason: reason.clone() },
        Intent::Withdraw => Act::Withdraw,
        Intent::Approve { edits } => {
            let current = request.params();
            let edits = edits.iter().filter(|(key, after)| {
                // A value that is what it was already is no edit; of a hidden one that cannot be told.
                current.get(*key) != after.as_ref() || request.submission.redacted.contains(*key)
            });
            let edits = edits.map(|(key, after)| Edit {
                key: key.clone(),
                before: current.get(key).cloned(),
                after: after.clone(),
                violations: rules.check_edit(key, after.as_ref()),
            });
            Act::Approve { edits: edits.collect() }
        }
    }
}

fn allow_rerequest(
    rules: &ActionPolicy,
    lineage: &[Request],
    last: &Request,
    now: Timestamp,
) -> Result<(), GatewayError> {
    let Some(allowed) = rules.entry().rerequest else {
        return Err(GatewayError::NotAllowed("requests for this action cannot be made again"));
    };
    match last.status() {
        Status::Expired | Status::Denied => {}
        Status::Approved => return Err(GatewayError::NotAllowed("the request was approved")),
        Status::Cancelled => return Err(GatewayError::NotAllowed("the caller took the request back")),
        Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => {
            return Err(GatewayError::NotAllowed("the newest request of the lineage is still open"));
        }
    }
    let ready_at = last.decided_at().unwrap_or(now).plus(allowed.cooldown_ms);
    if now < ready_at {
        return Err(GatewayError::Cooldown { retry_after_ms: ready_at.since(now) });
    }
    let counted = |request: &&Request| now.since(request.submission.submitted_at) < allowed.window_ms;
    let within: Vec<&Request> = lineage.iter().filter(counted).collect();
    if within.len() >= usize::try_from(allowed.limit).unwrap_or(usize::MAX) {
        let oldest = within.first().map_or(now, |request| request.submission.submitted_at);
        let retry_after_ms = oldest.plus(allowed.window_ms).since(now);
        return Err(GatewayError::LineageLimit { limit: allowed.limit, retry_after_ms });
    }
    Ok(())
}

fn log_failures(failures: &[PolicyFailure], request: Option<RequestId>) {
    for failure in failures {
        tracing::error!(
            policy = failure.policy,
            kind = %failure.kind,
            detail = failure.detail,
            request = request.map(tracing::field::display),
            "a policy gave no usable answer; nothing was changed"
        );
    }
}

fn random_bits() -> Result<u64, GatewayError> {
    getrandom::u64().map_err(|error| GatewayError::Randomness(error.to_string()))
}

/// Tells the scheduler that something nearer than it knows of was stored.
pub struct Alarm {
    nearest_ms: AtomicU64,
    nearer: Notify,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm { nearest_ms: AtomicU64::new(u64::MAX), nearer: Notify::new() }
    }
}

impl Alarm {
    /// Something is due at `at`.
    pub fn set(&self, at: Option<Timestamp>) {
        let Some(at) = at.map(Timestamp::as_millis) else { return };
        if at < self.nearest_ms.fetch_min(at, Ordering::AcqRel) {
            self.nearer.notify_one();
        }
    }

    /// Something is due at `at`, and the scheduler is the one who says so: nobody has to be told.
    pub fn known(&self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.nearest_ms.fetch_min(at.as_millis(), Ordering::AcqRel);
        }
    }

    /// Forgets what is nearest; call it before asking the store, so that what is stored meanwhile counts.
    pub fn reset(&self) {
        self.nearest_ms.store(u64::MAX, Ordering::Release);
    }

    /// What is nearest, of all that was set since the last reset.
    #[must_use]
    pub fn nearest(&self) -> Option<Timestamp> {
        Some(self.nearest_ms.load(Ordering::Acquire)).filter(|at| *at != u64::MAX).map(Timestamp::from_millis)
    }

    /// Waits until something nearer is set.
    pub async fn nearer(&self) {
        self.nearer.notified().await;
    }
}
