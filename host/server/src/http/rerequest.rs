//! `POST /api/guard/rerequest`: an expired or denied request is made again.

use std::sync::Arc;

use axum::extract::State;
use countersign_access::{Identified, Requester, RequesterRule};
use countersign_core::lifecycle::{Party, RequestId, Status, Timestamp};
use countersign_gateway::{Again, GatewayError, Who};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::body::JsonBody;
use super::caller::{Calling, Found, Wanted, requester};
use super::check::Check;
use super::error::{ApiError, Invalid};
use super::idempotency::Replayable;
use super::params::{Params, request_id};
use super::view::{payload_hash_version, rfc3339_always, salt_text};
use crate::caller_rights;
use crate::state::App;

/// Why a caller's credentials are not enough.
const NEEDS_TOKEN: &str = "a request with hidden parameters is made again with its wait token alone: send it as `token` or `Authorization: Bearer`";

/// Which request to make again, and for whom.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct RerequestBody {
    /// Any request of the lineage.
    #[schema(value_type = RequestId)]
    original_request_id: String,
    /// Who makes it again.
    actor: Party,
    /// The wait token of the original request, unless it comes as `Authorization: Bearer`. Without it the caller's
    /// credentials do, if the request has no hidden parameters.
    #[serde(default)]
    token: Option<String>,
}

/// A request that was made again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RerequestView {
    /// The wait token of the new request. Keep it secret.
    token: String,
    request_id: RequestId,
    lineage_id: RequestId,
    status: Status,
    /// When it expires, unless it was decided or cancelled by then.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// How its payload hash is made: 1 or 2.
    payload_hash_version: u8,
    /// The salt of its payload hash, in hexadecimal: with it the hash can be made again. Keep it secret.
    /// Absent in version 1, and if the gateway has lost the key that it was encrypted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_salt: Option<String>,
    /// The caller that it belongs to, by its name in the access file; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    /// Whether it was made before, by a call with the same idempotency key.
    replayed: bool,
}

/// Makes an expired or denied request again, in the same lineage.
#[utoipa::path(
    post,
    path = "/api/guard/rerequest",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "1 to 255 printable characters. The same key and body give the same request and token until a day after its `expiresAt`.")),
    request_body = RerequestBody,
    responses(
        (status = 200, description = "The request was made again", body = RerequestView,
            headers(("Idempotent-Replayed" = bool, description = "`true` if it was made again by an earlier call with the same key"))),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; \
            403 `not_allowed`, `policy_denied`, `caller_not_allowed`, `requester_mismatch` or `proxied`; \
            404 `not_found`; 408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`; \
            409 `token_retired` or `salt_lost`; 422 `idempotency_key_reused`, `too_large_to_review`, or `unsatisfiable`, with `reasons`; 429 `cooldown`, `rate_limited` or `too_many_open`, with `Retry-After`"),
        (status = "5XX", description = "500 `internal`; \
            503 `policy_failure`, `overloaded`, `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn rerequest(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
    body: JsonBody,
) -> Result<Replayable<RerequestView>, ApiError> {
    let RerequestBody { original_request_id, actor, token } = body.typed()?;
    let original = request_id("originalRequestId", &original_request_id)?;
    let mut check = Check::default();
    check.party("actor", &actor);
    check.finish()?;
    let wanted = Wanted { token: token.as_deref(), id: Some(original), reads: false };
    let Found { request, with_token } = calling.request(&app, &params, wanted).await?;
    // The new request takes the salt over, and its token opens it: also if it was made before, for the same key.
    if !with_token && !request.submission.redacted.is_empty() {
        return Err(GatewayError::NotAllowed(NEEDS_TOKEN).into());
    }
    // Whoever holds the token has the right by that alone.
    let by = if with_token { None } else { calling.identify(&app, &params).await? };
    let (party, who) = again(&app, by.as_ref(), actor.clone())?;
    let caller = caller_rights::check_rerequest(&app, &request)?;
    if caller.is_none() {
        calling.check_address(&app).await?;
    }
    let owner = (caller.as_deref(), request.submission.origin.repo.as_str());
    // The token is what gives the right, and no part of what is asked for.
    let body = json!({"originalRequestId": original, "actor": actor});
    let sent = calling.idempotency_key(&app, by.as_ref(), &body)?;
    let idempotency = sent.map(|sent| sent.of_maker("rerequest", owner));
    app.gateway.check_again(&request, idempotency.as_ref()).await?;
    if let Some(caller) = &caller {
        caller_rights::take_quota(&app, caller).await?;
    }
    let most_open = caller_rights::most_open(&app, caller.as_deref());
    let made = app.gateway.rerequest(original, Again { party, who }, idempotency, most_open, None).await?;
    let view = RerequestView {
        token: made.token.reveal().to_owned(),
        request_id: made.request.id,
        lineage_id: made.request.submission.lineage,
        status: made.request.status(),
        expires_at: made.request.submission.expires_at,
        payload_hash_version: payload_hash_version(&made.request),
        payload_salt: made.salt.as_ref().map(salt_text),
        caller: made.request.submission.caller.clone(),
        replayed: made.replayed,
    };
    Ok(Replayable { replayed: made.replayed, view })
}

/// Who makes a request again. Whoever has the right says in whose name, and the name is asserted; but a caller whose
/// requesters come from claims names nobody else than its token does.
fn again(app: &App, by: Option<&Identified>, actor: Party) -> Result<(Party, Who), ApiError> {
    let asserted =
        Requester::asserted(actor.clone()).map_err(|error| Invalid::new("actor.id", error.to_string()))?;
    match by {
        Some(by) if matches!(by.caller.requester, RequesterRule::Claims { .. }) => {
            requester(app, Some(by), Some(actor))
        }
        _ => Ok((actor, Who::asserted(&asserted.name))),
    }
}
