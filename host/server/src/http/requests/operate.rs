//! Ends a request, or has its messages delivered again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use countersign_core::lifecycle::{AdminEnd, Ending, RequestId};
use serde::Deserialize;

use super::detail::DetailView;
use crate::http::admin::Admin;
use crate::http::body::JsonBody;
use crate::http::check::Check;
use crate::http::error::ApiError;
use crate::http::params::request_id;
use crate::state::App;

/// Why an admin ends a request.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(in crate::http) struct EndBody {
    /// Why, for people, the caller and the audit log.
    #[schema(
        min_length = 3,
        max_length = 1000,
        pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
    )]
    reason: String,
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    actor: Option<String>,
}

/// Who has something delivered again.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(in crate::http) struct ResendBody {
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub(in crate::http) actor: Option<String>,
}

/// Cancels an open request, as its caller could.
#[utoipa::path(
    post,
    path = "/api/admin/requests/{id}/cancel",
    params(("id" = RequestId, Path, description = "The request.")),
    request_body = EndBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "The request is cancelled", body = DetailView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`: it needs `operate`; \
            404 `not_found`: no such request, or the gateway has no admins; 408 `request_timeout`; 409 `already_decided`; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(in crate::http) async fn cancel(
    app: State<Arc<App>>,
    admin: Admin,
    id: Path<String>,
    body: JsonBody,
) -> Result<Json<DetailView>, ApiError> {
    end(app, admin, id, body, Ending::Cancelled).await
}

/// Has an open request expire now, as if nobody had decided in time.
#[utoipa::path(
    post,
    path = "/api/admin/requests/{id}/expire",
    params(("id" = RequestId, Path, description = "The request.")),
    request_body = EndBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "The request has expired", body = DetailView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`: it needs `operate`; \
            404 `not_found`: no such request, or the gateway has no admins; 408 `request_timeout`; 409 `already_decided`; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(in crate::http) async fn expire(
    app: State<Arc<App>>,
    admin: Admin,
    id: Path<String>,
    body: JsonBody,
) -> Result<Json<DetailView>, ApiError> {
    end(app, admin, id, body, Ending::Expired).await
}

async fn end(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(id): Path<String>,
    body: JsonBody,
    ending: Ending,
) -> Result<Json<DetailView>, ApiError> {
    let id = request_id("id", &id)?;
    let EndBody { reason, actor } = body.typed()?;
    let mut check = Check::default();
    check.text("reason", &reason, 3, 1000);
    check.finish()?;
    let by = admin.acting(actor)?;
    let request = app.gateway.end(id, AdminEnd { ending, by, reason: Some(reason) }).await?;
    Ok(Json(DetailView::of(&app, &request).await?))
}

/// Has the messages of an open request delivered again, now. It never leads to a second message.
#[utoipa::path(
    post,
    path = "/api/admin/requests/{id}/resend",
    params(("id" = RequestId, Path, description = "The request.")),
    request_body = ResendBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "Its messages are delivered again", body = DetailView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`: it needs `operate`; \
            404 `not_found`: no such request, or the gateway has no admins; 408 `request_timeout`; \
            409 `already_decided`, or `not_deliverable`: nobody is told of its action, or Slack is not configured; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(in crate::http) async fn resend(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<DetailView>, ApiError> {
    let id = request_id("id", &id)?;
    let ResendBody { actor } = body.typed()?;
    let by = admin.acting(actor)?;
    let request = app.gateway.request(id).await?;
    if !request.status().is_terminal() {
        let entry = app.gateway.entry_of(&request).await?;
        if entry.channel.is_none() {
            return Err(ApiError::NotDeliverable("the action of this request has no channel"));
        }
        if app.outgoing.is_none() {
            return Err(ApiError::NotDeliverable("this gateway has no token for Slack"));
        }
    }
    let request = app.gateway.show_again(id, &by).await?;
    Ok(Json(DetailView::of(&app, &request).await?))
}
