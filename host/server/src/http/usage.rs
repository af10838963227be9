//! `POST /api/guard/consume` and `POST /api/guard/outcome`: a caller uses an approval, once, and says what came of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_access::Identified;
use countersign_core::lifecycle::{
    BadDigest, Digest, Request, RequestId, RunResult, Status, Timestamp, Usage, UseAct,
};
use countersign_gateway::{Given, GivenParameters, Used};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::body::JsonBody;
use super::caller::{Calling, Found, Wanted};
use super::check::{Check, Parameters};
use super::error::{ApiError, Invalid};
use super::idempotency::Replayable;
use super::params::Params;
use super::view::{rfc3339, rfc3339_always};
use crate::caller_rights;
use crate::state::App;

/// Which approval to use, and for what.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct ConsumeBody {
    /// The wait token, unless it comes as `Authorization: Bearer`.
    #[serde(default)]
    token: Option<String>,
    /// The action that is about to be run. Parameters do not say which: without it, an approval of another action with the
    /// same parameters is taken, too.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    action: Option<String>,
    /// The parameters that are about to be used: all of them, with their edits.
    #[serde(default)]
    #[schema(value_type = Option<Parameters>)]
    params: Option<Map<String, Value>>,
    /// In their place: the payload hash that the caller has computed from them.
    #[serde(default)]
    #[schema(value_type = Option<Digest>)]
    payload_hash: Option<String>,
}

/// An approval that was consumed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConsumedView {
    request_id: RequestId,
    /// What was agreed to.
    action: String,
    /// `approved`.
    status: Status,
    /// `consumed`.
    #[serde(rename = "use")]
    usage: Usage,
    /// When.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    consumed_at: Timestamp,
    /// Until when it could be; absent if that has no end.
    #[serde(serialize_with = "rfc3339", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_until: Option<Timestamp>,
    /// The hash of the parameters that were agreed to.
    payload_hash: Digest,
    /// Whether an earlier call with the same idempotency key did it.
    replayed: bool,
    /// The signed receipt of the decision (docs/RECEIPTS.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

/// What came of an approval.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct OutcomeBody {
    /// The wait token, unless it comes as `Authorization: Bearer`.
    #[serde(default)]
    token: Option<String>,
    status: RunResult,
    /// More about it, for people to read.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
    )]
    detail: Option<String>,
}

/// What came of an approval.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OutcomeView {
    request_id: RequestId,
    /// `approved`.
    status: Status,
    /// `succeeded` or `failed`.
    #[serde(rename = "use")]
    usage: Usage,
    /// When the approval was used.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    consumed_at: Timestamp,
    /// When it was first said what came of it.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    reported_at: Timestamp,
    /// Whether it was reported before.
    replayed: bool,
}

/// Uses an approval, once, for the action and the parameters that are about to be used. They are compared with what was agreed
/// to.
#[utoipa::path(
    post,
    path = "/api/guard/consume",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "1 to 255 printable characters. The same key and body get the same answer.")),
    request_body = ConsumeBody,
    responses(
        (status = 200, description = "The approval was consumed: run it", body = ConsumedView,
            headers(("Idempotent-Replayed" = bool, description = "`true` if an earlier call with the same key consumed it"))),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `not_the_caller` or `proxied`; \
            404 `not_found`; 408 `request_timeout`; 409 `not_approved`, `already_consumed`, `action_mismatch`, `payload_mismatch` with the keys that differ \
            (`differing`, unless a hash was sent), or `salt_lost`; 410 `approval_expired`; 413 `payload_too_large`; \
            415 `unsupported_media_type`; 422 `idempotency_key_reused`; 429 `rate_limited`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn consume(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
    body: JsonBody,
) -> Result<Replayable<ConsumedView>, ApiError> {
    let ConsumeBody { token, action, params: used, payload_hash } = body.typed()?;
    if let Some(action) = &action {
        let mut check = Check::default();
        check.name("action", action, 128);
        check.finish()?;
    }
    let (parameters, what) = match (used, payload_hash) {
        (Some(used), None) => {
            let mut check = Check::default();
            check.params("params", &used)?;
            check.finish()?;
            let what = json!({"params": used});
            (GivenParameters::Params(used), what)
        }
        (None, Some(hash)) => {
            let hash: Digest =
                hash.parse().map_err(|error: BadDigest| Invalid::new("payloadHash", error.to_string()))?;
            (GivenParameters::PayloadHash(hash), json!({"payloadHash": hash}))
        }
        (Some(_), Some(_)) => {
            return Err(Invalid::new("payloadHash", "is one of two; send `params` alone").into());
        }
        (None, None) => {
            return Err(Invalid::new("params", "is missing; send them, or their `payloadHash`").into());
        }
    };
    let what = match &action {
        Some(action) => json!({"action": action, "given": what}),
        None => what,
    };
    let given = Given { action, parameters };
    let (request, by) = usable(&app, &calling, &params, token.as_deref(), UseAct::Consume).await?;
    // The token is what gives the right, and no part of what is asked for.
    let sent = calling.idempotency_key(&app, by.as_ref(), &what)?;
    let key = sent.map(|sent| sent.of("consume", &request.id.to_string()));
    let used = app.gateway.consume(request, &given, name_of(by.as_ref()), key).await?;
    let Used { request, replayed } = used;
    let view = ConsumedView {
        request_id: request.id,
        action: request.submission.action.clone(),
        status: request.status(),
        // As it was then, whatever has come of it since.
        usage: Usage::Consumed,
        consumed_at: request.consumption().map_or(request.changed_at(), |consumed| consumed.at),
        valid_until: request.valid_until(),
        payload_hash: request.payload_hash(),
        replayed,
        receipt: app.gateway.receipt(&request).await,
    };
    Ok(Replayable { replayed, view })
}

/// Says what came of an approval that was consumed: once, for people to see. The same report again changes nothing.
#[utoipa::path(
    post,
    path = "/api/guard/outcome",
    request_body = OutcomeBody,
    responses(
        (status = 200, description = "It is noted, now or earlier", body = OutcomeView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `not_the_caller` or `proxied`; \
            404 `not_found`; 408 `request_timeout`; 409 `not_approved`, `not_consumed` or `already_reported`; 413 `payload_too_large`; \
            415 `unsupported_media_type`; 429 `rate_limited`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn outcome(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
    body: JsonBody,
) -> Result<Json<OutcomeView>, ApiError> {
    let OutcomeBody { token, status, detail } = body.typed()?;
    let mut check = Check::default();
    if let Some(detail) = &detail {
        check.text("detail", detail, 1, 500);
    }
    check.finish()?;
    let (request, by) = usable(&app, &calling, &params, token.as_deref(), UseAct::Report).await?;
    let Used { request, replayed } =
        app.gateway.report(request, (status, detail), name_of(by.as_ref())).await?;
    let changed_at = request.changed_at();
    Ok(Json(OutcomeView {
        request_id: request.id,
        status: request.status(),
        usage: match status {
            RunResult::Succeeded => Usage::Succeeded,
            RunResult::Failed => Usage::Failed,
        },
        consumed_at: request.consumption().map_or(changed_at, |consumed| consumed.at),
        reported_at: changed_at,
        replayed,
    }))
}

/// The request that a token opens, and the caller who uses its approval: with an access file it must be the one that made
/// the request, so that a token that got out is not enough.
async fn usable(
    app: &App,
    calling: &Calling,
    params: &Params,
    token: Option<&str>,
    act: UseAct,
) -> Result<(Arc<Request>, Option<Identified>), ApiError> {
    let wanted = Wanted { token, id: None, reads: false };
    let Found { request, .. } = calling.request(app, params, wanted).await?;
    let Some(identified) = calling.identify(app, params).await? else { return Ok((request, None)) };
    let caller = &identified.caller;
    if let Err(refusal) = caller_rights::check_owner(app, caller, &request) {
        return Err(app.gateway.refuse_use(&request, act, refusal, Some(&caller.name)).await.into());
    }
    Ok((request, Some(identified)))
}

fn name_of(caller: Option<&Identified>) -> Option<&str> {
    caller.map(|identified| identified.caller.name.as_str())
}
