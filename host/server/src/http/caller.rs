//! Who calls: an authenticated caller, the holder of a wait token, or anybody if there is no access file.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use countersign_access::{ApiKey, Holder, Identified, Requester, RequesterError, Role, Unauthenticated};
use countersign_core::lifecycle::{Party, Request, RequestId};
use countersign_core::record::Authentication;
use countersign_gateway::{GatewayError, Who};
use serde_json::Value;

use super::admin::{ADMIN_TOKEN, check_role, holds_admin_token};
use super::client::{Peer, check_rate, rate_limited};
use super::error::{ApiError, Invalid};
use super::idempotency::{self, Sent};
use super::params::{Params, TOKEN_MISSING};
use super::secured::ClientCertificate;
use super::view::salt_text;
use crate::access_control::AccessControl;
use crate::caller_rights;
use crate::rate_limit::{self, Client, Whose};
use crate::state::App;
use crate::streams::{StreamOf, StreamSlot};
use crate::telemetry::SecurityEvent;

/// The address of whoever calls, and the headers that say who it is, and which call is repeated.
pub(super) struct Calling {
    pub(super) address: IpAddr,
    client: Client,
    pub(super) headers: HeaderMap,
    certificate: Option<ClientCertificate>,
}

impl<S: Sync> FromRequestParts<S> for Calling {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Calling, Self::Rejection> {
        // A router that is called without a listener, as in tests, has one client.
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let address = parts.extensions.get::<Peer>().map_or(unknown, |Peer(address)| *address);
        // Only what is looked at later: to copy all headers of each call is dear.
        let mut headers = HeaderMap::new();
        for name in [header::AUTHORIZATION, ADMIN_TOKEN, idempotency::HEADER] {
            for value in parts.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let certificate = parts.extensions.get().cloned();
        Ok(Calling { address, client: Client::of(address), headers, certificate })
    }
}

impl Calling {
    /// The caller; `None` if there is no access file, so that anybody may ask.
    ///
    /// # Errors
    /// If there is an access file, and the credentials are no caller's.
    pub(super) async fn identify(&self, app: &App, params: &Params) -> Result<Option<Identified>, ApiError> {
        let Some(access) = &app.access else { return Ok(None) };
        let identified = self.shown_by(app, access, params).await?.caller();
        identified.map(Some).map_err(|why| self.not_authenticated(app, why))
    }

    /// Whoever calls.
    async fn shown_by(&self, app: &App, access: &AccessControl, params: &Params) -> Result<Holder, ApiError> {
        let shown = self.holder(app, access, params.credential()?).await;
        let shown = shown.ok_or_else(|| self.failed(app, "no_credentials", ApiError::Unauthenticated))?;
        shown.map(|(holder, _)| holder).map_err(|why| self.not_authenticated(app, why))
    }

    /// Whoever shows this bearer token, or else the client certificate, and how that was authenticated; `None` if
    /// nothing is shown. A bearer token that does not count is not made good by a certificate.
    pub(super) async fn holder(
        &self,
        app: &App,
        access: &AccessControl,
        bearer: Option<&str>,
    ) -> Option<Result<(Holder, Authentication), Unauthenticated>> {
        let authenticator = &access.authenticator;
        if let Some(bearer) = bearer {
            let is_key = ApiKey::is_one(bearer);
            let authentication = if is_key { Authentication::ApiKey } else { Authentication::Oidc };
            let holder = authenticator.holder(bearer, app.gateway.clock().moment()).await;
            return Some(holder.map(|holder| (holder, authentication)));
        }
        let ClientCertificate(name) = self.certificate.as_ref()?;
        let holder = match name.as_ref() {
            Ok(name) => authenticator.certified(name),
            Err(why) => Err((*why).into()),
        };
        Some(holder.map(|holder| (holder, Authentication::Certificate)))
    }

    fn not_authenticated(&self, app: &App, why: Unauthenticated) -> ApiError {
        tracing::debug!(%why, "caller not authenticated");
        self.failed(app, why.kind(), ApiError::NotAuthenticated(why))
    }

    /// Counts a failure, and holds back an address that fails too often.
    fn failed(&self, app: &App, kind: &'static str, error: ApiError) -> ApiError {
        app.metrics.count(SecurityEvent::Unauthenticated);
        app.rejections.stranger(self.address, kind);
        check_rate(app, self.client).err().unwrap_or(error)
    }

    /// The same for a call that should be signed by a CI system.
    pub(super) fn unsigned(&self, app: &App) -> ApiError {
        app.metrics.count(SecurityEvent::BadSignature);
        app.rejections.stranger(self.address, "bad_signature");
        check_rate(app, self.client).err().unwrap_or(ApiError::BadSignature)
    }

    /// The same for somebody who calls as an admin.
    pub(super) fn failed_as_admin(&self, app: &App, kind: &'static str, error: ApiError) -> ApiError {
        tracing::debug!(kind, "admin not authenticated");
        app.metrics.count(SecurityEvent::Unauthorized);
        app.rejections.admin_stranger(self.address, kind);
        check_rate(app, self.client).err().unwrap_or(error)
    }

    /// Takes one request from the caller's quota, or from the address's if there are no callers.
    pub(super) async fn check_quota(&self, app: &App, caller: Option<&Identified>) -> Result<(), ApiError> {
        let Some(Identified { caller, .. }) = caller else { return self.check_address(app).await };
        Ok(caller_rights::take_quota(app, caller).await?)
    }

    /// Counts an event stream: for the caller that made the request, or else for the address. `None` if there are too
    /// many.
    pub(super) fn open_stream(&self, app: &App, request: &Request) -> Option<StreamSlot> {
        let (holder, limit) = match &request.submission.caller {
            Some(name) => {
                let limit = caller_rights::streams(app, name);
                (StreamOf::Caller(name.clone()), limit)
            }
            None => (StreamOf::Client(self.client), None),
        };
        app.streams.open(holder, limit)
    }

    /// Holds back an address that asks too often, if there are no callers.
    pub(super) async fn check_address(&self, app: &App) -> Result<(), ApiError> {
        let client = self.client;
        let taken = rate_limit::take(app, Whose::Client(client), app.rate_limiter.rate(), || {
            app.rate_limiter.take(client)
        });
        taken.await.map_err(|retry_after_ms| rate_limited(app, retry_after_ms))
    }

    /// The request that is asked about: by its wait token, or by its id for the caller that made it, and for admins who
    /// may read. Without an access file, and to be read only, by its id alone.
    ///
    /// # Errors
    /// [`GatewayError::NotFound`] if there is none, or it is somebody else's: the two cannot be told apart.
    pub(super) async fn request(
        &self,
        app: &App,
        params: &Params,
        wanted: Wanted<'_>,
    ) -> Result<Found, ApiError> {
        let Wanted { token, id, reads } = wanted;
        let by_id = |request| Found { request, with_token: false };
        if let (Some(id), true) = (id, reads && holds_admin_token(app, &self.headers)) {
            return Ok(by_id(app.gateway.request(id).await?));
        }
        if let Some(token) = params.wait_token(token)? {
            let opened = app.gateway.opened_by(token).await;
            if matches!(opened, Err(GatewayError::NotFound)) {
                // It holds back nobody: a request that is gone had a token that was right.
                app.metrics.count(SecurityEvent::Unauthenticated);
                app.rejections.stranger(self.address, "bad_wait_token");
            }
            let request = opened?;
            return match id {
                Some(id) if id != request.id => Err(GatewayError::NotFound.into()),
                _ => Ok(Found { request, with_token: true }),
            };
        }
        let find = async |id| -> Result<Arc<Request>, ApiError> {
            Ok(Arc::new(app.gateway.store().request(id).await?.ok_or(GatewayError::NotFound)?))
        };
        match (&app.access, id) {
            (None, Some(id)) if reads => find(id).await.map(by_id),
            (Some(access), Some(id)) => {
                let holder = self.shown_by(app, access, params).await?;
                if let (Holder::Admin(admin), true) = (&holder, reads) {
                    check_role(app, admin, Role::Read)?;
                    return find(id).await.map(by_id);
                }
                let identified = holder.caller().map_err(|why| self.not_authenticated(app, why))?;
                let request = find(id).await?;
                if !caller_rights::made(&identified.caller, &request) {
                    return Err(GatewayError::NotFound.into());
                }
                Ok(by_id(request))
            }
            // Somebody else's request and none at all cannot be told apart.
            (None, Some(_)) => Err(GatewayError::NotFound.into()),
            (_, None) => Err(Invalid::new("token", TOKEN_MISSING).into()),
        }
    }

    /// The idempotency key that was sent with this body, if one was, for whoever of the caller sent it.
    ///
    /// # Errors
    /// If there are several, or it does not have the form of a key.
    pub(super) fn idempotency_key(
        &self,
        app: &App,
        caller: Option<&Identified>,
        body: &Value,
    ) -> Result<Option<Sent>, ApiError> {
        let person = caller.and_then(Identified::proven_person);
        Sent::read(&self.headers, &app.fingerprints, body, person.as_deref())
    }
}

/// A request that somebody may see.
pub(super) struct Found {
    pub(super) request: Arc<Request>,
    /// Whether whoever asks holds its wait token; nobody else is given the salt of its payload hash.
    pub(super) with_token: bool,
}

/// The salt of a request's payload hash, in hexadecimal: for whoever holds the wait token, and for nobody else.
pub(super) fn salt_for(app: &App, request: &Request, with_token: bool) -> Option<String> {
    let salt = with_token.then(|| app.gateway.salt_of(request)).flatten();
    salt.as_ref().map(salt_text)
}

/// Which request somebody asks about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    /// The wait token in the body.
    pub(super) token: Option<&'a str>,
    /// The request's id.
    pub(super) id: Option<RequestId>,
    /// Whether it is only read: then it may be an admin who asks, and without an access file the id is enough.
    pub(super) reads: bool,
}

/// Who asks: by the caller's rule, or as the request itself asserts it.
pub(super) fn requester(
    app: &App,
    caller: Option<&Identified>,
    asserted: Option<Party>,
) -> Result<(Party, Who), ApiError> {
    let requester = match caller {
        Some(caller) => caller.requester(asserted, &app.gateway.directory().people()),
        None => asserted.ok_or(RequesterError::Missing).and_then(Requester::asserted),
    };
    let Requester { party, name, machine, authenticated, owners } =
        requester.map_err(|error| match error {
            RequesterError::Mismatch { .. } => {
                let caller = caller.map(|identified| identified.caller.name.as_str());
                caller_rights::reject(app, caller, SecurityEvent::RequesterMismatch);
                ApiError::RequesterMismatch(error)
            }
            RequesterError::Claim => ApiError::RequesterMismatch(error),
            RequesterError::Missing => Invalid::new("meta.requester", error.to_string()).into(),
            RequesterError::Malformed(_) => Invalid::new("meta.requester.id", error.to_string()).into(),
        })?;
    Ok((party, Who { name, machine, authenticated, owners }))
}
