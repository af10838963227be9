//! Webhooks: a target that is told over HTTP, in the form of Standard Webhooks, signed.

mod body;
mod rule;
mod secret;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::lifecycle::{Milestone, Request};
use countersign_outbound::{Call, CallError, Client, TooFar};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};

pub use self::rule::WebhookRule;
pub use self::secret::{BadSecret, Secrets};
pub use self::url::checked_url;

use crate::target::{Answer, Target, Telling, What};

/// The kind in the names of these targets.
pub const KIND: &str = "webhook";

/// How long a call may take: less than the worker gives it, so that it is the client that says what is wrong.
const WITHIN: Duration = Duration::from_secs(25);

/// A webhook.
#[derive(Debug)]
pub struct Webhook {
    rule: Arc<WebhookRule>,
    client: Client,
    /// The receiver has said that it is gone (410). Nothing is sent to it before the access file is loaded again.
    gone: AtomicBool,
}

impl Webhook {
    /// The webhook of a rule.
    #[must_use]
    pub fn new(rule: Arc<WebhookRule>, client: Client) -> Webhook {
        Webhook { rule, client, gone: AtomicBool::new(false) }
    }

    /// What the worker knows it by.
    #[must_use]
    pub fn target(rule: &WebhookRule) -> String {
        format!("{KIND}:{}", rule.name)
    }

    async fn send(&self, telling: &Telling<'_>) -> Result<Answer, String> {
        let What::Reached(milestone, at) = telling.what else { return Ok(Answer::Told) };
        let id = telling.id();
        let seconds = telling.now.as_millis() / 1000;
        let body = body::of(telling.request, milestone, at, self.rule.shows_parameters);
        let file = self.rule.secret_file.clone();
        // Read each time, so that a secret can be replaced without a reload.
        let secrets = tokio::task::spawn_blocking(move || Secrets::read(&file)).await;
        let secrets = secrets.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let signature = secrets.sign(&id, seconds, body.as_bytes());
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("webhook-id"), value(&id)?),
            (HeaderName::from_static("webhook-timestamp"), HeaderValue::from(seconds)),
            (HeaderName::from_static("webhook-signature"), value(&signature)?),
        ]);
        let call = Call {
            method: Method::POST,
            url: &self.rule.url,
            reach: self.rule.reach,
            headers,
            body: body.into(),
            within: WITHIN,
            // What a receiver answers beside its status is of no use.
            most_read: 0,
        };
        let answered = match self.client.call(call).await {
            Ok(answered) => answered,
            Err(CallError::OutOfReach(error)) if error.why == TooFar::Private => {
                return Err(format!("{error}; if it may be told, say `allow_private: true`"));
            }
            Err(error) => return Err(error.to_string()),
        };
        Ok(match answered.status {
            status if status.is_success() => Answer::Told,
            StatusCode::GONE => {
                self.gone.store(true, Ordering::Relaxed);
                tracing::error!(webhook = %self.rule.name, "the receiver of a webhook is gone (410); nothing is sent to it before the access file is loaded again");
                Answer::Refused { why: GONE.to_owned() }
            }
            status if status.is_redirection() => {
                Answer::failed(format!("it answers with {}: redirects are not followed", status.as_u16()))
            }
            status => Answer::Failed {
                why: format!("it answers with {}", status.as_u16()),
                wait_ms: answered.retry_after_ms,
            },
        })
    }
}

const GONE: &str = "the receiver is gone: it has answered with 410";

#[async_trait]
impl Target for Webhook {
    fn wants(&self, request: &Request, milestone: Milestone) -> bool {
        self.rule.wants(&request.submission.action, milestone)
    }

    async fn tell(&self, telling: &Telling<'_>) -> Answer {
        if self.gone.load(Ordering::Relaxed) {
            return Answer::Refused { why: GONE.to_owned() };
        }
        self.send(telling).await.unwrap_or_else(Answer::failed)
    }
}
