//! A call of an API: made once, within a time and a size, following no redirect.

use std::time::Duration;

use bytes::Bytes;
use countersign_outbound::{Call, Client, Reach};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use serde_json::Value;
use url::Url;

/// How long a call may take: a report is up to two of them, and the worker has half a minute for it.
const WITHIN: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 256 << 10;

/// The most of a `Retry-After` that counts, in milliseconds.
const LONGEST_RETRY_AFTER_MS: u64 = 3_600_000;

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

impl From<countersign_outbound::CallError> for CallError {
    fn from(error: countersign_outbound::CallError) -> CallError {
        use countersign_outbound::CallError as Error;
        match error {
            Error::NoHost => CallError::Impossible,
            Error::NotFound { .. } | Error::OutOfReach(_) | Error::Unreachable { .. } => {
                CallError::Unreachable
            }
            Error::Unreadable { .. } => CallError::Unreadable,
            Error::TooSlow(_) => CallError::TimedOut,
        }
    }
}

/// Makes calls.
pub(crate) struct Caller(Client);

impl Caller {
    /// A caller that trusts the certificate authorities of the system.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn new() -> std::io::Result<Caller> {
        let client = Client::new();
        match client.fault() {
            Some(why) => Err(std::io::Error::other(why.to_owned())),
            None => Ok(Caller(client)),
        }
    }

    /// Posts JSON. Returns the answer's body if its status is one of success.
    pub(crate) async fn post(&self, url: &Url, headers: HeaderMap, body: &Value) -> Result<Bytes, CallError> {
        let mut headers = headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.call(Method::POST, url, headers, body.to_string().into()).await
    }

    /// Gets JSON, as [`Caller::post`] does.
    pub(crate) async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Bytes, CallError> {
        self.call(Method::GET, url, headers, Bytes::new()).await
    }

    async fn call(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let call = Call {
            method,
            url,
            // The operator has set the URL, and it may well be one of a private network.
            reach: Reach::Private,
            headers,
            body,
            within: WITHIN,
            most_read: ANSWER_BYTES,
        };
        let answered = self.0.call(call).await?;
        if !answered.status.is_success() {
            let retry_after_ms = answered.retry_after_ms.map(|it| it.min(LONGEST_RETRY_AFTER_MS));
            return Err(CallError::Refused { status: answered.status.as_u16(), retry_after_ms });
        }
        Ok(answered.body)
    }
}

/// A header that holds a credential.
pub(crate) fn secret_header(text: &str) -> Result<HeaderValue, CallError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| CallError::Impossible)?;
    value.set_sensitive(true);
    Ok(value)
}
