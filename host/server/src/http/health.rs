//! `/healthz`, `/readyz` and `/metrics`: for probes and monitoring.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_policy::ActionPolicy;
use countersign_slack::{HealthState, Report};
use countersign_store::StoreFault;
use serde::Serialize;

use super::view::{rfc3339, rfc3339_always};
use crate::state::App;

/// Whether the process is alive, whatever the state of its dependencies.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "`ok`", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// Whether the gateway is ready.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadyView {
    /// `ready`; `degraded`: it serves, but something is wrong, which `degraded` names; `unavailable`; or `shutting_down`.
    status: &'static str,
    /// What is wrong: `store_unavailable` (of a store that instances share: callers who wait, and what people do in Slack,
    /// are not lost meanwhile), `slack_degraded`, `slack_stalled`, `slack_down`, `slack_unauthorized`,
    /// `audit` (which `audit` explains), `policy_set_held_back`, `access_file_held_back`, or `presses_spooled` (what people did waits on disk for the store).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
    /// The hash of the policy set in force.
    #[schema(value_type = String)]
    policy: Digest,
    /// `ok` or `unavailable`.
    store: &'static str,
    /// What is wrong with the store: `full`, `read_only`, `io_error`, `busy`, `slow` or `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_fault: Option<&'static str>,
    /// Which store: `sqlite` or `redis`.
    backend: &'static str,
    /// The state of delivery to Slack. What is not delivered waits in the outbox.
    slack: SlackView,
    /// What is wrong with the audit log, if anything is: `signing` (it is not what was signed before, so that no checkpoint is
    /// signed), `checkpoint_file` or `file` (the file cannot be written), each with what is the matter.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit: BTreeMap<&'static str, String>,
    /// Actions of the policy set in force that have no channel, so that nobody is told of their requests; at most 20. They do
    /// not affect `status`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without_channel: Vec<String>,
}

/// The state of delivery to Slack.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SlackView {
    /// Whether there is a bot token. Without one nothing is delivered, and the other fields are left out.
    configured: bool,
    /// `ok`; `degraded`: some messages are not delivered; `stalled`: nothing has been delivered for a minute although
    /// something is due; `down`: Slack does not answer; `unauthorized`: Slack refuses everything; `standby`: another instance
    /// delivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Slack's error code, if it refuses everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// Slack's error code, if it does not let the gateway look for a message whose posting was not answered; such a
    /// message is posted again.
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup_refused: Option<String>,
    /// Channels that Slack does not let the gateway post to; at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<ChannelView>,
}

/// A channel that Slack does not let the gateway post to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChannelView {
    /// The channel, as the policy set names it.
    channel: String,
    /// Slack's error code.
    error: String,
    /// Since when.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

impl SlackView {
    pub(super) fn of(report: Option<Report>) -> SlackView {
        let Some(report) = report else { return SlackView::default() };
        let Report { state, since, refused, lookup_refused, channels } = report;
        let channels = channels.into_iter().map(|(channel, failure)| ChannelView {
            channel,
            error: failure.code,
            since: failure.since,
        });
        SlackView {
            configured: true,
            state: Some(state.as_str()),
            since: Some(since),
            refused,
            lookup_refused,
            channels: channels.collect(),
        }
    }
}

/// Whether the gateway is ready: the store could be written to within the last seconds, and no shutdown has begun. Without a
/// store that others share, it is as good as any other gateway: it is degraded, and stays where callers and Slack reach it.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "Ready, or degraded", body = ReadyView),
        (status = 503, description = "The store is unavailable and not a shared one, or the gateway is shutting down",
            body = ReadyView),
    )
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    let fault = app.readiness.store_fault();
    let is_shared = app.gateway.store().shared().is_some();
    let report = app.outgoing.as_ref().map(|slack| slack.health.report(app.gateway.clock().monotonic()));
    let audit = app.audit.troubles();
    let degraded = degraded(&app, fault, !audit.is_empty(), report.as_ref().map(|report| report.state));
    let (status, code) = match fault {
        _ if app.shutdown.is_cancelled() => ("shutting_down", StatusCode::SERVICE_UNAVAILABLE),
        Some(_) if !is_shared => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        _ if degraded.is_empty() => ("ready", StatusCode::OK),
        _ => ("degraded", StatusCode::OK),
    };
    let view = ReadyView {
        status,
        degraded,
        policy: app.gateway.policies().active().hash(),
        store: if fault.is_none() { "ok" } else { "unavailable" },
        store_fault: fault.map(StoreFault::as_str),
        backend: app.gateway.store().backend(),
        slack: SlackView::of(report),
        audit,
        without_channel: without_channel(&app),
    };
    (code, Json(view))
}

/// What is wrong, as far as the process knows without asking anybody.
fn degraded(
    app: &App,
    store: Option<StoreFault>,
    audit: bool,
    slack: Option<HealthState>,
) -> Vec<&'static str> {
    let slack = slack.and_then(|state| match state {
        HealthState::Ok | HealthState::Standby => None,
        HealthState::Degraded => Some("slack_degraded"),
        HealthState::Stalled => Some("slack_stalled"),
        HealthState::Down => Some("slack_down"),
        HealthState::Unauthorized => Some("slack_unauthorized"),
    });
    let access_is_held_back = app.access.as_ref().is_some_and(|access| access.is_held_back());
    let are_spooled = app.spool.as_ref().is_some_and(|spool| spool.waiting() > 0);
    let wrong = [
        store.map(|_| "store_unavailable"),
        audit.then_some("audit"),
        slack,
        (!app.policy_sets.held_back().is_empty()).then_some("policy_set_held_back"),
        access_is_held_back.then_some("access_file_held_back"),
        are_spooled.then_some("presses_spooled"),
    ];
    wrong.into_iter().flatten().collect()
}

/// The actions that tell nobody. One that is decided without people need not tell any.
fn without_channel(app: &App) -> Vec<String> {
    const MOST: usize = 20;
    let set = app.gateway.policies().active();
    let silent = set
        .policies()
        .map(|policy| ActionPolicy::entry(policy))
        .filter(|entry| entry.channel.is_none() && !entry.unattended);
    silent.map(|entry| entry.action.clone()).take(MOST).collect()
}

/// Metrics in the text format of Prometheus. Scrapes that come in great number get the same answer again, for a second at most.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Metrics; those from the store are left out if it is unavailable",
        body = String, content_type = "text/plain; version=0.0.4"))
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let measure = async {
        let stored = crate::telemetry::stored(app.gateway.store().as_ref(), app.gateway.clock().now()).await;
        let families = stored.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read stored metrics");
            Vec::new()
        });
        app.metrics.render(families)
    };
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], app.scrapes.answer(measure).await.to_string())
}
