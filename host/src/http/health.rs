//! `/healthz`, `/readyz` and `/metrics`: what operators and their probes ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use crate::app::App;
use crate::lifecycle::Digest;

/// Whether the process is alive. It says nothing of what the process depends on.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "`ok`", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// Whether requests can be taken.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadyView {
    /// `ready`, `unavailable`, or `shutting_down`.
    status: &'static str,
    /// The hash of the policy set in force.
    #[schema(value_type = String)]
    policy: Digest,
    /// `ok` or `unavailable`.
    store: &'static str,
    /// Which store: `sqlite`.
    backend: &'static str,
}

/// Whether requests can be taken: the store can be written to, and the gateway is not about to end.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "Ready", body = ReadyView),
        (status = 503, description = "The store is out of reach, or the gateway shuts down", body = ReadyView),
    )
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    let store = app.gateway.store();
    let ping = store.ping().await;
    if let Err(error) = &ping {
        tracing::warn!(%error, "not ready: the store does not answer");
    }
    let status = match &ping {
        _ if app.shutdown.has_begun() => "shutting_down",
        Ok(()) => "ready",
        Err(_) => "unavailable",
    };
    let view = ReadyView {
        status,
        policy: app.gateway.policies().active().hash(),
        store: if ping.is_ok() { "ok" } else { "unavailable" },
        backend: store.backend(),
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(view))
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Metrics; those of the store are left out while it does not answer",
        body = String, content_type = "text/plain; version=0.0.4"))
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let stored = match crate::telemetry::stored(app.gateway.store().as_ref(), app.gateway.clock().now()).await
    {
        Ok(families) => families,
        Err(error) => {
            tracing::warn!(%error, "the metrics of the store are left out");
            Vec::new()
        }
    };
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], app.metrics.render(stored))
}
