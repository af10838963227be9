//! HTTP/1.1 for the tests: one connection, kept alive, that costs the machine very little.
//!
//! It is not a general client. It reads what the gateway sends: bodies with a length, chunked ones, and none.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::authority::TlsClient;
use crate::slack::Click;

/// A call to make.
#[derive(Clone, Debug)]
pub struct Call {
    head: String,
    body: Vec<u8>,
}

impl Call {
    /// `METHOD path`, with no body yet.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Call {
        Call { head: format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n"), body: Vec::new() }
    }

    /// `GET path`.
    #[must_use]
    pub fn get(path: &str) -> Call {
        Call::new("GET", path)
    }

    /// `POST path`, with a JSON body.
    #[must_use]
    pub fn post(path: &str, body: &Value) -> Call {
        Call::new("POST", path).body("application/json", body.to_string())
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Call {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// With this header too.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Call {
        write!(self.head, "{name}: {value}\r\n").expect("a String takes all that is written to it");
        self
    }

    /// With this bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Call {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Reply {
    head: Head,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// A header's value, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status(), self.text()))
    }
}

/// What comes before the body.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    text: String,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Head> {
        let text = std::str::from_utf8(bytes).context("the head of the answer is not UTF-8")?.to_owned();
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        Ok(Head { status: status.with_context(|| format!("not an HTTP answer: {text}"))?, text })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn framing(&self) -> Result<Framing> {
        if matches!(self.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Framing::Chunked);
        }
        match self.header("content-length") {
            Some(length) => Ok(Framing::Length(length.parse().context("a bad content-length")?)),
            None => Ok(Framing::ToTheEnd),
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    ToTheEnd,
    Done,
}

/// A connection to the gateway.
#[derive(Debug)]
pub struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// What was received and not consumed yet.
    received: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If nothing listens there.
    pub async fn open(address: SocketAddr) -> Result<Connection> {
        Connection::open_from(Ipv4Addr::UNSPECIFIED, address).await
    }

    /// Connects from this address of this machine.
    ///
    /// # Errors
    /// If nothing listens there.
    pub async fn open_from(own: Ipv4Addr, address: SocketAddr) -> Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        if !own.is_unspecified() {
            socket.bind((own, 0).into())?;
        }
        let stream = socket.connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: Either::Left(stream), received: Vec::new() })
    }

    /// Connects over TLS.
    ///
    /// # Errors
    /// If nothing listens there, or the handshake fails. Whether the gateway takes the client's certificate is known
    /// only once it answers.
    pub async fn open_tls(address: SocketAddr, client: TlsClient) -> Result<Connection> {
        let Connection { stream, received } = Connection::open(address).await?;
        let Either::Left(stream) = stream else { bail!("a new connection is plain") };
        let name = "localhost".try_into().context("a name")?;
        let stream = TlsConnector::from(Arc::clone(client.0)).connect(name, stream).await?;
        Ok(Connection { stream: Either::Right(Box::new(stream)), received })
    }

    /// Whether the TLS session was resumed; `None` without TLS.
    #[must_use]
    pub fn is_resumed(&self) -> Option<bool> {
        let Either::Right(stream) = &self.stream else { return None };
        Some(stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed))
    }

    /// Makes a call, and waits for its answer.
    ///
    /// # Errors
    /// If the connection fails, or what comes back is not HTTP.
    pub async fn send(&mut self, call: &Call) -> Result<Reply> {
        self.send_bytes(&call.bytes()).await
    }

    /// Somebody acts in Slack. The act is delivered again while the answer is empty, as it is if what comes of it takes
    /// longer than Slack waits.
    ///
    /// # Errors
    /// As for [`Connection::send`].
    pub async fn click(&mut self, click: &Click) -> Result<Reply> {
        loop {
            let reply = self.send(&click.signed().call()).await?;
            if reply.text() != "{}" {
                return Ok(reply);
            }
        }
    }

    /// As [`Connection::click`], until what comes back says what came of it: an act is kept, too, if it comes behind one that
    /// took so long. Delivered again within the same second, it is taken for a replay.
    ///
    /// # Errors
    /// As for [`Connection::send`].
    pub async fn click_until_known(&mut self, click: &Click) -> Result<Value> {
        let mut is_kept = false;
        loop {
            let answer = self.click(click).await?.json();
            if answer["recorded"] == true {
                is_kept = true;
            } else if !is_kept || answer["error"] != "replay_detected" {
                return Ok(answer);
            }
        }
    }

    /// Sends bytes as they are, and waits for the answer.
    ///
    /// # Errors
    /// As for [`Connection::send`].
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<Reply> {
        // The gateway may answer and hang up before it has read a body that it does not want.
        let sent = self.write(bytes).await;
        self.answer().await.map_err(|error| sent.err().unwrap_or(error))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        // Over TLS, what could not be sent at once waits for a flush.
        Ok(self.stream.flush().await?)
    }

    /// Waits for the answer to what was sent.
    ///
    /// # Errors
    /// As for [`Connection::send`].
    pub async fn answer(&mut self) -> Result<Reply> {
        let head = self.head().await?;
        let framing = head.framing()?;
        self.finish(head, framing).await
    }

    /// The status of an answer that goes on for long.
    ///
    /// # Errors
    /// As for [`Connection::send`].
    pub async fn status_of_stream(&mut self) -> Result<u16> {
        Ok(self.head().await?.status)
    }

    /// Makes a call whose answer goes on for long: returns once the head is there.
    pub(crate) async fn start(&mut self, call: &Call) -> Result<(Head, Framing)> {
        self.write(&call.bytes()).await?;
        let head = self.head().await?;
        let framing = head.framing()?;
        Ok((head, framing))
    }

    /// The rest of an answer that was started, whole.
    pub(crate) async fn finish(&mut self, head: Head, mut framing: Framing) -> Result<Reply> {
        let mut body = Vec::new();
        while let Some(part) = self.part(&mut framing).await? {
            body.extend_from_slice(&part);
        }
        Ok(Reply { head, body })
    }

    /// The next part of a body; `None` at its end.
    pub(crate) async fn part(&mut self, framing: &mut Framing) -> Result<Option<Vec<u8>>> {
        match *framing {
            Framing::Done | Framing::Length(0) => Ok(None),
            Framing::Length(length) => {
                self.fill(length).await?;
                *framing = Framing::Done;
                Ok(Some(self.take(length)))
            }
            Framing::Chunked => {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                    .with_context(|| format!("a bad chunk size: {line}"))?;
                self.fill(size + 2).await?;
                let mut chunk = self.take(size + 2);
                ensure!(chunk.ends_with(b"\r\n"), "a chunk without an end");
                chunk.truncate(size);
                if size == 0 {
                    *framing = Framing::Done;
                    return Ok(None);
                }
                Ok(Some(chunk))
            }
            Framing::ToTheEnd => {
                if self.received.is_empty() && self.read().await? == 0 {
                    *framing = Framing::Done;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.received)))
            }
        }
    }

    async fn head(&mut self) -> Result<Head> {
        let end = self.find(b"\r\n\r\n").await?;
        Head::parse(&self.take(end))
    }

    async fn line(&mut self) -> Result<String> {
        let end = self.find(b"\r\n").await?;
        let line = self.take(end);
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads until `mark` is there, and returns where it ends.
    async fn find(&mut self, mark: &[u8]) -> Result<usize> {
        let mut searched = 0;
        loop {
            let unsearched = self.received.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memmem::find(unsearched, mark) {
                return Ok(searched + at + mark.len());
            }
            searched = self.received.len().saturating_sub(mark.len() - 1);
            if self.read().await? == 0 {
                bail!("the gateway hung up");
            }
        }
    }

    /// Reads until at least `length` bytes are there.
    async fn fill(&mut self, length: usize) -> Result<()> {
        while self.received.len() < length {
            if self.read().await? == 0 {
                bail!("the gateway hung up in the middle of an answer");
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<usize> {
        if self.received.capacity() - self.received.len() < 1024 {
            self.received.reserve(4096);
        }
        Ok(self.stream.read_buf(&mut self.received).await?)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.received.split_off(length);
        std::mem::replace(&mut self.received, rest)
    }
}
