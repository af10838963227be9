//! `GET /api/admin/audit`: reads the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::{AuditEntry, Digest, RequestId, Status, Timestamp};
use countersign_store::{AuditCursor, StoreError};
use serde::Serialize;

use super::admin::Admin;
use super::error::{ApiError, Invalid};
use super::openapi::STORE_ERRORS;
use super::params::{Params, bad_cursor, request_id};
use crate::audit::{AuditFilter, status};
use crate::state::App;

/// How many entries an answer has by default, and at most.
const LIMIT: (usize, usize) = (100, 500);

/// How many entries are looked at for one answer at most, so that a filter that few pass takes no longer than others.
const SEARCHED: usize = 10_000;

/// How often the store is asked for one answer at most: it may search much for a page that has few entries or none.
const PAGES: usize = 100;

/// A part of the audit log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditView {
    /// The entries, by their time as far as the clocks agree. There can be none although more follow.
    entries: Vec<EntryView>,
    /// The `cursor` with which it goes on; absent if there is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An entry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryView {
    /// Its partition.
    partition: u16,
    /// Its number in the partition.
    number: u64,
    /// SHA-256 of its bytes: of the canonical JSON of `entry`, unless an earlier version wrote it.
    sha256: Digest,
    /// What was written: `at` (milliseconds since the epoch), `event`, `action`, and what else is known.
    #[schema(value_type = Object)]
    entry: AuditEntry,
}

/// Reads the audit log.
#[utoipa::path(
    get,
    path = "/api/admin/audit",
    params(
        ("since" = Option<String>, Query, format = DateTime, description = "Only entries from this time on, in RFC 3339."),
        ("until" = Option<String>, Query, format = DateTime, description = "Only entries before this time."),
        ("action" = Option<String>, Query, description = "Only entries about this action."),
        ("event" = Option<String>, Query, description = "Only entries with this event, such as `approved`."),
        ("status" = Option<Status>, Query, description = "Only entries after which the request had this status."),
        ("request" = Option<RequestId>, Query, description = "Only entries about this request."),
        ("actor" = Option<String>, Query, description = "Only acts of this person or caller."),
        ("limit" = Option<usize>, Query, description = "How many; 100 by default, at most 500."),
        ("cursor" = Option<String>, Query, description = "`next` of the previous answer to the same question."),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "Entries; all parameters that are given must hold", body = AuditView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: Admin,
    params: Params,
) -> Result<Json<AuditView>, ApiError> {
    let filter = filter(&params)?;
    let limit = params.limit(LIMIT)?;
    let mut after = AuditCursor::parse(params.get("cursor")?.unwrap_or_default());
    let range = filter.range(true);
    let (mut entries, mut searched, mut pages) = (Vec::new(), 0, 0);
    let store = app.gateway.store();
    let next = loop {
        let left = limit - entries.len();
        let page = store.audit_log(range, &after, left).await.map_err(|error| match error {
            StoreError::Cursor(_) => bad_cursor().into(),
            error => ApiError::from(error),
        })?;
        searched += page.entries.len();
        pages += 1;
        for stored in page.entries {
            let entry = stored.entry()?;
            if filter.takes(&entry) {
                let (partition, number, sha256) = (stored.partition, stored.number, stored.digest);
                entries.push(EntryView { partition, number, sha256, entry });
            }
        }
        after = page.next;
        if page.is_last {
            break None;
        }
        if entries.len() >= limit || searched >= SEARCHED || pages >= PAGES {
            break Some(after.as_str().to_owned());
        }
    };
    Ok(Json(AuditView { entries, next }))
}

fn filter(params: &Params) -> Result<AuditFilter, ApiError> {
    let time = |name: &str| -> Result<Option<Timestamp>, Invalid> {
        let Some(text) = params.get(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Invalid::new(name, "must be a time in RFC 3339"))
    };
    let of_status = |name: &str| -> Result<_, Invalid> {
        let Some(text) = params.get(name)? else { return Ok(None) };
        status(text).map(Some).map_err(|_| Invalid::new(name, "must be a status, such as `approved`"))
    };
    let event = |name: &str| -> Result<_, Invalid> {
        let Some(text) = params.get(name)? else { return Ok(None) };
        AuditFilter::event(text).map(Some).map_err(|wrong| Invalid::new(name, wrong))
    };
    Ok(AuditFilter {
        since: time("since")?,
        until: time("until")?,
        action: params.text("action")?,
        event: event("event")?,
        status: of_status("status")?,
        request: params.get("request")?.map(|id| request_id("request", id)).transpose()?,
        actor: params.text("actor")?,
    })
}
