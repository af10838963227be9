//! `POST /api/guard/rerequest` and `POST /api/guard/cancel`: a request is made again, or taken back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::check::Check;
use super::error::{ApiError, Problem};
use super::params::{Params, request_id};
use super::ratelimit::Client;
use super::view::{WaitView, rfc3339_always};
use crate::app::App;
use countersign_core::lifecycle::{Party, RequestId, Status, Timestamp};

/// Which request to make again, and who wants that.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct RerequestBody {
    /// Any request of the lineage.
    original_request_id: String,
    /// Who wants it made again.
    actor: Party,
}

/// A request that was made again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RerequestView {
    /// What opens the new request for its caller. Keep it secret.
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
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`not_allowed` or `policy_denied`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`request_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`payload_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`cooldown` or `rate_limited`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`policy_failure`, `store_unavailable` or `contended`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rerequest(
    State(app): State<Arc<App>>,
    client: Client,
    body: JsonBody,
) -> Result<Json<RerequestView>, ApiError> {
    app.admit_client(client)?;
    let RerequestBody { original_request_id, actor } = body.typed()?;
    let original = request_id("originalRequestId", &original_request_id)?;
    let mut check = Check::default();
    check.party("actor", &actor);
    check.done()?;
    let receipt = app.gateway.rerequest(original, actor).await?;
    Ok(Json(RerequestView {
        token: receipt.token.reveal().to_owned(),
        request_id: receipt.request.id,
        lineage_id: receipt.request.submission.lineage,
        status: receipt.request.status(),
        expires_at: receipt.request.submission.expires_at,
    }))
}

/// Which request to take back, and why.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct CancelBody {
    /// The wait token, unless it comes as `Authorization: Bearer`.
    #[serde(default)]
    token: Option<String>,
    /// Why, for the approvers.
    #[serde(default)]
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// The caller takes its request back.
#[utoipa::path(
    post,
    path = "/api/guard/cancel",
    request_body = CancelBody,
    responses(
        (status = 200, description = "The request is cancelled", body = WaitView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`request_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`already_decided` or `expired`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`payload_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable` or `contended`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    params: Params,
    body: JsonBody,
) -> Result<Json<WaitView>, ApiError> {
    let CancelBody { token, reason } = body.typed()?;
    let token = params.token(token.as_deref())?;
    let mut check = Check::default();
    if let Some(reason) = &reason {
        check.words("reason", reason, 1, 1000);
    }
    check.done()?;
    let request = app.gateway.cancel(token, reason).await?;
    Ok(Json(WaitView::of(&request)))
}
