//! An event: how a request moves on and ends, and the rules that it is judged by on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::lifecycle::{
    Act, Actor, AuditEntry, Count, Digest, Escalation, Intent, Refusal, Request, RequestId, State, Step,
    Timestamp,
};
use countersign_policy::decide::{self, Attempt, Decision};
use countersign_policy::{ActionPolicy, RestoreError, Signed};
use countersign_store::{Commit, Committed, StoreError};
use countersign_trace::Span;
use serde_json::Value;

use super::{Gateway, GatewayError, MOST_CONFLICTS, Once, log_failures, traces, whole};
use crate::decision_log::log_decision;
use crate::judging::{Asker, joined};
use crate::simulation::{self, Observation, Observed, Outcome, Timers};

impl Gateway {
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
        self.act_on(id, actor, intent, None, None).await
    }

    /// As [`Gateway::act`], by somebody who saw the parameters with the payload hash `seen`. With `once`, the act counts
    /// once, however often it is delivered.
    ///
    /// # Errors
    /// [`Refusal::ParametersChanged`] if they are others by now, [`GatewayError::Repeated`] if the act was delivered
    /// before, and as for [`Gateway::act`].
    pub async fn act_on(
        &self,
        id: RequestId,
        actor: &str,
        intent: &Intent,
        seen: Option<Digest>,
        once: Option<Once>,
    ) -> Result<Arc<Request>, GatewayError> {
        self.change(id, None, &Cause { intent: intent.clone(), by: Some(actor), seen, once }).await
    }

    /// As [`Gateway::act_on`], on a request that was loaded already. It need not be the newest version: a write over another
    /// one is refused by the store, and then the request is loaded again.
    ///
    /// # Errors
    /// As for [`Gateway::act_on`].
    pub async fn act_on_loaded(
        &self,
        request: Arc<Request>,
        actor: &str,
        intent: &Intent,
        seen: Option<Digest>,
        once: Option<Once>,
    ) -> Result<Arc<Request>, GatewayError> {
        let cause = Cause { intent: intent.clone(), by: Some(actor), seen, once };
        self.change(request.id, Some(request), &cause).await
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
        once: Option<Once>,
    ) -> Result<Arc<Request>, GatewayError> {
        let request = self.request(id).await?;
        let rules = self.rules_of(request.submission.policy_hash).await?;
        let at = request.time_of_next(self.clock.now());
        let cause = Cause { intent: intent.clone(), by: Some(actor), seen, once };
        self.decide(&request, &rules, at, &cause).await?;
        Ok(request)
    }

    /// Refuses an act for a reason that only whoever hands it over knows. Audited as any other refusal.
    pub async fn refuse(
        &self,
        id: RequestId,
        actor: &str,
        intent: Intent,
        refusal: Refusal,
        once: Option<Once>,
    ) -> GatewayError {
        let span = self.tracer.start(traces::name_of(&intent));
        let audited = span.around(async {
            let request = self.store.request(id).await?.ok_or(GatewayError::NotFound)?;
            traces::about(&span, &request);
            let rules = self.rules_of(request.submission.policy_hash).await?;
            let now = self.clock.now();
            let by = rules.entry().actor_on(&request, actor, &self.directory, now);
            // What is not stored needs no commitments.
            let act = decide::act(&rules, &request, intent, &BTreeMap::new());
            let at = request.time_of_next(now);
            self.audit_refusal(&request, at, (Some(&by), once), &act, &refusal).await?;
            Ok(())
        });
        let refused = match audited.await {
            Ok(()) => refusal.into(),
            Err(error) => error,
        };
        traces::say_error(&span, &refused);
        refused
    }

    /// What is due of a request happens: its expiry, else its escalation, else the wake-up that a policy asked for.
    ///
    /// # Errors
    /// [`Refusal::NotDue`] if nothing is due (any more), and as for [`Gateway::act`].
    pub async fn wake(&self, id: RequestId) -> Result<Arc<Request>, GatewayError> {
        self.wake_loaded(self.request(id).await?).await
    }

    /// As [`Gateway::wake`], of a request that was loaded already.
    pub(crate) async fn wake_loaded(&self, request: Arc<Request>) -> Result<Arc<Request>, GatewayError> {
        let is_superseding = request.is_superseding();
        let request = self.superseded(request).await?;
        let now = self.clock.now();
        if is_superseding && request.due_at().is_none_or(|due| due > now) {
            return Ok(request);
        }
        let State::Open(open) = &request.state else { return Err(Refusal::Ended(request.status()).into()) };
        let intent = if now >= request.submission.expires_at {
            Intent::Expire
        } else if matches!(open.escalation, Escalation::At(at) if at <= now) {
            Intent::Escalate
        } else {
            Intent::Wake
        };
        self.change(request.id, Some(request), &Cause::by_itself(intent)).await
    }

    /// The caller takes its request back. Whether it is the caller's is not looked at here.
    ///
    /// # Errors
    /// If there is no such request, or it has ended.
    pub async fn cancel(&self, id: RequestId, reason: Option<String>) -> Result<Arc<Request>, GatewayError> {
        self.change(id, None, &Cause::by_itself(Intent::Cancel { reason })).await
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
        self.check_signature(policy_hash).await?;
        let (mut modules, mut signatures) = (Vec::new(), Vec::new());
        for digest in entry.policies.iter().map(|used| used.digest).collect::<BTreeSet<_>>() {
            modules.push(self.store.module(digest).await?.ok_or(GatewayError::RulesLost(digest))?);
            signatures.extend(self.store.signatures(digest).await?);
        }
        let policies = Arc::clone(&self.policies);
        let restored =
            tokio::task::spawn_blocking(move || policies.restore(entry, &modules, &signatures)).await;
        Ok(joined(restored)??)
    }

    /// Whether a set that has these rules has a valid signature, if one is required: a signature that was taken back
    /// is taken back for open requests, too.
    async fn check_signature(&self, policy_hash: Digest) -> Result<(), GatewayError> {
        let trust = self.policies.engine().trust();
        if !trust.asks_for(Signed::PolicySet) {
            return Ok(());
        }
        let sets = self.store.policy_sets().await?.into_iter();
        for set in sets.filter(|set| set.entries.values().any(|entry| *entry == policy_hash)) {
            let signatures = self.store.signatures(set.hash).await?;
            if trust.verify(Signed::PolicySet, &set.hash, &signatures).is_ok() {
                return Ok(());
            }
        }
        Err(RestoreError::Unsigned(policy_hash).into())
    }

    /// Load, decide, commit; again from the start if others got in first.
    pub(super) async fn change(
        &self,
        id: RequestId,
        loaded: Option<Arc<Request>>,
        cause: &Cause<'_>,
    ) -> Result<Arc<Request>, GatewayError> {
        let span = self.tracer.start(traces::name_of(&cause.intent));
        let changed = span.around(self.change_within(&span, id, loaded, cause)).await;
        traces::say_changed(&span, &changed);
        changed
    }

    async fn change_within(
        &self,
        span: &Span,
        id: RequestId,
        mut loaded: Option<Arc<Request>>,
        cause: &Cause<'_>,
    ) -> Result<Arc<Request>, GatewayError> {
        let mut is_known = false;
        for _ in 0..MOST_CONFLICTS {
            let request = match loaded.take() {
                Some(request) => request,
                None => self.request(id).await?,
            };
            if !std::mem::replace(&mut is_known, true) {
                traces::about(span, &request);
            }
            // INVARIANT: nothing else happens to a request that may have to end others first; else a crash in between would
            // leave them open.
            let request = self.superseded(request).await?;
            let now = self.clock.now();
            let at = request.time_of_next(now);
            // Whether it has expired is asked of the clock: its last event may be later, and the time announced is not.
            let step = match cause.intent.ending(&request, now) {
                Some(ended) => ended?,
                None => {
                    let rules = self.rules_of(request.submission.policy_hash).await?;
                    self.decide(&request, &rules, at, cause)
                        .await
                        .inspect_err(|error| self.observe_event(&request, at, cause, Err(error)))?
                }
            };
            if let Some(stored) = self.commit(&request, step, cause.once).await? {
                self.observe_event(&request, at, cause, Ok(&stored));
                return Ok(stored);
            }
        }
        Err(GatewayError::Contended)
    }

    /// What would become of the request; a refusal is audited.
    async fn decide(
        &self,
        request: &Arc<Request>,
        rules: &Arc<ActionPolicy>,
        at: Timestamp,
        cause: &Cause<'_>,
    ) -> Result<Step, GatewayError> {
        let now = self.clock.now();
        let by = cause.by.map(|id| rules.entry().actor_on(request, id, &self.directory, now));
        let commitments = self.commit_to_edits(request, &cause.intent);
        let attempt = Attempt { intent: cause.intent.clone(), by, seen: cause.seen, commitments };
        let asker = if cause.by.is_some() { Asker::Person } else { Asker::Scheduler };
        let decided = {
            let (rules, request) = (Arc::clone(rules), Arc::clone(request));
            move || decide::event(&rules, &request, attempt, at)
        };
        let Decision { act, by, outcome, .. } = self.judges.ask(rules, asker, decided).await?;
        let is_edit = matches!(&act, Some(Act::Approve { edits }) if !edits.is_empty());
        let outcome = outcome.and_then(|step| {
            let is_readable = !is_edit || (self.readable)(&step.request, rules.entry());
            is_readable.then_some(step).ok_or(Refusal::TooLargeToReview)
        });
        if let (Err(refusal), Some(act)) = (&outcome, &act) {
            self.audit_refusal(request, at, (by.as_ref(), cause.once), act, refusal).await?;
        }
        Ok(outcome?)
    }

    /// The commitments to the new values of edits, by parameter. None if the payload hash has no salt; if it has one that
    /// cannot be decrypted there are none either, and the edits are refused.
    fn commit_to_edits(&self, request: &Request, intent: &Intent) -> BTreeMap<String, Digest> {
        let Intent::Approve { edits } = intent else { return BTreeMap::new() };
        if edits.is_empty() {
            return BTreeMap::new();
        }
        let Some(salt) = self.salt_of(request) else { return BTreeMap::new() };
        let commit =
            |(key, after): (&String, &Option<Value>)| Some((key.clone(), salt.commit(after.as_ref()?)));
        edits.iter().filter_map(commit).collect()
    }

    /// Tells the shadow what became of an event, if the policies had a part in that.
    pub(super) fn observe_event(
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
        if cause.by.is_none() && matches!(outcome, Outcome::Refused(_)) {
            return;
        }
        self.shadow.observe(|| {
            let cause = simulation::Cause {
                intent: cause.intent.clone(),
                by: cause.by.map(str::to_owned),
                seen: cause.seen,
                commitments: self.commit_to_edits(request, &cause.intent),
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

    /// Tells the shadow that a request has another version, and nothing has happened to it.
    pub(super) fn observe_note(&self, before: &Request) {
        self.shadow.observe(|| Observed {
            request: before.id,
            action: before.submission.rules.clone(),
            at: before.changed_at(),
            outcome: Outcome::Counted(before.status()),
            what: Observation::Note { version: before.version },
        });
    }

    /// Stores a step on from `before`, and then tells of it. `None` if others got in first.
    ///
    /// If the store answers with an error, it may have stored the step all the same. Nobody is told then: watchers look at
    /// the store from time to time, and a later delivery of the same act is known by its nonce.
    pub(super) async fn commit(
        &self,
        before: &Request,
        step: Step,
        once: Option<Once>,
    ) -> Result<Option<Arc<Request>>, GatewayError> {
        let Step { request, audit, effects, counts } = step;
        let stored = Arc::new(request.clone());
        let delivers = !effects.is_empty();
        let nonce = once.map(|once| once.counted(request.id.shard()));
        let dispatches = self.dispatches_of(Some(before), &request);
        let dispatch_bell = (!dispatches.is_empty()).then(|| Arc::clone(&self.dispatch_bell));
        let commit = Commit { request, nonce, audit, effects, dispatches, counts };
        let (store, watchers, alarm, bell) = (
            Arc::clone(&self.store),
            self.watchers.clone(),
            Arc::clone(&self.alarm),
            Arc::clone(&self.outbox_bell),
        );
        let span = traces::committing(&stored);
        whole(async move {
            let committed = span.around(store.commit(commit)).await;
            traces::say_committed(&span, &committed);
            match committed? {
                Committed::Conflict => Ok(None),
                Committed::Repeated => Err(GatewayError::Repeated),
                Committed::Done => {
                    log_decision(&stored);
                    alarm.set(stored.due_at());
                    watchers.publish(&stored);
                    if delivers {
                        bell.notify_one();
                    }
                    if let Some(bell) = dispatch_bell {
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
        (by, once): (Option<&Actor>, Option<Once>),
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
        let (audit, counts) = (vec![refusal.audit(request, at, by, act)], refusal.counts(request, act));
        self.append(audit, counts, (request.id.shard(), once)).await.map(drop)
    }

    /// Audits a refusal; that of an act that was delivered before is in the audit log already. The shard is that of the
    /// request that the act is about. Returns whether it is news.
    pub(super) async fn append(
        &self,
        audit: Vec<AuditEntry>,
        counts: Vec<Count>,
        (shard, once): (u16, Option<Once>),
    ) -> Result<bool, StoreError> {
        match once {
            Some(once) => self.store.append_once(audit, counts, once.refused(shard)).await,
            None => self.store.append(audit, counts).await.map(|()| true),
        }
    }
}

/// What is to happen to a request, by whom.
pub(super) struct Cause<'a> {
    intent: Intent,
    /// Who acts; `None` for what happens by itself, and for the caller.
    by: Option<&'a str>,
    /// The payload hash of the parameters that whoever acts has seen, if that is known.
    seen: Option<Digest>,
    /// Present if the act may be delivered more than once.
    once: Option<Once>,
}

impl Cause<'_> {
    pub(super) fn by_itself(intent: Intent) -> Cause<'static> {
        Cause { intent, by: None, seen: None, once: None }
    }
}
