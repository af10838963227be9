//! `/healthz`, `/readyz` and `/metrics`: for probes and monitoring.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_policy::ActionPolicy;
use countersign_slack::{HealthState, Report};
use countersign_store::StoreFault;
use serde::Serialize;

use super::error::{ApiError, Invalid, Problem};
use super::params::Params;
use super::view::{rfc3339, rfc3339_always};
use crate::retention::Sweeper;
use crate::state::App;

/// Says that an answer was made before it was asked for (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

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
    /// What is wrong: `store_unavailable` (of a store that instances share: callers go on waiting, and what people do in
    /// Slack is kept if `COUNTERSIGN_SPOOL_DIR` is given), `slack_degraded`, `slack_stalled`, `slack_down`, `slack_unauthorized`,
    /// `audit` (which `audit` explains), `policy_set_held_back`, `access_file_held_back`, `access_file_outdated` (another gateway over the store has a newer one), `presses_spooled` (what people did waits on disk for the store),
    /// or `request_archive` (requests cannot be archived, so none is removed).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
    /// The hash of the policy set in force.
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
    /// signed), `checkpoint_file` or `file` (the file cannot be written), `retention` (old entries are not removed, for the same
    /// reason). What is the matter is in the gateway's log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit: Vec<&'static str>,
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
        let Report { state, since, refused, lookup_refused, channels, breaker: _ } = report;
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
    let degraded = degraded(&app);
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
        audit: app.audit.troubles(),
        without_channel: without_channel(&app),
    };
    (code, Json(view))
}

/// What is wrong, as far as the process knows without asking anybody.
fn degraded(app: &App) -> Vec<&'static str> {
    let report = app.outgoing.as_ref().map(|slack| slack.health.report(app.gateway.clock().monotonic()));
    let slack = report.and_then(|report| match report.state {
        HealthState::Ok | HealthState::Standby => None,
        HealthState::Degraded => Some("slack_degraded"),
        HealthState::Stalled => Some("slack_stalled"),
        HealthState::Down => Some("slack_down"),
        HealthState::Unauthorized => Some("slack_unauthorized"),
    });
    let access_is_held_back = app.access.as_ref().is_some_and(|access| access.is_held_back());
    let access_is_outdated = app.access.as_ref().is_some_and(|access| access.is_outdated());
    let are_spooled = app.spool.as_ref().is_some_and(|spool| spool.waiting() > 0);
    let wrong = [
        app.readiness.store_fault().map(|_| "store_unavailable"),
        (!app.audit.troubles().is_empty()).then_some("audit"),
        slack,
        (!app.policy_sets.held_back().is_empty()).then_some("policy_set_held_back"),
        access_is_held_back.then_some("access_file_held_back"),
        access_is_outdated.then_some("access_file_outdated"),
        are_spooled.then_some("presses_spooled"),
        app.retention.as_ref().is_some_and(Sweeper::is_failing).then_some("request_archive"),
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

/// Metrics in the text format of Prometheus. Where instances share a store, what it counts is shown by one of them at a
/// time. Scrapes that come in great number get the same answer again, for a second at most, with `Cache-Status: countersign;
/// hit`.
#[utoipa::path(
    get,
    path = "/metrics",
    params(("stored" = Option<String>, Query, pattern = "^always$", description = "`always`: with what the store \
        counts, although another instance shows it. Not for Prometheus, whose sums over all instances would then count it \
        several times.")),
    responses(
        (status = 200, description = "Metrics; those from the store are left out if it is unavailable",
            body = String, content_type = "text/plain; version=0.0.4"),
        (status = 400, description = "`stored` is something else (`invalid_payload`)", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<impl IntoResponse, ApiError> {
    let always = match params.get("stored")? {
        None => false,
        Some("always") => true,
        Some(_) => return Err(Invalid::new("stored", "must be `always`, or be left out").into()),
    };
    let scrapes = if always { &app.scrapes_of_all } else { &app.scrapes };
    let measure = async {
        let store = app.gateway.store().as_ref();
        let is_ours = app.shows_stored.now(store);
        app.metrics.set_shows_stored(is_ours);
        app.metrics.set_degraded(&degraded(&app));
        if let Some(access) = &app.access {
            let (callers, admins) = access.authenticator.access().keys_end(app.gateway.clock().now());
            app.metrics.set_keys_end(callers, admins);
        }
        if let Some(slack) = &app.outgoing {
            let now = app.gateway.clock().monotonic();
            app.metrics.set_slack(&slack.health.report(now).breaker, &slack.budgets(now), now);
        }
        if !is_ours && !always {
            return app.metrics.render(Vec::new());
        }
        let set = app.gateway.policies().active();
        let actions: Vec<&str> =
            set.policies().map(|policy| ActionPolicy::entry(policy).action.as_str()).collect();
        let stored = crate::telemetry::stored(store, &actions, app.gateway.clock().now()).await;
        let families = stored.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read stored metrics");
            Vec::new()
        });
        app.metrics.render(families)
    };
    let (text, is_old) = scrapes.answer(measure).await;
    let again = is_old.then_some([(CACHE_STATUS, "countersign; hit")]);
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], again, text.to_string()))
}
