//! `GET /api/guard/bundle`: what re-executes the decision about a request.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{self, HeaderName};

use super::caller::{Calling, Found, Wanted};
use super::error::{ApiError, Invalid};
use super::params::Params;
use crate::caller_rights;
use crate::state::App;

const JSON: (HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

/// What re-executes the decision about a request, for `countersign receipt replay`: the policy entry and its modules, the
/// submission and the events as they were recorded (docs/RECEIPTS.md). Hidden values are not in it.
///
/// The wait token is taken as `Authorization: Bearer` only. With an access file the caller that made the request has to
/// authenticate as well, as for `consume`.
#[utoipa::path(
    get,
    path = "/api/guard/bundle",
    responses(
        (status = 200, description = "The bundle, in canonical form (RFC 8785): a receipt covers each byte of it", body = Object),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `not_the_caller` or `proxied`; \
            404 `not_found`; 409 `not_decided`; 429 `rate_limited`, with `Retry-After`"),
        (status = "5XX", description = "500 `internal`; \
            503 `policy_failure`, `store_unavailable` or `store_timeout`, with `Retry-After`"),
    )
)]
pub(super) async fn bundle(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    if params.get("token")?.is_some() {
        let message = "is not taken from the query, which others may log; send it as `Authorization: Bearer`";
        return Err(Invalid::new("token", message).into());
    }
    let wanted = Wanted { token: None, id: None, reads: true };
    let Found { request, .. } = calling.request(&app, &params, wanted).await?;
    let identified = calling.identify(&app, &params).await?;
    if let Some(identified) = &identified {
        let owned = caller_rights::check_owner(&app, &identified.caller, &request);
        owned.map_err(countersign_gateway::GatewayError::from)?;
    }
    // It takes the store and the network more than other calls, so it counts as a create does.
    calling.check_quota(&app, identified.as_ref()).await?;
    Ok(([JSON], app.gateway.bundle(&request).await?))
}
