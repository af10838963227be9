//! `POST /api/guard/request`: a caller creates a request.

use std::sync::Arc;

use axum::extract::State;
use countersign_access::Identified;
use countersign_core::lifecycle::{Digest, Link, Origin, Party, RequestId, Status, Timestamp};
use countersign_gateway::{Ask, Made};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::body::Unread;
use super::caller::{Calling, requester as requester_of};
use super::can_act::Outlook;
use super::check::{Check, Parameters};
use super::error::ApiError;
use super::idempotency::Replayable;
use super::params::Params;
use super::place::Audience;
use super::view::{min_approvals, payload_hash_version, rfc3339_always, salt_text};
use crate::caller_rights;
use crate::state::App;

/// A request to create.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct CreateBody {
    /// The action to be approved.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    action: String,
    /// Its parameters; at most 128 KiB of canonical JSON.
    #[schema(value_type = Parameters)]
    params: Map<String, Value>,
    /// Who wants it, why, and from where.
    meta: Meta,
    /// Hints for the policies, which may ignore them.
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
    /// Who wants the action done. It can be left out if the caller's credentials say so.
    #[serde(default)]
    requester: Option<Party>,
    /// Why, for the approvers to read.
    #[schema(
        min_length = 3,
        max_length = 2000,
        pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
    )]
    justification: String,
    /// Links to more information.
    #[serde(default)]
    #[schema(max_items = 20)]
    links: Option<Vec<Link>>,
}

/// A created request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedView {
    /// The wait token, which gives access to the request. Keep it secret.
    token: String,
    request_id: RequestId,
    status: Status,
    /// When it expires, unless it was decided or cancelled by then.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    policy: PolicyView,
    /// How its payload hash is made: 1 or 2.
    payload_hash_version: u8,
    /// The salt of its payload hash, in hexadecimal: with it the hash can be made again. Keep it secret.
    /// Absent in version 1, and if the gateway has lost the key that it was encrypted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_salt: Option<String>,
    /// The caller that it belongs to, by its name in the access file; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    /// Whether it was created before, by a call with the same idempotency key.
    replayed: bool,
    #[serde(flatten)]
    outlook: Option<Outlook>,
    #[serde(flatten)]
    audience: Option<Audience>,
}

/// What the policies require.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyView {
    /// How many people must approve.
    min_approvals: u32,
    /// Which personas must be acknowledged.
    required_personas: Vec<String>,
    /// How long the request stays open, in seconds.
    timeout_sec: u64,
    /// The hash of the rules that apply to the request.
    hash: Digest,
}

/// Creates a request.
#[utoipa::path(
    post,
    path = "/api/guard/request",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "1 to 255 printable characters. The same key and body give the same request and token until a day after its `expiresAt`.")),
    request_body = CreateBody,
    responses(
        (status = 200, description = "The request was created, now or earlier with the same idempotency key", body = CreatedView,
            headers(("Idempotent-Replayed" = bool, description = "`true` if the request was created by an earlier call with the same key"))),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthenticated`; 403 `policy_denied`, with `reasons`, \
            `caller_not_allowed`, `requester_mismatch` or `proxied`; \
            408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`; \
            409 `token_retired`; 422 `idempotency_key_reused`, `too_large_to_review`, or `unsatisfiable`, with `reasons`; 429 `rate_limited` or `too_many_open`, with `Retry-After`"),
        (status = "5XX", description = "500 `internal`; \
            503 `policy_failure`, `overloaded`, `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    calling: Calling,
    params: Params,
    body: Unread,
) -> Result<Replayable<CreatedView>, ApiError> {
    let caller = calling.identify(&app, &params).await?;
    calling.check_quota(&app, caller.as_ref()).await?;
    let body = body.json(&app).await?;
    let sent = calling.idempotency_key(&app, caller.as_ref(), &body.0)?;
    let body: CreateBody = body.typed()?;
    let owner = (caller.as_ref().map(|identified| &*identified.caller), body.meta.origin.repo.as_str());
    let idempotency = sent.map(|sent| sent.of_maker("create", owner));
    let ask = ask(&app, caller.as_ref(), body)?;
    let most_open = caller_rights::most_open(&app, caller.as_ref().map(|identified| &*identified.caller));
    let made = app.gateway.create(ask, idempotency, most_open).await?;
    let outlook = Outlook::now(&app, &made.request).await;
    let audience = match made.replayed {
        true => Audience::of(&app, &made.request).await,
        false => Audience::of_new(&app, &made.request).await,
    };
    Ok(Replayable { replayed: made.replayed, view: CreatedView::of(&made, outlook, audience) })
}

impl CreatedView {
    fn of(made: &Made, outlook: Option<Outlook>, audience: Option<Audience>) -> CreatedView {
        let request = &made.request;
        let submission = &request.submission;
        CreatedView {
            token: made.token.reveal().to_owned(),
            request_id: request.id,
            status: request.status(),
            expires_at: submission.expires_at,
            policy: PolicyView {
                min_approvals: min_approvals(&request.needs),
                required_personas: request.needs.personas.clone(),
                timeout_sec: submission.expires_at.since(submission.submitted_at) / 1000,
                hash: submission.policy_hash,
            },
            payload_hash_version: payload_hash_version(request),
            payload_salt: made.salt.as_ref().map(salt_text),
            caller: submission.caller.clone(),
            replayed: made.replayed,
            outlook,
            audience,
        }
    }
}

impl CreateBody {
    /// What a gate of a CI system asks for; its rule says who the requester is.
    pub(super) fn new(
        action: String,
        params: Map<String, Value>,
        origin: Origin,
        justification: String,
        links: Vec<Link>,
    ) -> CreateBody {
        let meta = Meta { origin, requester: None, justification, links: Some(links) };
        CreateBody { action, params, meta, policy_hints: None }
    }
}

/// What a body asks for, once it is checked, and whether its caller may.
pub(super) fn ask(app: &App, caller: Option<&Identified>, body: CreateBody) -> Result<Ask, ApiError> {
    let CreateBody { action, params, meta, policy_hints } = body;
    let Meta { origin, requester, justification, links } = meta;
    let links = links.unwrap_or_default();
    let mut check = Check::default();
    check.name("action", &action, 128);
    check.params("params", &params)?;
    check.origin("meta.origin", &origin);
    if let Some(requester) = &requester {
        check.party("meta.requester", requester);
    }
    check.text("meta.justification", &justification, 3, 2000);
    check.links("meta.links", &links);
    if let Some(hints) = &policy_hints {
        check.hints("policyHints", hints);
    }
    check.finish()?;
    if let Some(Identified { caller, .. }) = caller {
        caller_rights::check_action(app, caller, &action)?;
    }
    let (requester, who) = requester_of(app, caller, requester)?;
    let caller = caller.map(|identified| identified.caller.name.clone());
    Ok(Ask { action, params, origin, requester, who, caller, justification, links, policy_hints, gate: None })
}
