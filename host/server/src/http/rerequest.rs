//! `POST /api/guard/rerequest`: an expired or denied request is made again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::{Party, RequestId, Status, Timestamp};
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::check::Check;
use super::client::check_rate;
use super::error::ApiError;
use super::params::request_id;
use super::view::rfc3339_always;
use crate::rate_limit::Client;
use crate::state::App;

/// Which request to make again, and for whom.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct RerequestBody {
    /// Any request of the lineage.
    original_request_id: String,
    /// Who makes it again.
    actor: Party,
}

/// A request that was made again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RerequestView {
    /// The wait token of the new request. Keep it secret.
    token: String,
    #[schema(value_type = String)]
    request_id: RequestId,
    #[schema(value_type = String)]
    lineage_id: RequestId,
    status: Status,
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Makes an expired or denied request again, in the same lineage.
#[utoipa::path(
    post,
    path = "/api/guard/rerequest",
    request_body = RerequestBody,
    responses(
        (status = 200, description = "The request was made again", body = RerequestView),
        (status = "4XX", description = "400 `invalid_payload`; 403 `not_allowed` or `policy_denied`; \
            404 `not_found`; 408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`; \
            429 `cooldown` or `rate_limited`, with `Retry-After`"),
        (status = "5XX", description = "500 `internal`; \
            503 `policy_failure`, `store_unavailable` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn rerequest(
    State(app): State<Arc<App>>,
    client: Client,
    body: JsonBody,
) -> Result<Json<RerequestView>, ApiError> {
    check_rate(&app, client)?;
    let RerequestBody { original_request_id, actor } = body.typed()?;
    let original = request_id("originalRequestId", &original_request_id)?;
    let mut check = Check::default();
    check.party("actor", &actor);
    check.finish()?;
    let receipt = app.gateway.rerequest(original, actor).await?;
    Ok(Json(RerequestView {
        token: receipt.token.reveal().to_owned(),
        request_id: receipt.request.id,
        lineage_id: receipt.request.submission.lineage,
        status: receipt.request.status(),
        expires_at: receipt.request.submission.expires_at,
    }))
}
