//! `POST /api/guard/request`: a caller asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::body::JsonBody;
use super::check::Check;
use super::error::{ApiError, Invalid, Problem};
use super::ratelimit::Client;
use super::view::{min_approvals, rfc3339_always};
use crate::app::App;
use countersign_core::lifecycle::{Digest, Link, Origin, Party, RequestId, Status, Timestamp};
use countersign_gateway::{Ask, IdempotencyKey, Receipt};

/// Who sent an idempotency key, as long as callers do not say who they are.
const ANONYMOUS: &str = "anonymous";

/// What a caller asks for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct CreateBody {
    /// What is to be done.
    #[schema(max_length = 128)]
    action: String,
    /// With which parameters; at most 128 KiB of canonical JSON.
    #[schema(value_type = Object)]
    params: Map<String, Value>,
    /// Who wants it, why, and from where.
    meta: Meta,
    /// What the caller would like of the policy; never binding.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    policy_hints: Option<Value>,
}

/// Who wants it, why, and from where.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct Meta {
    /// Where the request comes from.
    origin: Origin,
    /// Who wants the action done.
    requester: Party,
    /// Why, in words for the approvers.
    #[schema(min_length = 3, max_length = 2000)]
    justification: String,
    /// Where to read more.
    #[serde(default)]
    links: Option<Vec<Link>>,
}

/// A request that was made.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedView {
    /// What opens the request for its caller. Keep it secret.
    token: String,
    #[schema(value_type = String)]
    request_id: RequestId,
    status: Status,
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    policy: PolicyView,
}

/// What the policies ask for.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyView {
    /// How many people must approve.
    min_approvals: u32,
    /// Which personas must be acknowledged.
    required_personas: Vec<String>,
    /// How long the request stays open, in seconds.
    timeout_sec: u64,
    /// The hash of the rules that the request is judged by.
    #[schema(value_type = String)]
    hash: Digest,
}

/// Makes a request.
#[utoipa::path(
    post,
    path = "/api/guard/request",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "1 to 255 printable characters. The same key and body give the same request and token for 24 hours.")),
    request_body = CreateBody,
    responses(
        (status = 200, description = "The request was made, or was made before with this idempotency key", body = CreatedView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`policy_denied`, with `reasons`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "`request_timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`payload_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency_key_reused`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`policy_failure`, `store_unavailable` or `contended`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    client: Client,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<CreatedView>, ApiError> {
    app.admit_client(client)?;
    let idempotency = idempotency_key(&headers, &body.0)?;
    let ask = ask(body.typed()?)?;
    let receipt = app.gateway.create(ask, idempotency).await?;
    Ok(Json(CreatedView::of(&receipt)))
}

impl CreatedView {
    fn of(receipt: &Receipt) -> CreatedView {
        let request = &receipt.request;
        let submission = &request.submission;
        CreatedView {
            token: receipt.token.reveal().to_owned(),
            request_id: request.id,
            status: request.status(),
            expires_at: submission.expires_at,
            policy: PolicyView {
                min_approvals: min_approvals(&request.needs),
                required_personas: request.needs.personas.clone(),
                timeout_sec: submission.expires_at.since(submission.submitted_at) / 1000,
                hash: submission.policy_hash,
            },
        }
    }
}

fn ask(body: CreateBody) -> Result<Ask, ApiError> {
    let CreateBody { action, params, meta, policy_hints } = body;
    let Meta { origin, requester, justification, links } = meta;
    let links = links.unwrap_or_default();
    let mut check = Check::default();
    check.name("action", &action, 128);
    check.params("params", &params)?;
    check.origin("meta.origin", &origin);
    check.party("meta.requester", &requester);
    check.words("meta.justification", &justification, 3, 2000);
    check.links("meta.links", &links);
    if let Some(hints) = &policy_hints {
        check.hints("policyHints", hints);
    }
    check.done()?;
    Ok(Ask { action, params, origin, requester, justification, links, policy_hints })
}

fn idempotency_key(headers: &HeaderMap, body: &Value) -> Result<Option<IdempotencyKey>, ApiError> {
    const NAME: &str = "Idempotency-Key";
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Invalid::new(NAME, "must come once").into());
    }
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(IdempotencyKey {
                key: Digest::of(format!("{ANONYMOUS}\0{key}").as_bytes()),
                fingerprint: Digest::of_json(body),
            }))
        }
        _ => Err(Invalid::new(NAME, "must have 1 to 255 printable ASCII characters and no spaces").into()),
    }
}
