//! The calls of callers, Slack and operators to a gateway.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::authority::TlsClient;
use crate::home::ADMIN_TOKEN;
use crate::metrics::Metrics;
use crate::slack::Click;
use crate::sse::Stream;
use crate::wire::{Call, Connection, Reply};
use crate::within;

/// A request that a caller makes.
#[derive(Clone, Debug)]
pub struct Ask {
    body: Value,
    idempotency_key: Option<String>,
}

impl Ask {
    /// Requests `action`, with two parameters and all required fields.
    #[must_use]
    pub fn new(action: &str) -> Ask {
        let body = json!({
            "action": action,
            "params": {"ref": "v1.2.3", "replicas": 2},
            "meta": {
                "origin": {"repo": "acme/shop", "branch": "main", "run_id": 4711},
                "requester": {"id": "U0REQ", "source": "slack", "display": "Rea Quester"},
                "justification": "Ship the fix",
            },
        });
        Ask { body, idempotency_key: None }
    }

    /// A request with this body.
    #[must_use]
    pub const fn of(body: Value) -> Ask {
        Ask { body, idempotency_key: None }
    }

    /// With these parameters.
    #[must_use]
    pub fn params(mut self, params: Value) -> Ask {
        self.body["params"] = params;
        self
    }

    /// With another requester.
    #[must_use]
    pub fn requester(mut self, id: &str) -> Ask {
        self.body["meta"]["requester"]["id"] = id.into();
        self
    }

    /// With an idempotency key.
    #[must_use]
    pub fn idempotency_key(mut self, key: &str) -> Ask {
        self.idempotency_key = Some(key.to_owned());
        self
    }

    /// The body, to change it.
    #[must_use]
    pub fn body(&self) -> Value {
        self.body.clone()
    }

    /// The call.
    #[must_use]
    pub fn call(&self) -> Call {
        let call = Call::post("/api/guard/request", &self.body);
        match &self.idempotency_key {
            Some(key) => call.header("idempotency-key", key),
            None => call,
        }
    }
}

/// The answer to a request that was made.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The wait token.
    pub token: String,
    /// The request's id.
    pub id: String,
    /// The complete answer.
    pub body: Value,
}

impl Receipt {
    /// Reads the answer to a create or a re-request.
    ///
    /// # Errors
    /// If it is a problem.
    pub fn read(reply: Reply) -> Result<Receipt, Problem> {
        let body = accepted(reply)?;
        let text = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("no `{key}`: {body}")).to_owned();
        Ok(Receipt { token: text("token"), id: text("requestId"), body: body.clone() })
    }
}

/// An answer with an error.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable code, from the member `error`.
    pub code: String,
    /// All of it.
    pub body: Value,
    /// The seconds of `Retry-After`.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// Reads an answer that is not a success.
    ///
    /// # Panics
    /// If it is not `application/problem+json` with all its members.
    #[must_use]
    pub fn read(reply: &Reply) -> Problem {
        let content_type = reply.header("content-type").unwrap_or_default();
        assert!(
            content_type.starts_with("application/problem+json"),
            "{} `{content_type}`: {}",
            reply.status(),
            reply.text()
        );
        let body = reply.json();
        for member in ["type", "title", "detail", "error"] {
            assert!(body[member].is_string(), "no `{member}`: {body}");
        }
        assert_eq!(body["status"], reply.status(), "{body}");
        Problem {
            status: reply.status(),
            code: body["error"].as_str().unwrap_or_default().to_owned(),
            retry_after: reply.header("retry-after").and_then(|seconds| seconds.parse().ok()),
            body,
        }
    }

    /// Status and code, to compare both at once.
    #[must_use]
    pub fn is(&self) -> (u16, &str) {
        (self.status, &self.code)
    }
}

/// A gateway that listens somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    address: SocketAddr,
    tls: Option<TlsClient>,
}

impl Api {
    /// The gateway that listens at `address`.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Api {
        Api { address, tls: None }
    }

    /// The gateway that speaks TLS at `address`.
    #[must_use]
    pub const fn secured(address: SocketAddr, client: TlsClient) -> Api {
        Api { address, tls: Some(client) }
    }

    /// The same gateway, called by another client.
    #[must_use]
    pub const fn called_by(&self, client: TlsClient) -> Api {
        Api::secured(self.address, client)
    }

    /// A new connection.
    ///
    /// # Errors
    /// If nothing listens there, or the handshake fails.
    pub async fn try_connect(&self) -> anyhow::Result<Connection> {
        match self.tls {
            None => Connection::open(self.address).await,
            Some(client) => Connection::open_tls(self.address, client).await,
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new connection.
    ///
    /// # Panics
    /// If nothing listens there.
    pub async fn connect(&self) -> Connection {
        within("a connection", self.try_connect()).await.expect("the gateway takes connections")
    }

    /// Makes a call on a connection of its own. Long-polls must ask for less time than a test has patience.
    ///
    /// # Panics
    /// If no complete answer comes.
    pub async fn send(&self, call: &Call) -> Reply {
        let mut connection = self.connect().await;
        let reply = within("an answer", connection.send(call)).await;
        reply.unwrap_or_else(|error| panic!("no answer: {error:#}"))
    }

    /// Makes a request.
    ///
    /// # Errors
    /// If the gateway refuses.
    pub async fn create(&self, ask: &Ask) -> Result<Receipt, Problem> {
        Receipt::read(self.send(&ask.call()).await)
    }

    /// Requests `action`, which the gateway must admit.
    ///
    /// # Panics
    /// If it does not.
    pub async fn open(&self, action: &str) -> Receipt {
        self.create(&Ask::new(action)).await.unwrap_or_else(|problem| panic!("{action}: {problem:?}"))
    }

    /// The state of a request, as its caller sees it, at once.
    pub async fn look(&self, token: &str) -> Value {
        let reply = self.send(&Call::post("/api/guard/wait", &json!({"token": token}))).await;
        accepted(reply).unwrap_or_else(|problem| panic!("cannot look: {problem:?}"))
    }

    /// One long-poll.
    pub async fn wait(&self, token: &str, seconds: u64) -> Value {
        let reply =
            self.send(&Call::get(&format!("/api/guard/wait?token={token}&timeoutSec={seconds}"))).await;
        accepted(reply).unwrap_or_else(|problem| panic!("cannot wait: {problem:?}"))
    }

    /// Long-polls until the request has ended.
    pub async fn ended(&self, token: &str) -> Value {
        let ended = async {
            loop {
                let state = self.wait(token, 10).await;
                if is_terminal(&state["status"]) {
                    return state;
                }
            }
        };
        within("the request to end", ended).await
    }

    /// The state of a request, as anybody sees it.
    pub async fn status(&self, id: &str) -> Value {
        let reply = self.send(&Call::get(&format!("/api/guard/status?requestId={id}"))).await;
        accepted(reply).unwrap_or_else(|problem| panic!("no status: {problem:?}"))
    }

    /// The caller cancels its request.
    ///
    /// # Errors
    /// If the gateway refuses.
    pub async fn cancel(&self, token: &str, reason: Option<&str>) -> Result<Value, Problem> {
        let body = match reason {
            Some(reason) => json!({"token": token, "reason": reason}),
            None => json!({"token": token}),
        };
        accepted(self.send(&Call::post("/api/guard/cancel", &body)).await)
    }

    /// Makes an ended request again, and retries after each `Retry-After` of the gateway.
    ///
    /// # Panics
    /// If the gateway refuses for another reason, or asks to wait too long.
    pub async fn rerequest_patiently(&self, original: &Receipt, actor: &str) -> Receipt {
        let made = async {
            loop {
                match self.rerequest(original, actor).await {
                    Ok(receipt) => return receipt,
                    Err(Problem { retry_after: Some(seconds), .. }) => {
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                    }
                    Err(problem) => panic!("cannot be made again: {problem:?}"),
                }
            }
        };
        within("the cooldown to end", made).await
    }

    /// Makes an ended request again, with its token.
    ///
    /// # Errors
    /// If the gateway refuses.
    pub async fn rerequest(&self, original: &Receipt, actor: &str) -> Result<Receipt, Problem> {
        let actor = json!({"id": actor, "source": "slack"});
        let body = json!({"originalRequestId": original.id, "actor": actor, "token": original.token});
        Receipt::read(self.send(&Call::post("/api/guard/rerequest", &body)).await)
    }

    /// The chain that a request belongs to.
    pub async fn lineage(&self, id: &str) -> Value {
        let reply = self.send(&Call::get(&format!("/api/guard/lineage?requestId={id}"))).await;
        accepted(reply).unwrap_or_else(|problem| panic!("no lineage: {problem:?}"))
    }

    /// A stream of the request's states.
    ///
    /// # Panics
    /// If the gateway does not give one.
    pub async fn stream(&self, token: &str) -> Stream {
        let stream = self.stream_after(token, None).await;
        stream.unwrap_or_else(|reply| panic!("no stream: {} {}", reply.status(), reply.text()))
    }

    /// A stream that resumes after the event with this id.
    ///
    /// # Errors
    /// The answer, if it is not 200.
    pub async fn stream_after(&self, token: &str, last_event_id: Option<&str>) -> Result<Stream, Reply> {
        let mut call = Call::get(&format!("/api/guard/wait-sse?token={token}"));
        if let Some(id) = last_event_id {
            call = call.header("last-event-id", id);
        }
        let connection = self.connect().await;
        let opened = within("a stream", Stream::open(connection, &call)).await;
        opened.unwrap_or_else(|error| panic!("no stream: {error:#}"))
    }

    /// Somebody acts in Slack; returns the answer: see [`Connection::click`].
    ///
    /// # Panics
    /// If the answer is an HTTP error.
    pub async fn click(&self, click: &Click) -> Value {
        let mut connection = self.connect().await;
        let reply = within("a click to be answered with what came of it", connection.click(click)).await;
        let reply = reply.unwrap_or_else(|error| panic!("no answer: {error:#}"));
        assert_eq!(reply.status(), 200, "{click:?}: {}", reply.text());
        reply.json()
    }

    /// As [`Api::click`], delivered once.
    ///
    /// # Panics
    /// If the answer is an HTTP error.
    pub async fn click_once(&self, click: &Click) -> Value {
        let reply = self.send(&click.signed().call()).await;
        assert_eq!(reply.status(), 200, "{click:?}: {}", reply.text());
        reply.json()
    }

    /// As [`Api::click`], for an act that must count.
    ///
    /// # Panics
    /// If it does not.
    pub async fn click_ok(&self, click: &Click) -> Value {
        let answer = self.click(click).await;
        assert_eq!(answer["ok"], true, "{click:?}: {answer}");
        answer
    }

    /// As [`Api::click`], for an act that must not count; returns the code of the refusal.
    ///
    /// # Panics
    /// If it does.
    pub async fn click_refused(&self, click: &Click) -> String {
        let answer = self.click(click).await;
        assert_eq!(answer["ok"], false, "{click:?}: {answer}");
        answer["error"].as_str().unwrap_or_else(|| panic!("no `error`: {answer}")).to_owned()
    }

    /// An admin's call with a JSON body.
    ///
    /// # Errors
    /// If the gateway refuses.
    pub async fn admin(&self, method: &str, path: &str, body: &Value) -> Result<Value, Problem> {
        let call =
            Call::new(method, &format!("/api/admin/{path}")).body("application/json", body.to_string());
        self.admin_call(call).await
    }

    /// An admin's call.
    ///
    /// # Errors
    /// If the gateway refuses.
    pub async fn admin_call(&self, call: Call) -> Result<Value, Problem> {
        accepted(self.send(&call.header("authorization", &format!("Bearer {ADMIN_TOKEN}"))).await)
    }

    /// A resource of the admin API.
    ///
    /// # Panics
    /// If the gateway refuses.
    pub async fn seen(&self, path: &str) -> Value {
        let seen = self.admin_call(Call::get(&format!("/api/admin/{path}"))).await;
        seen.unwrap_or_else(|problem| panic!("{path}: {problem:?}"))
    }

    /// The hash of the policy set in force.
    ///
    /// # Panics
    /// If the gateway does not answer with it.
    pub async fn policy(&self) -> String {
        let ready = self.send(&Call::get("/readyz")).await.json();
        ready["policy"].as_str().unwrap_or_else(|| panic!("no `policy`: {ready}")).to_owned()
    }

    /// Stores a policy set; returns its hash.
    ///
    /// # Panics
    /// If the gateway refuses.
    pub async fn store_set(&self, document: &str) -> String {
        let stored = self.admin("POST", "policy-sets", &json!({"document": document})).await;
        let stored = stored.unwrap_or_else(|problem| panic!("not stored: {problem:?}"));
        stored["hash"].as_str().expect("a hash").to_owned()
    }

    /// Puts a stored set in force, if the expected one is in force now.
    ///
    /// # Errors
    /// If the gateway refuses.
    pub async fn activate(&self, hash: &str, expected: &str) -> Result<Value, Problem> {
        let body = json!({"expectedCurrent": expected});
        self.admin("POST", &format!("policy-sets/{hash}/activate"), &body).await
    }

    /// The metrics now, with what the store counts even if another instance shows it.
    pub async fn metrics(&self) -> Metrics {
        let measured = async {
            loop {
                let reply = self.send(&Call::get("/metrics?stored=always")).await;
                assert_eq!(reply.status(), 200, "{}", reply.text());
                if reply.header("cache-status").is_none() {
                    return Metrics::parse(&reply.text());
                }
            }
        };
        within("metrics to be measured again", measured).await
    }

    /// Waits until a metric with these labels has at least this value.
    pub async fn metrics_until(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let reached = async {
            while self.metrics().await.count(name, labels) < value {
                tokio::task::yield_now().await;
            }
        };
        within(&format!("{name} {labels:?} to be {value}"), reached).await;
    }
}

/// The body of a success, else the problem.
fn accepted(reply: Reply) -> Result<Value, Problem> {
    if reply.status() == 200 { Ok(reply.json()) } else { Err(Problem::read(&reply)) }
}

fn is_terminal(status: &Value) -> bool {
    ["approved", "denied", "expired", "cancelled"].iter().any(|terminal| status == terminal)
}

/// A time of the gateway's (RFC 3339), in milliseconds since the epoch.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn millis(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("not a time: {time}"));
    let time: jiff::Timestamp = text.parse().unwrap_or_else(|error| panic!("`{text}`: {error}"));
    assert!(text.ends_with('Z'), "`{text}` is not UTC");
    time.as_millisecond()
}
