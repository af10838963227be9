//! `/api/admin/modules`: the stored policy modules.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use countersign_core::record::Signature;
use countersign_gateway::policy_sets::Inspection;
use countersign_policy::PublicKey;
use serde::Serialize;
use serde_json::Value;

use super::admin::Admin;
use super::body;
use super::error::{ApiError, Invalid};
use super::openapi::STORE_ERRORS;
use crate::state::App;

/// A module that was checked and stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InspectionView {
    /// What pins it in a policy set: `sha256:` and the digest of its bytes.
    digest: String,
    /// Its size in bytes.
    size: usize,
    /// Its own name; a policy set may use another.
    name: String,
    /// Its version.
    version: String,
    /// What it does.
    summary: String,
    /// JSON Schema of its configuration.
    #[schema(value_type = Object)]
    config_schema: Value,
    /// Every code that its refusals and denials can have.
    reasons: Vec<ReasonView>,
    /// The trusted public keys that have signed it; empty if signatures are not required.
    signed_by: Vec<String>,
}

/// A code, and what it means.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ReasonView {
    /// The code, as in `reasons`.
    code: String,
    /// What it means, and what can be done, in the words of the policy.
    help: String,
}

/// The stored modules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ModulesView {
    /// All of them.
    modules: Vec<ModuleView>,
}

/// A stored module.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModuleView {
    /// What pins it in a policy set: `sha256:` and the digest of its bytes.
    digest: String,
    /// Its size in bytes.
    size: u64,
    /// Whether it is in memory, because the set in force or an open request uses it.
    in_memory: bool,
    /// How many signatures of it are stored.
    signatures: usize,
    /// Its own name, if it is in memory.
    name: Option<String>,
    /// Its version, if it is in memory.
    version: Option<String>,
}

/// Checks a module, and stores it. It has no effect until a policy set pins it.
#[utoipa::path(
    put,
    path = "/api/admin/modules",
    request_body(content = String, content_type = "application/wasm", description = "The component"),
    params(("x-signature" = Option<String>, Header, description = "Signatures of the module in Base64, separated by commas")),
    security(("admin" = [])),
    responses(
        (status = 200, description = "It is stored, or was already", body = InspectionView),
        (status = "4XX", description = "400 `invalid_payload`: a signature is malformed; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins; 408 `request_timeout`; \
            413 `payload_too_large`: more bytes than a module may have; \
            422 `invalid_module`: it is not a policy module, or not signed by a trusted key; it is not stored"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<InspectionView>, ApiError> {
    let (by, signatures) = (admin.by(None)?, signatures(&headers)?);
    let limit = app.gateway.policies().engine().limits().module_bytes;
    let bytes = body::read(&app, body, limit).await?;
    Ok(Json(InspectionView::of(app.policy_sets.store_module(bytes.to_vec(), signatures, by).await?)))
}

fn signatures(headers: &HeaderMap) -> Result<Vec<Signature>, ApiError> {
    let mut lines = String::new();
    for value in headers.get_all("x-signature") {
        let value = value.to_str().map_err(|_| Invalid::new("x-signature", "must be printable ASCII"))?;
        lines.extend([&value.replace(',', "\n"), "\n"]);
    }
    Signature::read_all(&lines).map_err(|(_, wrong)| Invalid::new("x-signature", wrong).into())
}

/// Lists the stored modules.
#[utoipa::path(
    get,
    path = "/api/admin/modules",
    security(("admin" = [])),
    responses(
        (status = 200, description = "The modules", body = ModulesView),
        (status = "4XX", description = "401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; 404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Admin) -> Result<Json<ModulesView>, ApiError> {
    let engine = app.gateway.policies().engine();
    let store = app.gateway.store();
    let mut modules = Vec::new();
    for (digest, size) in store.modules().await? {
        let loaded = engine.loaded(&digest);
        let descriptor = loaded.as_ref().map(|module| module.descriptor());
        modules.push(ModuleView {
            digest: format!("sha256:{digest}"),
            size,
            signatures: store.signatures(digest).await?.len(),
            in_memory: descriptor.is_some(),
            name: descriptor.map(|descriptor| descriptor.name.clone()),
            version: descriptor.map(|descriptor| descriptor.version.clone()),
        });
    }
    Ok(Json(ModulesView { modules }))
}

impl InspectionView {
    fn of(Inspection { digest, size, descriptor, signed_by }: Inspection) -> InspectionView {
        let reasons = descriptor.reasons.into_iter().map(|doc| ReasonView { code: doc.code, help: doc.help });
        InspectionView {
            digest: format!("sha256:{digest}"),
            size,
            name: descriptor.name,
            version: descriptor.version,
            summary: descriptor.summary,
            config_schema: descriptor.config_schema,
            reasons: reasons.collect(),
            signed_by: signed_by.iter().map(PublicKey::to_string).collect(),
        }
    }
}
