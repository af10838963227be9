//! `GET /api/guard/status` and `GET /api/guard/lineage`: what whoever knows an id may see.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::error::{ApiError, Problem};
use super::params::Params;
use super::view::StatusView;
use crate::app::App;
use countersign_core::lifecycle::RequestId;
use countersign_gateway::GatewayError;

/// Where a request stands, for those without its token.
#[utoipa::path(
    get,
    path = "/api/guard/status",
    params(("requestId" = String, Query, description = "The request.")),
    responses(
        (status = 200, description = "Where the request stands", body = StatusView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
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

/// All requests that were made again from one.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LineageView {
    #[schema(value_type = String)]
    lineage_id: RequestId,
    /// Oldest first.
    requests: Vec<StatusView>,
}

/// The chain of requests that one belongs to, oldest first.
#[utoipa::path(
    get,
    path = "/api/guard/lineage",
    params(("requestId" = String, Query, description = "Any request of the chain.")),
    responses(
        (status = 200, description = "The chain, oldest first", body = LineageView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
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
