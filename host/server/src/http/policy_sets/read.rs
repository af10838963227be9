//! Shows the stored policy sets, the one in force, and the history of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::record::PolicyChange;
use countersign_store::OpenPolicy;
use serde::Serialize;

use crate::http::admin::Admin;
use crate::http::error::{ApiError, Invalid};
use crate::http::openapi::STORE_ERRORS;
use crate::http::params::Params;
use crate::http::view::{rfc3339, rfc3339_always};
use crate::state::App;

/// How many changes of the history are returned by default, and the most that can be asked for.
const HISTORY: (usize, usize) = (50, 500);

/// The stored sets, and the open requests by their rules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct SetsView {
    /// The hash of the set in force.
    active: Digest,
    /// The sets, the newest first.
    sets: Vec<SetView>,
    /// Open requests by policy hash and action.
    open_requests: Vec<OpenView>,
}

/// A stored set.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct SetView {
    /// Its hash.
    hash: Digest,
    /// When it was stored first.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    stored_at: Timestamp,
    /// Whether it is in force.
    active: bool,
    /// Whether it is evaluated in the shadow.
    shadow: bool,
    /// The policy hash of each action; `*` stands for unknown actions.
    #[schema(value_type = Object)]
    actions: BTreeMap<String, Digest>,
    /// How many open requests have one of these policy hashes.
    open_requests: u64,
}

/// Open requests of an action under the same rules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OpenView {
    /// The hash of the rules.
    policy_hash: Digest,
    /// The action.
    action: String,
    /// How many.
    count: u64,
    /// Whether new requests for the action get the same rules.
    active: bool,
}

/// The set in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ActiveView {
    /// Its hash.
    hash: Digest,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// What put it in force: `start`, `reload`, `activate` or `rollback`.
    what: Option<&'static str>,
    /// What triggered that: `start`, `sighup`, `file`, `api` or `store`.
    source: Option<&'static str>,
    /// Who.
    actor: Option<String>,
    /// The policy hash of each action; `*` stands for unknown actions.
    #[schema(value_type = Object)]
    actions: BTreeMap<String, Digest>,
    /// Its modules: `sha256:` and the digest, by the name that the set gives them.
    modules: BTreeMap<String, String>,
    /// The text that it was first read from.
    document: Option<String>,
    /// Why the set in the folder is held back: what it lacks, or might; empty if it is not.
    held_back: Vec<Invalid>,
}

/// Attempts to change the set in force, the newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct HistoryView {
    /// The attempts.
    changes: Vec<ChangeView>,
    /// What to send as `before` to read on; null at the end.
    next: Option<u64>,
}

/// One attempt to change the set in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ChangeView {
    /// Its number; they grow.
    number: u64,
    /// When.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `start`, `reload`, `activate`, `rollback`, `follow`, `store_set` or `store_module`.
    what: &'static str,
    /// What triggered it: `start`, `sighup`, `file`, `api` or `store`.
    source: &'static str,
    /// Who, if known.
    actor: Option<String>,
    /// `ok`, `unchanged`, `conflict`, `held_back` (it may be half-written, and nobody asked for it) or `failed`.
    outcome: &'static str,
    /// The set that was in force.
    from: Option<Digest>,
    /// The requested set.
    to: Option<Digest>,
    /// The trusted public keys that have signed the requested set; empty if signatures were not required.
    signed_by: Vec<String>,
    /// What was wrong; only the first few.
    errors: Vec<Invalid>,
}

/// Lists the stored sets, and the open requests by their rules.
#[utoipa::path(
    get,
    path = "/api/admin/policy-sets",
    security(("admin" = [])),
    responses(
        (status = 200, description = "The sets", body = SetsView),
        (status = "4XX", description = "401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; 404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(in crate::http) async fn list(State(app): State<Arc<App>>, _: Admin) -> Result<Json<SetsView>, ApiError> {
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
        (status = "4XX", description = "401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; 404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(in crate::http) async fn active(
    State(app): State<Arc<App>>,
    _: Admin,
) -> Result<Json<ActiveView>, ApiError> {
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
        held_back: app.policy_sets.held_back().into_iter().map(Invalid::from).collect(),
    }))
}

/// Lists attempts to change the set in force, the newest first: who, when, from where, and the outcome.
#[utoipa::path(
    get,
    path = "/api/admin/policy-sets/history",
    params(
        ("limit" = Option<usize>, Query, description = "How many; 50 by default, at most 500."),
        ("before" = Option<usize>, Query, description = "Only those with numbers below this: `next` of the previous answer."),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The history", body = HistoryView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(in crate::http) async fn history(
    State(app): State<Arc<App>>,
    _: Admin,
    params: Params,
) -> Result<Json<HistoryView>, ApiError> {
    let limit = params.limit(HISTORY)?;
    let before = params.number("before")?.unwrap_or(u64::MAX);
    let changes = app.gateway.store().policy_changes(before, limit).await?;
    let next = changes.last().map(|(number, _)| *number).filter(|_| changes.len() == limit);
    Ok(Json(HistoryView { changes: changes.into_iter().map(ChangeView::of).collect(), next }))
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
