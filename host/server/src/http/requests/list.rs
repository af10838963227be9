//! Lists requests, in pages.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::lifecycle::{Request, RequestId, Status, Timestamp};
use countersign_store::StoreError;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::SummaryView;
use crate::audit::status;
use crate::http::admin::Admin;
use crate::http::error::{ApiError, Invalid};
use crate::http::openapi::STORE_ERRORS;
use crate::http::params::{Params, bad_cursor};
use crate::state::App;

/// How many requests an answer has by default, and at most.
const LIMIT: (usize, usize) = (100, 500);

/// How many requests are looked at for one answer at most, so that a filter that few pass takes no longer than others.
const SEARCHED: usize = 2_000;

/// How many requests are listed by the store at once, and how many of them are read side by side.
const PAGE: usize = 200;
const AT_ONCE: usize = 16;

/// A part of the requests.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct RequestsView {
    /// Open ones by when something happens to them next, the others by when they were made, newest first. There can be
    /// none although more follow.
    requests: Vec<SummaryView>,
    /// Those that are stored and cannot be read, whatever was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<RequestId>,
    /// The `cursor` with which it goes on; absent if there is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists requests: the open ones, unless `status` says otherwise.
#[utoipa::path(
    get,
    path = "/api/admin/requests",
    params(
        ("status" = Option<String>, Query, description = "Only requests with this status; or `open` (the default), `ended`, or `any`."),
        ("action" = Option<String>, Query, description = "Only requests for this action."),
        ("caller" = Option<String>, Query, description = "Only requests of this caller of the access file."),
        ("requester" = Option<String>, Query, description = "Only requests of this requester: the id as the caller gave it, or as the policies know it."),
        ("olderThan" = Option<usize>, Query, description = "Only requests that were made at least so many seconds ago."),
        ("limit" = Option<usize>, Query, description = "How many; 100 by default, at most 500."),
        ("cursor" = Option<String>, Query, description = "`next` of the previous answer to the same question."),
    ),
    security(("admin" = [])),
    responses(
        (status = 200, description = "Requests; all parameters that are given must hold", body = RequestsView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(in crate::http) async fn list(
    State(app): State<Arc<App>>,
    _: Admin,
    params: Params,
) -> Result<Json<RequestsView>, ApiError> {
    let now = app.gateway.clock().now();
    let filter = Filter::of(&params, now)?;
    let limit = params.limit(LIMIT)?;
    let mut place = match params.get("cursor")? {
        None => Place::begin(filter.status),
        Some(text) => Place::parse(text, filter.status).ok_or_else(bad_cursor)?,
    };
    let (mut requests, mut unreadable, mut searched) = (Vec::new(), Vec::new(), 0);
    let next = 'pages: loop {
        let page = place.page(&app).await?;
        let is_last = page.len() < PAGE;
        let gateway = &app.gateway;
        let read = page.into_iter().map(|place| async move {
            match gateway.store().request(place.id()).await {
                // It must not keep an admin from the others.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::warn!(request = %place.id(), %error, "cannot list a request");
                    Ok((place, None))
                }
                read => Ok::<_, ApiError>((place, Some(read?))),
            }
        });
        let mut read = stream::iter(read).buffered(AT_ONCE);
        while let Some((at, request)) = read.try_next().await? {
            if requests.len() >= limit || searched >= SEARCHED {
                break 'pages Some(place.to_string());
            }
            (place, searched) = (at, searched + 1);
            let Some(request) = request else {
                unreadable.push(at.id());
                continue;
            };
            if let Some(request) = request.filter(|request| filter.takes(request)) {
                requests.push(SummaryView::of(&request, now));
            }
        }
        if is_last {
            break None;
        }
    };
    Ok(Json(RequestsView { requests, unreadable, next }))
}

/// Which requests are listed.
struct Filter {
    status: Wanted,
    action: Option<String>,
    caller: Option<String>,
    requester: Option<String>,
    until: Option<Timestamp>,
}

/// With which status.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Open,
    Ended,
    Any,
    One(Status),
}

impl Wanted {
    /// Whether only open requests can pass, so that the index of those is enough.
    fn is_open(self) -> bool {
        match self {
            Wanted::Open => true,
            Wanted::Ended | Wanted::Any => false,
            Wanted::One(status) => !status.is_terminal(),
        }
    }
}

impl Filter {
    fn of(params: &Params, now: Timestamp) -> Result<Filter, Invalid> {
        let status = match params.get("status")? {
            None | Some("open") => Wanted::Open,
            Some("ended") => Wanted::Ended,
            Some("any") => Wanted::Any,
            Some(name) => Wanted::One(status(name).map_err(|_| {
                Invalid::new("status", "must be a status, such as `approved`, or `open`, `ended` or `any`")
            })?),
        };
        let until = params.number("olderThan")?.map(|seconds| now.minus(seconds.saturating_mul(1000)));
        let (action, caller, requester) =
            (params.text("action")?, params.text("caller")?, params.text("requester")?);
        Ok(Filter { status, action, caller, requester, until })
    }

    fn takes(&self, request: &Request) -> bool {
        let Filter { status, action, caller, requester, until } = self;
        let submission = &request.submission;
        let has_status = match status {
            Wanted::Open => !request.status().is_terminal(),
            Wanted::Ended => request.status().is_terminal(),
            Wanted::Any => true,
            Wanted::One(status) => request.status() == *status,
        };
        has_status
            && action.as_ref().is_none_or(|action| submission.action == *action)
            && caller.as_ref().is_none_or(|caller| submission.caller.as_ref() == Some(caller))
            && requester
                .as_ref()
                .is_none_or(|id| submission.requester.id == *id || submission.requester_id() == id)
            && until.is_none_or(|until| submission.submitted_at <= until)
    }
}

/// A place in the list: open requests by when they are due, all requests by their ids, downwards.
#[derive(Clone, Copy)]
enum Place {
    Due(Option<(Timestamp, RequestId)>),
    Id(Option<RequestId>),
}

impl Place {
    fn begin(wanted: Wanted) -> Place {
        if wanted.is_open() { Place::Due(None) } else { Place::Id(None) }
    }

    fn parse(text: &str, wanted: Wanted) -> Option<Place> {
        match (text.split_once('.'), wanted.is_open()) {
            (Some((at, id)), true) => {
                Some(Place::Due(Some((Timestamp::from_millis(at.parse().ok()?), id.parse().ok()?))))
            }
            (None, false) => Some(Place::Id(Some(text.parse().ok()?))),
            _ => None,
        }
    }

    fn id(&self) -> RequestId {
        match self {
            Place::Due(Some((_, id))) | Place::Id(Some(id)) => *id,
            Place::Due(None) | Place::Id(None) => RequestId::from_bytes([0; 16]),
        }
    }

    /// The places that follow.
    async fn page(&self, app: &App) -> Result<Vec<Place>, ApiError> {
        let store = app.gateway.store();
        match *self {
            Place::Due(after) => {
                // Whatever is due at some time: that is every open request.
                let due = store.due(LAST, after, PAGE).await?;
                for error in &due.unreadable {
                    tracing::warn!(%error, "cannot list an open request");
                }
                Ok(due.requests.into_iter().map(|(id, at)| Place::Due(Some((at, id)))).collect())
            }
            Place::Id(before) => {
                let ids = store.newest(before, PAGE).await?;
                Ok(ids.into_iter().map(|id| Place::Id(Some(id))).collect())
            }
        }
    }
}

/// Later than anything.
const LAST: Timestamp = Timestamp::from_millis(i64::MAX.unsigned_abs());

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Due(Some((at, id))) => write!(f, "{}.{id}", at.as_millis()),
            Place::Id(Some(id)) => id.fmt(f),
            Place::Due(None) | Place::Id(None) => Ok(()),
        }
    }
}
