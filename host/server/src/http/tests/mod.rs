//! Tests of the real router over the real gateway, policies and embedded store, with a clock that the tests advance.

mod access;
mod admins;
mod callers;
mod delivery;
mod following;
mod gates;
mod input;
mod operators;
mod people;
mod presses;
mod retention;
mod roles;
mod stream;
mod usage;
mod workspaces;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use countersign_core::clock::ManualClock;
use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::secret::Secret;
use countersign_gateway::scheduler::Scheduler;
use countersign_slack::sign;
use countersign_store::faulty::{Faults, FaultyStore};
use countersign_store::{AuditCursor, Store};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::build::build_over;
use crate::cli::{Cli, Command};
use crate::config::{Config, Environment};
use crate::run::run;
use crate::state::App;

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);
const SIGNING_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// The workspace of the people, and of the fake Slack.
const TEAM: &str = "T1";

const ACTIONS: &str = r#"
  deploy:
    description: Two of three
    timeout: 10m
    redact: { show: [ref, replicas] }
    rerequest: { cooldown: 5m, limit: 2, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U1, U2, U3], approvals: 2, requester_may_approve: false }
      - use: override-guard
        with: { keys: [replicas, ref], max_keys: 1, max_chars: 10 }
  once:
    description: One, whose approval is used in time
    timeout: 10m
    consume: required
    valid_for: 30m
    redact: { show: [ref, replicas] }
    policies:
      - use: quorum
        with: { approvers: [U1] }
      - use: override-guard
        with: { keys: [replicas, ref], max_keys: 1, max_chars: 10 }
  guarded:
    description: A persona, then one
    timeout: 10m
    policies:
      - use: persona-gate
        with: { personas: { security: [U7] } }
      - use: quorum
        with: { approvers: [U1] }
"#;

const SCHEMA: &str = r#"{
  "type": "object",
  "required": ["ref", "password"],
  "properties": {
    "ref": {"type": "string", "maxLength": 40},
    "replicas": {"type": "integer", "minimum": 1, "maximum": 9, "errorMessage": "one to nine, please"},
    "password": {"type": "string"}
  }
}"#;

/// A gateway in a folder of its own, called without a listener.
struct TestServer {
    app: Arc<App>,
    config: Arc<Config>,
    router: Router,
    clock: Arc<ManualClock>,
    faults: Faults,
    folder: TempDir,
}

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl TestServer {
    async fn new() -> TestServer {
        TestServer::with(&[]).await
    }

    /// With these variables, besides those that every test needs; an empty value removes one.
    async fn with(variables: &[(&str, &str)]) -> TestServer {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let secret = "07".repeat(32);
        let store = format!("sqlite:{}", path("store.db"));
        let mut environment: Environment = [
            ("COUNTERSIGN_POLICIES", path("policies").as_str()),
            ("COUNTERSIGN_STORE", &store),
            ("COUNTERSIGN_SECRET", &secret),
            // Shared by all tests, so that modules are compiled once; it needs the same secret in all of them.
            ("COUNTERSIGN_CACHE_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/policies/compiled")),
            ("SLACK_SIGNING_SECRET", SIGNING_SECRET),
            ("RATE_LIMIT_CAPACITY", "1000"),
            // A busy machine must not fail a policy.
            ("COUNTERSIGN_POLICY_DEADLINE_MS", "10000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, value) in variables {
            match *value {
                "" => environment.remove(*name),
                value => environment.insert((*name).to_owned(), value.to_owned()),
            };
        }
        write_policies(&folder.path().join("policies"));
        let Ok(Cli { command: Command::Serve(config) }) = Cli::read(["countersign", "serve"], &environment)
        else {
            panic!("the configuration is sound");
        };
        let clock = Arc::new(ManualClock::at(START));
        let shutdown = CancellationToken::new();
        let faults = Faults::default();
        let over = |store| Arc::new(FaultyStore { store, faults: faults.clone() }) as Arc<dyn Store>;
        let app =
            build_over(&config, Arc::<ManualClock>::clone(&clock), shutdown, over).await.expect("it starts");
        let app = Arc::new(app);
        TestServer {
            router: super::router(Arc::clone(&app), super::Surface::ALL),
            app,
            config: Arc::from(config),
            clock,
            faults,
            folder,
        }
    }

    /// Takes away the folder in which presses are kept that the store does not take.
    fn lose_spool(&self) {
        std::fs::remove_dir_all(self.folder.path().join("store.db.spool")).expect("it is there");
    }

    /// Runs the whole gateway, with its background tasks, on a listener.
    fn run(&self, listener: TcpListener) -> JoinHandle<anyhow::Result<()>> {
        let (app, config) = (Arc::clone(&self.app), Arc::clone(&self.config));
        let listener = crate::http::Listener { socket: listener, surface: super::Surface::ALL, tls: None };
        tokio::spawn(async move { run(app, &config, vec![listener]).await })
    }

    /// Calls the router. If the answer is an error, the OpenAPI document must have its code.
    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.expect("a router always answers");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the body is whole").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("the body is text");
        let answer = Answer { status: parts.status, headers: parts.headers, text };
        assert_documented(method.as_str(), &path, &answer);
        answer
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(post(path, body.to_string())).await
    }

    /// Creates a request, which must be admitted; returns its id and its token.
    async fn open(&self, action: &str) -> (String, String) {
        let answer = self.post("/api/guard/request", &ask(action)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        let text = |key: &str| body[key].as_str().expect(key).to_owned();
        (text("requestId"), text("token"))
    }

    /// Where a request stands, for the holder of its token.
    async fn look(&self, token: &str) -> Value {
        self.post("/api/guard/wait", &json!({"token": token})).await.json()
    }

    /// Presses a button in Slack; returns what the gateway answers.
    async fn press(&self, user: &str, action_id: &str, request: &str) -> Value {
        let answer = self.send(self.signed(&press(user, action_id, request))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Approves by the message that shows the parameters as they stand.
    async fn approve_as_it_stands(&self, user: &str, (request, token): &(String, String)) -> Value {
        let hash = self.look(token).await["payloadHash"].as_str().unwrap_or_default().to_owned();
        let mut payload = press(user, "approve", request);
        payload["actions"][0]["block_id"] = format!("decide:{hash}").into();
        self.send(self.signed(&payload)).await.json()
    }

    /// A Slack interaction, signed now.
    fn signed(&self, payload: &Value) -> Request<Body> {
        signed(payload, self.seconds())
    }

    fn seconds(&self) -> u64 {
        use countersign_core::clock::Clock as _;
        self.clock.now().as_millis() / 1000
    }

    /// Runs the scheduler once.
    async fn run_scheduler(&self) {
        Scheduler::new(Arc::clone(&self.app.gateway), 1000).turn().await;
    }

    /// The audit log's entries of this event.
    async fn audited(&self, event: &str) -> Vec<Value> {
        let audit = self
            .app
            .gateway
            .store()
            .audit(&AuditCursor::default(), 1000)
            .await
            .expect("the store is there")
            .entries;
        let entries = audit.into_iter().filter(|entry| entry.event == event);
        entries.map(|entry| serde_json::to_value(entry).expect("JSON")).collect()
    }

    async fn metric(&self, line: &str) -> bool {
        self.app.scrapes.forget().await;
        self.get("/metrics").await.text.lines().any(|found| found == line)
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header is text"))
    }

    /// The status, the headers that matter, and the body, with what differs from run to run redacted.
    fn shown(&self) -> String {
        let mut shown = self.status.to_string();
        for name in ["content-type", "retry-after", "allow", "cache-control", "x-accel-buffering"] {
            // What every answer says is not shown each time.
            if let Some(value) = self.headers.get(name).filter(|value| *value != "no-store") {
                shown += &format!("\n{name}: {}", value.to_str().expect("a header is text"));
            }
        }
        if !self.text.is_empty() {
            let mut body = self.json();
            redact(&mut body);
            shown += &format!("\n{}", serde_json::to_string_pretty(&body).expect("JSON"));
        }
        shown
    }
}

/// Asserts that an error is among those that its operation documents. Unknown paths and methods have no operation.
fn assert_documented(method: &str, path: &str, answer: &Answer) {
    if answer.header("content-type") != "application/problem+json" {
        return;
    }
    let document = serde_json::to_value(super::openapi::document()).expect("JSON");
    let paths = document["paths"].as_object().expect("an object");
    let is_template_of = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(of, it)| of == it || of.starts_with('{'))
    };
    let item = paths.get(path).or_else(|| paths.iter().find(|(it, _)| is_template_of(it)).map(|(_, it)| it));
    let Some(operation) = item.and_then(|item| item.get(method.to_lowercase())) else { return };
    let range = format!("{}XX", answer.status.as_u16() / 100);
    let documented = operation["responses"][&range]["description"].as_str().unwrap_or_default();
    let (status, code) =
        (answer.status.as_str(), answer.json()["error"].as_str().expect("a code").to_owned());
    assert!(
        documented.contains(status) && documented.contains(&format!("`{code}`")),
        "{method} {path} answers {status} `{code}`, which is not in its documentation: {documented}"
    );
}

fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), &value) {
                    (
                        "token" | "receipt" | "requestId" | "lineageId" | "payloadHash" | "payloadSalt"
                        | "policyHash" | "hash" | "previous" | "policy",
                        Value::String(_),
                    ) => *value = format!("[{key}]").into(),
                    _ => redact(value),
                }
            }
        }
        _ => {}
    }
}

fn ask(action: &str) -> Value {
    json!({
        "action": action,
        "params": {"ref": "v1.2.3", "replicas": 3, "password": "hunter2"},
        "meta": {
            "origin": {"repo": "acme/web", "branch": "main", "pr": 17, "run_id": "4711"},
            "requester": {"id": "U9", "source": "slack", "display": "Rea"},
            "justification": "a release",
            "links": [{"label": "the diff", "url": "https://git.example/acme/web/pull/17"}],
        },
    })
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).expect("a request")
}

fn press(user: &str, action_id: &str, request: &str) -> Value {
    use std::sync::atomic::{AtomicU64, Ordering};
    // Slack gives every click its own trigger, so that none is a replay of another.
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    json!({
        "type": "block_actions",
        "user": {"id": user, "team_id": TEAM},
        "trigger_id": SERIAL.fetch_add(1, Ordering::Relaxed).to_string(),
        "actions": [{"action_id": action_id, "value": request}],
    })
}

fn modal(user: &str, request: &str, inputs: &[(&str, &str)]) -> Value {
    let values = inputs.iter().map(|(key, text)| (format!("ov_{key}"), json!({"value": {"value": text}})));
    json!({
        "type": "view_submission",
        "user": {"id": user, "team_id": TEAM},
        "view": {
            "callback_id": "override_submit",
            "private_metadata": json!({"request_id": request}).to_string(),
            "state": {"values": values.collect::<serde_json::Map<_, _>>()},
        },
    })
}

fn signed(payload: &Value, seconds: u64) -> Request<Body> {
    let form =
        form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
    let timestamp = seconds.to_string();
    let signature = sign(&Secret::new(SIGNING_SECRET), &timestamp, form.as_bytes()).expect("a signature");
    Request::post("/api/slack/interactions")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-slack-request-timestamp", timestamp)
        .header("x-slack-signature", signature)
        .body(Body::from(form))
        .expect("a request")
}

/// Writes a policy set over the modules of this workspace.
fn write_policies(folder: &Path) {
    let write = |path: &str, bytes: &[u8]| std::fs::write(folder.join(path), bytes).expect("written");
    for part in ["modules", "schemas"] {
        std::fs::create_dir_all(folder.join(part)).expect("a folder");
    }
    let mut text = "version: 1\nmodules:\n".to_owned();
    for name in ["quorum", "persona-gate", "override-guard"] {
        let bytes = countersign_test_modules::bytes(name);
        text += &format!("  {name}: sha256:{}\n", Digest::of(&bytes));
        write(&format!("modules/{name}.wasm"), &bytes);
    }
    text += &format!("defaults: {{ timeout: 10m, channel: C0X, unknown_action: deny }}\nactions:{ACTIONS}");
    write("policy-set.yaml", text.as_bytes());
    write("schemas/deploy.json", SCHEMA.as_bytes());
}
