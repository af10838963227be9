//! Admins are authenticated by the admin token. Without one in the configuration there are no admin routes.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use countersign_core::lifecycle::Digest;
use countersign_core::record::ChangeTrigger;
use countersign_core::secret::Secret;
use countersign_gateway::policy_sets::By;
use subtle::ConstantTimeEq as _;

use super::check::Check;
use super::error::{ApiError, Invalid};
use super::params::bearer_token;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// The prefix of every admin route.
const PREFIX: &str = "/api/admin/";

/// The actor in the audit log if an admin gives no name.
const UNNAMED: &str = "admin";

/// An authenticated admin, with the name that they give. Only [`guard`] creates one.
#[derive(Clone, Debug)]
pub(super) struct Admin(Option<String>);

impl Admin {
    /// The author of a change; a name in the body wins over the one in the header.
    pub(super) fn by(self, name_in_body: Option<String>) -> Result<By, ApiError> {
        let actor = name_in_body.or(self.0);
        if let Some(actor) = &actor {
            let mut check = Check::default();
            check.name("actor", actor, 128);
            check.finish()?;
        }
        Ok(By { trigger: ChangeTrigger::Api, actor: Some(actor.unwrap_or_else(|| UNNAMED.to_owned())) })
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Admin, ApiError> {
        // INVARIANT: a handler that takes an `Admin` runs only if the guard has authenticated one.
        parts.extensions.get().cloned().ok_or(ApiError::NoSuch("path"))
    }
}

/// Rejects calls of admin routes that are not authenticated, whether the route exists or not.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with(PREFIX) {
        return next.run(request).await;
    }
    match authenticate(&app, request.headers()) {
        Ok(admin) => {
            request.extensions_mut().insert(admin);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Whether a call of another route comes from an admin.
pub(super) fn is_admin(app: &App, headers: &HeaderMap) -> bool {
    let Some(token) = &app.admin_token else { return false };
    token_in(headers).is_some_and(|given| is_equal(given, token))
}

fn authenticate(app: &App, headers: &HeaderMap) -> Result<Admin, ApiError> {
    let Some(token) = &app.admin_token else { return Err(ApiError::NoSuch("path")) };
    if !token_in(headers).is_some_and(|given| is_equal(given, token)) {
        app.metrics.count(SecurityEvent::Unauthorized);
        tracing::warn!("admin call rejected: wrong or missing token");
        return Err(ApiError::Unauthorized);
    }
    let Some(actor) = headers.get("x-admin-actor") else { return Ok(Admin(None)) };
    match actor.to_str() {
        Ok(actor) => Ok(Admin(Some(actor.to_owned()))),
        Err(_) => Err(Invalid::new("x-admin-actor", "must be printable ASCII").into()),
    }
}

/// The legacy service's header.
pub(super) const ADMIN_TOKEN: HeaderName = HeaderName::from_static("x-admin-token");

/// The token in `Authorization: Bearer`, else in the legacy service's header.
fn token_in(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(bearer_token).map(str::as_bytes);
    bearer.or_else(|| headers.get(ADMIN_TOKEN).map(HeaderValue::as_bytes))
}

/// Compares digests, which have one length, in constant time: the time taken reveals nothing of the token.
fn is_equal(given: &[u8], token: &Secret) -> bool {
    let (given, expected) = (Digest::of(given), Digest::of(token.expose()));
    given.as_bytes().ct_eq(expected.as_bytes()).into()
}
