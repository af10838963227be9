//! `GET /openapi.json`: the OpenAPI document, generated from the handlers.

use axum::Json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Required};
use utoipa::{Modify, OpenApi};

use super::error::Problem;
use super::{
    access, audit, bundle, cancel, create, gateway_state, health, hooks, modules, policy_sets, receipts,
    requests, rerequest, schemas, shadow, slack, sse, status, usage, wait, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Countersign",
        description = "The approval gateway for risky automation: policies say who must agree, people decide, \
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
        rerequest::rerequest,
        cancel::cancel,
        usage::consume,
        usage::outcome,
        bundle::bundle,
        receipts::jwks,
        schemas::schema,
        slack::interactions,
        hooks::github,
        hooks::gitlab,
        policy_sets::change::reload,
        access::show,
        audit::list,
        gateway_state::show,
        requests::list::list,
        requests::detail::show,
        requests::operate::cancel,
        requests::operate::expire,
        requests::operate::resend,
        webhooks::dead,
        webhooks::resend,
        modules::put,
        modules::list,
        policy_sets::change::store,
        policy_sets::read::list,
        policy_sets::read::active,
        policy_sets::read::history,
        policy_sets::change::rollback,
        policy_sets::change::activate,
        shadow::start,
        shadow::show,
        shadow::stop,
        shadow::explain,
        health::healthz,
        health::readyz,
        health::metrics,
        openapi,
    ),
    components(schemas(Problem)),
    modifiers(&Security, &Problems, &OptionalBody)
)]
struct Document;

/// How every call that needs the store can fail.
pub(super) const STORE_ERRORS: &str =
    "500 `internal`; 503 `store_unavailable`, `store_full`, `store_timeout`, with `Retry-After`";

/// How admins authenticate.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut admin = Http::new(HttpAuthScheme::Bearer);
        admin.description = Some("`ADMIN_TOKEN`, or an API key or a token of an admin of the access file. Calls that read need the role \
                `read`, those that act on requests `operate`, all others `activate`; `ADMIN_TOKEN` has every role, and is also taken as the header \
                `x-admin-token`.".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("admin", SecurityScheme::Http(admin));
    }
}

/// Gives every range of errors, `4XX` and `5XX`, its body: a [`Problem`].
///
/// Handlers document ranges, with each status and code in the description.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten();
            let responses = operations.flat_map(|operation| &mut operation.responses.responses);
            for (status, response) in responses {
                if let (true, RefOr::T(response)) = (status.ends_with("XX"), response) {
                    response.content.insert("application/problem+json".to_owned(), RefOr::T(problem.clone()));
                }
            }
        }
    }
}

/// Says of the reload that its body may be left out. An optional type would say that the body may be `null`.
struct OptionalBody;

impl Modify for OptionalBody {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let reload =
            document.paths.paths.get_mut("/api/admin/reload-policy").and_then(|item| item.post.as_mut());
        if let Some(RefOr::T(body)) = reload.and_then(|operation| operation.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
    }
}

/// The OpenAPI document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
