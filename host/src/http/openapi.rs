//! `GET /openapi.json`: the description of this API, from the code that answers.

use axum::Json;
use utoipa::OpenApi;

use super::{again, create, health, schemas, slack, sse, status, wait};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Countersign",
        description = "The gate in front of risky automation: policies say who must agree, people decide, \
            the caller gets a decision that it can act on. Every error is `application/problem+json` (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        create::create,
        wait::long_poll,
        wait::poll,
        sse::stream,
        status::status,
        status::lineage,
        again::rerequest,
        again::cancel,
        schemas::schema,
        slack::interactions,
        health::healthz,
        health::readyz,
        health::metrics,
        openapi,
    )
)]
struct Document;

/// The description.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
