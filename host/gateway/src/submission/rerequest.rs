//! A request that is made again, in the lineage of the one that ended.

use std::sync::Arc;

use countersign_core::lifecycle::{
    self, Commitments, Intent, PayloadHashVersion, Refusal, Request, RequestId, Salt, Status, Submission,
    Timestamp,
};
use countersign_core::record::Rerequest;
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Again, Ask, Attempt};
use countersign_store::{Created, MostOpen};
use countersign_trace::{Name, Span};

use super::{Admitting, IdempotencyKey, Made, Submitted};
use crate::judging::Asker;
use crate::{Gateway, GatewayError, MOST_CONFLICTS, Once, traces};

impl Gateway {
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

    /// What stands for the parameters of a request that is made again. Nobody has hidden values any more: what stands for
    /// them is taken over, and with it the salt that it was made with.
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
