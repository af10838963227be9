//! Request bodies: limited in size and in time, and JSON that every parser reads alike.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use countersign_core::json;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{ApiError, Invalid};
use crate::state::App;

/// How long a body may take to arrive: a slow caller must not hold a connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body.
pub(crate) struct JsonBody(pub(crate) Value);

impl JsonBody {
    /// Parses a body that was read already.
    pub(crate) fn of(headers: &HeaderMap, bytes: &[u8]) -> Result<JsonBody, ApiError> {
        if !is_json(headers) {
            return Err(ApiError::NotJson);
        }
        Ok(JsonBody(json::parse(bytes)?))
    }

    /// Deserializes the body.
    pub(crate) fn typed<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        Ok(json::typed(self.0)?)
    }
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<JsonBody, ApiError> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(ApiError::NotJson);
        }
        JsonBody::of(&parts.headers, &read(body, app.body_limit).await?)
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(TIMEOUT, Limited::new(body, limit).collect()).await;
    match collected.map_err(|_| ApiError::TooSlow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::TooLarge(format!("the body has more than {limit} bytes")))
        }
        // The connection broke, so nobody reads this answer.
        Err(_) => Err(Invalid::new("", "the body did not arrive whole").into()),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
