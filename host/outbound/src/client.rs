//! The client, and its limits.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::addresses::{Reach, TooFar};

/// How long connecting may take, looking the name up and the handshake included.
const CONNECT: Duration = Duration::from_secs(10);

/// What every call says that it comes from.
const AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// Calls other systems. Clones share what they trust.
#[derive(Clone)]
pub struct Client {
    /// Or why there is none.
    tls: Result<Arc<ClientConfig>, String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// A call.
#[derive(Debug)]
pub struct Call<'a> {
    /// `POST`, say.
    pub method: Method,
    /// Where to.
    pub url: &'a Url,
    /// Which addresses may be connected to.
    pub reach: Reach,
    /// The headers, besides those that every call has.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long it may take as a whole, connecting included.
    pub within: Duration,
    /// The most bytes that an answer may have; with 0 it is not read.
    pub most_read: usize,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// How long the other side asks to be left alone, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The body; empty if the status is none of success, or if none was wanted.
    pub body: Bytes,
}

/// A host none of whose addresses may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("`{host}` leads to {}", .why.addresses())]
pub struct OutOfReach {
    /// The name.
    pub host: String,
    /// Why; [`TooFar::Private`] if another reach would do for any of its addresses.
    pub why: TooFar,
}

/// Why there is no answer. None of them says more of the URL than its host.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The URL has no host.
    #[error("the URL has no host")]
    NoHost,
    /// The name leads to nothing.
    #[error("`{host}` is not found: {why}")]
    NotFound {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// Every address that the name leads to is one that may not be connected to.
    #[error(transparent)]
    OutOfReach(OutOfReach),
    /// No address answers, or the connection ends.
    #[error("`{host}` cannot be reached: {why}")]
    Unreachable {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// The answer is cut off, or longer than it may be.
    #[error("the answer of `{host}` cannot be read: {why}")]
    Unreadable {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// It takes too long.
    #[error("`{0}` does not answer in time")]
    TooSlow(String),
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// A client that trusts the system's certificates, or those that `SSL_CERT_FILE` names. Blocks to read them. If they
    /// cannot be read it calls nobody but this machine.
    #[must_use]
    pub fn new() -> Client {
        let tls =
            Client::trusting_the_system().map_err(|error| format!("no certificate authorities: {error}"));
        Client { tls: tls.map(Arc::new) }
    }

    /// Why nothing is called over TLS, if that is so.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.tls.as_ref().err().map(String::as_str)
    }

    fn trusting_the_system() -> std::io::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?;
        let mut tls = config.with_native_roots()?.with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(tls)
    }

    /// Makes a call, once.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call(&self, call: Call<'_>) -> Result<Answered, CallError> {
        let host = call.url.host_str().unwrap_or_default().to_owned();
        let answered = tokio::time::timeout(call.within, self.made(call)).await;
        answered.unwrap_or(Err(CallError::TooSlow(host)))
    }

    async fn made(&self, call: Call<'_>) -> Result<Answered, CallError> {
        let url = call.url;
        let host = url.host_str().unwrap_or_default().to_owned();
        let unreachable = |why: String| CallError::Unreachable { host: host.clone(), why };
        let connected = async {
            let stream = connect(url, call.reach).await?;
            if url.scheme() == "http" {
                return Ok(Stream::Plain(stream));
            }
            // A URL writes an IPv6 address in brackets.
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(|error| unreachable(error.to_string()))?;
            let tls = self.tls.clone().map_err(unreachable)?;
            let connector = TlsConnector::from(tls);
            let stream = connector.connect(name, stream).await;
            stream
                .map(|stream| Stream::Encrypted(Box::new(stream)))
                .map_err(|error| unreachable(error.to_string()))
        };
        let connected = tokio::time::timeout(CONNECT, connected).await;
        match connected.map_err(|_| CallError::TooSlow(host.clone()))?? {
            Stream::Plain(stream) => exchange(stream, &call).await,
            Stream::Encrypted(stream) => exchange(stream, &call).await,
        }
        .map_err(|broken| match broken {
            Broken::Connection(why) => CallError::Unreachable { host, why },
            Broken::Body(why) => CallError::Unreadable { host, why },
        })
    }
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Connects to the first address that may be connected to, and answers.
async fn connect(url: &Url, reach: Reach) -> Result<TcpStream, CallError> {
    let host = url.host().ok_or(CallError::NoHost)?;
    let name = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let found: Vec<SocketAddr> = match host {
        Host::Ipv4(address) => vec![(address, port).into()],
        Host::Ipv6(address) => vec![(address, port).into()],
        Host::Domain(domain) => match lookup_host((domain, port)).await {
            Ok(found) => found.collect(),
            Err(error) => return Err(CallError::NotFound { host: name, why: error.to_string() }),
        },
    };
    if found.is_empty() {
        return Err(CallError::NotFound { host: name, why: "it has no address".to_owned() });
    }
    // INVARIANT: what is connected to is the address that was checked, not the name.
    let (mut allowed, mut why) = (Vec::new(), TooFar::Never);
    for address in found {
        match reach.refuses(address.ip()) {
            None => allowed.push(address),
            Some(TooFar::Private) => why = TooFar::Private,
            Some(TooFar::Never) => {}
        }
    }
    match first_that_answers(&allowed, TcpStream::connect).await {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(error)) => Err(CallError::Unreachable { host: name, why: error.to_string() }),
        None => Err(CallError::OutOfReach(OutOfReach { host: name, why })),
    }
}

/// Connects to each in turn until one answers; `None` if there are none. Each has its share of the time, so that one that
/// says nothing leaves some to those after it.
async fn first_that_answers<T, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Option<io::Result<T>>
where
    F: Future<Output = io::Result<T>>,
{
    let share = CONNECT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = None;
    for address in addresses {
        match tokio::time::timeout(share, connect(*address)).await {
            Ok(Ok(stream)) => return Some(Ok(stream)),
            Ok(Err(error)) => last = Some(Err(error)),
            Err(_) => last = Some(Err(io::ErrorKind::TimedOut.into())),
        }
    }
    last
}

/// What broke a call.
enum Broken {
    Connection(String),
    Body(String),
}

async fn exchange<S>(stream: S, call: &Call<'_>) -> Result<Answered, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = |error: hyper::Error| Broken::Connection(innermost(error));
    let request = request(call).map_err(Broken::Connection)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ended)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(ended)?;
        let (head, body) = answer.into_parts();
        let retry_after_ms =
            head.headers.get(RETRY_AFTER).and_then(seconds).map(|it| it.saturating_mul(1000));
        // Who does not need the body has the answer by now, whatever follows.
        let body = match call.most_read {
            0 => Bytes::new(),
            _ if !head.status.is_success() => Bytes::new(),
            most => match Limited::new(body, most).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return Err(Broken::Body(error.to_string())),
            },
        };
        Ok(Answered { status: head.status, retry_after_ms, body })
    };
    tokio::pin!(connection, answer);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            answered = &mut answer => return answered,
            closed = &mut connection, if open => {
                // The answer may be there all the same.
                open = false;
                if let Err(error) = closed {
                    return Err(Broken::Connection(innermost(error)));
                }
            }
        }
    }
}

fn request(call: &Call<'_>) -> Result<Request<Full<Bytes>>, String> {
    let url = call.url;
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = path.parse().map_err(|_| "its path is none of HTTP".to_owned())?;
    *request.headers_mut() = call.headers.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&host).map_err(|error| error.to_string())?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    Ok(request)
}

/// The seconds of a `Retry-After`. One that is a date is not taken: the schedule does as well.
fn seconds(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse().ok()
}

/// The innermost cause says what happened; those around it say that something did.
fn innermost(error: hyper::Error) -> String {
    let mut cause = error.source();
    let mut last = error.to_string();
    while let Some(inner) = cause {
        last = inner.to_string();
        cause = inner.source();
    }
    last
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_says_nothing_leaves_time_to_the_next_one() {
        let addresses = ["192.0.2.1:443", "192.0.2.2:443"].map(|text| text.parse().expect("an address"));
        let found = first_that_answers(&addresses, |address| async move {
            if address == addresses[0] {
                return std::future::pending().await;
            }
            Ok(address)
        });
        let found = tokio::time::timeout(CONNECT, found).await.expect("in time");
        assert_eq!(found.expect("some address").expect("that answers"), addresses[1]);
    }

    #[tokio::test]
    async fn what_is_out_of_reach_says_whether_another_reach_would_do() {
        for (url, reach, expected) in [
            ("http://10.0.0.1/", Reach::Public, "`10.0.0.1` leads to private addresses alone"),
            (
                "http://[fd00:ec2::23]/",
                Reach::Private,
                "`[fd00:ec2::23]` leads to addresses alone that are never connected to",
            ),
        ] {
            let refused = connect(&Url::parse(url).expect("a URL"), reach).await.expect_err(url);
            assert_eq!(refused.to_string(), expected);
        }
    }

    /// Calls a server that answers with `answer`, to the letter, and then closes.
    async fn answered(answer: &'static str) -> Result<Answered, CallError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a call");
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                read.push(stream.read_u8().await.expect("the head of a call"));
            }
            stream.write_all(answer.as_bytes()).await.expect("an answer is sent");
        });
        let url = Url::parse(&format!("http://127.0.0.1:{port}/in")).expect("a URL");
        let call = Call {
            method: Method::POST,
            url: &url,
            reach: Reach::Private,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            within: Duration::from_secs(60),
            most_read: 4,
        };
        let answered = Client::new().call(call).await;
        serving.await.expect("the server ends");
        answered
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_limit() {
        let whole = answered("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfour").await.expect("an answer");
        assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, &b"four"[..]));
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfive!",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ncut",
        ] {
            let failed = answered(answer).await;
            assert!(matches!(failed, Err(CallError::Unreadable { .. })), "{failed:?}");
        }
    }

    #[tokio::test]
    async fn the_body_of_a_refusal_is_not_read() {
        let answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nfar";
        let refused = answered(answer).await.expect("an answer, whatever its body");
        assert_eq!((refused.status.as_u16(), refused.retry_after_ms), (429, Some(7_000)));
        assert_eq!(refused.body, Bytes::new());
    }
}
