//! `/api/admin/webhooks`: what targets outside wait for, and dead letters.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use countersign_core::lifecycle::{AuditEntry, AuditEvent, Milestone, RequestId, Timestamp};
use countersign_dispatch::message_id;
use countersign_policy::yaml::error::did_you_mean;
use countersign_store::{DeadLetter, StoreError};
use serde::Serialize;
use serde_json::json;

use super::admin::Admin;
use super::body::JsonBody;
use super::error::{ApiError, Invalid};
use super::openapi::STORE_ERRORS;
use super::params::Params;
use super::requests::operate::ResendBody;
use super::view::{rfc3339, rfc3339_always};
use crate::state::App;

/// How many dead letters of a target an answer has by default, and at most.
const LIMIT: (usize, usize) = (100, 500);

/// The largest number of dead letters of a target among which one is looked for.
const SEARCHED: usize = 100_000;

/// Targets outside, and what they were not told.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLettersView {
    /// The targets in force, and those for which something is stored.
    targets: Vec<TargetView>,
    /// What nobody tries to deliver any more; of each target those that were given up first, up to the limit.
    dead_letters: Vec<DeadLetterView>,
}

/// A target.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TargetView {
    /// Its name: `webhook:`, and the name in the access file.
    target: String,
    /// How many requests it is still to be told of.
    waiting: u64,
    /// Since when the oldest of them waits.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest: Option<Timestamp>,
    /// How many dead letters it has.
    dead: u64,
}

/// Something that nobody tries to deliver any more. What happened to the request later waits behind it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetterView {
    /// Its id: the `webhook-id` that it was sent with.
    id: String,
    /// The target, by its name: `webhook:`, and the name in the access file.
    target: String,
    /// The request that it is about.
    #[schema(value_type = String)]
    request_id: RequestId,
    /// What the target was not told of: `created`, `escalated`, `decided`, `consumed` or `outcome`; null if the request
    /// cannot be read.
    event: Option<&'static str>,
    /// Since when it waited.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// When it was given up.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    died_at: Timestamp,
    /// Why.
    failure: String,
}

/// A dead letter that is sent again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResentView {
    /// Its id: the `webhook-id` that it is sent with.
    id: String,
    /// The target, by its name.
    target: String,
    /// The request that it is about.
    #[schema(value_type = String)]
    request_id: RequestId,
}

/// Lists dead letters, and how much waits.
#[utoipa::path(
    get,
    path = "/api/admin/webhooks/dead",
    params(
        ("target" = Option<String>, Query, description = "Only this target."),
        ("limit" = Option<usize>, Query, description = "How many of each target; 100 by default, at most 500."),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "Dead letters", body = DeadLettersView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn dead(
    State(app): State<Arc<App>>,
    _: Admin,
    params: Params,
) -> Result<Json<DeadLettersView>, ApiError> {
    let limit = params.limit(LIMIT)?;
    let only = params.get("target")?;
    let store = app.gateway.store();
    let depths = store.dispatch_depth().await?;
    let mut names = app.dispatching.targets.names();
    names.extend(depths.iter().map(|depth| depth.target.clone()));
    names.sort();
    names.dedup();
    if let Some(only) = only {
        if !names.iter().any(|name| name == only) {
            let hint = did_you_mean(only, names.iter().map(String::as_str));
            return Err(Invalid::new("target", format!("is no target of this gateway{hint}")).into());
        }
        names.retain(|name| name == only);
    }
    let (mut targets, mut dead_letters) = (Vec::new(), Vec::new());
    for target in names {
        let depth = depths.iter().find(|depth| depth.target == target);
        if depth.is_some_and(|depth| depth.dead > 0) {
            for letter in store.dead_letters(&target, limit).await? {
                dead_letters.push(view(&app, letter).await?);
            }
        }
        targets.push(TargetView {
            waiting: depth.map_or(0, |depth| depth.waiting),
            oldest: depth.and_then(|depth| depth.oldest),
            dead: depth.map_or(0, |depth| depth.dead),
            target,
        });
    }
    Ok(Json(DeadLettersView { targets, dead_letters }))
}

async fn view(app: &App, letter: DeadLetter) -> Result<DeadLetterView, ApiError> {
    let about = about(app, &letter).await?;
    let id = id_of(&letter, about);
    let event = about.map(|(milestone, _)| milestone.as_str());
    let DeadLetter { request, target, position: _, since, died_at, failure } = letter;
    Ok(DeadLetterView { id, target, request_id: request, event, since, died_at, failure })
}

/// What a dead letter is about; `None` if its request cannot be read.
async fn about(app: &App, letter: &DeadLetter) -> Result<Option<(Milestone, Timestamp)>, StoreError> {
    match app.gateway.store().request(letter.request).await {
        Ok(request) => Ok(request.and_then(|request| {
            let place = usize::try_from(letter.position).ok()?;
            request.milestones().get(place).copied()
        })),
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::warn!(request = %letter.request, %error, "cannot say what a dead letter is about");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn id_of(letter: &DeadLetter, about: Option<(Milestone, Timestamp)>) -> String {
    message_id(letter.request, letter.position, about.map(|(_, at)| at), &letter.target)
}

/// Has a dead letter sent again, now, and then whatever happened to its request later.
#[utoipa::path(
    post,
    path = "/api/admin/webhooks/dead/{id}/resend",
    params(("id" = String, Path, description = "The id of the dead letter.")),
    request_body = ResendBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "It is sent again", body = ResentView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`: it needs `operate`; \
            404 `not_found`: no such dead letter, or the gateway has no admins; 408 `request_timeout`; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn resend(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<ResentView>, ApiError> {
    let ResendBody { actor } = body.typed()?;
    let by = admin.acting(actor)?;
    let store = app.gateway.store();
    let letter = find(&app, &id).await?.ok_or(ApiError::NoSuch("dead letter"))?;
    let request = app.gateway.request(letter.request).await?;
    let mut detail = by.call;
    detail.insert("target".to_owned(), json!(letter.target));
    detail.insert("deadLetter".to_owned(), json!(id));
    let now = app.gateway.clock().now();
    let audit = AuditEntry {
        at: request.time_of_next(now),
        event: AuditEvent::WebhookResent.as_str().to_owned(),
        action: request.submission.action.clone(),
        request: Some(request.id),
        status: Some(request.status()),
        actor: Some(by.name),
        policy_hash: Some(request.submission.policy_hash),
        payload_hash: Some(request.payload_hash()),
        detail,
    };
    if !store.revive_dispatch(letter.request, &letter.target, now, audit).await? {
        return Err(ApiError::NoSuch("dead letter"));
    }
    app.gateway.dispatch_bell().notify_one();
    Ok(Json(ResentView { id, target: letter.target, request_id: letter.request }))
}

async fn find(app: &App, id: &str) -> Result<Option<DeadLetter>, ApiError> {
    let store = app.gateway.store();
    for depth in store.dispatch_depth().await?.into_iter().filter(|depth| depth.dead > 0) {
        for letter in store.dead_letters(&depth.target, SEARCHED).await? {
            // The request is read only of those that may be it.
            let may_be = id.starts_with(&format!("{}-{}-", letter.request, letter.position));
            if may_be && id_of(&letter, about(app, &letter).await?) == id {
                return Ok(Some(letter));
            }
        }
    }
    Ok(None)
}
