//! A call of an API: made once, within a time and a size, following no redirect.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use url::Url;

/// How long a call may take.
const WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 256 << 10;

/// The most of a `Retry-After` that counts, in seconds.
const LONGEST_RETRY_AFTER_SEC: u64 = 3600;

/// Why a call failed. Nothing of what was sent or received is in it but the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was answered with a status that means failure.
    #[error("it was answered with {status}")]
    Refused {
        /// The status.
        status: u16,
        /// In how many milliseconds to try again, if the answer says so.
        retry_after_ms: Option<u64>,
    },
    /// There was no connection, or it broke.
    #[error("it cannot be reached")]
    Unreachable,
    /// There was no answer in time. It may have been done all the same.
    #[error("it did not answer in time")]
    TimedOut,
    /// The answer is too long, or not what it should be.
    #[error("its answer cannot be read")]
    Unreadable,
    /// The call cannot be made with what is known: a name that is none, or a key that does not sign.
    #[error("the call cannot be made")]
    Impossible,
}

impl CallError {
    /// Whether the same call may succeed later. What was refused for what it is will be refused again.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            CallError::Refused { status, retry_after_ms } => {
                retry_after_ms.is_some() || matches!(status, 401 | 403 | 408 | 425 | 429 | 500..=599)
            }
            CallError::Unreachable | CallError::TimedOut | CallError::Unreadable => true,
            CallError::Impossible => false,
        }
    }

    /// The status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            CallError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Makes calls.
pub(crate) struct Caller(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Caller {
    /// A caller that trusts the certificate authorities of the system.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn new() -> std::io::Result<Caller> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_WITHIN));
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Caller(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Posts JSON. Returns the answer's body if its status is one of success.
    pub(crate) async fn post(&self, url: &Url, headers: HeaderMap, body: &Value) -> Result<Bytes, CallError> {
        tokio::time::timeout(WITHIN, self.exchange(url, headers, body))
            .await
            .map_err(|_| CallError::TimedOut)?
    }

    async fn exchange(&self, url: &Url, headers: HeaderMap, body: &Value) -> Result<Bytes, CallError> {
        let body = Full::new(Bytes::from(body.to_string()));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url.as_str())
            .body(body)
            .map_err(|_| CallError::Impossible)?;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("countersign"));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let answer = self.0.request(request).await.map_err(|_| CallError::Unreachable)?;
        let status = answer.status();
        let retry_after_ms = retry_after(status, answer.headers());
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        if !status.is_success() {
            return Err(CallError::Refused { status: status.as_u16(), retry_after_ms });
        }
        Ok(body.map_err(|_| CallError::Unreadable)?.to_bytes())
    }
}

/// `Retry-After` in seconds, which is the form that both systems use.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<u64> {
    if status.is_success() {
        return None;
    }
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.min(LONGEST_RETRY_AFTER_SEC) * 1000)
}

/// A header that holds a credential.
pub(crate) fn secret_header(text: &str) -> Result<HeaderValue, CallError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| CallError::Impossible)?;
    value.set_sensitive(true);
    Ok(value)
}
