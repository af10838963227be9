//! A submission: how a request comes to be, for the first time or again in its lineage.

use std::sync::Arc;

use countersign_core::lifecycle::{
    self, AuditEntry, AuditEvent, Commitments, Digest, Intent, PayloadHashVersion, PolicyFailure, Reason,
    Refusal, Request, RequestId, Salt, Status, Step, Submission, Timestamp,
};
use countersign_core::record::Rerequest;
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Again, Ask, Attempt, Issued, NotMade};
use countersign_policy::reach;
use countersign_store::{Create, Created, Idempotency, MostOpen, StoreError};
use countersign_trace::{Key, Name, Span};
use serde_json::{Map, Value, json};

use super::{Gateway, GatewayError, MOST_CONFLICTS, Once, WaitToken, log_failures, traces, whole};
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

    /// Makes an ended request again, in the same lineage, under the rules that are active now.
    ///
    /// Redacted values are not kept, so the policies admit the new request without them; one that has any has the salt of
    /// the one before.
    ///
    /// With `once`, it is made once, however often that is asked for.
    ///
    /// # Errors
    /// Where there is no such request, its rules do not allow it or not yet, [`GatewayError::Repeated`] if it was asked for
    /// before, and as for [`Gateway::create`].
    pub async fn rerequest(
        &self,
        original: RequestId,
        actor: Again,
        idempotency: Option<IdempotencyKey>,
        most_open: MostOpen,
        once: Option<Once>,
    ) -> Result<Made, GatewayError> {
        let span = self.tracer.start(Name::Create);
        let again = self.rerequest_within(&span, original, actor, idempotency, most_open, once);
        let made = span.around(again).await;
        traces::say_made(&span, &made);
        made
    }

    async fn rerequest_within(
        &self,
        span: &Span,
        original: RequestId,
        actor: Again,
        idempotency: Option<IdempotencyKey>,
        most_open: MostOpen,
        once: Option<Once>,
    ) -> Result<Made, GatewayError> {
        let mut linked = false;
        for _ in 0..MOST_CONFLICTS {
            let now = self.clock.now();
            if let Some(sent) = &idempotency
                && let Some((fingerprint, request)) =
                    self.store.idempotent(original.shard(), &sent.key, now).await?
            {
                return self.known(sent, fingerprint, request);
            }
            let original = self.store.request(original).await?.ok_or(GatewayError::NotFound)?;
            if !std::mem::replace(&mut linked, true) {
                span.link(original.trace.as_ref());
            }
            let (last, rules) = &self.followed(&original, now).await?;
            let earlier = &last.submission;

            let id = RequestId::new(now, original.id.shard(), self.random_bits()?);
            let ask = Arc::new(Ask::again(earlier));
            let (commitments, salt) = self.commitments_again(id, last)?;
            let issued = (id, commitments);
            let submission = self.submission(rules, &ask, issued, Some((earlier, &actor)), now)?;
            // Without what the rules that are active now hide, either.
            let shown = Arc::new(Ask { params: submission.params.clone(), ..Ask::clone(&ask) });
            let admission = Admitting { id, submission, ask: shown, by: &actor.party.id, once };
            let again = Some((earlier, &actor));
            let submitted = Submitted { id, rules: Some(&**rules), ask: &ask, again, at: now };
            let mut step = self
                .admit(rules, admission)
                .await
                .inspect_err(|error| self.observe_submission(&submitted, Err(error)))?;
            step.request.trace = span.place();
            let kept = idempotency.map(|sent| sent.kept(&step.request));
            match self.store_new(step, salt, (kept, once), most_open).await? {
                Ok(made) => {
                    self.observe_submission(&submitted, Ok(&made.request));
                    return Ok(self.supersede_older(made).await);
                }
                Err(Created::LineageConflict) => {}
                Err(Created::TooManyOpen) => return Err(GatewayError::TooManyOpen),
                Err(Created::Repeated) => return Err(GatewayError::Repeated),
                Err(Created::Known(fingerprint, request)) => match idempotency {
                    Some(sent) => return self.known(&sent, fingerprint, *request),
                    None => return Err(GatewayError::Contended),
                },
                Err(Created::New) => return Err(GatewayError::Contended),
            }
        }
        Err(GatewayError::Contended)
    }

    /// Checks that a request can be made again now, or was by the same call before. Who makes it again finds out for
    /// certain.
    ///
    /// # Errors
    /// As those of [`Gateway::rerequest`].
    pub async fn check_again(
        &self,
        original: &Request,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<(), GatewayError> {
        let now = self.clock.now();
        if let Some(sent) = idempotency
            && self.store.idempotent(original.id.shard(), &sent.key, now).await?.is_some()
        {
            return Ok(());
        }
        self.followed(original, now).await.map(drop)
    }

    /// The newest request of the lineage, which another one may follow, and the rules for that one.
    async fn followed(
        &self,
        original: &Request,
        now: Timestamp,
    ) -> Result<(Request, Arc<ActionPolicy>), GatewayError> {
        let lineage = original.submission.lineage;
        let last = self.store.newest_of_lineage(lineage).await?.ok_or(GatewayError::NotFound)?;
        let action = &last.submission.action;
        let rules = self.policies.active().action(action).cloned();
        let rules = rules.ok_or_else(|| GatewayError::UnknownAction(action.clone()))?;
        let allowed = may_follow(&rules, &last, now)?;
        let since = now.minus(allowed.window_ms);
        let most = usize::try_from(allowed.limit).unwrap_or(usize::MAX);
        let recent = self.store.recent_in_lineage(lineage, since, most).await?;
        within_limit(allowed, &recent, now)?;
        Ok((last, rules))
    }

    /// The request that was made in the place of one that has ended, if there is one.
    ///
    /// # Errors
    /// If the store cannot say.
    pub async fn successor(&self, request: &Request) -> Result<Option<Request>, GatewayError> {
        if let Some(newer) = request.superseded_by() {
            return Ok(self.store.request(newer).await?);
        }
        // No other one can be made again.
        if !matches!(request.status(), Status::Expired | Status::Denied) {
            return Ok(None);
        }
        let Some(depth) = request.submission.depth.checked_add(1) else { return Ok(None) };
        Ok(self.store.lineage(request.submission.lineage, depth, 1).await?.pop())
    }

    /// The token that a request was given, for whoever has a right to it; `None` if the key that it was made with is gone.
    #[must_use]
    pub fn token_again(&self, request: &Request) -> Option<WaitToken> {
        self.tokens.again(request)
    }

    /// Whether somebody in Slack, known by `name` there, may have a request made again: its requester, whoever an
    /// approval of would be granted, or whom its rules name instead.
    ///
    /// # Errors
    /// If its rules cannot be loaded.
    pub async fn may_rerequest(&self, request: &Request, name: &str) -> Result<bool, GatewayError> {
        let submission = &request.submission;
        let rules = self.rules_of(submission.policy_hash).await?;
        let actor = rules.entry().actor_on(request, name, &self.directory, self.clock.now());
        let Some(allowed) = &rules.entry().rerequest else { return Ok(false) };
        let asked = || actor.id == submission.requester_id() || submission.owners.contains(&actor.id);
        let named = |who: &String| match who.as_str() {
            "requester" => asked(),
            "approvers" => false,
            who => match who.strip_prefix('@') {
                Some(group) => actor.groups.contains(group),
                None => {
                    let people = self.directory.people();
                    actor.id == who
                        || people.find(name).map_or(name == who, |person| person.names().any(|it| it == who))
                }
            },
        };
        let (is_named, approvers) = if allowed.by.is_empty() {
            (asked(), true)
        } else {
            (allowed.by.iter().any(named), allowed.by.iter().any(|who| who == "approvers"))
        };
        if is_named || !approvers {
            return Ok(is_named);
        }
        // As if it had just been made: whether the act would count is not the question, but whether it is theirs.
        let draft = lifecycle::draft(request.id, Submission::clone(submission), request.memos.to_vec());
        let attempt = Attempt::of(Intent::approve(), Some(actor));
        let (asked_of, at) = (Arc::clone(&rules), submission.submitted_at);
        let decided = move || decide::event(&asked_of, &draft, attempt, at).outcome;
        let outcome = self.judges.ask(&rules, Asker::Person, decided).await?;
        Ok(!matches!(outcome, Err(Refusal::Unauthorized(_) | Refusal::PolicyFailed(_))))
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

    /// The same for a request that is made again. Nobody has hidden values any more: what stands for them is taken over,
    /// and with it the salt that it was made with.
    fn commitments_again(
        &self,
        id: RequestId,
        earlier: &Request,
    ) -> Result<(Commitments, Option<Salt>), GatewayError> {
        let submission = &earlier.submission;
        if submission.redacted.is_empty() {
            return self.commitments(id, &submission.params).map(|(made, salt)| (made, Some(salt)));
        }
        let taken_over = submission.commitments();
        if taken_over.version == PayloadHashVersion::One {
            return Ok((taken_over, None));
        }
        let salt = self.salt_of(earlier).ok_or(GatewayError::SaltLost)?;
        let wrapped = Some(self.salts.wrap(id, &salt, self.random()?)?);
        Ok((Commitments { salt: wrapped, ..taken_over }, Some(salt)))
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

/// Whether a request may follow the newest one of its lineage, and the rules for that.
fn may_follow<'a>(
    rules: &'a ActionPolicy,
    last: &Request,
    now: Timestamp,
) -> Result<&'a Rerequest, GatewayError> {
    let Some(allowed) = &rules.entry().rerequest else {
        return Err(GatewayError::NotAllowed("requests for this action cannot be made again"));
    };
    match last.status() {
        Status::Expired | Status::Denied => {}
        Status::Approved => return Err(GatewayError::NotAllowed("the request was approved")),
        Status::Cancelled if last.superseded_by().is_some() => {
            return Err(GatewayError::NotAllowed("a newer request has superseded it"));
        }
        Status::Cancelled if last.ended_by_admin().is_some() => {
            return Err(GatewayError::NotAllowed("an admin cancelled the request"));
        }
        Status::Cancelled => return Err(GatewayError::NotAllowed("the caller took the request back")),
        Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => {
            return Err(GatewayError::NotAllowed("the newest request of the lineage is still open"));
        }
    }
    let ready_at = last.decided_at().unwrap_or(now).plus(allowed.cooldown_ms);
    let retry_after_ms = ready_at.since(now);
    // Longer than the whole cool-down it is only if the clock was set back; how much of it is left is not known then.
    if (1..=allowed.cooldown_ms).contains(&retry_after_ms) {
        return Err(GatewayError::Cooldown { retry_after_ms });
    }
    Ok(allowed)
}

/// Whether the lineage has room for another request. `recent` has its newest requests within the window, up to the limit, and
/// newest first.
fn within_limit(allowed: &Rerequest, recent: &[Timestamp], now: Timestamp) -> Result<(), GatewayError> {
    if recent.len() >= usize::try_from(allowed.limit).unwrap_or(usize::MAX) {
        let oldest = recent.last().copied().unwrap_or(now);
        let retry_after_ms = oldest.plus(allowed.window_ms).since(now).min(allowed.window_ms);
        return Err(GatewayError::LineageLimit { limit: allowed.limit, retry_after_ms });
    }
    Ok(())
}
