//! `GET /api/admin/state`: how the gateway itself stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use countersign_core::clock::{Moment, Monotonic};
use countersign_core::lifecycle::{Digest, Status, Timestamp};
use countersign_slack::Outgoing;
use countersign_store::StoreFault;
use serde::Serialize;

use super::admin::Admin;
use super::error::ApiError;
use super::health::SlackView;
use super::openapi::STORE_ERRORS;
use super::view::{rfc3339, rfc3339_always};
use crate::access_control::newest::{self, Newest};
use crate::instances::{DELIVERY, LIFE_MS};
use crate::state::App;

/// How the gateway stands, as the instance that answers sees it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateView {
    /// The version of the program.
    version: &'static str,
    /// The hash of the policy set in force.
    policy: Digest,
    /// The actions of the policy set in force.
    actions: usize,
    /// What keeps a newer policy set from being put in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held_back: Vec<String>,
    store: StoreView,
    /// The number of the instance that answers, in hexadecimal.
    instance: String,
    /// The instances that live; absent if the store has one instance only.
    #[serde(skip_serializing_if = "Option::is_none")]
    instances: Option<Vec<String>>,
    /// Which instance holds each lease; null if none does. Absent if the store has one instance only.
    #[serde(skip_serializing_if = "Option::is_none")]
    leases: Option<BTreeMap<&'static str, Option<String>>>,
    /// The access files of the instances; absent if the store has one instance only.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_files: Option<AccessFilesView>,
    /// Open requests, by action and status.
    open: Vec<OpenCountView>,
    outbox: OutboxView,
    slack: SlackView,
    /// What is left of Slack's rate limits, as this instance counts them; absent without a bot token.
    #[serde(skip_serializing_if = "Option::is_none")]
    slack_budgets: Option<BudgetsView>,
    /// What people did in Slack and waits on disk for the store; absent if nothing is kept there.
    #[serde(skip_serializing_if = "Option::is_none")]
    spooled: Option<usize>,
    /// What is wrong with the audit log: the parts that `/readyz` names, each with what is the matter.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit: BTreeMap<&'static str, String>,
}

/// Which access file is the newest, and which one each instance has in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AccessFilesView {
    /// Rises with each file that becomes the newest; 0 if no instance has one.
    version: u64,
    /// SHA-256 of the newest file.
    newest: Option<Digest>,
    /// SHA-256 of the file of each instance that lives and has one.
    instances: BTreeMap<String, Digest>,
}

/// The store.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct StoreView {
    /// `sqlite` or `redis`.
    backend: &'static str,
    /// What is wrong with it, as in `/readyz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
}

/// Open requests of one action in one status.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct OpenCountView {
    /// The action.
    action: String,
    status: Status,
    /// How many they are.
    count: u64,
    /// When the oldest was made.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    oldest: Timestamp,
}

/// What waits for delivery.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct OutboxView {
    /// How many things are not delivered yet: each is what one message in Slack, or one target, is to be told of a request.
    entries: u64,
    /// Since when the oldest waits.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest: Option<Timestamp>,
}

/// What Slack still takes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BudgetsView {
    /// `closed`; `open`: Slack does not answer, and is called again at `retryAt`; `unauthorized`: it refuses the token.
    circuit_breaker: &'static str,
    /// When Slack is called again; absent unless the circuit breaker is open.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_at: Option<Timestamp>,
    /// What is left of each limit, as this instance counts.
    rate_limits: Vec<RateLimitView>,
}

/// The rate limit of a method, or of posts to one channel.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RateLimitView {
    /// Slack's name of the method.
    method: &'static str,
    /// The id of the channel, if the limit is that of posts to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    /// How many calls it allows at once. Less than 1 says how much of the next one is there.
    left: f64,
    /// The most calls that it allows at once.
    most: f64,
    /// Until when Slack said that it takes no call.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    blocked_until: Option<Timestamp>,
}

impl BudgetsView {
    fn of(slack: &Outgoing, now: Moment) -> BudgetsView {
        let at = |time: Monotonic| now.wall.plus(time.since(now.monotonic));
        let breaker = slack.health.report(now.monotonic).breaker;
        let rate_limits = slack.budgets(now.monotonic).into_iter().map(|budget| RateLimitView {
            method: budget.method,
            channel: budget.channel,
            left: budget.left,
            most: budget.most,
            blocked_until: budget.blocked_until.map(at),
        });
        BudgetsView {
            circuit_breaker: breaker.as_str(),
            retry_at: breaker.retry_at().map(at),
            rate_limits: rate_limits.collect(),
        }
    }
}

/// Shows how the gateway stands: its instances, leases, what is open and undelivered, and versions.
#[utoipa::path(
    get,
    path = "/api/admin/state",
    security(("admin" = [])),
    responses(
        (status = 200, description = "How the gateway stands", body = StateView),
        (status = "4XX", description = "401 `unauthorized`, or 429 `rate_limited` after many; 403 `role_missing`; \
            404 `not_found`: the gateway has no admins"),
        (status = "5XX", description = STORE_ERRORS),
    )
)]
pub(super) async fn show(State(app): State<Arc<App>>, _: Admin) -> Result<Json<StateView>, ApiError> {
    let (gateway, store) = (&app.gateway, app.gateway.store());
    let name = |instance: u64| format!("{instance:016x}");
    let (mut instances, mut leases, mut access_files) = (None, None, None);
    if let Some(shared) = store.shared() {
        // To say that this one lives is how to hear which others do.
        let live = shared.announce(gateway.instance(), LIFE_MS).await?;
        let Newest { version, hash, instances: files, .. } = newest::load(store.as_ref()).await?;
        let files = files.into_iter().filter(|(instance, _)| live.contains(instance));
        let files = files.map(|(instance, hash)| (name(instance), hash)).collect();
        access_files = Some(AccessFilesView { version, newest: hash, instances: files });
        instances = Some(live.into_iter().map(name).collect());
        leases = Some(BTreeMap::from([(DELIVERY, shared.lease_holder(DELIVERY).await?.map(name))]));
    }
    let (open, outbox) = (store.open_requests().await?, store.outbox_depth().await?);
    let open = open.into_iter().map(|open| OpenCountView {
        action: open.action,
        status: open.status,
        count: open.count,
        oldest: open.oldest,
    });
    let set = gateway.policies().active();
    let report = app.outgoing.as_ref().map(|slack| slack.health.report(gateway.clock().monotonic()));
    Ok(Json(StateView {
        version: env!("CARGO_PKG_VERSION"),
        policy: set.hash(),
        actions: set.policies().count(),
        held_back: app.policy_sets.held_back().iter().map(ToString::to_string).collect(),
        store: StoreView {
            backend: store.backend(),
            fault: app.readiness.store_fault().map(StoreFault::as_str),
        },
        instance: name(gateway.instance()),
        instances,
        leases,
        access_files,
        open: open.collect(),
        outbox: OutboxView { entries: outbox.entries, oldest: outbox.oldest },
        slack: SlackView::of(report),
        slack_budgets: app.outgoing.as_ref().map(|slack| BudgetsView::of(slack, gateway.clock().moment())),
        spooled: app.spool.as_ref().map(|spool| spool.waiting()),
        audit: app.audit.explained(),
    }))
}
