//! `/api/admin/shadow`: a candidate that is evaluated beside the policy set in force, without effect.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use countersign_core::lifecycle::{Digest, RequestId, Timestamp};
use countersign_gateway::simulation::{Difference, Sample, Standing};
use serde::{Deserialize, Serialize};

use super::admin::Admin;
use super::body::JsonBody;
use super::check::Check;
use super::error::ApiError;
use super::openapi::STORE_ERRORS;
use super::policy_sets::digest;
use super::view::{rfc3339, rfc3339_always};
use crate::state::App;

/// The state of the shadow.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShadowView {
    /// The hash of the candidate.
    hash: Digest,
    /// The hash of the set in force that it is compared with.
    beside: Digest,
    /// Since when.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Who started it.
    started_by: Option<String>,
    /// How many submissions and events it has evaluated.
    judged: u64,
    /// How many of them had the same outcome as under the set in force.
    same: u64,
    /// How many of them had another outcome.
    different: u64,
    /// How many events it could not evaluate, such as those of requests that are older than the shadow.
    unjudged: u64,
    /// How many were dropped, because too many were queued.
    dropped: u64,
    /// How many kinds of difference are not explained.
    unexplained: usize,
    /// The kinds of difference.
    differences: Vec<DifferenceView>,
    /// The latest differences, the newest first.
    samples: Vec<SampleView>,
}

/// A kind of difference.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DifferenceView {
    /// The action; `*` for unknown ones.
    action: String,
    /// What is different: `approve: counted(approved) -> counted(ready_for_approval)`.
    kind: String,
    /// How often.
    count: u64,
    /// Why it is as intended, if somebody explained it.
    explained: Option<String>,
    /// Who explained it.
    explained_by: Option<String>,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    explained_at: Option<Timestamp>,
}

/// One difference, with codes and without messages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SampleView {
    /// When.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The action; `*` for unknown ones.
    action: String,
    request_id: RequestId,
    /// What happened: `admission`, `approve`, `deny`, `acknowledge`, `withdraw`, `escalated`, `tick`, `expired`
    /// or `cancelled`.
    event: &'static str,
    /// The outcome under the set in force.
    active: String,
    /// The outcome under the candidate.
    candidate: String,
}

/// Why a kind of difference is as intended.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ExplainBody {
    /// The action of the difference.
    action: String,
    /// The kind of the difference.
    kind: String,
    /// Why; it goes to the audit log.
    #[schema(
        min_length = 3,
        max_length = 1000,
        pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+[^\s\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
    )]
    why: String,
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    actor: Option<String>,
}

/// Evaluates every live submission and event under a stored set, too, without effect.
#[utoipa::path(
    post,
    path = "/api/admin/policy-sets/{hash}/shadow",
    params(("hash" = Digest, Path, description = "The hash of a stored set.")),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The shadow has started, in the place of any other", body = ShadowView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: no such set is stored, or the gateway has no admins; \
            409 `in_force`: it is the set in force; 422 `invalid_policy_set`: it can no longer be loaded"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(hash): Path<String>,
    _: Body,
) -> Result<Json<ShadowView>, ApiError> {
    let hash = digest("hash", &hash)?;
    app.policy_sets.start_shadow(hash, admin.by(None)?).await?;
    view(&app)
}

/// Shows the shadow: what it has evaluated, and what had another outcome.
#[utoipa::path(
    get,
    path = "/api/admin/shadow",
    security(("admin" = [])),
    responses(
        (status = 200, description = "Its state", body = ShadowView),
        (status = "4XX", description = "401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: there is no shadow, or the gateway has no admins"),
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Admin) -> Result<Json<ShadowView>, ApiError> {
    view(&app)
}

/// Ends the shadow, and drops its results.
#[utoipa::path(
    delete,
    path = "/api/admin/shadow",
    security(("admin" = [])),
    responses(
        (status = 200, description = "Its last state", body = ShadowView),
        (status = "4XX", description = "401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: there is no shadow, or the gateway has no admins"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout`, with `Retry-After`: it has ended, but this is not in the audit log"),
    )
)]
pub(super) async fn stop(State(app): State<Arc<App>>, admin: Admin) -> Result<Json<ShadowView>, ApiError> {
    let stood = view(&app)?;
    if !app.policy_sets.stop_shadow(admin.by(None)?).await? {
        return Err(ApiError::NoSuch("shadow"));
    }
    Ok(stood)
}

/// Explains why a kind of difference is as intended, so that `requireShadow` no longer counts it.
#[utoipa::path(
    post,
    path = "/api/admin/shadow/explain",
    request_body = ExplainBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "The state of the shadow", body = ShadowView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: there is no shadow, no such difference, or the gateway has no admins; \
            408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    admin: Admin,
    body: JsonBody,
) -> Result<Json<ShadowView>, ApiError> {
    let ExplainBody { action, kind, why, actor } = body.typed()?;
    let mut check = Check::default();
    check.text("why", &why, 3, 1000);
    check.finish()?;
    if !app.policy_sets.explain(&action, &kind, &why, admin.by(actor)?).await? {
        return Err(ApiError::NoSuch("difference"));
    }
    view(&app)
}

fn view(app: &App) -> Result<Json<ShadowView>, ApiError> {
    let standing = app.gateway.shadow().standing().ok_or(ApiError::NoSuch("shadow"))?;
    Ok(Json(ShadowView::of(standing)))
}

impl ShadowView {
    fn of(standing: Standing) -> ShadowView {
        let unexplained = standing.differences.iter().filter(|found| found.explained.is_none()).count();
        ShadowView {
            hash: standing.hash,
            beside: standing.beside,
            started_at: standing.started_at,
            started_by: standing.started_by,
            judged: standing.same + standing.different,
            same: standing.same,
            different: standing.different,
            unjudged: standing.unjudged,
            dropped: standing.dropped,
            unexplained,
            differences: standing.differences.into_iter().map(DifferenceView::of).collect(),
            samples: standing.samples.into_iter().map(SampleView::of).collect(),
        }
    }
}

impl DifferenceView {
    fn of(Difference { action, kind, count, explained }: Difference) -> DifferenceView {
        let explained_at = explained.as_ref().map(|explained| explained.at);
        let (explained, explained_by) =
            explained.map_or((None, None), |explained| (Some(explained.why), explained.by));
        DifferenceView { action, kind, count, explained, explained_by, explained_at }
    }
}

impl SampleView {
    fn of(Sample { at, action, request, event, active, candidate }: Sample) -> SampleView {
        SampleView { at, action, request_id: request, event, active, candidate }
    }
}
