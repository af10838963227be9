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
                // What it asked for before is waited for no more: else an approval of that would let this go on.
                if let Err(error) = cancel_about(app, &gate, REFUSED).await {
                    tracing::warn!(code = error.code(), "what a gate asked for before stays open");
                }
                // Nobody will decide, and without a word the CI system would wait for as long as it can.
                reports::refuse(app, gate, error.code());
            }
            made
        }
    }
}

async fn ask(app: &Arc<App>, system: GateSystem, asked: Asked) -> Result<Json<DeliveryView>, ApiError> {
    let Asked { gate, claims, params, origin, justification, links, display, owners } = asked;
    let claims = Arc::new(claims);
    let identified = app.access.as_ref().and_then(|it| it.authenticator.delivered(system, &claims));
    let Some(identified) = identified else {
        caller_rights::reject(app, None, SecurityEvent::CallerNotAllowed);
        return Err(ApiError::NoGate);
    };
    let caller = &identified.caller;
    let rule = caller.gate.as_ref().ok_or(ApiError::NoGate)?;
    caller_rights::take_quota(app, caller).await?;
    let known = Known::find(app, &gate, &caller.name, &rule.action).await?;
    match known.stands(app, &gate).await? {
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
    let params = rule.params(&claims, &params).ok_or_else(|| {
        Invalid::new("params", "the delivery lacks what a parameter of the access file is made of")
    })?;
    let body = CreateBody::new(rule.action.clone(), params, origin, justification, links);
    let mut ask = create::ask(app, Some(&identified), body)?;
    ask.requester.display = display;
    ask.who.owners.extend(owners);
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
        let (store, now) = (app.gateway.store(), app.gateway.clock().now());
        let mut newest: Option<Request> = None;
        for number in 0..MOST_TIMES {
            let key = Digest::of_json(&json!(["gate", gate.identity(), caller, action, number]));
            let next = IdempotencyKey { key, fingerprint: key, earlier: [None, None] };
            let Some((_, request)) = store.idempotent(key.shard(), &key, now).await? else {
                let newest = match newest {
                    Some(newest) => Some(Arc::new(
                        store.newest_of_lineage(newest.submission.lineage).await?.unwrap_or(newest),
                    )),
                    None => None,
                };
                return Ok(Known { newest, next });
            };
            let is_newer = |known: &Request| known.submission.submitted_at < request.submission.submitted_at;
            if newest.as_ref().is_none_or(is_newer) {
                newest = Some(request);
            }
        }
        Err(GatewayError::Contended.into())
    }

    /// Whether one of them stands for another delivery.
    async fn stands(&self, app: &App, gate: &Gate) -> Result<Stands, ApiError> {
        let Some(newest) = &self.newest else { return Ok(Stands::Not) };
        if !newest.status().is_terminal() {
            return Ok(Stands::For(Arc::clone(newest)));
        }
        // GitLab delivers how its merge request is now, whereas GitHub may deliver again what was superseded since.
        let is_over = newest.superseded_by().is_some() || reports::open_about(app, gate).await?.is_some();
        Ok(match gate {
            Gate::Github(_) if is_over => Stands::Outdated,
            Gate::Gitlab(_) if is_over || is_closed(newest) => Stands::Not,
            Gate::Github(_) | Gate::Gitlab(_) => Stands::Told(Arc::clone(newest)),
        })
    }
}

/// What was asked about has ended: the requests about it are cancelled, if they are open.
async fn over(app: &App, gate: &Gate) -> Result<Json<DeliveryView>, ApiError> {
    let cancelled = cancel_about(app, gate, CLOSED).await?;
    let nothing = || DeliveryView::nothing("what it is about has ended, and nothing is open for it");
    Ok(cancelled.map_or_else(nothing, |request| replayed(&request)))
}

/// Cancels the open requests about what a gate's reports name, but newer ones; returns the last of them.
async fn cancel_about(app: &App, gate: &Gate, reason: &str) -> Result<Option<Arc<Request>>, ApiError> {
    let store = app.gateway.store();
    let mut cancelled = None;
    for id in store.with_supersede_key(&gate.subject(), None).await? {
        let Some(open) = store.request(id).await? else { continue };
        if open.submission.gate.as_ref().is_some_and(|other| is_newer(other, gate)) {
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

/// Whether a request was cancelled since what it was about had ended. That may have begun again.
fn is_closed(request: &Request) -> bool {
    matches!(&request.state, lifecycle::State::Cancelled { reason: Some(reason), .. } if reason == CLOSED)
}
