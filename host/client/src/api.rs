//! The calls of a caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::json;
use countersign_core::lifecycle::{Link, Origin, Party, RunResult};
use countersign_core::receipt::signed::KeySet;
use hyper::Uri;
use hyper::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::address::GatewayUrl;
use crate::answer::{Consumed, Created, Noted, Waited};
use crate::credentials::Credentials;
use crate::error::{CallError, Problem, SettingsError};
use crate::http::{Call, Http, Reply, Trust, bearer};
use crate::patience::{LONGEST, Patience};

/// For how long an answer is waited for, if the gateway is not asked to wait itself.
const WITHIN: Duration = Duration::from_secs(15);

/// How a gateway is called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub url: GatewayUrl,
    /// Certificate authorities to believe in place of the system's: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Who asks.
    pub credentials: Credentials,
    /// The keys of its receipts, if they are known; else they are fetched from it.
    pub keys: Option<KeySet>,
    /// For how long a call that gets no usable answer is made again: ten years at most.
    pub patience: Duration,
    /// A variable with a proxy, which is not used: [`Environment::unused_proxy`](crate::Environment::unused_proxy).
    pub unused_proxy: Option<&'static str>,
}

/// What is asked for.
#[derive(Clone, Serialize)]
pub struct Ask {
    /// The action.
    pub action: String,
    /// Its parameters, hidden ones in clear.
    pub params: Map<String, Value>,
    /// Who asks, why, and from where.
    pub meta: Meta,
}

/// Who asks, why, and from where.
#[derive(Clone, Debug, Serialize)]
pub struct Meta {
    /// Where the request comes from.
    pub origin: Origin,
    /// Who wants it; not needed if the credentials say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<Party>,
    /// Why, for people to read.
    pub justification: String,
    /// Where to read more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// A client of one gateway. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) http: Http,
    pub(crate) settings: Settings,
}

impl Client {
    /// Blocks while it reads certificates.
    ///
    /// # Errors
    /// If a file that the settings name cannot be read.
    pub fn new(settings: Settings) -> Result<Client, SettingsError> {
        let settings = Settings { patience: settings.patience.min(LONGEST), ..settings };
        let trust = match (&settings.ca_file, settings.url.is_encrypted()) {
            (Some(path), _) => Trust::File(path),
            (None, true) => Trust::System,
            (None, false) => Trust::Nobody,
        };
        let http = Http::new(trust, settings.unused_proxy)?;
        Ok(Client { shared: Arc::new(Shared { http, settings }) })
    }

    /// Where the gateway is.
    #[must_use]
    pub fn url(&self) -> &GatewayUrl {
        &self.shared.settings.url
    }

    /// For how long a call that gets no usable answer is made again.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.shared.settings.patience
    }

    /// Makes a request. With the same idempotency key, which has to be new or the caller's own, it is made once.
    ///
    /// # Errors
    /// If the gateway refuses, or gives no usable answer for long.
    pub async fn create(&self, ask: &Ask, idempotency_key: &str) -> Result<Created, CallError> {
        let key = Some(idempotency_key);
        self.post("/api/guard/request", &json_of(ask)?, key, &self.shared.settings.credentials).await
    }

    /// How a request stands now.
    ///
    /// # Errors
    /// If the gateway refuses, or gives no usable answer for long.
    pub async fn look(&self, token: &str) -> Result<Waited, CallError> {
        self.post("/api/guard/wait", &json!({"token": token}), None, &Credentials::None).await
    }

    /// Takes a request back.
    ///
    /// # Errors
    /// If the gateway refuses, as it does if the request has ended, or gives no usable answer for long.
    pub async fn cancel(&self, token: &str, reason: &str) -> Result<(), CallError> {
        let body = json!({"token": token, "reason": reason});
        self.post::<Noted>("/api/guard/cancel", &body, None, &Credentials::None).await.map(drop)
    }

    /// Uses an approval, for these parameters. Only a success is the right to use them; with the same idempotency key it is
    /// given again, so it must be nobody else's.
    ///
    /// # Errors
    /// If the gateway refuses, or gives no usable answer for long. Then it may have been consumed all the same.
    pub async fn consume(
        &self,
        token: &str,
        params: &Map<String, Value>,
        idempotency_key: &str,
    ) -> Result<Consumed, CallError> {
        let (body, key) = (json!({"token": token, "params": params}), Some(idempotency_key));
        self.post("/api/guard/consume", &body, key, &self.shared.settings.credentials).await
    }

    /// Says what came of an approval that was consumed.
    ///
    /// # Errors
    /// If the gateway refuses, or gives no usable answer for long.
    pub async fn report(&self, token: &str, result: RunResult, detail: &str) -> Result<(), CallError> {
        let mut body = json!({"token": token, "status": result});
        if let (false, Some(body)) = (detail.is_empty(), body.as_object_mut()) {
            body.insert("detail".to_owned(), detail.into());
        }
        let credentials = &self.shared.settings.credentials;
        self.post::<Noted>("/api/guard/outcome", &body, None, credentials).await.map(drop)
    }

    /// The keys of the gateway's receipts: those of the settings, or else those that it publishes.
    ///
    /// # Errors
    /// If it gives no usable answer for long.
    pub async fn keys(&self) -> Result<KeySet, CallError> {
        if let Some(keys) = &self.shared.settings.keys {
            return Ok(keys.clone());
        }
        let url = self.route("/.well-known/jwks.json")?;
        let mut patience = Patience::new(self.patience());
        loop {
            let call = Call { url: &url, body: None, authorization: None, headers: Vec::new() };
            match self.once(call).await {
                Err(error) => patience.after(error).await?,
                keys => return keys,
            }
        }
    }

    /// Reads from a route of admins, whose answer can be any JSON.
    pub(crate) async fn read(&self, path: &str) -> Result<Value, CallError> {
        let url = self.route(path)?;
        let mut patience = Patience::new(self.patience());
        let credentials = &self.shared.settings.credentials;
        loop {
            let answered = match credentials.header().await {
                Ok(authorization) => {
                    self.once(Call { url: &url, body: None, authorization, headers: Vec::new() }).await
                }
                Err(error) => Err(error.into()),
            };
            match answered {
                Err(error) => patience.after(credentials.hinted(error)).await?,
                answer => return answer,
            }
        }
    }

    /// Acts on a route of admins.
    pub(crate) async fn act(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.post(path, body, None, &self.shared.settings.credentials).await
    }

    /// Posts a body, again and again if no usable answer comes.
    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        idempotency_key: Option<&str>,
        credentials: &Credentials,
    ) -> Result<T, CallError> {
        let url = self.route(path)?;
        let body = Bytes::from(body.to_string());
        let key = idempotency_key.map(HeaderValue::from_str).transpose();
        let key = key.map_err(|_| CallError::Nonsense("the idempotency key cannot be sent".to_owned()))?;
        let mut patience = Patience::new(self.patience());
        loop {
            let answered = match credentials.header().await {
                Ok(authorization) => {
                    let headers = key.iter().map(|key| ("idempotency-key", key.clone())).collect();
                    self.once(Call { url: &url, body: Some(body.clone()), authorization, headers }).await
                }
                Err(error) => Err(error.into()),
            };
            match answered {
                Err(error) => patience.after(credentials.hinted(error)).await?,
                answer => return answer,
            }
        }
    }

    async fn once<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CallError> {
        answer(&self.shared.http.send(call, WITHIN).await?)
    }

    pub(crate) fn route(&self, path: &str) -> Result<Uri, CallError> {
        let url = self.url().route(path);
        url.ok_or_else(|| CallError::Nonsense(format!("`{}{path}` is no URL", self.url())))
    }
}

/// A key that nobody else has.
///
/// # Errors
/// If the system gives no randomness.
pub fn random_key() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// The header with a wait token.
pub(crate) fn token_header(token: &str) -> Result<HeaderValue, CallError> {
    bearer(token.as_bytes()).ok_or_else(|| CallError::Nonsense("the wait token cannot be sent".to_owned()))
}

fn json_of(value: &impl Serialize) -> Result<Value, CallError> {
    serde_json::to_value(value).map_err(|error| CallError::Nonsense(error.to_string()))
}

/// What an answer says.
pub(crate) fn answer<T: DeserializeOwned>(reply: &Reply) -> Result<T, CallError> {
    if reply.status == 200 && reply.media_type() == "application/json" {
        let value = json::parse(&reply.body).and_then(json::typed);
        return value.map_err(|refused| CallError::Nonsense(refused.to_string()));
    }
    Err(failure(reply))
}

/// What an answer means that is no success.
pub(crate) fn failure(reply: &Reply) -> CallError {
    let problem = (reply.media_type() == "application/problem+json").then(|| problem(reply)).flatten();
    let Some(problem) = problem else {
        let kind = reply.media_type();
        let kind = if kind.is_empty() { "without a type" } else { kind };
        return CallError::Nonsense(format!("status {}, {kind}", reply.status));
    };
    match reply.status {
        408 | 425 | 429 | 500.. => {
            CallError::Unavailable { detail: problem.to_string(), retry_after: reply.retry_after() }
        }
        _ => CallError::Refused(Box::new(problem)),
    }
}

fn problem(reply: &Reply) -> Option<Problem> {
    json::parse(&reply.body).and_then(json::typed).ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};

    use super::*;

    /// It is added to a point in time.
    #[test]
    fn no_answer_says_to_wait_for_ever() {
        for (said, expected) in [
            ("7", Some(7)),
            ("18446744073709551615", Some(3600)),
            ("18446744073709551616", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            let mut reply = reply(503, "application/problem+json", "{}");
            reply.headers.insert(RETRY_AFTER, HeaderValue::from_static(said));
            assert_eq!(reply.retry_after(), expected.map(Duration::from_secs), "{said}");
        }
    }

    fn reply(status: u16, kind: &'static str, body: &str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        Reply { status, headers, body: Bytes::from(body.to_owned()) }
    }

    /// Only what is a gateway's own answer, in full, is believed.
    #[test]
    fn what_else_answers_is_told_apart() {
        let said = |reply: &Reply| match answer::<Waited>(reply) {
            Ok(waited) => waited.status.as_str().to_owned(),
            Err(CallError::Refused(problem)) => format!("refused {}", problem.error),
            Err(CallError::Unavailable { retry_after, .. }) => format!("unavailable {retry_after:?}"),
            Err(CallError::Nonsense(_)) => "nonsense".to_owned(),
            Err(CallError::Credentials(_)) => "credentials".to_owned(),
        };
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let state =
            format!(r#"{{"status":"approved","payloadHash":"{hash}","payloadHashVersion":2,"new":1}}"#);
        let twice = state.replace("\"new\":1", "\"status\":\"denied\"");
        let problem = r#"{"error":"not_found","detail":"no such request"}"#;
        let (json, problem_json) = ("application/json", "application/problem+json; charset=utf-8");
        for (reply, expected) in [
            (reply(200, json, &state), "approved"),
            (reply(200, json, &state.replace("approved", "granted")), "nonsense"),
            (reply(200, json, &twice), "nonsense"),
            (reply(200, json, &state[..40]), "nonsense"),
            (reply(200, json, "{}"), "nonsense"),
            (reply(200, "text/html", &state), "nonsense"),
            (reply(201, json, &state), "nonsense"),
            (reply(302, json, &state), "nonsense"),
            (reply(404, problem_json, problem), "refused not_found"),
            (reply(404, "text/html", "<html>"), "nonsense"),
            (reply(404, problem_json, "<html>"), "nonsense"),
            (reply(429, problem_json, problem), "unavailable Some(7s)"),
            (reply(500, problem_json, problem), "unavailable Some(7s)"),
            (reply(502, "text/html", "<html>"), "nonsense"),
            (reply(503, problem_json, problem), "unavailable Some(7s)"),
        ] {
            assert_eq!(said(&reply), expected, "{} {:?}", reply.status, reply.body);
        }
    }
}
