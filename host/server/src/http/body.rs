//! Request bodies: limited in size and in time, and JSON that every parser reads alike.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use countersign_core::json;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{ApiError, Invalid};
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// How long a body may take to arrive: a slow caller must not hold a connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A body that is longer than this, in bytes, is parsed where it keeps no other call waiting.
const PARSED_AT_ONCE: usize = 64 << 10;

/// A call whose body is not read yet: first it is asked whether whoever calls may.
pub(crate) struct Unread(Request);

impl<S: Sync> FromRequest<S> for Unread {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Unread, Infallible> {
        Ok(Unread(request))
    }
}

impl Unread {
    /// Reads the body.
    pub(crate) async fn json(self, app: &App) -> Result<JsonBody, ApiError> {
        let (parts, body) = self.0.into_parts();
        // Before anything is read of a body that would be refused.
        JsonBody::check(&parts.headers)?;
        JsonBody::of(&parts.headers, read(app, body, app.body_limit).await?).await
    }
}

/// A JSON body.
pub(crate) struct JsonBody(pub(crate) Value);

impl JsonBody {
    /// Parses a body that was read already.
    pub(crate) async fn of(headers: &HeaderMap, bytes: Bytes) -> Result<JsonBody, ApiError> {
        JsonBody::check(headers)?;
        if bytes.len() <= PARSED_AT_ONCE {
            return Ok(JsonBody(json::parse(&bytes)?));
        }
        let parsed = tokio::task::spawn_blocking(move || json::parse(&bytes)).await;
        // It has panicked, or the gateway ends.
        let parsed = parsed.map_err(|_| Invalid::new("", "the body cannot be parsed"))?;
        Ok(JsonBody(parsed?))
    }

    /// Checks what the headers say of the body.
    fn check(headers: &HeaderMap) -> Result<(), ApiError> {
        if is_json(headers) { Ok(()) } else { Err(ApiError::NotJson) }
    }

    /// Deserializes the body.
    pub(crate) fn typed<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        Ok(json::typed(self.0)?)
    }
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<JsonBody, ApiError> {
        Unread(request).json(app).await
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(app: &App, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::TooLarge(format!("the body has more than {limit} bytes"));
    // What is announced to be too large need not arrive first.
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > limit {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(TIMEOUT, Limited::new(body, limit).collect()).await;
    let collected = collected.map_err(|_| {
        app.metrics.count(SecurityEvent::SlowClient);
        ApiError::TooSlow
    });
    match collected? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        // The connection broke, so nobody reads this answer.
        Err(_) => Err(Invalid::new("", "the body did not arrive whole").into()),
    }
}

/// Refuses a compressed body: it could be far larger than it looks.
pub(super) fn refuse_compressed(request: &Request) -> Result<(), ApiError> {
    let mut encodings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::Compressed);
    }
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
