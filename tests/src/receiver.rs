//! A receiver of webhooks: it keeps what comes, and answers as it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::within;

/// What a receiver does with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answering {
    /// It answers with this status, and these lines of headers.
    Status(u16, String),
    /// It hangs up before anything is sent.
    Down,
    /// It reads the message, and never answers.
    Silence,
}

/// A message that came.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// The status that it was answered with; `None` if it was not answered.
    pub status: Option<u16>,
}

impl Delivered {
    /// The `webhook-id`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.headers.get("webhook-id").map_or("", String::as_str)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Its type without `request.`.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn event(&self) -> String {
        let kind = self.json()["type"].as_str().expect("a type").to_owned();
        kind.strip_prefix("request.").expect("of a request").to_owned()
    }

    /// The request that it is about.
    #[must_use]
    pub fn request(&self) -> String {
        self.json()["data"]["requestId"].as_str().unwrap_or_default().to_owned()
    }
}

/// A receiver. Dropping it ends it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    answering: Arc<Mutex<Answering>>,
    heard: watch::Sender<Heard>,
    accepting: JoinHandle<()>,
}

/// What a receiver has heard.
#[derive(Clone, Debug, Default)]
struct Heard {
    connections: usize,
    messages: Vec<Delivered>,
}

impl Receiver {
    /// Starts one that takes everything.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Receiver {
        Receiver::start_with(None).await
    }

    /// The same, over TLS.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start_tls(tls: Arc<ServerConfig>) -> Receiver {
        Receiver::start_with(Some(TlsAcceptor::from(tls))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let answering = Arc::new(Mutex::new(Answering::Status(204, String::new())));
        let heard = watch::Sender::new(Heard::default());
        let shared = (Arc::clone(&answering), heard.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answering, heard) = shared.clone();
                let tls = tls.clone();
                heard.send_modify(|heard| heard.connections += 1);
                tokio::spawn(async move {
                    let now = answering.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    // This fails if the gateway is killed meanwhile.
                    let _ = match tls {
                        None => take(stream, now, &heard).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => take(stream, now, &heard).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Receiver { address, answering, heard, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Does this with what comes from now on.
    pub fn answer(&self, answering: Answering) {
        *self.answering.lock().unwrap_or_else(PoisonError::into_inner) = answering;
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.answer(Answering::Status(status, String::new()));
    }

    /// Everything that came.
    #[must_use]
    pub fn messages(&self) -> Vec<Delivered> {
        self.heard.borrow().messages.clone()
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.heard.borrow().connections
    }

    /// Waits until there were so many connections.
    pub async fn called(&self, times: usize) {
        let mut heard = self.heard.subscribe();
        let what = format!("{times} connections");
        let _ = within(&what, heard.wait_for(|heard| heard.connections >= times)).await;
    }

    /// Waits until so many messages came, and returns all that did.
    pub async fn received(&self, times: usize) -> Vec<Delivered> {
        let mut heard = self.heard.subscribe();
        let what = format!("{times} messages");
        let _ = within(&what, heard.wait_for(|heard| heard.messages.len() >= times)).await;
        self.messages()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn take(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answering: Answering,
    heard: &watch::Sender<Heard>,
) -> std::io::Result<()> {
    if answering == Answering::Down {
        return Ok(());
    }
    let mut stream = BufReader::new(stream);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let keep = |status| {
        heard.send_modify(|heard| heard.messages.push(Delivered { headers, body, status }));
    };
    match answering {
        Answering::Status(status, more) => {
            let answer =
                format!("HTTP/1.1 {status} Said\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).await?;
            stream.get_mut().shutdown().await?;
            keep(Some(status));
        }
        Answering::Silence => {
            keep(None);
            // Until whoever calls hangs up.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
        }
        Answering::Down => {}
    }
    Ok(())
}
