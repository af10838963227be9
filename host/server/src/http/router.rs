//! Which path goes to which handler, and what runs around every handler.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use countersign_core::trace::TraceContext;
use countersign_trace::Span;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::error::ApiError;
use super::{
    access, admin, audit, body, bundle, cancel, create, front_door, gateway_state, health, hooks, modules,
    openapi, params, policy_sets, proxies, receipts, requests, rerequest, schemas, shadow,
    slack as interactions, sse, status, usage, wait, webhooks,
};
use crate::state::App;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    /// The routes of callers.
    pub callers: bool,
    /// Probes, metrics and the routes of admins.
    pub operations: bool,
    /// The routes of Slack and of CI systems.
    pub slack: bool,
}

impl Surface {
    /// Everything.
    pub const ALL: Surface = Surface { callers: true, operations: true, slack: true };
}

/// The router of a listener.
pub fn router(app: Arc<App>, surface: Surface) -> Router {
    let parts = [
        (surface.callers, callers as fn() -> Routes),
        (surface.operations, operations),
        (surface.slack, slack),
        (surface.callers || surface.operations, both),
    ];
    let parts = parts.into_iter().filter(|(served, _)| *served).map(|(_, routes)| routes().router);
    parts
        .fold(Router::new(), Router::merge)
        .fallback(async || ApiError::NoSuch("path"))
        .method_not_allowed_fallback(async || ApiError::WrongMethod)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Runs around every handler. It is one layer: each call makes copies of all layers.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = known(request.method());
    let mut response = catch_panic(request, async |request| guarded(&app, request, next).await).await;
    // Browsers should neither guess what a body is, nor keep it: it may hold a token.
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.answered(route, method, response.status().as_u16(), begun.elapsed());
    response
}

/// The name of a method, for metrics: whoever calls can invent others.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

async fn guarded(app: &App, mut request: Request, next: Next) -> Response {
    proxies::resolve(app, &mut request);
    match check(app, &mut request).await {
        Ok(()) => traced(app, &request).around(next.run(request)).await,
        Err(error) => error.into_response(),
    }
}

/// The place in a trace that a caller says it is at, on the routes of callers: what it asks for belongs there. Nothing if the
/// gateway does not trace, or the caller does not.
fn traced(app: &App, request: &Request) -> Span {
    let tracer = app.gateway.tracer();
    if !tracer.is_on() || !request.uri().path().starts_with("/api/guard/") {
        return Span::none();
    }
    let lines = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    tracer.of_caller(TraceContext::of_call(lines("traceparent"), lines("tracestate")))
}

async fn check(app: &App, request: &mut Request) -> Result<(), ApiError> {
    front_door::check(app, request)?;
    admin::check(app, request).await?;
    params::refuse_unknown(request)?;
    body::refuse_compressed(request)
}

/// What callers use.
fn callers() -> Routes {
    Routes::default()
        .post("/api/guard/request", create::create)
        .get("/api/guard/wait", wait::long_poll)
        .post("/api/guard/wait", wait::poll)
        .get("/api/guard/wait-sse", sse::stream)
        .get("/api/guard/status", status::status)
        .post("/api/guard/rerequest", rerequest::rerequest)
        .post("/api/guard/cancel", cancel::cancel)
        .post("/api/guard/consume", usage::consume)
        .post("/api/guard/outcome", usage::outcome)
        .get("/api/guard/bundle", bundle::bundle)
        .get("/api/guard/lineage", status::lineage)
        .get("/api/schemas/{action}", schemas::schema)
        .get("/.well-known/jwks.json", receipts::jwks)
}

/// What Slack and CI systems call. Each call is signed, and nothing else is served where they are alone.
fn slack() -> Routes {
    Routes::default()
        .post("/api/slack/interactions", interactions::interactions)
        .post("/api/hooks/github", hooks::github)
        .post("/api/hooks/gitlab", hooks::gitlab)
}

/// What operators and admins use.
fn operations() -> Routes {
    Routes::default()
        .post("/api/admin/reload-policy", policy_sets::change::reload)
        .get("/api/admin/access", access::show)
        .get("/api/admin/audit", audit::list)
        .get("/api/admin/state", gateway_state::show)
        .get("/api/admin/requests", requests::list::list)
        .get("/api/admin/requests/{id}", requests::detail::show)
        .post("/api/admin/requests/{id}/cancel", requests::operate::cancel)
        .post("/api/admin/requests/{id}/expire", requests::operate::expire)
        .post("/api/admin/requests/{id}/resend", requests::operate::resend)
        .get("/api/admin/webhooks/dead", webhooks::dead)
        .post("/api/admin/webhooks/dead/{id}/resend", webhooks::resend)
        .put("/api/admin/modules", modules::put)
        .get("/api/admin/modules", modules::list)
        .post("/api/admin/policy-sets", policy_sets::change::store)
        .get("/api/admin/policy-sets", policy_sets::read::list)
        .get("/api/admin/policy-sets/active", policy_sets::read::active)
        .get("/api/admin/policy-sets/history", policy_sets::read::history)
        .post("/api/admin/policy-sets/rollback", policy_sets::change::rollback)
        .post("/api/admin/policy-sets/{hash}/activate", policy_sets::change::activate)
        .post("/api/admin/policy-sets/{hash}/shadow", shadow::start)
        .get("/api/admin/shadow", shadow::show)
        .delete("/api/admin/shadow", shadow::stop)
        .post("/api/admin/shadow/explain", shadow::explain)
        .get("/healthz", health::healthz)
        .get("/readyz", health::readyz)
        .get("/metrics", health::metrics)
}

/// What describes the others.
fn both() -> Routes {
    Routes::default().get("/openapi.json", openapi::openapi)
}

/// A router that also lists its routes, so that a test can compare them with the OpenAPI document.
#[derive(Default)]
struct Routes {
    router: Router<Arc<App>>,
    listed: Vec<(Method, &'static str)>,
}

impl Routes {
    fn get<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, handler: H) -> Routes {
        self.add(Method::GET, MethodFilter::GET, path, handler)
    }

    fn post<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, handler: H) -> Routes {
        self.add(Method::POST, MethodFilter::POST, path, handler)
    }

    fn put<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, handler: H) -> Routes {
        self.add(Method::PUT, MethodFilter::PUT, path, handler)
    }

    fn delete<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, handler: H) -> Routes {
        self.add(Method::DELETE, MethodFilter::DELETE, path, handler)
    }

    fn add<H: Handler<T, Arc<App>>, T: 'static>(
        mut self,
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        handler: H,
    ) -> Routes {
        self.listed.push((method, path));
        self.router = self.router.route(path, on(filter, handler));
        self
    }
}

/// Answers 500 if a handler panics. Nothing is left half-done: a request is changed in one atomic write or not at all.
async fn catch_panic(request: Request, run: impl AsyncFnOnce(Request) -> Response) -> Response {
    // The pattern of the path, since the path itself may contain a token.
    let path = request.extensions().get::<MatchedPath>().cloned();
    match AssertUnwindSafe(run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            // The panic hook has printed where, to the standard error.
            tracing::error!(path = path.as_ref().map(MatchedPath::as_str), "handler panicked");
            ApiError::Panicked.into_response()
        }
    }
}

/// Paths that a listener for operations serves, if there is one, and else the callers'.
#[cfg(test)]
pub(crate) fn paths_of_operators() -> std::collections::BTreeSet<&'static str> {
    operations().listed.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documentation_has_every_route_and_no_other() {
        let documented = serde_json::to_value(openapi::document()).unwrap();
        let documented: BTreeSet<(String, String)> = documented["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let routes = [callers(), operations(), slack(), both()];
        let routes = routes
            .into_iter()
            .flat_map(|routes| routes.listed)
            .map(|(method, path)| (method.to_string(), path.to_owned()));
        assert_eq!(routes.collect::<BTreeSet<_>>(), documented);
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_and_no_more() {
        use tower::ServiceExt as _;
        async fn broken() -> Response {
            panic!("broken on purpose")
        }
        let catch = middleware::from_fn(async |request, next: Next| {
            catch_panic(request, async |it| next.run(it).await).await
        });
        let router = Router::new().route("/", axum::routing::get(broken)).layer(catch);
        for _ in 0..2 {
            let request = Request::builder().uri("/").body(axum::body::Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
}
