//! `POST /api/hooks/github` and `/api/hooks/gitlab`: what the gates of CI systems ask. Each call is signed; what it asks for,
//! and as whom, the access file says.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use countersign_access::GateSystem;
use countersign_core::lifecycle::{self, Digest, Gate, Request, RequestId, Status};
use countersign_gates::{Asked, Malformed, Read, Verifier, github, gitlab};
use countersign_gateway::{GatewayError, IdempotencyKey};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{self, JsonBody};
use super::caller::Calling;
use super::create::{self, CreateBody};
use super::error::{ApiError, Invalid};
use crate::caller_rights;
use crate::reports;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// Why a request is cancelled whose merge request has ended.
const CLOSED: &str = "the merge request is closed or merged";

/// Why a request is cancelled in whose place something is asked for that is refused.
const REFUSED: &str = "its gate asks for something else by now, which is refused";

/// How often the same can be asked for again, as after a merge request was closed and opened.
const MOST_TIMES: u32 = 100;

/// What became of a delivery.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryView {
    /// The request that was made for it, now or for an earlier delivery of the same; absent if it asks for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    request_id: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    /// Whether it was delivered before.
    replayed: bool,
    /// Why nothing was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<&'static str>,
}

impl DeliveryView {
    fn nothing(why: &'static str) -> Json<DeliveryView> {
        Json(DeliveryView { request_id: None, status: None, replayed: false, ignored: Some(why) })
    }
}

/// Takes a delivery of GitHub.
#[utoipa::path(
    post,
    path = "/api/hooks/github",
    params(
        ("X-Hub-Signature-256" = String, Header, description = "`sha256=` and the HMAC-SHA256 of the body."),
        ("X-GitHub-Event" = String, Header, description = "`deployment_protection_rule` asks for a decision; anything else is ignored."),
    ),
    request_body(content = Object, content_type = "application/json", description = "The event, as GitHub sends it"),
    responses(
        (status = 200, description = "A request was made, or the delivery asks for nothing", body = DeliveryView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `bad_signature`; 403 `caller_not_allowed`, `policy_denied` or `requester_mismatch`; \
            404 `not_found`: GitHub is not configured; 408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`; \
            422 `too_large_to_review`; 429 `rate_limited` or `too_many_open`, with `Retry-After`"),
        (status = "5XX", description = "500 `internal`; 503 `policy_failure`, `overloaded`, `store_unavailable`, `store_full`, \
            `store_timeout` or `contended`, with `Retry-After`: deliver it again"),
    )
)]
pub(super) async fn github(
    State(app): State<Arc<App>>,
    calling: Calling,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DeliveryView>, ApiError> {
    let Some(gate) = &app.gates.github else { return Err(ApiError::NoSuch("path")) };
    let body = signed(&app, &calling, &gate.verifier, (&headers, "x-hub-signature-256"), body).await?;
    let event = text(&headers, "x-github-event").unwrap_or_default();
    let delivery = text(&headers, "x-github-delivery").unwrap_or_default();
    tracing::info!(system = "github", event, delivery, "delivery of a CI system");
    take(&app, GateSystem::Github, github::read(event, &body, gate.api.api())).await
}

/// Takes a delivery of GitLab.
#[utoipa::path(
    post,
    path = "/api/hooks/gitlab",
    params(("X-Gitlab-Signature" = String, Header, description = "The HMAC-SHA256 of the body.")),
    request_body(content = Object, content_type = "application/json", description = "The merge request, as GitLab sends it to an external status check"),
    responses(
        (status = 200, description = "A request was made, or the delivery asks for nothing", body = DeliveryView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `bad_signature`; 403 `caller_not_allowed`, `policy_denied` or `requester_mismatch`; \
            404 `not_found`: GitLab is not configured; 408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`; \
            422 `too_large_to_review`; 429 `rate_limited` or `too_many_open`, with `Retry-After`"),
        (status = "5XX", description = "500 `internal`; 503 `policy_failure`, `overloaded`, `store_unavailable`, `store_full`, \
            `store_timeout` or `contended`, with `Retry-After`: deliver it again"),
    )
)]
pub(super) async fn gitlab(
    State(app): State<Arc<App>>,
    calling: Calling,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DeliveryView>, ApiError> {
    let Some(gate) = &app.gates.gitlab else { return Err(ApiError::NoSuch("path")) };
    let body = signed(&app, &calling, &gate.verifier, (&headers, "x-gitlab-signature"), body).await?;
    tracing::info!(system = "gitlab", "delivery of a CI system");
    take(&app, GateSystem::Gitlab, gitlab::read(&body)).await
}

/// The body, once its signature was verified over the bytes that came.
async fn signed(
    app: &App,
    calling: &Calling,
    verifier: &Verifier,
    (headers, name): (&HeaderMap, &str),
    body: Body,
) -> Result<Value, ApiError> {
    let bytes = body::read(app, body, app.body_limit).await?;
    // Of two signatures another program may have looked at the other one.
    let once = headers.get_all(name).iter().count() == 1;
    if !once || !verifier.accepts(text(headers, name), &bytes) {
        tracing::warn!(header = name, "delivery rejected: it is not signed by the CI system");
        return Err(calling.unsigned(app));
    }
    Ok(JsonBody::of(headers, bytes).await?.0)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn take(
    app: &Arc<App>,
    system: GateSystem,
    read: Result<Read, Malformed>,
) -> Result<Json<DeliveryView>, ApiError> {
    match read.map_err(|Malformed { path, message }| Invalid::new(path, message))? {
        Read::Nothing(why) => Ok(DeliveryView::nothing(why)),
        Read::Over(gate) => over(app, &gate).await,
        Read::Asked(asked) => {
            let gate = asked.gate.clone();
            let made = ask(app, system, *asked).await;
            if let Err(error) = &made
                && error.is_final()
            {
                refused(app, gate, error.code()).await;
            }
            made
        }
    }
}

/// What a gate asks for is refused. What it asked for before is waited for no more: else an approval of that would let this go
/// on. A request about the very same is not older than the delivery, and is still to be decided, whatever keeps the gate from
/// asking once more.
async fn refused(app: &Arc<App>, gate: Gate, code: &'static str) {
    let same = gate.identity();
    let left = async {
        cancel_about(app, &gate, REFUSED, |other| other.identity() != same).await?;
        Ok::<_, ApiError>(reports::open_about(app, &gate).await?)
    };
    match left.await {
        // A report names both alike, so it would be taken for the decision about that one.
        Ok(Some(_)) => return,
        Ok(None) => {}
        Err(error) => tracing::warn!(code = error.code(), "what a gate asked for before stays open"),
    }
    // Nobody will decide, and without a word the CI system would wait for as long as it can.
    reports::refuse(app, gate, code);
}

async fn ask(app: &Arc<App>, system: GateSystem, asked: Asked) -> Result<Json<DeliveryView>, ApiError> {
    let Asked { gate, claims, params, origin, justification, links, display, owners, programs } = asked;
    let claims = Arc::new(claims);
    let identified = app.access.as_ref().and_then(|it| it.authenticator.delivered(system, &claims));
    let Some(identified) = identified else {
        caller_rights::reject(app, None, SecurityEvent::CallerNotAllowed);
        return Err(ApiError::NoGate);
    };
    let caller = &identified.caller;
    let rule = caller.gate.as_ref().ok_or(ApiError::NoGate)?;
    let known = Known::find(app, &gate, &caller.name, &rule.action).await?;
    match known.stands(&gate) {
        Stands::For(request) => return Ok(replayed(&request)),
        Stands::Told(request) => {
            // The CI system asks again about what is decided: it is told again. What was not told yet, is told by itself.
            reports::repeat(app, &request);
            return Ok(replayed(&request));
        }
        Stands::Outdated => {
            return Ok(DeliveryView::nothing("a newer attempt of the same was asked about"));
        }
        Stands::Not => {}
    }
    // What is known already asks nobody for anything.
    caller_rights::take_quota(app, caller).await?;
    let params = rule.params(&claims, &params).ok_or_else(|| {
        Invalid::new("params", "the delivery lacks what a parameter of the access file is made of")
    })?;
    let body = CreateBody::new(rule.action.clone(), params, origin, justification, links);
    let mut ask = create::ask(app, Some(&identified), body)?;
    ask.requester.display = display;
    ask.who.owners.extend(owners);
    // Nobody approves as a program, unless `people` says whose it is.
    let people = app.gateway.directory().people();
    ask.who.owners.extend(programs.into_iter().filter(|program| people.find(program).is_some()));
    ask.gate = Some(gate);
    let most_open = caller_rights::most_open(app, Some(caller));
    let made = app.gateway.create(ask, Some(known.next), most_open).await?;
    let Json(view) = replayed(&made.request);
    Ok(Json(DeliveryView { replayed: made.replayed, ..view }))
}

fn replayed(request: &Request) -> Json<DeliveryView> {
    Json(DeliveryView {
        request_id: Some(request.id),
        status: Some(request.status()),
        replayed: true,
        ignored: None,
    })
}

/// The requests that were made for deliveries of the same.
struct Known {
    /// The newest one, as people may have asked for it again.
    newest: Option<Arc<Request>>,
    /// The newest open request about what the gate's reports name, whatever it was made for.
    open: Option<Arc<Request>>,
    /// The key of one more.
    next: IdempotencyKey,
}

/// What stands for a delivery.
enum Stands {
    /// A request that is open.
    For(Arc<Request>),
    /// A request that is decided.
    Told(Arc<Request>),
    /// It is about what the CI system does not wait for any more.
    Outdated,
    /// Nothing.
    Not,
}

impl Known {
    /// A delivery counts once, by what it is about: all of that is signed, and the id of a delivery is not. Who asks, and by
    /// which action, is a part of it: another line of the access file asks other people.
    async fn find(app: &App, gate: &Gate, caller: &str, action: &str) -> Result<Known, ApiError> {
        let (store, now, identity) = (app.gateway.store(), app.gateway.clock().now(), gate.identity());
        let keys =
            (0..MOST_TIMES).map(|number| Digest::of_json(&json!(["gate", identity, caller, action, number])));
        let keys: Vec<Digest> = keys.collect();
        let mut looked = Vec::new();
        for key in &keys {
            looked.push(store.idempotent(key.shard(), key, now));
        }
        // All of them: one may be gone before those that were made after it.
        let (mut newest, mut free): (Option<Request>, Option<Digest>) = (None, None);
        for (key, found) in keys.iter().zip(join_all(looked).await) {
            let Some((_, request)) = found? else {
                free = free.or(Some(*key));
                continue;
            };
            let is_newer = |known: &Request| known.submission.submitted_at < request.submission.submitted_at;
            if newest.as_ref().is_none_or(is_newer) {
                newest = Some(request);
            }
        }
        let key = free.ok_or(GatewayError::Contended)?;
        let next = IdempotencyKey { key, fingerprint: key, earlier: [None, None] };
        let open = reports::open_about(app, gate).await?.map(Arc::new);
        if let Some(open) = open.as_ref().filter(|open| is_by(open, &identity, caller, action)) {
            return Ok(Known { newest: Some(Arc::clone(open)), open: Some(Arc::clone(open)), next });
        }
        let newest = match newest {
            Some(newest) => Some(store.newest_of_lineage(newest.submission.lineage).await?.unwrap_or(newest)),
            None => None,
        };
        Ok(Known { newest: newest.map(Arc::new), open, next })
    }

    /// Whether one of them stands for another delivery.
    fn stands(&self, gate: &Gate) -> Stands {
        let waits_for = self.open.as_ref().and_then(|open| open.submission.gate.as_ref());
        if waits_for.is_some_and(|other| is_newer(other, gate)) {
            return Stands::Outdated;
        }
        let Some(newest) = &self.newest else { return Stands::Not };
        if !newest.status().is_terminal() {
            return Stands::For(Arc::clone(newest));
        }
        let is_over = newest.superseded_by().is_some() || self.open.is_some();
        match gate {
            // Something newer was asked about since, and GitHub may deliver again what is older.
            Gate::Github(_) if is_over || is_cancelled(newest, REFUSED) => Stands::Outdated,
            // GitLab delivers how its merge request is now: it may be back to what it was.
            Gate::Gitlab(_) if is_over || is_cancelled(newest, CLOSED) || is_cancelled(newest, REFUSED) => {
                Stands::Not
            }
            Gate::Github(_) | Gate::Gitlab(_) => Stands::Told(Arc::clone(newest)),
        }
    }
}

/// Whether a request was made by this caller, with this action, for a delivery of what has this identity.
fn is_by(request: &Request, identity: &Digest, caller: &str, action: &str) -> bool {
    let submission = &request.submission;
    submission.gate.as_ref().is_some_and(|gate| gate.identity() == *identity)
        && submission.caller.as_deref() == Some(caller)
        && submission.action == action
}

/// What was asked about has ended: the requests about it are cancelled, if they are open.
async fn over(app: &App, gate: &Gate) -> Result<Json<DeliveryView>, ApiError> {
    let cancelled = cancel_about(app, gate, CLOSED, |_| true).await?;
    let nothing = || DeliveryView::nothing("what it is about has ended, and nothing is open for it");
    Ok(cancelled.map_or_else(nothing, |request| replayed(&request)))
}

/// Cancels the open requests about what a gate's reports name that `goes`, but newer ones; returns the last of them.
async fn cancel_about(
    app: &App,
    gate: &Gate,
    reason: &str,
    goes: impl Fn(&Gate) -> bool,
) -> Result<Option<Arc<Request>>, ApiError> {
    let store = app.gateway.store();
    let mut cancelled = None;
    for id in store.with_supersede_key(&gate.subject(), None).await? {
        let Some(open) = store.request(id).await? else { continue };
        if open.submission.gate.as_ref().is_some_and(|other| is_newer(other, gate) || !goes(other)) {
            continue;
        }
        match app.gateway.cancel(id, Some(reason.to_owned())).await {
            Ok(request) => cancelled = Some(request),
            // It has ended meanwhile.
            Err(GatewayError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(cancelled)
}

/// Whether a gate is known to wait for `other` since later than for `gate`. GitHub may deliver again what is older.
fn is_newer(other: &Gate, gate: &Gate) -> bool {
    matches!((other, gate), (Gate::Github(other), Gate::Github(gate)) if other.deployment > gate.deployment)
}

/// Whether a request was cancelled for this reason, which may not hold any more.
fn is_cancelled(request: &Request, why: &str) -> bool {
    matches!(&request.state, lifecycle::State::Cancelled { reason: Some(reason), .. } if reason == why)
}

#[cfg(test)]
mod tests {
    use countersign_core::lifecycle::{Deployment, State, StatusCheck};
    use countersign_store::fixtures;

    use super::*;

    fn github(deployment: u64) -> Gate {
        let (name, environment) = ("acme/web".to_owned(), "production".to_owned());
        Gate::Github(Deployment { installation: 1, repository: 2, name, run: 3, environment, deployment })
    }

    fn gitlab() -> Gate {
        let (sha, target) = ("0f".to_owned(), "main".to_owned());
        Gate::Gitlab(StatusCheck { project: 1, merge_request: 2, check: 3, sha, target })
    }

    fn request(gate: Gate, state: Option<State>) -> Option<Arc<Request>> {
        let mut request = fixtures::request(1);
        Arc::make_mut(&mut request.submission).gate = Some(gate);
        request.state = state.unwrap_or(request.state);
        Some(Arc::new(request))
    }

    #[test]
    fn what_stands_for_a_delivery() {
        let at = fixtures::at(5);
        let cancelled = |reason: &str| {
            Some(State::Cancelled { at, reason: Some(reason.to_owned()), successor: None, by: None })
        };
        let superseded =
            Some(State::Cancelled { at, reason: None, successor: Some(fixtures::id(9)), by: None });
        let denied = Some(fixtures::denied(at));
        for (gate, newest, open, expected) in [
            (gitlab(), None, None, "not"),
            (gitlab(), request(gitlab(), None), None, "for"),
            (gitlab(), request(gitlab(), denied.clone()), None, "told"),
            (gitlab(), request(gitlab(), denied.clone()), request(gitlab(), None), "not"),
            (gitlab(), request(gitlab(), superseded.clone()), None, "not"),
            (gitlab(), request(gitlab(), cancelled(CLOSED)), None, "not"),
            (gitlab(), request(gitlab(), cancelled(REFUSED)), None, "not"),
            (gitlab(), request(gitlab(), cancelled("by its caller")), None, "told"),
            (github(5), None, None, "not"),
            (github(5), None, request(github(4), None), "not"),
            (github(5), None, request(github(6), None), "outdated"),
            (github(5), request(github(5), denied.clone()), None, "told"),
            (github(5), request(github(5), denied), request(github(6), None), "outdated"),
            (github(5), request(github(5), superseded), None, "outdated"),
            // Only a newer attempt had it cancelled so.
            (github(5), request(github(5), cancelled(REFUSED)), None, "outdated"),
        ] {
            let key = Digest::of(b"");
            let next = IdempotencyKey { key, fingerprint: key, earlier: [None, None] };
            let known = Known { newest, open, next };
            let found = match known.stands(&gate) {
                Stands::For(_) => "for",
                Stands::Told(_) => "told",
                Stands::Outdated => "outdated",
                Stands::Not => "not",
            };
            assert_eq!(found, expected, "{gate:?} {:?} {:?}", known.newest, known.open);
        }
    }
}
