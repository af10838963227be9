//! Socket Mode: the connections of an app, and the envelopes on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Message as Frame, http};

use crate::clock;
use crate::shared::{Shared, lock};
use crate::workspace::APP;

/// How many sockets an app may have open.
const MOST: usize = 10;

/// How often Slack pings.
const PING: Duration = Duration::from_secs(10);

/// How long Slack waits for an acknowledgement before it delivers once more.
pub(crate) const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(3);

/// How long Slack waits for a socket before it gives up delivering once more. Slack tries over minutes.
const SOCKET_WITHIN: Duration = Duration::from_secs(60);

/// How often an interaction is delivered until it is acknowledged.
const ATTEMPTS: u32 = 3;

/// Why Slack ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// It will be closed soon.
    Warning,
    /// It is closed now, and the app should open a new one.
    RefreshRequested,
    /// Socket Mode was switched off.
    LinkDisabled,
}

impl Disconnect {
    fn reason(self) -> &'static str {
        match self {
            Disconnect::Warning => "warning",
            Disconnect::RefreshRequested => "refresh_requested",
            Disconnect::LinkDisabled => "link_disabled",
        }
    }
}

#[derive(Debug)]
enum Outgoing {
    Text(String),
    Close,
}

#[derive(Debug)]
struct Socket {
    id: u64,
    outbox: UnboundedSender<Outgoing>,
}

/// The open sockets, and the envelopes that were not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: Mutex<Vec<Socket>>,
    awaited: Mutex<HashMap<String, UnboundedSender<Option<Value>>>>,
}

/// The acknowledgement of an envelope.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Acknowledgement {
    pub(crate) payload: Option<Value>,
    /// How often it was delivered.
    pub(crate) attempts: u32,
    pub(crate) in_time: bool,
}

impl Sockets {
    pub(crate) fn count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Sends every connection a disconnect message.
    pub(crate) fn disconnect(&self, why: Disconnect) {
        for socket in lock(&self.open).iter() {
            // This fails for a socket that is closed already, which is fine.
            let _ = socket.outbox.send(Outgoing::Text(disconnect(why.reason())));
            if why != Disconnect::Warning {
                let _ = socket.outbox.send(Outgoing::Close);
            }
        }
    }

    fn acknowledge(&self, frame: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(frame) else { return };
        let id = frame["envelope_id"].as_str().unwrap_or_default();
        if let Some(awaiting) = lock(&self.awaited).get(id) {
            // This fails if the sender has given up, which is fine.
            let _ = awaiting.send(frame.get("payload").cloned().filter(|payload| !payload.is_null()));
        }
    }

    /// A random socket, preferably another one than `not`.
    fn choose(&self, number: u64, not: Option<u64>) -> Option<(u64, UnboundedSender<Outgoing>)> {
        let open = lock(&self.open);
        let others: Vec<&Socket> = open.iter().filter(|socket| Some(socket.id) != not).collect();
        let from = if others.is_empty() { open.iter().collect() } else { others };
        let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
        let chosen = from.get(usize::try_from(number % count).ok()?)?;
        Some((chosen.id, chosen.outbox.clone()))
    }
}

/// Sends an interaction over a socket until it is acknowledged. `None` if it never is.
pub(crate) async fn deliver(shared: &Shared, payload: &Value) -> Option<Acknowledgement> {
    let start = Instant::now();
    let id = shared.change(|world| world.uuid());
    let (acknowledged, mut acknowledgements) = mpsc::unbounded_channel();
    lock(&shared.sockets.awaited).insert(id.clone(), acknowledged);
    let mut last = None;
    let mut found = None;
    for attempt in 0..ATTEMPTS {
        let within = if attempt == 0 { ACKNOWLEDGED_WITHIN } else { SOCKET_WITHIN };
        let Some((socket, outbox)) = wait_for_socket(shared, last, Instant::now() + within).await else {
            continue;
        };
        let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
        last = Some(socket);
        let mut envelope = json!({
            "type": "interactive",
            "envelope_id": id,
            "accepts_response_payload": true,
            "payload": payload,
        });
        if attempt > 0 {
            envelope["retry_attempt"] = json!(attempt);
            envelope["retry_reason"] = json!("timeout");
        }
        // If the socket is gone by now, its closing is noticed at once.
        let _ = outbox.send(Outgoing::Text(envelope.to_string()));
        tokio::select! {
            // An acknowledgement that came before the socket closed counts.
            biased;
            payload = acknowledgements.recv() => {
                let in_time = start.elapsed() <= ACKNOWLEDGED_WITHIN;
                found = Some(Acknowledgement { payload: payload.flatten(), attempts: attempt + 1, in_time });
                break;
            }
            () = outbox.closed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
    lock(&shared.sockets.awaited).remove(&id);
    found
}

async fn wait_for_socket(
    shared: &Shared,
    not: Option<u64>,
    deadline: Instant,
) -> Option<(u64, UnboundedSender<Outgoing>)> {
    let mut changes = shared.watch();
    loop {
        let number = shared.look(|world| world.channels.len() as u64) ^ clock::micros();
        if let Some(found) = shared.sockets.choose(number, not) {
            return Some(found);
        }
        tokio::time::timeout_at(deadline, changes.changed()).await.ok()?.ok()?;
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let mut restarts = shared.restarts.subscribe();
    #[expect(clippy::result_large_err, reason = "the library wants the answer itself")]
    let admit = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or_default();
        let ticket = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "ticket");
        let ticket = ticket.map(|(_, ticket)| ticket.into_owned()).unwrap_or_default();
        let down = shared.look(|world| world.chance.faults().down);
        if !down && shared.change(|world| world.use_ticket(&ticket, clock::micros())) {
            return Ok(response);
        }
        let mut refused = ErrorResponse::new(None);
        *refused.status_mut() = http::StatusCode::NOT_FOUND;
        Err(refused)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(stream, admit).await;
    let Ok(mut socket) = accepted else { return };
    let (outbox, mut outgoing) = mpsc::unbounded_channel();
    let id = shared.change(|world| world.next_ts());
    let count = {
        let mut open = lock(&shared.sockets.open);
        (open.len() < MOST).then(|| {
            open.push(Socket { id, outbox });
            open.len()
        })
    };
    let Some(count) = count else {
        // This fails if the client is gone, which is fine.
        let _ = socket.send(Frame::text(disconnect("too_many_websockets"))).await;
        let _ = socket.close(None).await;
        return;
    };
    shared.changed();
    tokio::select! {
        _ = run(&shared, &mut socket, &mut outgoing, count) => {}
        _ = restarts.changed() => {}
    }
    lock(&shared.sockets.open).retain(|socket| socket.id != id);
    // INVARIANT: it is out of the list before its end is noticed, so that nothing is sent to it any more.
    drop(outgoing);
    shared.changed();
}

/// Until either side ends it.
async fn run(
    shared: &Shared,
    socket: &mut WebSocketStream<TcpStream>,
    outgoing: &mut mpsc::UnboundedReceiver<Outgoing>,
    count: usize,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    socket.send(Frame::text(hello(count))).await?;
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    loop {
        tokio::select! {
            frame = outgoing.recv() => match frame {
                Some(Outgoing::Text(text)) => socket.send(Frame::text(text)).await?,
                Some(Outgoing::Close) | None => return socket.close(None).await,
            },
            frame = socket.next() => match frame {
                Some(Ok(Frame::Text(text))) => shared.sockets.acknowledge(&text),
                Some(Ok(Frame::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
            _ = ping.tick() => socket.send(Frame::Ping("Ping from the simulator".into())).await?,
        }
    }
}

fn hello(count: usize) -> String {
    json!({
        "type": "hello",
        "num_connections": count,
        "connection_info": {"app_id": APP},
        "debug_info": {"host": "applink-simulator", "build_number": 1, "approximate_connection_time": 18060},
    })
    .to_string()
}

fn disconnect(reason: &str) -> String {
    json!({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-simulator"}}).to_string()
}
