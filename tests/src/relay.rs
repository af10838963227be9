//! What stands between a caller and its gateway: it cuts, loses and changes what goes through.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to calls of a path.
#[derive(Clone, Debug)]
pub enum Fault {
    /// They are answered with this, byte by byte.
    Answer(String),
    /// The first reaches the gateway, and its answer does not come back; those after it go through.
    LoseOneAnswer,
    /// This text in answers becomes that one, which has to be as long.
    Replace(String, String),
    /// They are never answered.
    Silence,
}

impl Fault {
    /// An answer with this status, media type and body.
    #[must_use]
    pub fn answer(status: &str, media_type: &str, body: &str) -> Fault {
        let length = body.len();
        Fault::Answer(format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ))
    }

    /// The page of a proxy that finds no gateway.
    #[must_use]
    pub fn html(status: &str) -> Fault {
        Fault::answer(status, "text/html", "<html><body>Something went wrong</body></html>")
    }
}

/// A relay. Each call has a connection of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<Rules>,
    /// Changes when all connections are cut.
    cut: watch::Sender<usize>,
    /// The request lines of the calls that came.
    calls: watch::Sender<Vec<String>>,
    /// The requests that were made through it: their ids and their wait tokens.
    made: Mutex<Vec<(String, String)>>,
}

/// The gateway, if there is one, and what is done to calls by the beginning of their path.
type Rules = (Option<SocketAddr>, Vec<(String, Fault)>);

impl Relay {
    /// A relay to the gateway at this address; without one nobody answers.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(gateway: Option<SocketAddr>) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            rules: Mutex::new((gateway, Vec::new())),
            cut: watch::channel(0).0,
            calls: watch::channel(Vec::new()).0,
            made: Mutex::new(Vec::new()),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Relay { address, shared, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it leads there, or nowhere.
    pub fn lead_to(&self, gateway: Option<SocketAddr>) {
        self.shared.lock().0 = gateway;
    }

    /// From now on this happens to calls whose path begins so.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.shared.lock().1.push((path.to_owned(), fault));
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Waits until so many calls have come whose request line has this in it.
    pub async fn called(&self, part: &str, times: usize) {
        let mut calls = self.shared.calls.subscribe();
        let count = |calls: &Vec<String>| calls.iter().filter(|call| call.contains(part)).count() >= times;
        crate::within(&format!("{times} calls of {part}"), calls.wait_for(count)).await.expect("it runs");
    }

    /// The requests that were made through it, by their ids and their wait tokens.
    #[must_use]
    pub fn made(&self) -> Vec<(String, String)> {
        self.shared.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls have come whose request line has this in it.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.shared.calls.borrow().iter().filter(|call| call.contains(part)).count()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is done to a call of this path.
    fn rule(&self, path: &str) -> (Option<SocketAddr>, Option<Fault>) {
        let mut rules = self.lock();
        let place = rules.1.iter().position(|(prefix, _)| path.starts_with(prefix));
        let fault = place.map(|place| match &rules.1[place].1 {
            Fault::LoseOneAnswer => rules.1.remove(place).1,
            fault => fault.clone(),
        });
        (rules.0, fault)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let mut cut = shared.cut.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                // Whoever calls sees that it ends, and nothing else.
                _ = relay(socket, &shared) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn relay(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let call = read_call(&mut client).await?;
    let head = String::from_utf8_lossy(&call).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let path = line.split(' ').nth(1).unwrap_or_default();
    let (gateway, fault) = shared.rule(path);
    shared.calls.send_modify(|calls| calls.push(line.clone()));
    match &fault {
        Some(Fault::Answer(answer)) => return client.write_all(answer.as_bytes()).await,
        Some(Fault::Silence) => return client.read_to_end(&mut Vec::new()).await.map(drop),
        Some(Fault::LoseOneAnswer | Fault::Replace(..)) | None => {}
    }
    let Some(gateway) = gateway else { return Ok(()) };
    let mut upstream = TcpStream::connect(gateway).await?;
    // One call a connection, so that its answer ends when the gateway closes.
    let call = String::from_utf8_lossy(&call).replacen("\r\n", "\r\nconnection: close\r\n", 1);
    upstream.write_all(call.as_bytes()).await?;
    match fault {
        Some(Fault::Replace(from, to)) => {
            assert_eq!(from.len(), to.len(), "the length of the answer is in its head");
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).await?;
            let answer = String::from_utf8_lossy(&answer).replace(&from, &to);
            client.write_all(answer.as_bytes()).await
        }
        None if path == "/api/guard/request" => {
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).await?;
            let text = String::from_utf8_lossy(&answer);
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            if let (Some(id), Some(token)) = (body["requestId"].as_str(), body["token"].as_str()) {
                let mut made = shared.made.lock().unwrap_or_else(PoisonError::into_inner);
                made.push((id.to_owned(), token.to_owned()));
            }
            client.write_all(&answer).await
        }
        Some(Fault::LoseOneAnswer) => upstream.read_to_end(&mut Vec::new()).await.map(drop),
        _ => tokio::io::copy_bidirectional(&mut client, &mut upstream).await.map(drop),
    }
}

/// One call: its head, and its body.
async fn read_call(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut call = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = client.read(&mut part).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        call.extend_from_slice(&part[..count]);
        let Some(end) = call.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&call[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if call.len() >= end + 4 + length.unwrap_or(0_usize) {
            return Ok(call);
        }
    }
}
