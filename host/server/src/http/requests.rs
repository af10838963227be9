//! `/api/admin/requests`: the day's work of admins with requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use countersign_core::lifecycle::{
    self, Act, AdminEnd, Ending, Identity, Link, Origin, Party, Reason, Request, RequestId, RequirementKind,
    Status, Timestamp,
};
use countersign_core::record::{PostState, Slot};
use countersign_gateway::{MostTried, Trial, Tried};
use countersign_store::StoreError;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::admin::Admin;
use super::body::JsonBody;
use super::check::Check;
use super::end::End;
use super::error::{ApiError, Invalid};
use super::openapi::STORE_ERRORS;
use super::params::{Params, request_id};
use super::place::Audience;
use super::view::{StatusView, rfc3339, rfc3339_always};
use crate::audit::status;
use crate::state::App;
use crate::telemetry::log_failure;

/// How many requests an answer has by default, and at most.
const LIMIT: (usize, usize) = (100, 500);

/// How many requests are looked at for one answer at most, so that a filter that few pass takes no longer than others.
const SEARCHED: usize = 2_000;

/// How many requests are listed by the store at once, and how many of them are read side by side.
const PAGE: usize = 200;
const AT_ONCE: usize = 16;

/// How much is tried to find out who can act.
const TRIED: MostTried = MostTried { people: 50, ms: 200 };

/// A part of the requests.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestsView {
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

/// A request, in short.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SummaryView {
    #[serde(flatten)]
    status: StatusView,
    requester: Party,
    origin: Origin,
    justification: String,
    /// What is missing; empty once it has ended.
    waits_for: Vec<MissingView>,
}

/// Something that is missing.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MissingView {
    /// `approval`, `acknowledgement` or `time`.
    #[schema(value_type = String)]
    kind: RequirementKind,
    /// What the policy calls it; the persona of an acknowledgement.
    label: String,
    have: u32,
    need: u32,
    /// Ids of people and `@group` names that can meet it.
    eligible: Vec<String>,
    /// Ids of people who may not, although `eligible` names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    excluded: Vec<String>,
}

impl SummaryView {
    fn of(request: &Request, now: Timestamp) -> SummaryView {
        let requirements = match &request.state {
            lifecycle::State::Open(open) => open.requirements.as_slice(),
            _ => &[],
        };
        let waits_for = requirements.iter().cloned().map(|wanted| MissingView {
            kind: wanted.kind,
            label: wanted.label,
            have: wanted.have,
            need: wanted.need,
            eligible: wanted.eligible,
            excluded: wanted.excluded,
        });
        let submission = &request.submission;
        SummaryView {
            status: StatusView::of(request, now),
            requester: submission.requester.clone(),
            origin: submission.origin.clone(),
            justification: submission.justification.clone(),
            waits_for: waits_for.collect(),
        }
    }
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
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: Admin,
    params: Params,
) -> Result<Json<RequestsView>, ApiError> {
    let now = app.gateway.clock().now();
    let filter = Filter::of(&params, now)?;
    let limit = match params.get("limit")? {
        None => LIMIT.0,
        Some(text) => text.parse().map_err(|_| Invalid::new("limit", "must be a whole number"))?,
    };
    let limit = limit.clamp(1, LIMIT.1);
    let mut place = match params.get("cursor")? {
        None => Place::begin(filter.status),
        Some(text) => Place::parse(text, filter.status)
            .ok_or_else(|| Invalid::new("cursor", "is no `next` of an answer to this question"))?,
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
                    tracing::warn!(%error, "cannot list a request");
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
        let text = |name: &str| params.get(name).map(|value| value.map(str::to_owned));
        let status = match params.get("status")? {
            None | Some("open") => Wanted::Open,
            Some("ended") => Wanted::Ended,
            Some("any") => Wanted::Any,
            Some(name) => Wanted::One(status(name).map_err(|_| {
                Invalid::new("status", "must be a status, such as `approved`, or `open`, `ended` or `any`")
            })?),
        };
        let until = match params.get("olderThan")? {
            None => None,
            Some(text) => {
                let seconds: u64 = text
                    .parse()
                    .map_err(|_| Invalid::new("olderThan", "must be a whole number of seconds"))?;
                Some(now.minus(seconds.saturating_mul(1000)))
            }
        };
        let (action, caller, requester) = (text("action")?, text("caller")?, text("requester")?);
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

/// A request with all that is known of it, but for hidden values.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DetailView {
    #[serde(flatten)]
    summary: SummaryView,
    /// Who the requester is, as the policies know it; absent in requests that were made before that was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    requester_is: Option<Identity>,
    /// Ids of people who count as requesters, too.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    owners: BTreeSet<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
    /// The parameters as they stand, edits included; hidden ones as `[redacted]`.
    #[schema(value_type = Object)]
    params: Map<String, Value>,
    /// The keys of those that are hidden.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    hidden: BTreeSet<String>,
    /// Who edited a parameter last, by its key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    edited_by: BTreeMap<String, String>,
    /// What has happened to it, oldest first.
    history: Vec<EventView>,
    /// When something happens to it by itself next; absent once it has ended.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    due_at: Option<Timestamp>,
    /// The admin who ended it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by_admin: Option<String>,
    /// Why it ended, if that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who can still act, and why others cannot; absent once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    people: Option<PeopleView>,
    #[serde(flatten)]
    audience: Option<Audience>,
    /// How far its messages in Slack have come.
    messages: Vec<MessageView>,
    /// The id of the trace in which it was made, in hexadecimal; absent if it was not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(flatten)]
    end: End,
}

/// Something that has happened to a request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView {
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `submitted`, `acknowledge`, `approve`, `deny`, `withdraw`, `escalated` or `tick`.
    act: &'static str,
    /// Who acted, as the policies know them; absent of what happens by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// The name that they acted under, if it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    /// The persona that was acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    persona: Option<String>,
    /// Why, in the actor's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The keys that were edited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    edits: Vec<String>,
}

impl EventView {
    fn of(event: &lifecycle::Event) -> EventView {
        let (mut persona, mut reason, mut edits) = (None, None, Vec::new());
        match &event.act {
            Act::Acknowledge { persona: name } => persona = Some(name.clone()),
            Act::Deny { reason: said } => reason.clone_from(said),
            Act::Approve { edits: made } => edits = made.iter().map(|edit| edit.key.clone()).collect(),
            Act::Submitted | Act::Withdraw | Act::Escalated | Act::Tick => {}
        }
        let by = event.by.as_ref();
        EventView {
            at: event.at,
            act: event.act.name(),
            by: by.map(|actor| actor.id.clone()),
            alias: by.and_then(|actor| actor.alias.clone()),
            persona,
            reason,
            edits,
        }
    }
}

/// Who can still act on a request: what its policies say if each known person acted now.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeopleView {
    /// Those whose acts were tried, whoever the policies name first; at most 50.
    tried: Vec<PersonView>,
    /// How many more are known.
    untried: usize,
    /// User groups of Slack whose members are not known, so that there may be more people.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unknown_groups: BTreeSet<String>,
    /// Why nobody could be tried, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// What somebody could do now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PersonView {
    /// The id by which the policies know them.
    id: String,
    /// Each act that is missing.
    acts: Vec<TriedView>,
}

/// What would come of an act.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TriedView {
    /// `approve` or `acknowledge`.
    act: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    persona: Option<String>,
    /// Whether it would count.
    counts: bool,
    /// The status that the request would have then.
    #[serde(skip_serializing_if = "Option::is_none")]
    leads_to: Option<Status>,
    /// Why it would not count: a stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// The same, for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The policies' own reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    reasons: Vec<Reason>,
}

impl PeopleView {
    async fn now(app: &App, request: &Arc<Request>) -> Option<PeopleView> {
        match app.gateway.try_everybody(request, TRIED).await {
            Ok(trial) => trial.map(PeopleView::of),
            Err(error) => {
                log_failure(&error);
                Some(PeopleView { failed: Some(error.public_message()), ..PeopleView::default() })
            }
        }
    }

    fn of(Trial { people, untried, unknown_groups }: Trial) -> PeopleView {
        let tried = people.into_iter().map(|person| {
            let acts = person.acts.into_iter().map(|tried| {
                let (act, persona) = (tried.act, tried.persona);
                match tried.outcome {
                    Tried::Counts(status) => TriedView {
                        act,
                        persona,
                        counts: true,
                        leads_to: Some(status),
                        code: None,
                        why: None,
                        reasons: Vec::new(),
                    },
                    Tried::Refused { code, message, reasons } => TriedView {
                        act,
                        persona,
                        counts: false,
                        leads_to: None,
                        code: Some(code),
                        why: Some(message),
                        reasons,
                    },
                }
            });
            PersonView { id: person.id, acts: acts.collect() }
        });
        PeopleView { tried: tried.collect(), untried, unknown_groups, failed: None }
    }
}

/// How far a message in Slack has come.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageView {
    /// Which one: `main`, `escalation_thread`, `escalation_channel`, or `replaced_` and a number.
    #[schema(value_type = String)]
    slot: Slot,
    channel: String,
    /// `absent`, `posting` (whether it was posted is looked for) or `posted`.
    state: &'static str,
    /// Whether it shows the newest state of the request.
    is_current: bool,
    /// Slack's code for why it cannot be delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    /// Slack took only its minimal form, so that the request cannot be approved from it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_minimal: bool,
}

impl MessageView {
    async fn all(app: &App, request: &Request) -> Result<Vec<MessageView>, ApiError> {
        let mut slots = vec![Slot::Main, Slot::EscalationThread, Slot::EscalationChannel];
        slots.extend(request.replacements().iter().map(|replacement| Slot::Replaced(replacement.seq)));
        let mut messages = Vec::new();
        for slot in slots {
            let Some(post) = app.gateway.store().slack_post(request.id, slot).await? else { continue };
            messages.push(MessageView {
                slot,
                state: match post.state {
                    PostState::Absent => "absent",
                    PostState::Posting { .. } => "posting",
                    PostState::Posted { .. } => "posted",
                },
                is_current: post.ts().is_some() && post.shown >= request.version,
                is_minimal: post.was_refused(),
                channel: post.channel,
                failed: post.failed,
            });
        }
        Ok(messages)
    }
}

impl DetailView {
    async fn of(app: &Arc<App>, request: &Arc<Request>) -> Result<DetailView, ApiError> {
        let submission = &request.submission;
        let editors = request.editors().into_iter();
        Ok(DetailView {
            summary: SummaryView::of(request, app.gateway.clock().now()),
            requester_is: submission.requester_is.clone(),
            owners: submission.owners.clone(),
            links: submission.links.clone(),
            params: request.params(),
            hidden: submission.redacted.clone(),
            edited_by: editors.map(|(key, id)| (key.to_owned(), id.to_owned())).collect(),
            history: request.history.iter().map(EventView::of).collect(),
            due_at: request.due_at(),
            ended_by_admin: request.ended_by_admin().map(str::to_owned),
            reason: request.reason().map(str::to_owned),
            people: PeopleView::now(app, request).await,
            audience: Audience::of(app, request).await,
            messages: MessageView::all(app, request).await?,
            trace_id: request.trace.as_ref().map(|trace| trace.parent.trace_id()),
            end: End::of(app, request, false).await,
        })
    }
}

/// Shows a request with all that is known of it, but for hidden values.
#[utoipa::path(
    get,
    path = "/api/admin/requests/{id}",
    params(("id" = RequestId, Path, description = "The request.")),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The request", body = DetailView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: no such request, or the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(id): Path<String>,
) -> Result<Json<DetailView>, ApiError> {
    let request = app.gateway.request(request_id("id", &id)?).await?;
    Ok(Json(DetailView::of(&app, &request).await?))
}

/// Why an admin ends a request.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct EndBody {
    /// Why, for people, the caller and the audit log.
    #[schema(min_length = 3, max_length = 1000, pattern = r"\S[\s\S]+\S")]
    reason: String,
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S")]
    actor: Option<String>,
}

/// Who has something delivered again.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ResendBody {
    /// Who the caller says that the admin is; audited as `claimedActor`. By default the header `x-admin-actor`.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 128, pattern = r"\S")]
    pub(super) actor: Option<String>,
}

/// Cancels an open request, as its caller could.
#[utoipa::path(
    post,
    path = "/api/admin/requests/{id}/cancel",
    params(("id" = RequestId, Path, description = "The request.")),
    request_body = EndBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "The request is cancelled", body = DetailView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`: it needs `operate`; \
            404 `not_found`: no such request, or the gateway has no admins; 408 `request_timeout`; 409 `already_decided`; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn cancel(
    app: State<Arc<App>>,
    admin: Admin,
    id: Path<String>,
    body: JsonBody,
) -> Result<Json<DetailView>, ApiError> {
    end(app, admin, id, body, Ending::Cancelled).await
}

/// Has an open request expire now, as if nobody had decided in time.
#[utoipa::path(
    post,
    path = "/api/admin/requests/{id}/expire",
    params(("id" = RequestId, Path, description = "The request.")),
    request_body = EndBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "The request has expired", body = DetailView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`: it needs `operate`; \
            404 `not_found`: no such request, or the gateway has no admins; 408 `request_timeout`; 409 `already_decided`; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn expire(
    app: State<Arc<App>>,
    admin: Admin,
    id: Path<String>,
    body: JsonBody,
) -> Result<Json<DetailView>, ApiError> {
    end(app, admin, id, body, Ending::Expired).await
}

async fn end(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(id): Path<String>,
    body: JsonBody,
    ending: Ending,
) -> Result<Json<DetailView>, ApiError> {
    let id = request_id("id", &id)?;
    let EndBody { reason, actor } = body.typed()?;
    let mut check = Check::default();
    check.text("reason", &reason, 3, 1000);
    check.finish()?;
    let by = admin.acting(actor)?;
    let request = app.gateway.end(id, AdminEnd { ending, by, reason: Some(reason) }).await?;
    Ok(Json(DetailView::of(&app, &request).await?))
}

/// Has the messages of an open request delivered again, now. It never leads to a second message.
#[utoipa::path(
    post,
    path = "/api/admin/requests/{id}/resend",
    params(("id" = RequestId, Path, description = "The request.")),
    request_body = ResendBody,
    security(("admin" = [])),
    responses(
        (status = 200, description = "Its messages are delivered again", body = DetailView),
        (status = "4XX", description = "400 `invalid_payload`; 401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`: it needs `operate`; \
            404 `not_found`: no such request, or the gateway has no admins; 408 `request_timeout`; \
            409 `already_decided`, or `not_deliverable`: nobody is told of its action, or Slack is not configured; 413 `payload_too_large`; 415 `unsupported_media_type`"),
        (status = "5XX", description = "500 `internal`; \
            503 `store_unavailable`, `store_full`, `store_timeout` or `contended`, with `Retry-After`"),
    )
)]
pub(super) async fn resend(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<DetailView>, ApiError> {
    let id = request_id("id", &id)?;
    let ResendBody { actor } = body.typed()?;
    let by = admin.acting(actor)?;
    let request = app.gateway.request(id).await?;
    if !request.status().is_terminal() {
        let entry = app.gateway.entry_of(&request).await?;
        if entry.channel.is_none() {
            return Err(ApiError::NotDeliverable("the action of this request has no channel"));
        }
        if app.outgoing.is_none() {
            return Err(ApiError::NotDeliverable("this gateway has no token for Slack"));
        }
    }
    let request = app.gateway.show_again(id, &by).await?;
    Ok(Json(DetailView::of(&app, &request).await?))
}
