//! Socket Mode: interactions over WebSockets that the gateway opens, for installations without a public URL.
//!
//! Several connections are kept open, since Slack closes each one from time to time. Interactions are handled as
//! those over HTTP are; they carry no signature, since the connection authenticates Slack.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::backoff::Backoff;
use countersign_core::loopback::is_loopback;
use countersign_core::secret::Secret;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::Uri;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{CallError, SlackClient};
use crate::interaction::{Interaction, Unreadable, parse_payload};

/// The longest that opening a connection may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing arrives for so long counts as dead. Slack pings more often.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection that Slack is about to close is kept for the acknowledgements still to be sent on it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that has lasted so long has worked. One that ends before counts as one that could not be opened.
const LASTED: Duration = Duration::from_secs(10);

/// The wait before a connection is opened again after it failed.
const BACKOFF: Backoff = Backoff::new(1_000, 60_000);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Handles the interactions that arrive on a connection.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles an interaction, and returns the answer. `None` leaves it unacknowledged, so that Slack delivers it
    /// again.
    async fn handle(&self, interaction: Result<Interaction, Unreadable>) -> Option<Map<String, Value>>;
}

/// A connection to keep open.
pub struct Connection {
    /// Handles the interactions.
    pub handler: Arc<dyn Handler>,
    /// Asks Slack for the URL of the WebSocket.
    pub client: Arc<SlackClient>,
    /// The app-level token, `xapp-…`.
    pub token: Secret,
    /// Identifies this connection in the log.
    pub number: u8,
    /// Closes the connection.
    pub shutdown: CancellationToken,
    /// Tracks the tasks that must end before the store closes.
    pub background: TaskTracker,
}

/// Keeps one connection open until the shutdown begins.
pub async fn keep_open(connection: Connection) {
    let Connection { client, token, number, shutdown, .. } = &connection;
    let number = *number;
    let (mut failures, mut rng) = (0, fastrand::Rng::new());
    while !shutdown.is_cancelled() {
        let opened = tokio::select! {
            () = shutdown.cancelled() => return,
            opened = open(client, token) => opened,
        };
        let wait = match opened {
            Ok(socket) => {
                tracing::info!(connection = number, "Socket Mode: connected");
                let opened_at = Instant::now();
                let reason = listen(&connection, socket).await;
                tracing::info!(connection = number, reason, "Socket Mode: disconnected");
                if opened_at.elapsed() >= LASTED {
                    failures = 0;
                    continue;
                }
                failures += 1;
                back_off(failures, &mut rng)
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(connection = number, %error, "Socket Mode: cannot connect; retrying");
                match error {
                    OpenError::Call(CallError::RateLimited { retry_after }) => retry_after,
                    _ => back_off(failures, &mut rng),
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Why a connection cannot be opened. No message holds the URL, which holds a ticket.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("Slack gave a URL that is neither `wss` nor of this machine")]
    Url,
    #[error("the WebSocket does not open: {0}")]
    Handshake(String),
    #[error("the WebSocket does not open in time")]
    Timeout,
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
    let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await.map_err(|_| OpenError::Timeout)?;
    Ok(opened.map_err(|error| OpenError::Handshake(describe(&error)))?.0)
}

/// What went wrong, without anything that was sent or received.
fn describe(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(response) => format!("HTTP {}", response.status().as_u16()),
        tungstenite::Error::Io(error) => error.to_string(),
        tungstenite::Error::Tls(error) => error.to_string(),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            "it was closed".to_owned()
        }
        _ => "the other side violates the protocol".to_owned(),
    }
}

/// The wait after this many failures in a row, with jitter down to a tenth.
fn back_off(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(BACKOFF.full_jitter(failures, rng).max(BACKOFF.after(failures) / 10))
}

/// Handles what arrives until another connection should replace this one; returns why.
async fn listen(connection: &Connection, mut socket: Socket) -> &'static str {
    let (acknowledgements, mut unsent) = mpsc::unbounded_channel();
    loop {
        let received = tokio::select! {
            () = connection.shutdown.cancelled() => {
                drop(acknowledgements);
                drain(socket, unsent).await;
                return "the gateway shuts down";
            }
            acknowledgement = unsent.recv() => {
                let Some(acknowledgement) = acknowledgement else { return "no interaction is handled any more" };
                if socket.send(acknowledgement).await.is_err() {
                    return "the connection broke";
                }
                continue;
            }
            received = tokio::time::timeout(READ_TIMEOUT, socket.next()) => received,
        };
        let text = match received {
            Err(_) => return "nothing was received for too long",
            Ok(None | Some(Ok(Message::Close(_)))) => return "Slack closed it",
            Ok(Some(Err(_))) => return "the connection broke",
            Ok(Some(Ok(Message::Text(text)))) => text,
            // The library answers pings.
            Ok(Some(Ok(_))) => continue,
        };
        match serde_json::from_str::<Envelope>(text.as_str()) {
            Ok(Envelope { kind, .. }) if kind == "disconnect" => {
                drop(acknowledgements);
                connection.background.spawn(drain(socket, unsent));
                return "Slack is about to close it";
            }
            Ok(Envelope { kind, envelope_id: Some(id), payload, accepts_payload })
                if kind == "interactive" =>
            {
                let delivery = Delivery {
                    handler: Arc::clone(&connection.handler),
                    id,
                    payload,
                    accepts_payload,
                    acknowledgements: acknowledgements.clone(),
                };
                connection.background.spawn(delivery.handle());
            }
            Ok(Envelope { kind, envelope_id: Some(id), .. }) => {
                tracing::debug!(kind, "Socket Mode: acknowledged an event of a type that is not used");
                let _ = acknowledgements.send(acknowledgement(&id, None));
            }
            Ok(Envelope { .. }) => {}
            Err(_) => tracing::warn!("Socket Mode: cannot parse a message"),
        }
    }
}

/// Sends the remaining acknowledgements on a connection that is about to be closed.
async fn drain(mut socket: Socket, mut unsent: mpsc::UnboundedReceiver<Message>) {
    let sending = async {
        while let Some(acknowledgement) = unsent.recv().await {
            if socket.send(acknowledgement).await.is_err() {
                return;
            }
        }
        let _ = socket.close(None).await;
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, sending).await;
}

/// A message of Socket Mode.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    envelope_id: Option<String>,
    #[serde(default)]
    payload: Value,
    #[serde(default, rename = "accepts_response_payload")]
    accepts_payload: bool,
}

/// An interaction that was received, and is to be acknowledged.
struct Delivery {
    handler: Arc<dyn Handler>,
    id: String,
    payload: Value,
    accepts_payload: bool,
    acknowledgements: mpsc::UnboundedSender<Message>,
}

impl Delivery {
    async fn handle(self) {
        let Delivery { handler, id, payload, accepts_payload, acknowledgements } = self;
        let interaction = parse_payload(payload.to_string().as_bytes());
        // Without an answer it is not acknowledged, and Slack delivers it again on another connection.
        if let Some(answer) = handler.handle(interaction).await {
            // Slack uses no answer but a modal's.
            let is_used = accepts_payload && answer.contains_key("response_action");
            let _ = acknowledgements.send(acknowledgement(&id, Some(answer).filter(|_| is_used)));
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

#[cfg(test)]
mod tests {
    use countersign_core::clock::SystemClock;
    use tokio::net::TcpListener;

    use super::*;
    use crate::fake::FakeSlack;

    struct Nobody;

    #[async_trait]
    impl Handler for Nobody {
        async fn handle(&self, _: Result<Interaction, Unreadable>) -> Option<Map<String, Value>> {
            None
        }
    }

    /// Slack takes each connection and closes it at once: it is not opened again at once, for ever.
    #[tokio::test]
    async fn a_connection_that_does_not_last_is_opened_again_after_a_wait_that_grows() {
        let slack = FakeSlack::start(Arc::new(SystemClock)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        slack.say("apps.connections.open", json!({"ok": true, "url": url}));
        let shutdown = CancellationToken::new();
        let kept = tokio::spawn(keep_open(Connection {
            handler: Arc::new(Nobody),
            client: Arc::new(slack.client()),
            token: Secret::new(b"xapp-1".to_vec()),
            number: 1,
            shutdown: shutdown.clone(),
            background: TaskTracker::new(),
        }));
        let began = Instant::now();
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            socket.send(Message::text(json!({"type": "hello"}).to_string())).await.unwrap();
            socket.close(None).await.unwrap();
        }
        // A tenth of a second after the first one at least, and two tenths after the second.
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        shutdown.cancel();
        kept.await.unwrap();
    }
}
