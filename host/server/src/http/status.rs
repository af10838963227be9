//! `GET /api/guard/status` and `GET /api/guard/lineage`: how a request and its lineage stand, for whoever may see it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::RequestId;
use serde::Serialize;

use super::caller::{Calling, Found, Wanted, salt_for};
use super::can_act::Outlook;
use super::end::SuccessorView;
use super::error::ApiError;
use super::openapi::STORE_ERRORS;
use super::params::Params;
use super::place::Audience;
use super::view::StatusView;
use crate::state::App;

/// The state of a request, and who can move it on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestView {
    #[serde(flatten)]
    status: StatusView,
    /// The salt of the payload hash, in hexadecimal; for the holder of the wait token alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_salt: Option<String>,
    #[serde(flatten)]
    outlook: Option<Outlook>,
    #[serde(flatten)]
    audience: Option<Audience>,
    /// The request that was made in its place, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<SuccessorView>,
}

/// The state of a request, for its caller, the holder of its token, and admins who may read. Without an access file its id is enough.
#[utoipa::path(
    get,
    path = "/api/guard/status",
    params(("requestId" = RequestId, Query, description = "The request.")),
    responses(
        (status = 200, description = "The state of the request", body = RequestView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `proxied` or `role_missing`; 404 `not_found`; 429 `rate_limited`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn status(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
) -> Result<Json<RequestView>, ApiError> {
    let Found { request, with_token } = request(&app, &calling, &params).await?;
    let outlook = Outlook::now(&app, &request).await;
    let payload_salt = salt_for(&app, &request, with_token);
    let audience = Audience::of(&app, &request).await;
    let successor = SuccessorView::of(&app, &request, with_token).await;
    let status = StatusView::of(&request, app.gateway.clock().now());
    Ok(Json(RequestView { status, payload_salt, outlook, audience, successor }))
}

/// A request, and those that were made again from it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LineageView {
    lineage_id: RequestId,
    /// Oldest first; at most 100.
    requests: Vec<StatusView>,
    /// If there are more: the `from` of a call that answers with the next ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
}

/// The most requests of a lineage in one answer.
const PAGE: usize = 100;

/// The lineage of a request, oldest first, in pages of 100 requests.
#[utoipa::path(
    get,
    path = "/api/guard/lineage",
    params(
        ("requestId" = RequestId, Query, description = "Any request of the lineage."),
        ("from" = Option<usize>, Query, description = "Which request of the lineage to begin with: 0, if it is left out, is the oldest."),
    ),
    responses(
        (status = 200, description = "The lineage, oldest first", body = LineageView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `proxied` or `role_missing`; 404 `not_found`; 429 `rate_limited`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn lineage(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
) -> Result<Json<LineageView>, ApiError> {
    let lineage_id = request(&app, &calling, &params).await?.request.submission.lineage;
    // No lineage is so long.
    let from = params.number("from")?.map_or(0, |from| u32::try_from(from).unwrap_or(u32::MAX));
    let requests = app.gateway.store().lineage(lineage_id, from, PAGE + 1).await?;
    let next = requests.get(PAGE).map(|request| request.submission.depth);
    let now = app.gateway.clock().now();
    let requests = requests.iter().take(PAGE).map(|request| StatusView::of(request, now)).collect();
    Ok(Json(LineageView { lineage_id, requests, next }))
}

/// The request that is asked about. Without an access file its id is enough.
async fn request(app: &App, calling: &Calling, params: &Params) -> Result<Found, ApiError> {
    let id = params.request_id()?;
    calling.request(app, params, Wanted { token: None, id: Some(id), reads: true }).await
}
