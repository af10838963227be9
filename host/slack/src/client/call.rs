//! One call of a method: sent once, with a timeout, counted, its errors classified.

use std::error::Error;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slack_morphism::errors::SlackClientError;
use slack_morphism::prelude::{SlackApiToken, SlackClientHyperConnector, SlackClientHyperHttpsConnector};

use super::SlackClient;
use super::metrics::CallOutcome;

/// The longest that a call may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that connecting may take: less than a call, so that another address of the host can be tried.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that opening a modal may take: a `trigger_id` expires after 3 s.
pub(super) const TRIGGER_TIMEOUT: Duration = Duration::from_millis(2500);

/// How long not to call after a rate limit for which Slack gives no `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Slack's rate limit. Nothing was done.
    #[error("Slack takes no more of these calls for {} ms", retry_after.as_millis())]
    RateLimited {
        /// How long not to call this method.
        retry_after: Duration,
    },
    /// Slack answered with an error. Nothing was done.
    #[error("Slack refuses: {code}")]
    Rejected {
        /// Slack's error code: letters, digits and `_`, at most 64 characters.
        code: String,
    },
    /// No usable answer: a timeout, a connection reset, a 5xx, a proxy's answer. The call may have been carried out.
    #[error("Slack does not answer: {detail}")]
    Unanswered {
        /// What happened, without anything of the bodies.
        detail: String,
    },
}

pub(super) enum Link {
    Encrypted(slack_morphism::SlackClient<SlackClientHyperHttpsConnector>),
    /// To a simulator on this machine only.
    Plain(slack_morphism::SlackClient<SlackClientHyperConnector<HttpConnector>>),
    /// To a Slack in this process, for tests that must run the same each time.
    #[cfg(any(test, feature = "fake"))]
    InProcess(crate::fake::InProcess),
}

impl SlackClient {
    pub(super) async fn post<R: DeserializeOwned + Send>(
        &self,
        method: &'static str,
        body: &(impl Serialize + Send + Sync),
    ) -> Result<R, CallError> {
        self.post_as(&self.token, CALL_TIMEOUT, method, body).await
    }

    pub(super) async fn post_as<R: DeserializeOwned + Send>(
        &self,
        token: &SlackApiToken,
        timeout: Duration,
        method: &'static str,
        body: &(impl Serialize + Send + Sync),
    ) -> Result<R, CallError> {
        let calling = async {
            match &self.link {
                Link::Encrypted(client) => {
                    client.open_session(token).http_session_api.http_post(method, body, None).await
                }
                Link::Plain(client) => {
                    client.open_session(token).http_session_api.http_post(method, body, None).await
                }
                #[cfg(any(test, feature = "fake"))]
                Link::InProcess(slack) => slack.call(method, body).await,
            }
        };
        self.finish(method, timeout, tokio::time::timeout(timeout, calling).await)
    }

    /// For the methods that read: they take a query, and no JSON.
    pub(super) async fn get<R: DeserializeOwned + Send>(
        &self,
        method: &'static str,
        parameters: &[(&'static str, Option<&str>)],
    ) -> Result<R, CallError> {
        let parameters = parameters.to_vec();
        let calling = async {
            match &self.link {
                Link::Encrypted(client) => {
                    client
                        .open_session(&self.token)
                        .http_session_api
                        .http_get(method, &parameters, None)
                        .await
                }
                Link::Plain(client) => {
                    client
                        .open_session(&self.token)
                        .http_session_api
                        .http_get(method, &parameters, None)
                        .await
                }
                #[cfg(any(test, feature = "fake"))]
                Link::InProcess(slack) => {
                    let present = parameters.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
                    slack.call(method, &present.collect::<std::collections::BTreeMap<_, _>>()).await
                }
            }
        };
        self.finish(method, CALL_TIMEOUT, tokio::time::timeout(CALL_TIMEOUT, calling).await)
    }

    fn finish<R>(
        &self,
        method: &'static str,
        timeout: Duration,
        answered: Result<Result<Answer<R>, SlackClientError>, tokio::time::error::Elapsed>,
    ) -> Result<R, CallError> {
        let unanswered = |detail: String| Err(CallError::Unanswered { detail });
        let result = match answered {
            Ok(Ok(Answer { ok: true, body })) => Ok(body),
            Ok(Ok(Answer { ok: false, .. })) => unanswered("`ok` is false, and there is no error".to_owned()),
            Ok(Err(error)) => Err(call_error(&error)),
            Err(_) => unanswered(format!("no answer within {} ms", timeout.as_millis())),
        };
        let outcome = match &result {
            Ok(_) => CallOutcome::Ok,
            Err(CallError::RateLimited { .. }) => CallOutcome::RateLimited,
            Err(CallError::Rejected { .. } | CallError::Unanswered { .. }) => CallOutcome::Error,
        };
        self.calls.count(method, outcome);
        result
    }
}

/// Classifies an error. The library's own texts are not used: they hold bodies.
fn call_error(error: &SlackClientError) -> CallError {
    let unanswered = |detail: String| CallError::Unanswered { detail };
    match error {
        SlackClientError::ApiError(error) => rejection(&error.code),
        SlackClientError::RateLimitError(error) => {
            CallError::RateLimited { retry_after: error.retry_after.unwrap_or(RETRY_AFTER) }
        }
        SlackClientError::HttpError(error) => unanswered(format!("HTTP {}", error.status_code.as_u16())),
        SlackClientError::HttpProtocolError(error) => unanswered(causes(error.cause.as_deref())),
        SlackClientError::SystemError(error) => unanswered(causes(error.cause.as_deref())),
        SlackClientError::ProtocolError(_) => unanswered("the answer is none of Slack's".to_owned()),
        SlackClientError::EndOfStream(_) | SlackClientError::SocketModeProtocolError(_) => {
            unanswered("the connection ended".to_owned())
        }
    }
}

/// Classifies an error code. Slack documents for some that the call may have been carried out in part.
fn rejection(code: &str) -> CallError {
    match code {
        "ratelimited" | "rate_limited" => CallError::RateLimited { retry_after: RETRY_AFTER },
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => {
            CallError::Unanswered { detail: code.to_owned() }
        }
        _ => {
            let is_readable = |code: &&str| {
                let is_allowed =
                    |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                !code.is_empty() && code.len() <= 64 && code.bytes().all(is_allowed)
            };
            // The code is logged, stored and shown, so it must not hold anything else.
            let code = Some(code).filter(is_readable).unwrap_or("unreadable_code");
            CallError::Rejected { code: code.to_owned() }
        }
    }
}

fn causes(error: Option<&(dyn Error + Send + Sync)>) -> String {
    let mut next = error.map(|error| error as &dyn Error);
    let mut causes = Vec::new();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    if causes.is_empty() { "the connection failed".to_owned() } else { causes.join(": ") }
}

/// `ok`, and the members that the method's answer needs. Messages in answers are not deserialized: if that failed
/// after a message was posted, the call would look failed.
#[derive(Deserialize)]
struct Answer<R> {
    ok: bool,
    #[serde(flatten)]
    body: R,
}
