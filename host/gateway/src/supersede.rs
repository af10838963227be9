//! Superseding: a new request takes the place of older open ones that agree with it in what its action names.
//!
//! The core says how it is noted that this is still to be done (`lifecycle/supersede.rs` there). It is done by whoever makes
//! the request; by whatever happens to it next; else by the scheduler, to which it is due.

use std::sync::Arc;

use countersign_core::lifecycle::{
    Digest, Intent, Refusal, Request, RequestId, Submission, SupersedeKey, canonical,
};
use countersign_core::mac::hmac;
use countersign_policy::ActionPolicy;
use countersign_policy::decide::Ask;
use countersign_trace::{Name, Span};
use serde_json::{Map, Value, json};

use super::event::Cause;
use super::{Gateway, GatewayError, MOST_CONFLICTS, Made, traces};

const PURPOSE: &str = "countersign supersede key";

impl Gateway {
    /// By what a new request supersedes others, if its rules say so. `ask` has all of its parameters, unless it is made
    /// `again`: then those that were hidden are not known any more, and what was made of them is taken over.
    pub(super) fn supersede_key(
        &self,
        rules: &ActionPolicy,
        ask: &Ask,
        again: Option<&Submission>,
    ) -> Result<Option<SupersedeKey>, GatewayError> {
        let by = &rules.entry().supersede;
        if by.is_empty() {
            return Ok(None);
        }
        let by: Vec<String> = by.iter().cloned().collect();
        let before = again.and_then(|earlier| earlier.supersede.as_ref()).filter(|before| before.by == by);
        let hidden = |earlier: &Submission| by.iter().any(|name| earlier.redacted.contains(name));
        if again.is_some_and(hidden) {
            let lost = "requests of this action supersede each other by a parameter that is hidden, and it is not known \
                        what this one had";
            return before.cloned().map(Some).ok_or(GatewayError::NotAllowed(lost));
        }
        // An absent value is left out: `null` is another one.
        let values = by.iter().filter_map(|name| Some((name.clone(), ask.params.get(name)?.clone())));
        let values: Map<String, Value> = values.collect();
        let mut agreeing = json!({
            "action": ask.action,
            // INVARIANT: the caller is part of the key, so nobody's request gives way to another caller's.
            "caller": ask.caller,
            "by": by,
            "values": values,
        });
        // Who asks with one value after the other until an older request gives way has found its hidden value: so it is one
        // of the same requester.
        if by.iter().any(|name| !rules.entry().redact.shows(name)) {
            agreeing["requester"] = json!(ask.who.name);
        }
        let text = canonical(&agreeing);
        let (current, earlier) = self.tokens.derived(PURPOSE);
        let under = |key: &[u8; 32]| Digest::from_bytes(hmac(key, text.as_bytes()));
        let key = under(&current);
        let mut others: Vec<Digest> = earlier.iter().map(under).collect();
        others.extend(before.iter().flat_map(|before| before.keys()));
        others.retain(|other| *other != key);
        others.dedup();
        Ok(Some(SupersedeKey { by, key, earlier: others }))
    }

    /// Has older requests give way to one that was just made. If that fails it is done later: the request is made, and
    /// stays noted.
    pub(super) async fn supersede_older(&self, made: Made) -> Made {
        match self.superseded(Arc::clone(&made.request)).await {
            Ok(request) => Made { request, ..made },
            Err(error) => {
                let request = made.request.id;
                tracing::warn!(%request, %error, "cannot cancel the requests that a new one supersedes; trying again soon");
                made
            }
        }
    }

    /// The request, once those that it supersedes are cancelled; at once if that was done before.
    ///
    /// Of all open ones the one that was stored last stands, whichever this is: two that are made at once both look, and
    /// do the same.
    ///
    /// # Errors
    /// If the store fails; then all of it can be done again.
    pub(super) async fn superseded(&self, request: Arc<Request>) -> Result<Arc<Request>, GatewayError> {
        if !request.is_superseding() {
            return Ok(request);
        }
        let span = self.tracer.start(Name::Supersede);
        traces::about(&span, &request);
        let superseded = span.around(self.supersede_within(&span, request)).await;
        traces::say_changed(&span, &superseded);
        superseded
    }

    async fn supersede_within(
        &self,
        span: &Span,
        mut request: Arc<Request>,
    ) -> Result<Arc<Request>, GatewayError> {
        let mut gone = Vec::new();
        for _ in 0..MOST_CONFLICTS {
            if !request.is_superseding() {
                return Ok(request);
            }
            let mut ended = false;
            for (key, earlier) in request.submission.contests() {
                let Some(mut standing) = self.standing(&request, key, earlier).await? else {
                    ended = true;
                    break;
                };
                let newest = standing.pop().map_or(request.id, |newest| newest.id);
                for older in standing {
                    let is_this = older.id == request.id;
                    let older = self.give_way(older, newest).await?;
                    if is_this && older.status().is_terminal() {
                        return Ok(older);
                    }
                    if older.superseded_by() == Some(request.id) && !gone.contains(&older.id) {
                        gone.push(older.id);
                        span.link(older.trace.as_ref());
                    }
                }
            }
            if ended {
                // Since it was loaded.
                request = self.request(request.id).await?;
                continue;
            }
            let Some(step) = request.has_superseded(self.clock.now(), gone.clone()) else {
                return Ok(request);
            };
            if let Some(stored) = self.commit(&request, step, None).await? {
                self.observe_note(&request);
                return Ok(stored);
            }
            request = self.request(request.id).await?;
        }
        Err(GatewayError::Contended)
    }

    /// The open requests with this key of which only the last stands, this one among them; `None` if it is not open any more.
    /// If its time is over there are none: then it supersedes nothing.
    async fn standing(
        &self,
        request: &Arc<Request>,
        key: Digest,
        earlier: &[Digest],
    ) -> Result<Option<Vec<Arc<Request>>>, GatewayError> {
        let now = self.clock.now();
        let is_open =
            |request: &Request| !request.status().is_terminal() && now < request.submission.expires_at;
        if !is_open(request) {
            return Ok(Some(Vec::new()));
        }
        let mut ids: Vec<RequestId> = Vec::new();
        for key in earlier {
            ids.extend(self.store.with_supersede_key(key, None).await?);
        }
        ids.retain(|id| *id != request.id);
        ids.extend(self.store.with_supersede_key(&key, Some(request.id)).await?);
        // INVARIANT: it takes the place of others only while it is open itself; else one that has superseded it would give
        // way to it, and none would stand.
        if !ids.contains(&request.id) {
            return Ok(None);
        }
        let mut standing: Vec<Arc<Request>> = Vec::new();
        for id in ids {
            if id == request.id {
                standing.push(Arc::clone(request));
            } else if let Some(other) = self.store.request(id).await?
                && is_open(&other)
                && other.gives_way_to(request)
                && standing.iter().all(|known| known.id != id)
            {
                standing.push(Arc::new(other));
            }
        }
        Ok(Some(standing))
    }

    /// Cancels a request in favour of a newer one, unless it has ended by then.
    async fn give_way(
        &self,
        mut older: Arc<Request>,
        newer: RequestId,
    ) -> Result<Arc<Request>, GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            let now = self.clock.now();
            match older.supersede(now, newer) {
                Ok(step) => {
                    if let Some(stored) = self.commit(&older, step, None).await? {
                        // To the shadow it is as if its caller had taken it back.
                        let cause = Cause::by_itself(Intent::Cancel { reason: None });
                        self.observe_event(&older, older.time_of_next(now), &cause, Ok(&stored));
                        return Ok(stored);
                    }
                }
                Err(Refusal::Ended(_) | Refusal::TooLate) => return Ok(older),
                Err(refusal) => return Err(refusal.into()),
            }
            older = self.request(older.id).await?;
        }
        Err(GatewayError::Contended)
    }
}
