//! Who may call the admin routes: admins of the access file with the role that a call needs, and the holder of
//! `ADMIN_TOKEN`, who has every role. If the configuration has neither, there are no admin routes.

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use countersign_access::{ADMIN_TOKEN_NAME, Role};
use countersign_core::lifecycle::{AdminActor, Digest};
use countersign_core::record::{AdminCall, Authentication, ChangeTrigger};
use countersign_core::secret::Secret;
use countersign_gateway::policy_sets::By;
use subtle::ConstantTimeEq as _;

use super::caller::Calling;
use super::check::Check;
use super::error::{ApiError, Invalid};
use super::params::{bearer_token, is_credential};
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// The prefix of every admin route.
pub(super) const PREFIX: &str = "/api/admin/";

/// The prefixes of the routes that act on requests, or on who is told of them.
const OPERATED: [&str; 2] = ["/api/admin/requests/", "/api/admin/webhooks/"];

/// An admin who was authenticated and has the role that the call needs. Only [`guard`] creates one.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    name: String,
    call: AdminCall,
}

impl Admin {
    /// The author of a change. The name in the body is recorded as claimed, and wins over the one in the header.
    pub(super) fn by(self, claimed_in_body: Option<String>) -> Result<By, ApiError> {
        let Admin { name, mut call } = self;
        call.claimed_actor = claimed_in_body.or(call.claimed_actor);
        if let Some(claimed) = &call.claimed_actor {
            let mut check = Check::default();
            check.name("actor", claimed, 128);
            check.finish()?;
        }
        Ok(By { trigger: ChangeTrigger::Api, actor: Some(name), call: Some(call) })
    }

    /// Who acts on a request. What is claimed is as in [`Admin::by`].
    pub(super) fn acting(self, claimed_in_body: Option<String>) -> Result<AdminActor, ApiError> {
        let By { actor, call, .. } = self.by(claimed_in_body)?;
        let call = call.map(|call| call.audited()).unwrap_or_default();
        Ok(AdminActor { name: actor.unwrap_or_default(), call })
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Admin, ApiError> {
        // INVARIANT: a handler that takes an `Admin` runs only if the guard has authenticated one.
        parts.extensions.get().cloned().ok_or(ApiError::NoSuch("path"))
    }
}

/// Rejects calls of admin routes without the credentials of an admin who has the role, whether the route exists or not.
pub(super) async fn check(app: &App, request: &mut Request) -> Result<(), ApiError> {
    if !request.uri().path().starts_with(PREFIX) {
        return Ok(());
    }
    let (mut parts, body) = std::mem::take(request).into_parts();
    let admin = authenticate(app, &mut parts).await?;
    parts.extensions.insert(admin);
    *request = Request::from_parts(parts, body);
    Ok(())
}

async fn authenticate(app: &App, parts: &mut Parts) -> Result<Admin, ApiError> {
    if !has_admins(app) {
        return Err(ApiError::NoSuch("path"));
    }
    let Ok(calling) = Calling::from_request_parts(parts, &()).await;
    let (name, authentication) = recognise(app, &calling, role_for(&parts.method, parts.uri.path())).await?;
    let claimed_actor = match parts.headers.get("x-admin-actor").map(HeaderValue::to_str) {
        None => None,
        Some(Ok(claimed)) => Some(claimed.to_owned()),
        Some(Err(_)) => return Err(Invalid::new("x-admin-actor", "must be printable ASCII").into()),
    };
    Ok(Admin { name, call: AdminCall { authentication, address: calling.address, claimed_actor } })
}

/// The role that a call needs. Whatever does not only read needs the role to change what is in force, so a new route
/// needs it too unless it is named here.
fn role_for(method: &Method, path: &str) -> Role {
    match *method {
        Method::GET | Method::HEAD => Role::Read,
        _ if OPERATED.iter().any(|prefix| path.starts_with(prefix)) => Role::Operate,
        _ => Role::Activate,
    }
}

fn has_admins(app: &App) -> bool {
    let in_file =
        || app.access.as_ref().is_some_and(|it| it.authenticator.access().admins().next().is_some());
    app.admin_token.is_some() || in_file()
}

/// Who calls, if it is an admin with this role, and how that was authenticated.
async fn recognise(app: &App, calling: &Calling, role: Role) -> Result<(String, Authentication), ApiError> {
    if holds_admin_token(app, &calling.headers) {
        return Ok((ADMIN_TOKEN_NAME.to_owned(), Authentication::AdminToken));
    }
    let no_credentials = || {
        let kind = token_in(&calling.headers).map_or("no_credentials", |_| "bad_admin_token");
        calling.failed_as_admin(app, kind, ApiError::Unauthorized)
    };
    let bearer = calling.headers.get(header::AUTHORIZATION).and_then(bearer_token);
    let bearer = bearer.filter(|bearer| is_credential(bearer));
    // What was shown as `ADMIN_TOKEN` and is not is wrong, whatever else is shown.
    let Some(access) =
        app.access.as_ref().filter(|_| bearer.is_some() || token_in(&calling.headers).is_none())
    else {
        return Err(no_credentials());
    };
    let shown = calling.holder(app, access, bearer).await.ok_or_else(no_credentials)?;
    let (admin, authentication) = shown
        .and_then(|(holder, authentication)| Ok((holder.admin()?, authentication)))
        .map_err(|why| calling.failed_as_admin(app, why.kind(), ApiError::NotAnAdmin(why)))?;
    check_role(app, &admin, role)?;
    Ok((admin.name.clone(), authentication))
}

/// Whether an admin of the access file has a role. That it does not is counted and audited.
pub(super) fn check_role(app: &App, admin: &countersign_access::Admin, role: Role) -> Result<(), ApiError> {
    if admin.roles.contains(&role) {
        return Ok(());
    }
    app.metrics.count(SecurityEvent::RoleMissing);
    app.rejections.admin(&admin.name, SecurityEvent::RoleMissing.as_str());
    Err(ApiError::RoleMissing(role))
}

/// Whether a call comes with `ADMIN_TOKEN`.
pub(super) fn holds_admin_token(app: &App, headers: &HeaderMap) -> bool {
    let Some(token) = &app.admin_token else { return false };
    token_in(headers).is_some_and(|given| is_equal(given, token))
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
