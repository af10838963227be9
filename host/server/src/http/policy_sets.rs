//! `/api/admin/policy-sets` and `/api/admin/reload-policy`: which policy set is in force, was, and could be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admin::Admin;
use super::body::{self, JsonBody};
use super::error::{ApiError, Invalid, Problem};
use super::params::Params;
use super::view::{rfc3339, rfc3339_always};
use crate::app::App;
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::record::Signature;
use countersign_core::record::{ChangeFault, PolicyChange};
use countersign_gateway::policy_sets::{Changed, Sent};
use countersign_policy::PublicKey;
use countersign_store::OpenPolicy;

/// The most that a set may have, in bytes: a document, and schemas.
const SET_BYTES: usize = 4 << 20;

/// How much of the history is told at once, unless it is said otherwise, and at the most.
const HISTORY: (usize, usize) = (50, 500);

/// Who reads the policy set again.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ReloadBody {
    /// Who, for the audit log; else the header `x-admin-actor`, else `admin`.
    #[serde(default)]
    actor: Option<String>,
}

/// A policy set to store.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct SetBody {
    /// The text of the set, as in `policy-set.yaml`. Its modules must be stored, or pinned in a registry.
    document: String,
    /// JSON Schema of the parameters, by action.
    #[serde(default)]
    #[schema(value_type = Object)]
    schemas: BTreeMap<String, Value>,
    /// Signatures of the set, as in `policy-set.yaml.sig`.
    #[serde(default)]
    signatures: String,
    /// Who, for the audit log; else the header `x-admin-actor`, else `admin`.
    #[serde(default)]
    actor: Option<String>,
}

/// Which set is believed to be in force.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct ActivateBody {
    /// The hash of the set that is in force, as far as the caller knows: where it is another, nothing happens.
    expected_current: String,
    /// What the set must have shown in the shadow.
    #[serde(default)]
    require_shadow: Option<RequireShadow>,
    /// Who, for the audit log; else the header `x-admin-actor`, else `admin`.
    #[serde(default)]
    actor: Option<String>,
}

/// What a set must have shown in the shadow: no unexplained difference, and enough events.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct RequireShadow {
    /// How many submissions and events it must have judged at least.
    events: u64,
}

/// Which set is believed to be in force.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct RollbackBody {
    /// The hash of the set that is in force, as far as the caller knows: where it is another, nothing happens.
    expected_current: String,
    /// Who, for the audit log; else the header `x-admin-actor`, else `admin`.
    #[serde(default)]
    actor: Option<String>,
}

/// The set in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangedView {
    /// `true`.
    ok: bool,
    /// Its actions.
    actions: Vec<String>,
    /// Its hash.
    #[schema(value_type = String)]
    hash: Digest,
    /// The hash of the set that was in force before.
    #[schema(value_type = String)]
    previous: Digest,
    /// `ok`, or `unchanged` where it was in force already.
    outcome: &'static str,
}

/// A set that was stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredView {
    /// `true`.
    ok: bool,
    /// Its hash.
    #[schema(value_type = String)]
    hash: Digest,
    /// Its actions.
    actions: Vec<String>,
    /// The public keys whose signatures vouch for it; none where none is asked for.
    signed_by: Vec<String>,
}

/// The sets that are stored, and what is open under which rules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SetsView {
    /// The hash of the set in force.
    #[schema(value_type = String)]
    active: Digest,
    /// The sets, those first that were stored last.
    sets: Vec<SetView>,
    /// Open requests by policy hash and action.
    open_requests: Vec<OpenView>,
}

/// A set that is stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SetView {
    /// Its hash.
    #[schema(value_type = String)]
    hash: Digest,
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    stored_at: Timestamp,
    /// Whether it is in force.
    active: bool,
    /// Whether it judges in the shadow.
    shadow: bool,
    /// The policy hash of each action; `*` is what judges unknown actions.
    #[schema(value_type = Object)]
    actions: BTreeMap<String, Digest>,
    /// How many open requests are judged by one of these policy hashes.
    open_requests: u64,
}

/// Open requests of an action that are judged by the same rules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenView {
    /// The hash of the rules.
    #[schema(value_type = String)]
    policy_hash: Digest,
    /// The action.
    action: String,
    /// How many.
    count: u64,
    /// Whether new requests for the action are made under the same rules.
    active: bool,
}

/// The set in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ActiveView {
    /// Its hash.
    #[schema(value_type = String)]
    hash: Digest,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// What put it in force: `start`, `reload`, `activate` or `rollback`.
    what: Option<&'static str>,
    /// What set that off: `start`, `sighup`, `file`, `api` or `store`.
    source: Option<&'static str>,
    /// Who.
    actor: Option<String>,
    /// The policy hash of each action; `*` is what judges unknown actions.
    #[schema(value_type = Object)]
    actions: BTreeMap<String, Digest>,
    /// The modules that judge: `sha256:` and the digest, by the name that the set gives them.
    modules: BTreeMap<String, String>,
    /// The text that it was first read from.
    document: Option<String>,
}

/// What was tried, the last first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryView {
    changes: Vec<ChangeView>,
    /// What to send as `before` to read on; null at the end.
    next: Option<u64>,
}

/// One attempt to change the set in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeView {
    /// Its number; they grow.
    number: u64,
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `start`, `reload`, `activate`, `rollback`, `follow`, `store_set` or `store_module`.
    what: &'static str,
    /// What set it off: `start`, `sighup`, `file`, `api` or `store`.
    source: &'static str,
    /// Who, where somebody said so.
    actor: Option<String>,
    /// `ok`, `unchanged`, `conflict` or `failed`.
    outcome: &'static str,
    /// The set that was in force.
    #[schema(value_type = Option<String>)]
    from: Option<Digest>,
    /// The set that was wanted.
    #[schema(value_type = Option<String>)]
    to: Option<Digest>,
    /// The public keys whose signatures vouch for the set that was wanted; none where none was asked for.
    signed_by: Vec<String>,
    /// What was wrong, the first few only.
    errors: Vec<Invalid>,
}

/// Reads the policy set's folder again, and puts its set in force.
#[utoipa::path(
    post,
    path = "/api/admin/reload-policy",
    request_body(content = ReloadBody, description = "May be left out"),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The folder's set is in force", body = ChangedView),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: another instance was faster", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_policy_set`, with `errors`: the set before stays in force", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, or `registry_unavailable` where a module cannot be fetched for now; with `Retry-After`: nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload(
    State(app): State<Arc<App>>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ChangedView>, ApiError> {
    // The ancestor's callers send nothing, or something that is not said to be JSON.
    let bytes = body::read(body, app.body_limit).await?;
    let ReloadBody { actor } = match bytes.is_empty() {
        true => ReloadBody::default(),
        false => JsonBody::of(&headers, &bytes)?.typed()?,
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
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`payload_too_large`", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_policy_set`, with `errors`: it is not stored", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, or `registry_unavailable` where a module cannot be fetched for now; with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn store(
    State(app): State<Arc<App>>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<StoredView>, ApiError> {
    let bytes = body::read(body, SET_BYTES).await?;
    let SetBody { document, schemas, signatures, actor } = JsonBody::of(&headers, &bytes)?.typed()?;
    let signatures = Signature::read_all(&signatures)
        .map_err(|(line, wrong)| Invalid::new("signatures", format!("line {line}: {wrong}")))?;
    let sent = Sent { document, schemas, signatures };
    let stored = app.policy_sets.store_set(sent, admin.by(actor)?).await?;
    let signed_by = stored.signed_by.iter().map(PublicKey::to_string).collect();
    Ok(Json(StoredView { ok: true, hash: stored.hash, actions: stored.actions, signed_by }))
}

/// Lists the sets that are stored, and the open requests by the rules that judge them.
#[utoipa::path(
    get,
    path = "/api/admin/policy-sets",
    security(("admin" = [])),
    responses(
        (status = 200, description = "The sets", body = SetsView),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Admin) -> Result<Json<SetsView>, ApiError> {
    let store = app.gateway.store();
    let (sets, open) = (store.policy_sets().await?, store.open_policies().await?);
    let active = app.gateway.policies().active();
    let shadow = app.gateway.shadow().standing().map(|standing| standing.hash);
    let open_under = |actions: &BTreeMap<String, Digest>| {
        let hashes: BTreeSet<&Digest> = actions.values().collect();
        open.iter().filter(|open| hashes.contains(&open.policy)).map(|open| open.count).sum()
    };
    let sets = sets.into_iter().map(|set| SetView {
        hash: set.hash,
        stored_at: set.stored_at,
        active: set.hash == active.hash(),
        shadow: shadow == Some(set.hash),
        open_requests: open_under(&set.entries),
        actions: set.entries,
    });
    let sets = sets.collect();
    let open_requests = open.into_iter().map(|OpenPolicy { policy, action, count }| OpenView {
        policy_hash: policy,
        action,
        count,
        active: active.by_hash(&policy).is_some(),
    });
    Ok(Json(SetsView { active: active.hash(), sets, open_requests: open_requests.collect() }))
}

/// The set in force, and how it came to be.
#[utoipa::path(
    get,
    path = "/api/admin/policy-sets/active",
    security(("admin" = [])),
    responses(
        (status = 200, description = "The set in force", body = ActiveView),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn active(State(app): State<Arc<App>>, _: Admin) -> Result<Json<ActiveView>, ApiError> {
    let active = app.gateway.policies().active();
    let hash = active.hash();
    let store = app.gateway.store();
    let document = store.policy_document(hash).await?;
    let last = store.policy_in_force().await?.map(|(_, change)| change);
    let last = last.filter(|last| last.to == Some(hash));
    let uses = active.policies().flat_map(|policy| &policy.entry().policies);
    Ok(Json(ActiveView {
        hash,
        since: last.as_ref().map(|last| last.at),
        what: last.as_ref().map(|last| last.what.as_str()),
        source: last.as_ref().map(|last| last.trigger.as_str()),
        actor: last.and_then(|last| last.actor),
        actions: active.entries(),
        modules: uses.map(|used| (used.name.clone(), format!("sha256:{}", used.digest))).collect(),
        document,
    }))
}

/// What was tried with the set in force, the last first: who, when, from where, and what came of it.
#[utoipa::path(
    get,
    path = "/api/admin/policy-sets/history",
    params(
        ("limit" = Option<usize>, Query, description = "How many; 50 unless it is said, 500 at the most."),
        ("before" = Option<u64>, Query, description = "Only those with numbers below this: `next` of the answer before."),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The history", body = HistoryView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn history(
    State(app): State<Arc<App>>,
    _: Admin,
    params: Params,
) -> Result<Json<HistoryView>, ApiError> {
    let number = |name: &str| -> Result<Option<u64>, ApiError> {
        let Some(text) = params.get(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Invalid::new(name, "must be a whole number").into())
    };
    let limit = number("limit")?.map_or(HISTORY.0, |limit| usize::try_from(limit).unwrap_or(HISTORY.1));
    let limit = limit.clamp(1, HISTORY.1);
    let before = number("before")?.unwrap_or(u64::MAX);
    let changes = app.gateway.store().policy_changes(before, limit).await?;
    let next = changes.last().map(|(number, _)| *number).filter(|_| changes.len() == limit);
    Ok(Json(HistoryView { changes: changes.into_iter().map(ChangeView::of).collect(), next }))
}

/// Puts a stored set in force.
#[utoipa::path(
    post,
    path = "/api/admin/policy-sets/{hash}/activate",
    params(("hash" = String, Path, description = "The hash of a stored set.")),
    request_body = ActivateBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "It is in force", body = ChangedView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: no such set is stored, or the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: another set is in force than the expected one; \
            `shadow_not_ready`: it has not shown in the shadow what is asked for", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_policy_set`: it can no longer be loaded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`: nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn activate(
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

/// Puts the set in force again that was in force before.
#[utoipa::path(
    post,
    path = "/api/admin/policy-sets/rollback",
    request_body = RollbackBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "The set before is in force", body = ChangedView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: another set is in force than the expected one; `nothing_before`: no other was in force before", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_policy_set`: it can no longer be loaded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`: nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollback(
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

impl ChangeView {
    fn of((number, change): (u64, PolicyChange)) -> ChangeView {
        let errors = change.faults.into_iter().map(Invalid::from);
        ChangeView {
            number,
            at: change.at,
            what: change.what.as_str(),
            source: change.trigger.as_str(),
            actor: change.actor,
            outcome: change.outcome.as_str(),
            from: change.from,
            to: change.to,
            signed_by: change.signed_by,
            errors: errors.collect(),
        }
    }
}

impl From<ChangeFault> for Invalid {
    fn from(ChangeFault { path, message }: ChangeFault) -> Invalid {
        Invalid { path, message }
    }
}

/// A hash in a text, with or without `sha256:` in front.
pub(super) fn digest(path: &str, text: &str) -> Result<Digest, ApiError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    digits.parse().map_err(|_| Invalid::new(path, "must be 64 hexadecimal digits in lower case").into())
}
