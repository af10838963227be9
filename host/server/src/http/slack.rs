//! `POST /api/slack/interactions`: interactions that Slack sends over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use countersign_slack::{SignatureError, Signed, Verifier};
use serde_json::Value;

use super::body;
use super::error::ApiError;
use crate::interactions;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// Handles an interaction from Slack.
#[utoipa::path(
    post,
    path = "/api/slack/interactions",
    params(
        ("X-Slack-Request-Timestamp" = String, Header, description = "When Slack signed the request, in seconds since the epoch."),
        ("X-Slack-Signature" = String, Header, description = "`v0=` and the HMAC-SHA256 of `v0:timestamp:body`."),
    ),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "`payload`, as Slack sends it"),
    responses(
        (status = 200, description = "Whatever Slack signed: `{ok: true, status, …}`, or `{ok: false, error, message, reasons}`; \
            for a modal also `response_action`; an empty object if it takes longer than two seconds, and is done afterwards", body = Object),
        (status = "4XX", description = "400 `bad_signature`, `stale_signature` or `replay_detected`; \
            404 `not_found`: the gateway has no signing secret; 408 `request_timeout`; \
            413 `payload_too_large`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout`, with `Retry-After`: it is unknown whether this is a replay"),
    )
)]
pub(super) async fn interactions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let Some(verifier) = &app.slack_verifier else { return Err(ApiError::NoSuch("path")) };
    let form = body::read(&app, body, app.body_limit).await?;
    let signed = verify(&app, verifier, &headers, &form)?;
    let answer = interactions::handle_signed(&app, countersign_slack::parse_form(&form), signed).await?;
    Ok(Json(Value::Object(answer)))
}

/// Checks the signature, then the time of signing. Whether it is a replay is checked later, in the store.
fn verify(app: &App, verifier: &Verifier, headers: &HeaderMap, form: &[u8]) -> Result<Signed, ApiError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let now = app.gateway.clock().now();
    let timestamp = header("x-slack-request-timestamp");
    verifier.check(timestamp, header("x-slack-signature"), form, now).map_err(|error| {
        app.metrics.count(match error {
            SignatureError::Bad => SecurityEvent::BadSignature,
            SignatureError::Stale => SecurityEvent::StaleSignature,
            SignatureError::Replay => SecurityEvent::Replay,
        });
        tracing::warn!(code = error.code(), "Slack interaction rejected");
        error.into()
    })
}
