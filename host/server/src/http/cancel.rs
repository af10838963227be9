//! `POST /api/guard/cancel`: a caller cancels its request.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::RequestId;
use serde::Deserialize;

use super::body::JsonBody;
use super::caller::{Calling, Found, Wanted, salt_for};
use super::check::Check;
use super::end::End;
use super::error::ApiError;
use super::params::{Params, request_id};
use super::view::WaitView;
use crate::state::App;

/// Which request to cancel, and why.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct CancelBody {
    /// The wait token, unless it comes as `Authorization: Bearer`.
    #[serde(default)]
    token: Option<String>,
    /// The request, for its caller; not needed with a wait token.
    #[serde(default)]
    #[schema(value_type = Option<RequestId>)]
    request_id: Option<String>,
    /// Why, for the approvers to read.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 1000,
        pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
    )]
    reason: Option<String>,
}

/// Cancels a request.
#[utoipa::path(
    post,
    path = "/api/guard/cancel",
    request_body = CancelBody,
    responses(
        (status = 200, description = "The request is cancelled", body = WaitView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `proxied`; \
            404 `not_found`; 408 `request_timeout`; 409 `already_decided` or `expired`; 413 `payload_too_large`; 415 `unsupported_media_type`; 429 `rate_limited`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
    body: JsonBody,
) -> Result<Json<WaitView>, ApiError> {
    let CancelBody { token, request_id: id, reason } = body.typed()?;
    let id = id.map(|id| request_id("requestId", &id)).transpose()?;
    let mut check = Check::default();
    if let Some(reason) = &reason {
        check.text("reason", reason, 1, 1000);
    }
    check.finish()?;
    let wanted = Wanted { token: token.as_deref(), id, reads: false };
    let Found { request, with_token } = calling.request(&app, &params, wanted).await?;
    let request = app.gateway.cancel(request.id, reason).await?;
    let view = WaitView::of(&request, salt_for(&app, &request, with_token), app.gateway.clock().now());
    Ok(Json(view.with_end(End::of(&app, &request, with_token).await)))
}
