//! `GET /api/admin/access`: which access file is in force, and how it came to be.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::{Digest, Timestamp};
use serde::Serialize;

use super::admin::Admin;
use super::error::{ApiError, Invalid};
use super::openapi::STORE_ERRORS;
use super::view::{rfc3339, rfc3339_always};
use crate::access_control::history::{self, Attempt};
use crate::state::App;

/// The access file in force, and the attempts to put one in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccessView {
    /// SHA-256 of the file.
    hash: Option<Digest>,
    /// Since when; null until it is stored.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// How many callers it has.
    callers: usize,
    /// How many admins.
    admins: usize,
    /// How many issuers of tokens.
    issuers: usize,
    /// How many people.
    people: usize,
    /// The newest attempts, the newest first; at most 100.
    attempts: Vec<AttemptView>,
}

/// One attempt to put an access file in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttemptView {
    /// When.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `start`, `sighup`, `file` or `instance` (another instance has put the same file in force).
    source: &'static str,
    /// `ok`, `unchanged`, `held_back` (it may be half-written, and nobody asked for it) or `failed`.
    outcome: &'static str,
    /// SHA-256 of the file that was tried; null if there was none, or it could not be read.
    hash: Option<Digest>,
    /// SHA-256 of the file that was in force; null if there was none.
    previous_hash: Option<Digest>,
    /// What was wrong; only the first few.
    errors: Vec<Invalid>,
}

/// The access file in force, and how it came to be.
#[utoipa::path(
    get,
    path = "/api/admin/access",
    security(("admin" = [])),
    responses(
        (status = 200, description = "The access file in force", body = AccessView),
        (status = "4XX", description = "401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins, or no access file"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Admin) -> Result<Json<AccessView>, ApiError> {
    let Some(access) = &app.access else { return Err(ApiError::NoSuch("path")) };
    let access = access.authenticator.access();
    let history = history::load(app.gateway.store().as_ref()).await?;
    Ok(Json(AccessView {
        hash: access.digest(),
        since: history.since(access.digest()),
        callers: access.callers().count(),
        admins: access.admins().count(),
        issuers: access.issuers().len(),
        people: access.people().iter().count(),
        attempts: history.attempts.into_iter().map(AttemptView::of).collect(),
    }))
}

impl AttemptView {
    fn of(Attempt { at, source, outcome, hash, previous, errors }: Attempt) -> AttemptView {
        AttemptView {
            at,
            source: source.as_str(),
            outcome: outcome.as_str(),
            hash,
            previous_hash: previous,
            errors: errors.into_iter().map(Invalid::from).collect(),
        }
    }
}
