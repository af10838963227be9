//! Stores policy sets, and changes which one is in force: reload, activate, roll back.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use countersign_core::lifecycle::Digest;
use countersign_core::record::Signature;
use countersign_gateway::policy_sets::{Changed, Sent};
use countersign_policy::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest;
use crate::http::admin::Admin;
use crate::http::body::{self, JsonBody};
use crate::http::error::{ApiError, Invalid};
use crate::state::App;

/// The largest body of a set, in bytes: a document, and schemas.
const SET_BYTES: usize = 4 << 20;

/// Who reloads the policy set.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(in crate::http) struct ReloadBody {
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    actor: Option<String>,
}

/// A policy set to store.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(in crate::http) struct SetBody {
    /// The text of the set, as in `policy-set.yaml`. Its modules must be stored, or pinned in a registry.
    document: String,
    /// JSON Schema of the parameters, by action.
    #[serde(default)]
    #[schema(value_type = Object)]
    schemas: BTreeMap<String, Value>,
    /// Signatures of the set, as in `policy-set.yaml.sig`.
    #[serde(default)]
    signatures: String,
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    actor: Option<String>,
}

/// Which set is expected to be in force, and what the new one must have shown.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(in crate::http) struct ActivateBody {
    /// The hash of the set that the caller expects to be in force: if it is another, nothing changes.
    #[schema(value_type = Digest)]
    expected_current: String,
    /// What the set must have shown in the shadow.
    #[serde(default)]
    require_shadow: Option<RequireShadow>,
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    actor: Option<String>,
}

/// What a set must have shown in the shadow: no unexplained difference, and enough events.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(in crate::http) struct RequireShadow {
    /// The least number of submissions and events that it must have evaluated.
    #[schema(maximum = 9007199254740991.0)]
    events: u64,
}

/// Which set is expected to be in force.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(in crate::http) struct RollbackBody {
    /// The hash of the set that the caller expects to be in force: if it is another, nothing changes.
    #[schema(value_type = Digest)]
    expected_current: String,
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    actor: Option<String>,
}

/// The set in force after a change.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ChangedView {
    /// `true`.
    ok: bool,
    /// Its actions.
    actions: Vec<String>,
    /// Its hash.
    hash: Digest,
    /// The hash of the set that was in force before.
    previous: Digest,
    /// `ok`, or `unchanged` if it was in force already.
    outcome: &'static str,
}

/// A set that was stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct StoredView {
    /// `true`.
    ok: bool,
    /// Its hash.
    hash: Digest,
    /// Its actions.
    actions: Vec<String>,
    /// The trusted public keys that have signed it; empty if signatures are not required.
    signed_by: Vec<String>,
}

/// Reloads the policy set's folder, and puts its set in force.
#[utoipa::path(
    post,
    path = "/api/admin/reload-policy",
    request_body(content = ReloadBody, description = "May be left out"),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The folder's set is in force", body = ChangedView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins; 408 `request_timeout`; \
            409 `conflict`: another instance was faster; 413 `payload_too_large`; \
            415 `unsupported_media_type`; \
            422 `invalid_policy_set`, with `errors`: the previous set stays in force"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout`, or `registry_unavailable` if a module cannot be fetched for now, \
            with `Retry-After`: nothing has changed"),
    )
)]
pub(in crate::http) async fn reload(
    State(app): State<Arc<App>>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ChangedView>, ApiError> {
    // Callers of the legacy service send no body.
    let bytes = body::read(&app, body, app.body_limit).await?;
    let ReloadBody { actor } = match bytes.is_empty() {
        true => ReloadBody::default(),
        false => JsonBody::of(&headers, bytes).await?.typed()?,
    };
    Ok(Json(ChangedView::of(app.policy_sets.reload(admin.by(actor)?).await?)))
}

/// Checks a policy set, and stores it. It is not put in force.
#[utoipa::path(
    post,
    path = "/api/admin/policy-sets",
    request_body = SetBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "It is stored, or was already", body = StoredView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins; 408 `request_timeout`; \
            413 `payload_too_large`; 415 `unsupported_media_type`; \
            422 `invalid_policy_set`, with `errors`: it is not stored"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout`, or `registry_unavailable` if a module cannot be fetched for now, \
            with `Retry-After`"),
    )
)]
pub(in crate::http) async fn store(
    State(app): State<Arc<App>>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<StoredView>, ApiError> {
    let bytes = body::read(&app, body, SET_BYTES).await?;
    let SetBody { document, schemas, signatures, actor } = JsonBody::of(&headers, bytes).await?.typed()?;
    let signatures = Signature::read_all(&signatures)
        .map_err(|(line, wrong)| Invalid::new("signatures", format!("line {line}: {wrong}")))?;
    let sent = Sent { document, schemas, signatures };
    let stored = app.policy_sets.store_set(sent, admin.by(actor)?).await?;
    let signed_by = stored.signed_by.iter().map(PublicKey::to_string).collect();
    Ok(Json(StoredView { ok: true, hash: stored.hash, actions: stored.actions, signed_by }))
}

/// Puts a stored set in force.
#[utoipa::path(
    post,
    path = "/api/admin/policy-sets/{hash}/activate",
    params(("hash" = Digest, Path, description = "The hash of a stored set.")),
    request_body = ActivateBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "It is in force", body = ChangedView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: no such set is stored, or the gateway has no admins; \
            408 `request_timeout`; 409 `conflict`: another set is in force than the expected one, or \
            `shadow_not_ready`: the shadow does not meet `requireShadow`; 413 `payload_too_large`; \
            415 `unsupported_media_type`; 422 `invalid_policy_set`: it can no longer be loaded"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout`, with `Retry-After`: nothing has changed"),
    )
)]
pub(in crate::http) async fn activate(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(hash): Path<String>,
    body: JsonBody,
) -> Result<Json<ChangedView>, ApiError> {
    let hash = digest("hash", &hash)?;
    let ActivateBody { expected_current, require_shadow, actor } = body.typed()?;
    let expected = digest("expectedCurrent", &expected_current)?;
    let (events, by) = (require_shadow.map(|required| required.events), admin.by(actor)?);
    Ok(Json(ChangedView::of(app.policy_sets.activate(hash, expected, events, by).await?)))
}

/// Puts the previous set in force again.
#[utoipa::path(
    post,
    path = "/api/admin/policy-sets/rollback",
    request_body = RollbackBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "The previous set is in force", body = ChangedView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins; 408 `request_timeout`; \
            409 `conflict`: another set is in force than the expected one, or `nothing_before`: no other \
            set was in force before; 413 `payload_too_large`; 415 `unsupported_media_type`; \
            422 `invalid_policy_set`: it can no longer be loaded"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout`, with `Retry-After`: nothing has changed"),
    )
)]
pub(in crate::http) async fn rollback(
    State(app): State<Arc<App>>,
    admin: Admin,
    body: JsonBody,
) -> Result<Json<ChangedView>, ApiError> {
    let RollbackBody { expected_current, actor } = body.typed()?;
    let expected = digest("expectedCurrent", &expected_current)?;
    Ok(Json(ChangedView::of(app.policy_sets.rollback(expected, admin.by(actor)?).await?)))
}

impl ChangedView {
    fn of(Changed { outcome, hash, previous, actions }: Changed) -> ChangedView {
        ChangedView { ok: true, actions, hash, previous, outcome: outcome.as_str() }
    }
}
