//! Which client a call comes from, for the rate limit.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::ApiError;
use crate::rate_limit::Client;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// The address of the peer, as the listener saw it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Client, Infallible> {
        // A router that is called without a listener, as in tests, has one client.
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Ok(Client::of(parts.extensions.get::<Peer>().map_or(unknown, |Peer(address)| *address)))
    }
}

/// Takes one request from the client's bucket in this process.
pub(super) fn check_rate(app: &App, client: Client) -> Result<(), ApiError> {
    app.rate_limiter.take(client).map_err(|retry_after_ms| rate_limited(app, retry_after_ms))
}

/// Counts that somebody was held back.
pub(super) fn rate_limited(app: &App, retry_after_ms: u64) -> ApiError {
    app.metrics.count(SecurityEvent::RateLimited);
    ApiError::RateLimited { retry_after_ms }
}
