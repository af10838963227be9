//! `/api/guard/wait`: a caller waits for the decision by asking again and again.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::body::JsonBody;
use super::error::{ApiError, Invalid, Problem};
use super::params::Params;
use super::view::WaitView;
use crate::app::App;
use countersign_core::lifecycle::Request;
use countersign_gateway::{GatewayError, Seen, Tokens};

/// How long a caller waits that does not say, in seconds.
const DEFAULT_SEC: f64 = 2.5;

/// The longest that a caller may wait, in seconds.
const MOST_SEC: f64 = 60.0;

/// A token, out of the address.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct WaitBody {
    /// The wait token, unless it comes as `Authorization: Bearer`.
    #[serde(default)]
    token: Option<String>,
}

/// Waits until the request changes or the time is over.
#[utoipa::path(
    get,
    path = "/api/guard/wait",
    params(
        ("token" = Option<String>, Query, description = "The wait token, unless it comes as `Authorization: Bearer`."),
        ("timeoutSec" = Option<f64>, Query, description = "How long to wait, in seconds: 0 to 60, 2.5 where it is not given."),
    ),
    responses(
        (status = 200, description = "Where the request stands: at once when it is terminal, else at its next change or when the time is over", body = WaitView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn long_poll(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Json<WaitView>, ApiError> {
    let token = params.token(None)?;
    let timeout = timeout(params.get("timeoutSec")?)?;
    let id = Tokens::names(token).ok_or(GatewayError::NotFound)?;
    // Watch first and read after, so that no change falls between the two.
    let mut watch = app.gateway.watchers().watch(id);
    let request = app.gateway.opened_by(token).await?;
    watch.read(request.version);
    if request.status().is_terminal() {
        return Ok(view(&request));
    }
    let newer = async {
        loop {
            match watch.next().await {
                Seen::Version(newer) if newer.version > request.version => return Ok(newer),
                Seen::Version(_) => {}
                Seen::Lagged => return app.gateway.opened_by(token).await,
            }
        }
    };
    tokio::select! {
        newer = newer => Ok(view(&*newer?)),
        () = tokio::time::sleep(timeout) => Ok(view(&request)),
        () = app.shutdown.cancelled() => Ok(view(&request)),
    }
}

/// Where the request stands, at once; the token stays out of the address.
#[utoipa::path(
    post,
    path = "/api/guard/wait",
    request_body = WaitBody,
    responses(
        (status = 200, description = "Where the request stands", body = WaitView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`request_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`payload_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn poll(
    State(app): State<Arc<App>>,
    params: Params,
    body: JsonBody,
) -> Result<Json<WaitView>, ApiError> {
    let body: WaitBody = body.typed()?;
    let token = params.token(body.token.as_deref())?;
    Ok(view(&*app.gateway.opened_by(token).await?))
}

fn view(request: &Request) -> Json<WaitView> {
    Json(WaitView::of(request))
}

fn timeout(text: Option<&str>) -> Result<Duration, ApiError> {
    let seconds = text.map_or(Ok(DEFAULT_SEC), str::parse);
    match seconds {
        Ok(seconds) if (0.0..=MOST_SEC).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(Invalid::new("timeoutSec", format!("must be a number from 0 to {MOST_SEC}")).into()),
    }
}
