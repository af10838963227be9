//! Socket Mode: interactions over WebSockets that the gateway opens, for those who cannot open a port.
//!
//! Several connections are kept open, so that one that Slack closes, as it does from time to time, is not missed.
//! What comes is handled as what comes over HTTP is; the connection is the proof that it comes from Slack.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::Uri;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{CallError, SlackClient};
use super::interaction::{Interaction, InteractionError, parse_payload};
use countersign_core::loopback::is_loopback;
use countersign_core::secret::Secret;

/// How long opening a connection may take.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection may be silent before it counts as dead. Slack pings more often than that.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a connection that Slack is about to close is kept for the answers that are still due on it.
const LINGER: Duration = Duration::from_secs(10);

/// The shortest and the longest wait before a connection is opened again after it failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Handles the interactions that a connection delivers.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles an interaction, and returns what to answer. With `None` it is not acknowledged, so Slack delivers it
    /// again.
    async fn handle(&self, read: Result<Interaction, InteractionError>) -> Option<Map<String, Value>>;
}

/// A connection that is kept open.
pub struct Connection {
    /// Handles what comes.
    pub handler: Arc<dyn Handler>,
    /// Opens the connection.
    pub client: Arc<SlackClient>,
    /// The app-level token, `xapp-…`.
    pub token: Secret,
    /// Tells this connection from others in the log.
    pub number: u8,
    /// Ends the connection.
    pub shutdown: CancellationToken,
    /// Tasks that must end before the store closes.
    pub background: TaskTracker,
}

/// Keeps one connection open until the shutdown begins.
pub async fn keep_open(connection: Connection) {
    let Connection { client, token, number, shutdown, .. } = &connection;
    let number = *number;
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let opened = tokio::select! {
            () = shutdown.cancelled() => return,
            opened = open(client, token) => opened,
        };
        match opened {
            Ok(socket) => {
                tracing::info!(connection = number, "Socket Mode: connected");
                failures = 0;
                let why = listen(&connection, socket).await;
                tracing::info!(connection = number, why, "Socket Mode: disconnected");
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(connection = number, %error, "Socket Mode: cannot connect; trying again later");
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(wait(failures, &error)) => {}
                }
            }
        }
    }
}

/// Why there is no connection. The URL, which holds a ticket, is in none of them.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("Slack gave a URL that is neither `wss` nor of this machine")]
    Url,
    #[error("the WebSocket does not open: {0}")]
    Handshake(String),
    #[error("the WebSocket does not open in time")]
    Slow,
}

async fn open(client: &SlackClient, token: &Secret) -> Result<Socket, OpenError> {
    let url = client.open_socket(token).await?;
    let uri: Uri = url.parse().map_err(|_| OpenError::Url)?;
    match uri.scheme_str() {
        Some("wss") => {}
        // A simulator's.
        Some("ws") if uri.host().is_some_and(is_loopback) => {}
        _ => return Err(OpenError::Url),
    }
    let opening = tokio_tungstenite::connect_async(uri);
    let opened = tokio::time::timeout(OPEN_WITHIN, opening).await.map_err(|_| OpenError::Slow)?;
    Ok(opened.map_err(|error| OpenError::Handshake(plain(&error)))?.0)
}

/// What went wrong, without what was sent or answered.
fn plain(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(response) => format!("HTTP {}", response.status().as_u16()),
        tungstenite::Error::Io(error) => error.to_string(),
        tungstenite::Error::Tls(error) => error.to_string(),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            "it was closed".to_owned()
        }
        _ => "the other side does not keep to the protocol".to_owned(),
    }
}

/// How long to wait after this many failures: longer each time, and never the same for two connections.
fn wait(failures: u32, error: &OpenError) -> Duration {
    if let OpenError::Call(CallError::RateLimited { retry_after }) = error {
        return *retry_after;
    }
    let longest = BACKOFF.0.saturating_mul(1 << failures.min(6)).min(BACKOFF.1);
    // Without randomness the wait is as long as it may be.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    longest.mul_f64((f64::from(random) / f64::from(u32::MAX)).max(0.1))
}

/// Handles what comes until another connection should take this one's place; returns why.
async fn listen(connection: &Connection, mut socket: Socket) -> &'static str {
    let (answers, mut due) = mpsc::unbounded_channel();
    loop {
        let received = tokio::select! {
            () = connection.shutdown.cancelled() => {
                drop(answers);
                linger(socket, due).await;
                return "the gateway ends";
            }
            answer = due.recv() => {
                let Some(answer) = answer else { return "nothing is answered any more" };
                if socket.send(answer).await.is_err() {
                    return "it broke";
                }
                continue;
            }
            received = tokio::time::timeout(SILENCE, socket.next()) => received,
        };
        let text = match received {
            Err(_) => return "it was silent for too long",
            Ok(None | Some(Ok(Message::Close(_)))) => return "Slack closed it",
            Ok(Some(Err(_))) => return "it broke",
            Ok(Some(Ok(Message::Text(text)))) => text,
            // Pings are answered by the library.
            Ok(Some(Ok(_))) => continue,
        };
        match serde_json::from_str::<Envelope>(text.as_str()) {
            Ok(Envelope { kind, .. }) if kind == "disconnect" => {
                drop(answers);
                connection.background.spawn(linger(socket, due));
                return "Slack is about to close it";
            }
            Ok(Envelope { kind, envelope_id: Some(id), payload, takes_payload }) if kind == "interactive" => {
                let handler = Arc::clone(&connection.handler);
                let answering = Answering { handler, id, payload, takes_payload, answers: answers.clone() };
                connection.background.spawn(answering.answer());
            }
            Ok(Envelope { kind, envelope_id: Some(id), .. }) => {
                tracing::debug!(kind, "Socket Mode: acknowledged, although it was not asked for");
                let _ = answers.send(acknowledgement(&id, None));
            }
            Ok(Envelope { .. }) => {}
            Err(_) => tracing::warn!("Socket Mode: a message was not understood"),
        }
    }
}

/// Sends the answers that are still due on a connection that Slack is about to close.
async fn linger(mut socket: Socket, mut due: mpsc::UnboundedReceiver<Message>) {
    let rest = async {
        while let Some(answer) = due.recv().await {
            if socket.send(answer).await.is_err() {
                return;
            }
        }
        let _ = socket.close(None).await;
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    envelope_id: Option<String>,
    #[serde(default)]
    payload: Value,
    #[serde(default, rename = "accepts_response_payload")]
    takes_payload: bool,
}

/// An interaction that was delivered, on its way to its answer.
struct Answering {
    handler: Arc<dyn Handler>,
    id: String,
    payload: Value,
    takes_payload: bool,
    answers: mpsc::UnboundedSender<Message>,
}

impl Answering {
    async fn answer(self) {
        let Answering { handler, id, payload, takes_payload, answers } = self;
        match handler.handle(parse_payload(payload.to_string().as_bytes())).await {
            // Only a modal's answer says anything to Slack.
            Some(answer) => {
                let payload =
                    Some(answer).filter(|answer| takes_payload && answer.contains_key("response_action"));
                let _ = answers.send(acknowledgement(&id, payload));
            }
            // Not acknowledged, so Slack delivers it again, on another connection.
            None => {}
        }
    }
}

fn acknowledgement(id: &str, payload: Option<Map<String, Value>>) -> Message {
    let text = match payload {
        Some(payload) => json!({"envelope_id": id, "payload": payload}),
        None => json!({"envelope_id": id}),
    };
    Message::text(text.to_string())
}
