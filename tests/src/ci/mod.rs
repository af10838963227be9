//! CI systems whose gates ask here: doubles that are written from what GitHub and GitLab document, and refuse what those
//! would.

mod github;
mod gitlab;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use github::{Github, KEY as GITHUB_KEY, Review, SECRET as GITHUB_SECRET};
pub use gitlab::{Gitlab, SECRET as GITLAB_SECRET, StatusCall, TOKEN as GITLAB_TOKEN};

use crate::within;

/// A call that a double has received.
struct Received {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value.as_str())
    }
}

/// An answer: a status and a body. An error is one that the double should never have had to give.
type Answer = Result<(u16, Value), (u16, String)>;

/// A server that answers with what `S` says.
struct Server<S> {
    address: SocketAddr,
    shared: Arc<Shared<S>>,
    task: JoinHandle<()>,
}

struct Shared<S> {
    state: Mutex<S>,
    /// Rung at each call.
    called: Notify,
    /// What was refused, and why.
    refused: Mutex<Vec<String>>,
    /// The status that every call is answered with, if it is down.
    down: Mutex<Option<u16>>,
    /// How many calls were answered so.
    turned_away: Mutex<usize>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Send + 'static> Server<S> {
    async fn start(state: S, answer: fn(&mut S, &Received) -> Answer) -> Server<S> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            called: Notify::new(),
            refused: Mutex::default(),
            down: Mutex::default(),
            turned_away: Mutex::default(),
        });
        let of_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // This fails if the gateway is killed.
                tokio::spawn(serve(socket, Arc::clone(&of_task), answer));
            }
        });
        Server { address, shared, task }
    }

    fn state(&self) -> MutexGuard<'_, S> {
        locked(&self.shared.state)
    }

    /// Waits until `find` finds something in what was received.
    async fn found<T>(&self, what: &str, find: impl Fn(&S) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let called = self.shared.called.notified();
                let mut called = std::pin::pin!(called);
                called.as_mut().enable();
                if let Some(found) = find(&self.state()) {
                    return found;
                }
                called.await;
            }
        };
        within(what, waiting).await
    }

    async fn turned_away(&self) {
        let waiting = async {
            loop {
                let called = self.shared.called.notified();
                let mut called = std::pin::pin!(called);
                called.as_mut().enable();
                if *locked(&self.shared.turned_away) > 0 {
                    return;
                }
                called.await;
            }
        };
        within("a call while it is down", waiting).await;
    }

    fn set_down(&self, status: Option<u16>) {
        *locked(&self.shared.down) = status;
        *locked(&self.shared.turned_away) = 0;
    }

    fn refused(&self) -> Vec<String> {
        locked(&self.shared.refused).clone()
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S: Send + 'static>(
    mut socket: TcpStream,
    shared: Arc<Shared<S>>,
    answer: fn(&mut S, &Received) -> Answer,
) -> std::io::Result<()> {
    let Some(call) = receive(&mut socket).await? else { return Ok(()) };
    let down = *locked(&shared.down);
    let (status, body) = match down {
        Some(status) => {
            *locked(&shared.turned_away) += 1;
            (status, Value::Null)
        }
        None => match answer(&mut locked(&shared.state), &call) {
            Ok(answer) => answer,
            Err((status, why)) => {
                locked(&shared.refused).push(format!("{} {}: {why}", call.method, call.path));
                (status, serde_json::json!({ "message": why }))
            }
        },
    };
    let body = if status == 204 { String::new() } else { body.to_string() };
    let head = format!(
        "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let written = socket.write_all(format!("{head}{body}").as_bytes()).await;
    shared.called.notify_waiters();
    written
}

async fn receive(socket: &mut TcpStream) -> std::io::Result<Option<Received>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|(_, length)| length.parse().ok()).unwrap_or_default();
    while bytes.len() < end + 4 + length {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or(Value::Null);
    Ok(Some(Received { method: method.to_owned(), path: path.to_owned(), headers, body }))
}

/// The HMAC-SHA256 of a body, in hexadecimal.
fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("keys have any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// The members of a body that are not among these.
fn unknown<'a>(body: &'a Value, known: &[&str]) -> Vec<&'a str> {
    let members = body.as_object().into_iter().flat_map(|members| members.keys());
    members.map(String::as_str).filter(|name| !known.contains(name)).collect()
}
