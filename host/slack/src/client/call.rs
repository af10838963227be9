//! One call of a method: sent once, waited for so long and no longer, counted, and what an error means.

use std::error::Error;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slack_morphism::errors::SlackClientError;
use slack_morphism::prelude::{SlackApiToken, SlackClientHyperConnector, SlackClientHyperHttpsConnector};

use super::SlackClient;
use super::metrics::CallOutcome;

/// How long Slack may take to answer.
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to connect to it: less, so that another address of the same name has its turn.
pub(super) const WITHIN_CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to open a modal: after 3 s it would not.
pub(super) const WITHIN_TRIGGER: Duration = Duration::from_millis(2500);

/// How long to keep away where Slack says that it is too much, and not for how long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Too many calls. Nothing was done.
    #[error("Slack takes no more of these calls for {} ms", retry_after.as_millis())]
    RateLimited {
        /// When to call again.
        retry_after: Duration,
    },
    /// Slack says no. Nothing was done.
    #[error("Slack refuses: {code}")]
    Rejected {
        /// Slack's code.
        code: String,
    },
    /// No usable answer: a timeout, a reset, a 5xx, something that is not from Slack. It may have been done.
    #[error("Slack does not answer: {detail}")]
    Unanswered {
        /// What happened. It holds nothing of what was sent or answered.
        detail: String,
    },
}

pub(super) enum Link {
    Encrypted(slack_morphism::SlackClient<SlackClientHyperHttpsConnector>),
    /// On this machine only.
    Plain(slack_morphism::SlackClient<SlackClientHyperConnector<HttpConnector>>),
}

impl SlackClient {
    pub(super) async fn post<R: DeserializeOwned + Send>(
        &self,
        method: &'static str,
        body: &(impl Serialize + Send + Sync),
    ) -> Result<R, CallError> {
        self.post_as(&self.token, WITHIN, method, body).await
    }

    pub(super) async fn post_as<R: DeserializeOwned + Send>(
        &self,
        token: &SlackApiToken,
        within: Duration,
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
            }
        };
        self.conclude(method, within, tokio::time::timeout(within, calling).await)
    }

    /// The methods that read take no JSON.
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
            }
        };
        self.conclude(method, WITHIN, tokio::time::timeout(WITHIN, calling).await)
    }

    fn conclude<R>(
        &self,
        method: &'static str,
        within: Duration,
        answered: Result<Result<Answer<R>, SlackClientError>, tokio::time::error::Elapsed>,
    ) -> Result<R, CallError> {
        let unanswered = |detail: String| Err(CallError::Unanswered { detail });
        let result = match answered {
            Ok(Ok(Answer { ok: true, said })) => Ok(said),
            Ok(Ok(Answer { ok: false, .. })) => unanswered("`ok` is false, and there is no error".to_owned()),
            Ok(Err(error)) => Err(call_error(&error)),
            Err(_) => unanswered(format!("no answer within {} ms", within.as_millis())),
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

/// What an error means for the caller, without the bodies that the library's own texts hold.
fn call_error(error: &SlackClientError) -> CallError {
    let unanswered = |detail: String| CallError::Unanswered { detail };
    match error {
        SlackClientError::ApiError(error) => refusal(&error.code),
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

/// What a code means. Slack says of some that a part may have been done.
fn refusal(code: &str) -> CallError {
    match code {
        "ratelimited" | "rate_limited" => CallError::RateLimited { retry_after: RETRY_AFTER },
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => {
            CallError::Unanswered { detail: code.to_owned() }
        }
        _ => {
            let readable = |code: &&str| {
                let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                !code.is_empty() && code.len() <= 64 && code.bytes().all(known)
            };
            // It is going to be logged, stored and shown.
            let code = Some(code).filter(readable).unwrap_or("unreadable_code");
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

/// `ok`, and what only this method says. Whole messages are not read: an answer that cannot be read
/// after a message was posted would look like a failure.
#[derive(Deserialize)]
struct Answer<R> {
    ok: bool,
    #[serde(flatten)]
    said: R,
}
