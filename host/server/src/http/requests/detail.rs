//! Shows a request with all that is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use countersign_core::lifecycle::{self, Act, Identity, Link, Reason, Request, RequestId, Status, Timestamp};
use countersign_core::record::{PostState, Slot};
use countersign_gateway::{MostTried, Trial, Tried};
use serde::Serialize;
use serde_json::{Map, Value};

use super::SummaryView;
use crate::http::admin::Admin;
use crate::http::end::End;
use crate::http::error::ApiError;
use crate::http::openapi::STORE_ERRORS;
use crate::http::params::request_id;
use crate::http::place::Audience;
use crate::http::view::{rfc3339, rfc3339_always};
use crate::state::App;
use crate::telemetry::log_failure;

/// How much is tried to find out who can act.
const TRIED: MostTried = MostTried { people: 50, ms: 200 };

/// A request with all that is known of it, but for hidden values.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct DetailView {
    #[serde(flatten)]
    summary: SummaryView,
    /// Who the requester is, as the policies know it; absent in requests that were made before that was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    requester_is: Option<Identity>,
    /// Ids of people who count as requesters, too.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    owners: BTreeSet<String>,
    /// What the caller linked to.
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
pub(in crate::http) struct EventView {
    /// When.
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
pub(in crate::http) struct PeopleView {
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
pub(in crate::http) struct PersonView {
    /// The id by which the policies know them.
    id: String,
    /// Each act that is missing.
    acts: Vec<TriedView>,
}

/// What would come of an act.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct TriedView {
    /// `approve` or `acknowledge`.
    act: &'static str,
    /// The persona that would be acknowledged.
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
                log_failure(&error, Some(request.id));
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
pub(in crate::http) struct MessageView {
    /// Which one: `main`, `escalation_thread`, `escalation_channel`, or `replaced_` and a number.
    #[schema(value_type = String)]
    slot: Slot,
    /// The id of the channel.
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
    pub(super) async fn of(app: &Arc<App>, request: &Arc<Request>) -> Result<DetailView, ApiError> {
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
            trace_id: request.trace_id(),
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
pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(id): Path<String>,
) -> Result<Json<DetailView>, ApiError> {
    let request = app.gateway.request(request_id("id", &id)?).await?;
    Ok(Json(DetailView::of(&app, &request).await?))
}
