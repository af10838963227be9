//! `GET /api/guard/status` and `GET /api/guard/lineage`: what is public to everybody who knows a request id.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::RequestId;
use countersign_gateway::GatewayError;
use serde::Serialize;

use super::error::ApiError;
use super::openapi::STORE_ERRORS;
use super::params::Params;
use super::view::StatusView;
use crate::state::App;

/// The state of a request; needs no token.
#[utoipa::path(
    get,
    path = "/api/guard/status",
    params(("requestId" = String, Query, description = "The request.")),
    responses(
        (status = 200, description = "The state of the request", body = StatusView),
        (status = "4XX", description = "400 `invalid_payload`; 404 `not_found`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn status(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json<StatusView>, ApiError> {
    let id = params.request_id()?;
    let request = app.gateway.store().request(id).await?.ok_or(GatewayError::NotFound)?;
    Ok(Json(StatusView::of(&request)))
}

/// A request, and those that were made again from it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LineageView {
    #[schema(value_type = String)]
    lineage_id: RequestId,
    /// Oldest first.
    requests: Vec<StatusView>,
}

/// The lineage of a request, oldest first.
#[utoipa::path(
    get,
    path = "/api/guard/lineage",
    params(("requestId" = String, Query, description = "Any request of the lineage.")),
    responses(
        (status = 200, description = "The lineage, oldest first", body = LineageView),
        (status = "4XX", description = "400 `invalid_payload`; 404 `not_found`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn lineage(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json<LineageView>, ApiError> {
    let id = params.request_id()?;
    let store = app.gateway.store();
    let lineage_id = store.request(id).await?.ok_or(GatewayError::NotFound)?.submission.lineage;
    let requests = store.lineage(lineage_id).await?;
    Ok(Json(LineageView { lineage_id, requests: requests.iter().map(StatusView::of).collect() }))
}
