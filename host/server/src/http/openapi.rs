//! `GET /openapi.json`: the description of this API, from the code that answers.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::{again, create, health, modules, policy_sets, schemas, shadow, slack, sse, status, wait};

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
        policy_sets::reload,
        modules::put,
        modules::list,
        policy_sets::store,
        policy_sets::list,
        policy_sets::active,
        policy_sets::history,
        policy_sets::rollback,
        policy_sets::activate,
        shadow::start,
        shadow::show,
        shadow::stop,
        shadow::explain,
        health::healthz,
        health::readyz,
        health::metrics,
        openapi,
    ),
    modifiers(&Security)
)]
struct Document;

/// How callers say who they are.
struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut admin = Http::new(HttpAuthScheme::Bearer);
        admin.description = Some("The admin token; also taken as the header `x-admin-token`.".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("admin", SecurityScheme::Http(admin));
    }
}

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
