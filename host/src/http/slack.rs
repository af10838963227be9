//! `POST /api/slack/interactions`: people act.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use super::body;
use super::error::{ApiError, Problem};
use super::json;
use crate::app::App;
use crate::gateway::{GatewayError, Intent};
use crate::lifecycle::{Party, Refusal, Request, RequestId};
use crate::slack::{self, ANSWER_BLOCK, Interaction, SignatureError, Verifier, What};
use crate::telemetry::SecurityEvent;

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
            for a modal also `response_action`", body = Object),
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
    authenticate(&app, verifier, &headers, &form).await?;
    let answer = match slack::parse(&form) {
        Ok(interaction) => act(&app, interaction).await,
        Err(unreadable) => {
            tracing::warn!(code = unreadable.code(), "a Slack interaction was not understood");
            refusal(unreadable.code(), &unreadable.to_string())
        }
    };
    Ok(Json(Value::Object(answer)))
}

/// Signature first, then skew, then replay.
async fn authenticate(
    app: &App,
    verifier: &Verifier,
    headers: &HeaderMap,
    form: &[u8],
) -> Result<(), ApiError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let now = app.gateway.clock().now();
    let timestamp = header("x-slack-request-timestamp");
    let checked = match verifier.check(timestamp, header("x-slack-signature"), form, now) {
        Ok(signed) => {
            let first = app.gateway.store().claim_nonce(signed.nonce, now, signed.remember_until).await?;
            if first { Ok(()) } else { Err(SignatureError::Replay) }
        }
        Err(error) => Err(error),
    };
    checked.map_err(|error| {
        app.metrics.count(match error {
            SignatureError::Bad => SecurityEvent::BadSignature,
            SignatureError::Stale => SecurityEvent::StaleSignature,
            SignatureError::Replay => SecurityEvent::Replay,
        });
        tracing::warn!(code = error.code(), "a Slack interaction was turned away");
        error.into()
    })
}

/// Does what the person did, and says what became of it.
async fn act(app: &App, interaction: Interaction) -> Map<String, Value> {
    let Interaction { user, request, what } = interaction;
    let blocks = what.modal_blocks();
    let done = match what {
        What::Approve => act_on(app, request, &user, Intent::Approve { edits: BTreeMap::new() }).await,
        What::Deny(reason) | What::DenyBecause(reason) => {
            act_on(app, request, &user, Intent::Deny { reason }).await
        }
        What::Acknowledge(persona) => act_on(app, request, &user, Intent::Acknowledge { persona }).await,
        What::Withdraw => act_on(app, request, &user, Intent::Withdraw).await,
        What::Overrides(inputs) => match edits(app, request, inputs).await {
            Ok(edits) => act_on(app, request, &user, Intent::Approve { edits }).await,
            Err(error) => Err(error),
        },
        What::Rerequest => {
            let actor = Party { id: user, source: "slack".into(), display: None };
            app.gateway.rerequest(request, actor).await.map(|receipt| success(&receipt.request))
        }
        What::ApproveEdit => {
            return refusal("not_implemented", "this build cannot open a modal in Slack yet");
        }
    };
    match (done, blocks) {
        (Ok(answer), None) => answer,
        (Ok(mut answer), Some(_)) => {
            answer.insert("response_action".into(), "clear".into());
            answer
        }
        (Err(error), blocks) => refused(app, error, blocks),
    }
}

async fn act_on(
    app: &App,
    request: RequestId,
    user: &str,
    intent: Intent,
) -> Result<Map<String, Value>, GatewayError> {
    app.gateway.act(request, user, &intent).await.map(|request| success(&request))
}

/// What the texts of the modal mean. An input that was left empty, or as it was, changes nothing.
async fn edits(
    app: &App,
    id: RequestId,
    inputs: BTreeMap<String, Option<String>>,
) -> Result<BTreeMap<String, Option<Value>>, GatewayError> {
    let request = app.gateway.store().request(id).await?.ok_or(GatewayError::NotFound)?;
    let rules = app.gateway.rules_of(request.submission.policy_hash).await?;
    let params = request.params();
    let edits = inputs.into_iter().filter_map(|(key, text)| {
        let (current, text) = (params.get(&key), text?);
        let kind = rules.schema().and_then(|schema| schema.get("properties")?.get(&key)?.get("type"));
        let is_text = match (kind, current) {
            (Some(kind), _) => kind == "string",
            (None, Some(current)) => current.is_string(),
            (None, None) => false,
        };
        // What is not JSON is kept as a text, for the schema and the policies to judge.
        let value = match json::parse(text.as_bytes()) {
            Ok(value) if !is_text => value,
            _ => Value::String(text),
        };
        Some((key, Some(value)))
    });
    Ok(edits.collect())
}

fn success(request: &Request) -> Map<String, Value> {
    let answer = json!({
        "ok": true,
        "requestId": request.id,
        "status": request.status(),
        "approvers": request.approvers(),
    });
    object(answer)
}

fn refusal(code: &str, message: &str) -> Map<String, Value> {
    object(json!({"ok": false, "error": code, "message": message, "reasons": []}))
}

fn refused(app: &App, error: GatewayError, blocks: Option<Vec<String>>) -> Map<String, Value> {
    if matches!(error, GatewayError::Refused(Refusal::Unauthorized(_))) {
        app.metrics.count(SecurityEvent::Unauthorized);
    }
    let keys = match &error {
        GatewayError::Refused(Refusal::NotEditable(keys)) => keys.clone(),
        _ => Vec::new(),
    };
    let error = ApiError::from(error);
    error.log();
    let reasons = error.reasons();
    let mut answer = refusal(error.code(), &error.detail());
    answer.insert("reasons".into(), json!(reasons));
    let Some(blocks) = blocks else { return answer };

    // An error can only be shown on a block of the modal: on its parameter's, else on the first.
    let block_of = |key: &str| Some(format!("{ANSWER_BLOCK}{key}")).filter(|block| blocks.contains(block));
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for reason in &reasons {
        let block = reason.path.as_deref().and_then(block_of).or_else(|| blocks.first().cloned());
        let Some(block) = block else { continue };
        let said = errors.entry(block).or_default();
        let separator = if said.is_empty() { "" } else { "; " };
        said.push_str(&format!("{separator}{}", reason.message));
    }
    for block in keys.iter().filter_map(|key| block_of(key)) {
        errors.insert(block, "this parameter cannot be edited".into());
    }
    if errors.is_empty()
        && let Some(block) = blocks.into_iter().next()
    {
        errors.insert(block, error.detail());
    }
    if !errors.is_empty() {
        answer.insert("response_action".into(), "errors".into());
        answer.insert("errors".into(), json!(errors));
    }
    answer
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
