//! Who is an admin: whoever shows the admin token. Without a token in the configuration there are no admin routes.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;

use super::check::Check;
use super::error::{ApiError, Invalid};
use crate::app::App;
use crate::telemetry::SecurityEvent;
use countersign_core::lifecycle::Digest;
use countersign_core::record::ChangeTrigger;
use countersign_core::secret::Secret;
use countersign_gateway::policy_sets::By;

/// What every admin route begins with.
const ROUTES: &str = "/api/admin/";

/// What the audit log calls an admin who does not say who they are.
const NAMELESS: &str = "admin";

/// The admin token, as its digest: digests have one length, and comparing them tells nothing of the token.
pub(crate) struct AdminToken(Digest);

impl AdminToken {
    pub(crate) fn new(token: &Secret) -> AdminToken {
        AdminToken(Digest::of(token.expose()))
    }

    fn is(&self, shown: &[u8]) -> bool {
        Digest::of(shown).as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

/// An admin, as far as they say who they are. Only [`guard`] makes one.
#[derive(Clone, Debug)]
pub(super) struct Admin(Option<String>);

impl Admin {
    /// As the one who changes something; a name in the body wins over the one in the header.
    pub(super) fn by(self, named: Option<String>) -> Result<By, ApiError> {
        let actor = named.or(self.0);
        if let Some(actor) = &actor {
            let mut check = Check::default();
            check.name("actor", actor, 128);
            check.done()?;
        }
        Ok(By { trigger: ChangeTrigger::Api, actor: Some(actor.unwrap_or_else(|| NAMELESS.to_owned())) })
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Admin, ApiError> {
        // INVARIANT: a route that asks for an admin has one only where the guard let them by.
        parts.extensions.get().cloned().ok_or(ApiError::NoSuch("path"))
    }
}

/// Lets nobody but admins near the admin routes, whether there is such a route or not.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with(ROUTES) {
        return next.run(request).await;
    }
    match admit(&app, request.headers()) {
        Ok(admin) => {
            request.extensions_mut().insert(admin);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn admit(app: &App, headers: &HeaderMap) -> Result<Admin, ApiError> {
    let Some(token) = &app.admin else { return Err(ApiError::NoSuch("path")) };
    if !shown(headers).is_some_and(|shown| token.is(shown)) {
        app.metrics.count(SecurityEvent::Unauthorized);
        tracing::warn!("a call of an admin route was turned away");
        return Err(ApiError::Unauthorized);
    }
    let Some(actor) = headers.get("x-admin-actor") else { return Ok(Admin(None)) };
    match actor.to_str() {
        Ok(actor) => Ok(Admin(Some(actor.to_owned()))),
        Err(_) => Err(Invalid::new("x-admin-actor", "must be printable ASCII").into()),
    }
}

/// The token as `Authorization: Bearer`, else as the ancestor's header.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
    });
    bearer.or_else(|| headers.get("x-admin-token").map(|value| value.as_bytes()))
}
