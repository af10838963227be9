//! An event: how a request moves on and ends, and the rules that it is judged by on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Gateway, GatewayError, MOST_CONFLICTS, log_failures, whole};
use crate::simulation::{self, Observation, Observed, Outcome, Timers};
use countersign_core::lifecycle::{
    self, Act, Actor, Change, Digest, Edit, Escalation, Refusal, Request, RequestId, State, Status, Step,
    Timestamp,
};
use countersign_policy::{ActionPolicy, RestoreError, Signed};
use countersign_store::{Commit, Committed, StoreError};

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
        self.vouched(policy_hash).await?;
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

    /// Whether somebody vouches for a set that has these rules, where that is asked for: a signature that was taken back
    /// is taken back for open requests, too.
    async fn vouched(&self, policy_hash: Digest) -> Result<(), GatewayError> {
        let trust = self.policies.engine().trust();
        if !trust.asks_for(Signed::PolicySet) {
            return Ok(());
        }
        let sets = self.store.policy_sets().await?.into_iter();
        for set in sets.filter(|set| set.entries.values().any(|entry| *entry == policy_hash)) {
            let signatures = self.store.signatures(set.hash).await?;
            if trust.vouched(Signed::PolicySet, &set.hash, &signatures).is_ok() {
                return Ok(());
            }
        }
        Err(RestoreError::Unsigned(policy_hash).into())
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
                Cause::Person { actor, intent, seen } => simulation::Cause::Person {
                    actor: (*actor).to_owned(),
                    intent: (*intent).clone(),
                    seen: *seen,
                },
                Cause::Escalated => simulation::Cause::Escalated,
                Cause::Tick => simulation::Cause::Tick,
                Cause::Ended(Status::Cancelled) => simulation::Cause::Cancelled,
                Cause::Ended(_) => simulation::Cause::Expired,
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

/// What a person does, with what the request and the action's schema say of each edit.
pub fn act_of(request: &Request, rules: &ActionPolicy, intent: &Intent) -> Act {
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
