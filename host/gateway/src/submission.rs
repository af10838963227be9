//! A submission: how a request comes to be.

mod rerequest;

use std::sync::Arc;

use countersign_core::lifecycle::{
    AuditEntry, AuditEvent, Commitments, Digest, PolicyFailure, Reason, Refusal, Request, RequestId, Salt,
    Step, Submission, Timestamp,
};
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Again, Ask, Issued, NotMade};
use countersign_policy::reach;
use countersign_store::{Create, Created, Idempotency, MostOpen, StoreError};
use countersign_trace::{Key, Name, Span};
use serde_json::{Map, Value, json};

use super::{Gateway, GatewayError, Once, WaitToken, log_failures, traces, whole};
use crate::decision_log::{log_decision, log_not_made};
use crate::judging::Asker;
use crate::simulation::{Observation, Observed, Outcome, Timers};

/// How long an idempotency key counts after the time of its request is over, in milliseconds. While the request is open a
/// key that had run out would make a second one beside it.
pub(crate) const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1000;

/// The same for the key of what a gate asks: a CI system may deliver the same again for as long as it shows it. The key counts
/// no longer than its request is there, which it does not keep.
const GATE_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// An idempotency key, as its caller sent it.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey {
    /// Digest of the caller and its key.
    pub key: Digest,
    /// Fingerprint of the body that came with it.
    pub fingerprint: Digest,
    /// Fingerprints of that body as they were made before, if any: one of them may be stored.
    pub earlier: [Option<Digest>; 2],
}

impl IdempotencyKey {
    /// Whether what is stored is a fingerprint of the body that came with it.
    pub(super) fn matches(&self, stored: Digest) -> bool {
        self.fingerprint == stored || self.earlier.contains(&Some(stored))
    }

    /// Where a new request that it is sent for is made, so that one write stores both.
    fn shard(&self) -> u16 {
        self.key.shard()
    }

    /// As it is stored with the request that it was first sent for.
    fn kept(self, request: &Request) -> Idempotency {
        let counts_ms = if request.submission.gate.is_some() { GATE_MS } else { IDEMPOTENCY_MS };
        let until = request.submission.expires_at.plus(counts_ms);
        Idempotency { key: self.key, fingerprint: self.fingerprint, until }
    }
}

/// A request that was made, and the token that opens it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The request.
    pub request: Arc<Request>,
    /// Its wait token.
    pub token: WaitToken,
    /// The salt of its payload hash. `None` if it has none, and if it cannot be decrypted any more.
    pub salt: Option<Salt>,
    /// Whether it was made before, for the same idempotency key.
    pub replayed: bool,
}

impl Gateway {
    /// Makes a request, if the policies admit it, and its caller has fewer requests open than `most_open`.
    ///
    /// # Errors
    /// Where no policy knows the action, one does not admit it or fails, or the store is out of reach.
    pub async fn create(
        &self,
        ask: Ask,
        idempotency: Option<IdempotencyKey>,
        most_open: MostOpen,
    ) -> Result<Made, GatewayError> {
        let span = self.tracer.start(Name::Create);
        let made = span.around(self.create_within(&span, ask, idempotency, most_open)).await;
        traces::say_made(&span, &made);
        made
    }

    async fn create_within(
        &self,
        span: &Span,
        ask: Ask,
        idempotency: Option<IdempotencyKey>,
        most_open: MostOpen,
    ) -> Result<Made, GatewayError> {
        let now = self.clock.now();
        if let Some(sent) = &idempotency
            && let Some((fingerprint, request)) = self.store.idempotent(sent.shard(), &sent.key, now).await?
        {
            return self.known(sent, fingerprint, request);
        }
        let ask = Arc::new(ask);
        let shard = match &idempotency {
            Some(sent) => sent.shard(),
            None => u16::try_from(self.random_bits()? & 0xffff).unwrap_or_default(),
        };
        let id = RequestId::new(now, shard, self.random_bits()?);
        let rules = self.policies.active().action(&ask.action).cloned();
        let submitted = Submitted { id, rules: rules.as_deref(), ask: &ask, again: None, at: now };
        let (commitments, salt) = self.commitments(id, &ask.params)?;
        let step = match &rules {
            Some(rules) => {
                let submission = self.submission(rules, &ask, (id, commitments), None, now)?;
                let by = &ask.requester.id;
                let admission = Admitting { id, submission, ask: Arc::clone(&ask), by, once: None };
                self.admit(rules, admission).await
            }
            None => {
                let by = Asking { by: &ask.requester.id, shard, once: None };
                self.audit_unmade(now, &ask.action, by, AuditEvent::UnknownAction, &[]).await?;
                Err(GatewayError::UnknownAction(ask.action.clone()))
            }
        };
        let mut step = step.inspect_err(|error| {
            // An unknown one may be anything.
            if rules.is_some() {
                span.set(Key::Action, || ask.action.clone());
            }
            self.observe_submission(&submitted, Err(error));
        })?;
        step.request.trace = span.place();
        let kept = idempotency.map(|sent| sent.kept(&step.request));
        match self.store_new(step, Some(salt), (kept, None), most_open).await? {
            Ok(made) => {
                self.observe_submission(&submitted, Ok(&made.request));
                Ok(self.supersede_older(made).await)
            }
            Err(Created::Known(fingerprint, request)) => match idempotency {
                Some(sent) => self.known(&sent, fingerprint, *request),
                None => Err(GatewayError::Contended),
            },
            Err(Created::TooManyOpen) => Err(GatewayError::TooManyOpen),
            Err(Created::Repeated) => Err(GatewayError::Repeated),
            Err(Created::New | Created::LineageConflict) => Err(GatewayError::Contended),
        }
    }

    /// The token that a request was given, for whoever has a right to it; `None` if the key that it was made with is gone.
    #[must_use]
    pub fn token_again(&self, request: &Request) -> Option<WaitToken> {
        self.tokens.again(request)
    }

    fn random_bits(&self) -> Result<u64, GatewayError> {
        self.random().map(u64::from_le_bytes)
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], GatewayError> {
        let mut bytes = [0; N];
        (self.randomness)(&mut bytes).map_err(|error| GatewayError::Randomness(error.to_string()))?;
        Ok(bytes)
    }

    fn known(
        &self,
        sent: &IdempotencyKey,
        fingerprint: Digest,
        request: Request,
    ) -> Result<Made, GatewayError> {
        // First, since without the key of its time the fingerprint says nothing.
        let token = self.tokens.again(&request).ok_or(GatewayError::TokenRetired)?;
        if !sent.matches(fingerprint) {
            return Err(GatewayError::KeyReused);
        }
        let salt = self.salt_of(&request);
        Ok(Made { token, salt, request: Arc::new(request), replayed: true })
    }

    /// What stands for the parameters of a new request, with a salt of its own.
    fn commitments(
        &self,
        id: RequestId,
        params: &Map<String, Value>,
    ) -> Result<(Commitments, Salt), GatewayError> {
        let salt = Salt::new(self.random()?);
        let wrapped = self.salts.wrap(id, &salt, self.random()?)?;
        Ok((Commitments::salted(params, &salt, wrapped), salt))
    }

    fn submission(
        &self,
        rules: &ActionPolicy,
        ask: &Ask,
        (id, commitments): (RequestId, Commitments),
        again: Option<(&Submission, &Again)>,
        now: Timestamp,
    ) -> Result<Submission, GatewayError> {
        let supersede = self.supersede_key(rules, ask, again.map(|(earlier, _)| earlier))?;
        let issued = Issued { id, token_hash: self.tokens.of(id).hash(), commitments, at: now };
        let submission = decide::submission(rules, ask, issued, again, &self.directory);
        Ok(Submission { supersede, ..submission })
    }

    /// Decides about a submission; one that is not admitted is audited.
    async fn admit(&self, rules: &Arc<ActionPolicy>, admitting: Admitting<'_>) -> Result<Step, GatewayError> {
        let Admitting { id, submission, ask, by, once } = admitting;
        let by = Asking { by, shard: id.shard(), once };
        let (at, action) = (submission.submitted_at, submission.action.clone());
        let decided = {
            let rules = Arc::clone(rules);
            move || decide::admit(&rules, id, submission, &ask.params, |_| None).outcome
        };
        match self.judges.ask(rules, Asker::Person, decided).await? {
            Ok(step) if !(self.readable)(&step.request, rules.entry()) => {
                let refusal = Refusal::TooLargeToReview;
                self.audit_unmade(at, &action, by, AuditEvent::TooLargeToReview, &[]).await?;
                Err(refusal.into())
            }
            Ok(step) => {
                let reasons = reach::unsatisfiable(rules.entry(), &step.request, &self.directory);
                if reasons.is_empty() {
                    return Ok(step);
                }
                let refusal = GatewayError::Unsatisfiable(reasons);
                self.audit_unmade(at, &action, by, AuditEvent::Unsatisfiable, &refusal.reasons()).await?;
                Err(refusal)
            }
            Err(NotMade::Denied(reasons)) => {
                self.audit_unmade(at, &action, by, AuditEvent::PolicyDenied, &reasons).await?;
                Err(GatewayError::Denied(reasons))
            }
            Err(NotMade::Failed(failures)) => self.admission_failed(at, &action, by, failures).await,
            Err(NotMade::Refused(refusal)) => Err(refusal.into()),
        }
    }

    async fn admission_failed<T>(
        &self,
        at: Timestamp,
        action: &str,
        by: Asking<'_>,
        failures: Vec<PolicyFailure>,
    ) -> Result<T, GatewayError> {
        log_failures(&failures, None);
        let reasons = failures.iter().map(|failure| Reason {
            code: failure.kind.to_string(),
            message: failure.to_string(),
            path: None,
        });
        self.audit_unmade(at, action, by, AuditEvent::PolicyFailure, &reasons.collect::<Vec<_>>()).await?;
        Err(GatewayError::PolicyFailed(failures))
    }

    /// The audit log tells of requests that were not made, too.
    async fn audit_unmade(
        &self,
        at: Timestamp,
        action: &str,
        Asking { by, shard, once }: Asking<'_>,
        event: AuditEvent,
        reasons: &[Reason],
    ) -> Result<(), StoreError> {
        let entry = AuditEntry {
            at,
            event: event.as_str().to_owned(),
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
        if self.append(vec![entry], Vec::new(), (shard, once)).await? {
            log_not_made(action, event.as_str());
        }
        Ok(())
    }

    async fn store_new(
        &self,
        step: Step,
        salt: Option<Salt>,
        (idempotency, once): (Option<Idempotency>, Option<Once>),
        most_open: MostOpen,
    ) -> Result<Result<Made, Created>, GatewayError> {
        let Step { request, audit, effects, counts } = step;
        let token = self.tokens.of(request.id);
        let created = Arc::new(request.clone());
        let delivers = !effects.is_empty();
        let nonce = once.map(|once| once.counted(created.id.shard()));
        let dispatches = self.dispatches_of(None, &request);
        let dispatch_bell = (!dispatches.is_empty()).then(|| Arc::clone(&self.dispatch_bell));
        let create = Create { request, idempotency, most_open, nonce, audit, effects, dispatches, counts };
        let (store, alarm, bell) =
            (Arc::clone(&self.store), Arc::clone(&self.alarm), Arc::clone(&self.outbox_bell));
        let span = traces::committing(&created);
        whole(async move {
            let stored = span.around(store.create(create)).await;
            traces::say_created(&span, &stored);
            match stored? {
                Created::New => {
                    log_decision(&created);
                    alarm.set(created.due_at());
                    if delivers {
                        bell.notify_one();
                    }
                    if let Some(bell) = dispatch_bell {
                        bell.notify_one();
                    }
                    Ok(Ok(Made { request: created, token, salt, replayed: false }))
                }
                other => Ok(Err(other)),
            }
        })
        .await
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
                    ask: Arc::clone(ask),
                    again,
                    commitments: made.map(|made| made.submission.commitments()).unwrap_or_default(),
                    timers: made.map(Timers::of).unwrap_or_default(),
                },
            }
        });
    }
}

/// A submission, as the shadow is told of it.
struct Submitted<'a> {
    id: RequestId,
    rules: Option<&'a ActionPolicy>,
    ask: &'a Arc<Ask>,
    again: Option<(&'a Arc<Submission>, &'a Again)>,
    at: Timestamp,
}

/// A submission on its way to the policies.
struct Admitting<'a> {
    id: RequestId,
    submission: Submission,
    /// What was asked for. Its parameters, hidden ones included, go no further than the policies' admission.
    ask: Arc<Ask>,
    by: &'a str,
    /// Present if it may be asked for more than once without an idempotency key.
    once: Option<Once>,
}

/// Who asked, for the audit log.
#[derive(Clone, Copy)]
struct Asking<'a> {
    by: &'a str,
    /// That of the request that was asked for.
    shard: u16,
    /// Present if it may be asked for more than once without an idempotency key.
    once: Option<Once>,
}
