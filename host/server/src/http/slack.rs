//! `POST /api/slack/interactions`: people act.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::Value;

use super::body;
use super::error::{ApiError, Problem};
use crate::app::App;
use crate::slack_press;
use crate::telemetry::SecurityEvent;
use countersign_slack::{SignatureError, Signed, Verifier};

/// Takes what a person did in Slack.
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
            for a modal also `response_action`; an empty object where it takes longer than two seconds, and is done afterwards", body = Object),
        (status = 400, description = "`bad_signature`, `stale_signature` or `replay_detected`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: the gateway has no signing secret", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`request_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`payload_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`: whether it is a replay cannot be told", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn interactions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let Some(verifier) = &app.slack else { return Err(ApiError::NoSuch("path")) };
    let form = body::read(body, app.body_limit).await?;
    let signed = verify(&app, verifier, &headers, &form)?;
    let answer = slack_press::take(&app, countersign_slack::parse_form(&form), Some(signed)).await?;
    Ok(Json(Value::Object(answer)))
}

/// Signature first, then skew; whether it is a replay, the store knows.
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
        tracing::warn!(code = error.code(), "a Slack interaction was turned away");
        error.into()
    })
}
