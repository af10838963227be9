//! `/api/admin/shadow`: a candidate that judges beside the policy set in force, with no effect.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use super::admin::Admin;
use super::body::JsonBody;
use super::check::Check;
use super::error::{ApiError, Problem};
use super::policy_sets::digest;
use super::view::{rfc3339, rfc3339_always};
use crate::app::App;
use countersign_core::lifecycle::{Digest, RequestId, Timestamp};
use countersign_gateway::simulation::{Difference, Sample, Standing};

/// Where the shadow stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShadowView {
    /// The hash of the candidate.
    #[schema(value_type = String)]
    hash: Digest,
    /// The hash of the set in force that it is compared with.
    #[schema(value_type = String)]
    beside: Digest,
    /// Since when.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Who wanted it.
    started_by: Option<String>,
    /// How many submissions and events it has judged.
    judged: u64,
    /// How many of them as the set in force did.
    same: u64,
    /// How many of them otherwise.
    different: u64,
    /// How many events it could not judge: of requests that were made before it began, say.
    unjudged: u64,
    /// How many were dropped, as too many waited to be judged.
    dropped: u64,
    /// How many kinds of difference nobody has explained.
    unexplained: usize,
    /// The kinds of difference.
    differences: Vec<DifferenceView>,
    /// The last differences, the newest first.
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
    /// Why it is as it should be, where somebody said so.
    explained: Option<String>,
    /// Who said so.
    explained_by: Option<String>,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    explained_at: Option<Timestamp>,
}

/// One difference. It has codes, and no messages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SampleView {
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The action; `*` for unknown ones.
    action: String,
    #[schema(value_type = String)]
    request_id: RequestId,
    /// What happened: `admission`, `approve`, `deny`, `acknowledge`, `withdraw`, `escalated`, `tick`, `expired`
    /// or `cancelled`.
    event: &'static str,
    /// What became of it.
    active: String,
    /// What would have become of it.
    candidate: String,
}

/// Why a kind of difference is as it should be.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ExplainBody {
    /// The action, as the difference has it.
    action: String,
    /// The kind, as the difference has it.
    kind: String,
    /// Why; it goes to the audit log.
    why: String,
    /// Who, for the audit log; else the header `x-admin-actor`, else `admin`.
    #[serde(default)]
    actor: Option<String>,
}

/// Has a stored set judge every live submission and event beside the set in force, with no effect.
#[utoipa::path(
    post,
    path = "/api/admin/policy-sets/{hash}/shadow",
    params(("hash" = String, Path, description = "The hash of a stored set.")),
    security(("admin" = [])),
    responses(
        (status = 200, description = "It judges in the shadow, in the place of any other", body = ShadowView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: no such set is stored, or the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`in_force`: it is the set in force", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_policy_set`: it can no longer be loaded", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
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

/// Where the shadow stands: what it has judged, and what it judged otherwise.
#[utoipa::path(
    get,
    path = "/api/admin/shadow",
    security(("admin" = [])),
    responses(
        (status = 200, description = "Where it stands", body = ShadowView),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: there is no shadow, or the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Admin) -> Result<Json<ShadowView>, ApiError> {
    view(&app)
}

/// Ends the shadow, and forgets what it has judged.
#[utoipa::path(
    delete,
    path = "/api/admin/shadow",
    security(("admin" = [])),
    responses(
        (status = 200, description = "Where it stood", body = ShadowView),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: there is no shadow, or the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`: it has ended, and the audit log does not say so", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stop(State(app): State<Arc<App>>, admin: Admin) -> Result<Json<ShadowView>, ApiError> {
    let stood = view(&app)?;
    if !app.policy_sets.stop_shadow(admin.by(None)?).await? {
        return Err(ApiError::NoSuch("shadow"));
    }
    Ok(stood)
}

/// Says why a kind of difference is as it should be, so that it no longer stands in the way of `requireShadow`.
#[utoipa::path(
    post,
    path = "/api/admin/shadow/explain",
    request_body = ExplainBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "Where the shadow stands", body = ShadowView),
        (status = 400, description = "`invalid_payload`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`unauthorized`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: there is no shadow, no such difference, or the gateway has no admin token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`, with `Retry-After`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    admin: Admin,
    body: JsonBody,
) -> Result<Json<ShadowView>, ApiError> {
    let ExplainBody { action, kind, why, actor } = body.typed()?;
    let mut check = Check::default();
    check.words("why", &why, 3, 1000);
    check.done()?;
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
