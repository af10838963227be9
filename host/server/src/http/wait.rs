//! `/api/guard/wait`: a caller polls for the decision.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::{Request, RequestId};
use countersign_gateway::{GatewayError, Seen};
use serde::Deserialize;

use super::body::JsonBody;
use super::caller::{Calling, Found, Wanted, salt_for};
use super::end::End;
use super::error::{ApiError, Invalid};
use super::openapi::STORE_ERRORS;
use super::params::Params;
use super::view::WaitView;
use crate::state::App;

/// How long a call waits by default, in seconds.
const DEFAULT_SEC: f64 = 2.5;

/// The longest that a call may wait, in seconds.
const MAX_SEC: f64 = 60.0;

/// The wait token, outside of the URL.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct WaitBody {
    /// The wait token, unless it comes as `Authorization: Bearer`.
    #[serde(default)]
    token: Option<String>,
}

/// Waits until the request changes or the timeout is over.
#[utoipa::path(
    get,
    path = "/api/guard/wait",
    params(
        ("token" = Option<String>, Query, description = "The wait token, unless it comes as `Authorization: Bearer`."),
        ("requestId" = Option<RequestId>, Query, description = "The request, for its caller; not needed with a wait token."),
        ("timeoutSec" = Option<f64>, Query, minimum = 0, maximum = 60, description = "How long to wait, in seconds: 0 to 60, 2.5 by default."),
    ),
    responses(
        (status = 200, description = "The state of the request: at once if it is terminal, else at its next change or after the timeout", body = WaitView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `proxied`; 404 `not_found`; 429 `rate_limited`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn long_poll(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
) -> Result<Json<WaitView>, ApiError> {
    let timeout = timeout(params.get("timeoutSec")?)?;
    let Found { request, with_token } = calling.request(&app, &params, wanted(&params, None)?).await?;
    let id = request.id;
    // Watch before reading, so that no change is missed between the two.
    let mut watch = app.gateway.watchers().watch(id);
    let request = app.gateway.request(id).await?;
    watch.read(request.version);
    if request.status().is_terminal() {
        return Ok(view(&app, &request, with_token).await);
    }
    let newer = async {
        loop {
            match watch.next().await {
                Seen::Version(newer) if newer.version > request.version => return Ok(newer),
                Seen::Version(_) => {}
                // What cannot be read now is read before the answer.
                Seen::Lagged => match app.gateway.request(id).await {
                    Err(GatewayError::Store(error)) => {
                        tracing::debug!(%error, "cannot look for what was missed")
                    }
                    read => return read,
                },
            }
        }
    };
    tokio::select! {
        newer = newer => return Ok(view(&app, &*newer?, with_token).await),
        () = tokio::time::sleep(timeout) => {}
        () = app.shutdown.cancelled() => {}
    }
    // Nobody tells this call of what another process stored, nor of a write that was stored although the store answered with
    // an error.
    Ok(view(&app, &*app.gateway.request(id).await?, with_token).await)
}

/// Returns the state of the request at once, and keeps the token out of the URL.
#[utoipa::path(
    post,
    path = "/api/guard/wait",
    request_body = WaitBody,
    responses(
        (status = 200, description = "The state of the request", body = WaitView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `proxied`; \
            404 `not_found`; 408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`; 429 `rate_limited`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn poll(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
    body: JsonBody,
) -> Result<Json<WaitView>, ApiError> {
    let body: WaitBody = body.typed()?;
    let wanted = wanted(&params, body.token.as_deref())?;
    let Found { request, with_token } = calling.request(&app, &params, wanted).await?;
    Ok(view(&app, &request, with_token).await)
}

/// The request that somebody waits for: by its token, or by its id for its caller.
pub(super) fn wanted<'a>(params: &Params, token: Option<&'a str>) -> Result<Wanted<'a>, ApiError> {
    Ok(Wanted { token, id: params.optional_request_id()?, reads: false })
}

async fn view(app: &App, request: &Request, with_token: bool) -> Json<WaitView> {
    let view = WaitView::of(request, salt_for(app, request, with_token), app.gateway.clock().now());
    Json(view.with_end(End::of(app, request, with_token).await))
}

fn timeout(text: Option<&str>) -> Result<Duration, ApiError> {
    let seconds = text.map_or(Ok(DEFAULT_SEC), str::parse);
    match seconds {
        Ok(seconds) if (0.0..=MAX_SEC).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(Invalid::new("timeoutSec", format!("must be a number from 0 to {MAX_SEC}")).into()),
    }
}
