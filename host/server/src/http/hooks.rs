//! `POST /api/hooks/github` and `/api/hooks/gitlab`: what the gates of CI systems ask. Each call is signed; what it asks for,
//! and as whom, the access file says.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use countersign_access::GateSystem;
use countersign_core::lifecycle::{Digest, RequestId, Status};
use countersign_gates::{Asked, Malformed, Read, Verifier, github, gitlab};
use countersign_gateway::IdempotencyKey;
use serde::Serialize;
use serde_json::Value;

use super::body::{self, JsonBody};
use super::caller::Calling;
use super::create::{self, CreateBody};
use super::error::{ApiError, Invalid};
use crate::caller_rights;
use crate::reports;
use crate::state::App;
use crate::telemetry::SecurityEvent;

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
        Read::Over(identity) => over(app, identity).await,
        Read::Asked(asked) => {
            let gate = asked.gate.clone();
            let made = ask(app, system, *asked).await;
            if let Err(error) = &made
                && error.is_final()
            {
                // Nobody will decide, and without a word the CI system would wait for as long as it can.
                reports::refuse(app, gate, error.code());
            }
            made
        }
    }
}

async fn ask(app: &Arc<App>, system: GateSystem, asked: Asked) -> Result<Json<DeliveryView>, ApiError> {
    let Asked { identity, gate, claims, params, origin, justification, links, display, owners } = asked;
    let claims = Arc::new(claims);
    let identified = app.access.as_ref().and_then(|it| it.authenticator.delivered(system, &claims));
    let Some(identified) = identified else {
        caller_rights::reject(app, None, SecurityEvent::CallerNotAllowed);
        return Err(ApiError::NoGate);
    };
    let caller = &identified.caller;
    let rule = caller.gate.as_ref().ok_or(ApiError::NoGate)?;
    caller_rights::take_quota(app, caller).await?;
    let params = rule.params(&claims, &params).ok_or_else(|| {
        Invalid::new("params", "the delivery lacks what a parameter of the access file is made of")
    })?;
    let body = CreateBody::new(rule.action.clone(), params, origin, justification, links);
    let mut ask = create::ask(app, Some(&identified), body)?;
    ask.requester.display = display;
    ask.who.owners.extend(owners);
    ask.gate = Some(gate.clone());
    let most_open = caller_rights::most_open(app, Some(caller));
    let made = app.gateway.create(ask, Some(key(identity)), most_open).await?;
    if made.replayed && made.request.status().is_terminal() {
        // The CI system asks again about what is decided: it is told again. What was not told yet, is told by itself.
        reports::repeat(app, &made.request);
    }
    Ok(Json(DeliveryView {
        request_id: Some(made.request.id),
        status: Some(made.request.status()),
        replayed: made.replayed,
        ignored: None,
    }))
}

/// What was asked about has ended: its request is cancelled, if it is open.
async fn over(app: &App, identity: Digest) -> Result<Json<DeliveryView>, ApiError> {
    let key = key(identity).key;
    let known = app.gateway.store().idempotent(key.shard(), &key, app.gateway.clock().now()).await?;
    let Some((_, request)) = known.filter(|(_, request)| !request.status().is_terminal()) else {
        return Ok(DeliveryView::nothing("what it is about has ended, and nothing is open for it"));
    };
    let request =
        app.gateway.cancel(request.id, Some("the merge request is closed or merged".to_owned())).await?;
    let (request_id, status) = (Some(request.id), Some(request.status()));
    Ok(Json(DeliveryView { request_id, status, replayed: true, ignored: None }))
}

/// A delivery counts once, by what it is about: all of that is signed, and the id of a delivery is not.
fn key(identity: Digest) -> IdempotencyKey {
    let key = Digest::of(&[b"gate\0", identity.as_bytes().as_slice()].concat());
    IdempotencyKey { key, fingerprint: identity, earlier: [None, None] }
}
