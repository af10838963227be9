//! A fake Slack for tests, served in this process: it keeps messages, and fails as a test tells it to; and the way to a
//! Slack that a test brings itself, without a connection.

#![expect(missing_docs, reason = "each is what its name says")]
#![expect(clippy::unwrap_used, reason = "a test fails where its fake does")]

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use countersign_core::clock::Clock;
use countersign_core::secret::Secret;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use slack_morphism::errors::{
    SlackClientApiError, SlackClientError, SlackClientHttpError, SlackClientProtocolError,
    SlackClientSystemError, SlackRateLimitError,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::CallMetrics;
use crate::SlackClient;

pub const TOKEN: &str = "xoxb-hunter2";

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Carried out and answered.
    Done,
    /// HTTP 429, with this many seconds in `Retry-After`; not carried out.
    Limited(u64),
    /// `ok: false` with this code; not carried out.
    Refused(&'static str),
    /// This HTTP status; not carried out.
    Failed(u16),
    /// Carried out, and the connection breaks before the answer ends.
    DoneAndCut,
    /// The connection breaks; not carried out.
    Cut,
    /// Carried out, and a proxy answers instead of Slack.
    DoneAndGarbled,
    /// Never answered; not carried out.
    Hangs,
}

/// A call of the Web API.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub body: Value,
    pub token: String,
    /// When, by the test's clock, in milliseconds since the epoch.
    pub at: u64,
}

/// A message in the fake Slack.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub channel: String,
    pub ts: String,
    pub thread: Option<String>,
    pub text: String,
    pub metadata: Value,
    pub updates: usize,
}

type Decide = Box<dyn FnMut(&str, &Value) -> Fate + Send>;

struct FakeState {
    clock: Arc<dyn Clock>,
    decide: Decide,
    calls: Vec<Call>,
    messages: Vec<Shown>,
    next: u64,
    /// The answers of methods, besides `ok`.
    answers: HashMap<String, Value>,
}

pub struct FakeSlack {
    pub url: String,
    state: Arc<Mutex<FakeState>>,
    serving: JoinHandle<()>,
}

impl Drop for FakeSlack {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeSlack {
    pub async fn start(clock: Arc<dyn Clock>) -> FakeSlack {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(FakeState {
            clock,
            decide: Box::new(|_, _| Fate::Done),
            calls: Vec::new(),
            messages: Vec::new(),
            next: 1,
            answers: HashMap::new(),
        }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        FakeSlack { url, state, serving }
    }

    pub fn client(&self) -> SlackClient {
        let calls = CallMetrics::new(&prometheus::Registry::new()).unwrap();
        SlackClient::new(&Secret::new(TOKEN), Some(&self.url), calls).unwrap()
    }

    /// From now on `decide` says how each call is answered, by its method and body.
    pub fn decide(&self, decide: impl FnMut(&str, &Value) -> Fate + Send + 'static) {
        self.lock().decide = Box::new(decide);
    }

    /// From now on the method returns this answer.
    pub fn say(&self, method: &str, answer: Value) {
        self.lock().answers.insert(method.to_owned(), answer);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    pub fn forget_calls(&self) {
        self.lock().calls.clear();
    }

    pub fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.method).collect()
    }

    /// All messages, oldest first.
    pub fn messages(&self) -> Vec<Shown> {
        self.lock().messages.clone()
    }

    /// Deletes a message, as a person could.
    pub fn delete(&self, ts: &str) {
        self.lock().messages.retain(|message| message.ts != ts);
    }

    fn lock(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }
}

async fn answer(State(state): State<Arc<Mutex<FakeState>>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let method = parts.uri.path().trim_start_matches("/api/").to_owned();
    let token =
        parts.headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = if body.is_empty() {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        Value::Object(pairs.map(|(key, value)| (key.into_owned(), value.into_owned().into())).collect())
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    let (fate, answer) = {
        let mut state = state.lock().unwrap();
        let fate = (state.decide)(&method, &body);
        let call =
            Call { method: method.clone(), body: body.clone(), token, at: state.clock.now().as_millis() };
        state.calls.push(call);
        let answer = match fate {
            Fate::Done | Fate::DoneAndCut | Fate::DoneAndGarbled => state.perform(&method, &body),
            _ => json!({}),
        };
        (fate, answer)
    };
    match fate {
        Fate::Done => json_response(StatusCode::OK, &answer),
        Fate::Refused(code) => json_response(StatusCode::OK, &json!({"ok": false, "error": code})),
        Fate::Failed(status) => {
            let mut response = Response::new(Body::from("<html>upstream error</html>"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
        Fate::Limited(seconds) => {
            let mut response =
                json_response(StatusCode::TOO_MANY_REQUESTS, &json!({"ok": false, "error": "ratelimited"}));
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            response
        }
        Fate::DoneAndCut | Fate::Cut => {
            let broken = futures_util::stream::iter([Err::<Bytes, _>(io::Error::other("cut"))]);
            Response::new(Body::from_stream(broken))
        }
        Fate::DoneAndGarbled => {
            let mut response = Response::new(Body::from("<html>sign in to the network</html>"));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
            response
        }
        Fate::Hangs => std::future::pending().await,
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl FakeState {
    /// Carries out a method, and returns its answer.
    fn perform(&mut self, method: &str, body: &Value) -> Value {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let mut answer = match method {
            "chat.postMessage" => {
                let seconds = self.clock.now().as_millis() / 1000;
                let ts = format!("{seconds}.{:06}", self.next);
                self.next += 1;
                let channel = match text("channel").strip_prefix('#') {
                    Some(name) => format!("C0{}", name.to_uppercase()),
                    None => text("channel"),
                };
                self.messages.push(Shown {
                    channel: channel.clone(),
                    ts: ts.clone(),
                    thread: body["thread_ts"].as_str().map(str::to_owned),
                    text: text("text"),
                    metadata: body["metadata"].clone(),
                    updates: 0,
                });
                // Slack's answer has many more members, which are not used.
                json!({"channel": channel, "ts": ts, "message": {"type": 7}})
            }
            "chat.update" => {
                let place = (text("channel"), text("ts"));
                let found = self.messages.iter_mut().find(|it| (&it.channel, &it.ts) == (&place.0, &place.1));
                match found {
                    None => return json!({"ok": false, "error": "message_not_found"}),
                    Some(message) => {
                        message.text = text("text");
                        message.updates += 1;
                        json!({"channel": place.0, "ts": place.1})
                    }
                }
            }
            // A channel can be posted to by name, but its history can only be read by id.
            "conversations.history" | "conversations.replies" if text("channel").starts_with('#') => {
                return json!({"ok": false, "error": "channel_not_found"});
            }
            "conversations.history" | "conversations.replies" => self.history(method, body),
            "chat.getPermalink" => {
                json!({"permalink": format!("https://slack.test/{}/{}", text("channel"), text("message_ts"))})
            }
            "auth.test" => json!({"team_id": "T1", "user_id": "UBOT", "bot_id": "B1", "url": "https://t"}),
            _ => json!({}),
        };
        if let Some(configured) = self.answers.get(method) {
            answer = configured.clone();
        }
        if let Some(answer) = answer.as_object_mut() {
            answer.entry("ok").or_insert(true.into());
        }
        answer
    }

    /// A page of the history: newest first, two messages a page.
    fn history(&self, method: &str, body: &Value) -> Value {
        let thread = (method == "conversations.replies").then(|| body["ts"].as_str().unwrap().to_owned());
        let number = |key: &str| body[key].as_str().unwrap().parse::<f64>().unwrap();
        assert_eq!(body["include_all_metadata"], "true");
        let within = self.messages.iter().rev().filter(|message| {
            let ts: f64 = message.ts.parse().unwrap();
            message.channel == body["channel"]
                && message.thread == thread
                && (number("oldest")..=number("latest")).contains(&ts)
        });
        let all: Vec<Value> = within
            .map(|message| {
                let mut seen = Map::from_iter([("ts".to_owned(), json!(message.ts))]);
                if !message.metadata.is_null() {
                    seen.insert("metadata".to_owned(), message.metadata.clone());
                }
                seen.into()
            })
            .collect();
        let from: usize = body["cursor"].as_str().map_or(0, |cursor| cursor.parse().unwrap());
        let page: Vec<_> = all.iter().skip(from).take(2).cloned().collect();
        let next = if from + 2 < all.len() { (from + 2).to_string() } else { String::new() };
        json!({"messages": page, "has_more": !next.is_empty(), "response_metadata": {"next_cursor": next}})
    }
}

/// What a Slack in this process answers a call with.
#[derive(Clone, Debug, PartialEq)]
pub enum InProcessAnswer {
    /// HTTP 200 with this JSON, which says whether it is `ok`.
    Json(Value),
    /// HTTP 429, with this many seconds in `Retry-After`.
    Limited(u64),
    /// This HTTP status.
    Status(u16),
    /// None: the connection broke.
    Cut,
}

type Answering = Pin<Box<dyn Future<Output = InProcessAnswer> + Send>>;

/// A Slack in this process: answers a method with this body.
#[derive(Clone)]
pub struct InProcess(Arc<dyn Fn(&'static str, Value) -> Answering + Send + Sync>);

impl InProcess {
    pub fn new<F>(answer: impl Fn(&'static str, Value) -> F + Send + Sync + 'static) -> InProcess
    where
        F: Future<Output = InProcessAnswer> + Send + 'static,
    {
        InProcess(Arc::new(move |method, body| Box::pin(answer(method, body))))
    }

    /// Calls a method, and gives the answer as the HTTP client would.
    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        method: &'static str,
        body: &(impl Serialize + Sync),
    ) -> Result<R, SlackClientError> {
        let body = serde_json::to_value(body).unwrap();
        match (self.0)(method, body).await {
            InProcessAnswer::Json(answer) if answer.get("ok") == Some(&Value::Bool(false)) => {
                let code = answer.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
                Err(SlackClientError::ApiError(SlackClientApiError::new(code)))
            }
            InProcessAnswer::Json(answer) => serde_json::from_value(answer)
                .map_err(|error| SlackClientError::ProtocolError(SlackClientProtocolError::new(error))),
            InProcessAnswer::Limited(seconds) => Err(SlackClientError::RateLimitError(
                SlackRateLimitError::new().with_retry_after(Duration::from_secs(seconds)),
            )),
            InProcessAnswer::Status(status) => Err(SlackClientError::HttpError(SlackClientHttpError::new(
                StatusCode::from_u16(status).unwrap(),
            ))),
            InProcessAnswer::Cut => Err(SlackClientError::SystemError(SlackClientSystemError::new())),
        }
    }
}
