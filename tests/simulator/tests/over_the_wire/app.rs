//! An app for the simulator, and helpers that call the simulator.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use slack_simulator::{Message, Options, Simulator, signature};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Waits, up to 20 seconds.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

/// A simulator without rate limits.
pub(crate) async fn slack() -> Simulator {
    let options = Options { rate_factor: f64::INFINITY, ..Options::default() };
    Simulator::start(options).await.expect("there is a free port")
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends an HTTP request on a connection of its own; `Err` if no complete answer comes back.
pub(crate) async fn send(address: &str, head: &str, body: &str) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Reply { status: status.expect("a status"), head: head.to_owned(), body: body.to_owned() })
}

/// Calls a method of the Web API.
pub(crate) async fn call(slack: &Simulator, method: &str, body: &Value) -> std::io::Result<Reply> {
    let token = if method.starts_with("apps.") { slack.app_token() } else { slack.bot_token() };
    let address = slack.address().to_string();
    let head = format!(
        "POST /api/{method} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json"
    );
    send(&address, &head, &body.to_string()).await
}

/// Calls a method that must be answered with `ok`.
pub(crate) async fn ok(slack: &Simulator, method: &str, body: &Value) -> Value {
    let reply = within(call(slack, method, body)).await.expect("an answer");
    let json = reply.json();
    assert_eq!(json["ok"], true, "{method} {body}: {json}");
    json
}

/// Posts a message with the buttons Approve and Deny.
pub(crate) async fn post(slack: &Simulator, channel: &str) -> Message {
    let button = |id: &str| json!({"type": "button", "action_id": id, "value": "req_1", "text": {"type": "plain_text", "text": id}});
    let blocks =
        json!([{"type": "actions", "block_id": "decide", "elements": [button("approve"), button("deny")]}]);
    let posted =
        ok(slack, "chat.postMessage", &json!({"channel": channel, "text": "x", "blocks": blocks})).await;
    slack.message(channel, posted["ts"].as_str().unwrap()).expect("it is there")
}

/// An app that accepts interactions, and answers them as configured.
pub(crate) struct App {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Value>>>,
    answer: Arc<Mutex<Answering>>,
}

/// How an app answers.
#[derive(Clone, Debug)]
pub(crate) enum Answering {
    With(u16, String),
    Never,
}

impl App {
    /// Starts one, which trusts nothing that is not signed with `secret`.
    pub(crate) async fn start(secret: &str) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let answer = Arc::new(Mutex::new(Answering::With(200, String::new())));
        let app = App { url, seen: Arc::clone(&seen), answer: Arc::clone(&answer) };
        let secret = secret.to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, secret.clone(), Arc::clone(&seen), Arc::clone(&answer)));
            }
        });
        app
    }

    pub(crate) fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = Answering::With(status, body.to_owned());
    }

    pub(crate) fn never_answers(&self) {
        *self.answer.lock().unwrap() = Answering::Never;
    }

    /// The interactions so far.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    secret: String,
    seen: Arc<Mutex<Vec<Value>>>,
    answer: Arc<Mutex<Answering>>,
) {
    let mut received = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&received).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize =
            header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    assert!(head.starts_with("POST /api/slack/interactions HTTP/1.1"), "{head}");
    let timestamp =
        header(&head, "x-slack-request-timestamp").expect("a timestamp").parse().expect("a number");
    assert_eq!(header(&head, "x-slack-signature"), Some(signature(&secret, timestamp, &body).as_str()));
    let payload =
        form_urlencoded::parse(body.as_bytes()).find(|(key, _)| key == "payload").expect("a payload").1;
    seen.lock().unwrap().push(serde_json::from_str(&payload).expect("JSON"));
    let answering = answer.lock().unwrap().clone();
    let Answering::With(status, body) = answering else { return std::future::pending().await };
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value)
}
