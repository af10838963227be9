//! One HTTP call to a target: to addresses that may be connected to, encrypted, with limits on time and size. Nothing is
//! followed, and no connection is kept.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::loopback::is_loopback;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::addresses::Reach;

/// How long connecting may take, looking the name up and the handshake included.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a call may take as a whole: less than the worker gives it, so that it is this one that says what is wrong.
const CALL: Duration = Duration::from_secs(25);

/// Calls targets. Clones share what they trust.
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
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// The most bytes of an answer that are read. One that is longer is cut off.
    pub most_read: usize,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// How long the other side asks to be left alone, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
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
    #[error("`{0}` leads to private addresses alone")]
    OutOfReach(String),
    /// No address answers, or the connection ends.
    #[error("`{host}` cannot be reached: {why}")]
    Unreachable {
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
        let answered = tokio::time::timeout(CALL, self.made(call)).await;
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
        .map_err(unreachable)
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
    let mut last = None;
    // INVARIANT: what is connected to is the address that was checked, not the name.
    for address in found.into_iter().filter(|address| reach.allows(address.ip())) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(CallError::Unreachable { host: name, why: error.to_string() }),
        None => Err(CallError::OutOfReach(name)),
    }
}

async fn exchange<S>(stream: S, call: &Call<'_>) -> Result<Answered, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request(call)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(innermost)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(innermost)?;
        let (head, body) = answer.into_parts();
        let retry_after_ms =
            head.headers.get(RETRY_AFTER).and_then(seconds).map(|it| it.saturating_mul(1000));
        // Who does not need the body has the answer by now, whatever follows.
        let body = match call.most_read {
            0 => Vec::new(),
            most => match Limited::new(body, most).collect().await {
                Ok(body) => body.to_bytes().to_vec(),
                Err(error) => return Err(format!("the answer is cut off, or too long: {error}")),
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
            ended = &mut connection, if open => {
                // The answer may be there all the same.
                open = false;
                if let Err(error) = ended {
                    return Err(innermost(error));
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
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .header("user-agent", concat!("countersign/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(call.body.clone())).map_err(|error| error.to_string())
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

/// Whether anything may be sent to this URL: it is encrypted, or does not leave this machine.
///
/// # Errors
/// What is wrong with it. Does not quote it, since it may hold a secret.
pub fn checked_url(text: &str, reach: Reach) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    let host = url.host_str().ok_or("it has no host")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user or a password in it: a target knows who calls by the signature".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it has a fragment, which is not sent".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) && reach == Reach::Private => {}
        "http" if is_loopback(host) => {
            return Err("it is of this machine: say `allow_private: true`".to_owned());
        }
        _ => return Err("it must begin with `https://`".to_owned()),
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    };
    if literal.is_some_and(|address| !reach.allows(address)) {
        return Err("it has a private address: say `allow_private: true`, if it is one that can be allowed"
            .to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_encrypted_or_stays_on_this_machine() {
        let ok = |text: &str, reach| checked_url(text, reach).is_ok();
        for (text, public, private) in [
            ("https://audit.example.com/in?x=1", true, true),
            ("https://audit.example.com:8443/in", true, true),
            ("https://1.1.1.1/", true, true),
            ("http://audit.example.com/in", false, false),
            ("http://127.0.0.1:8080/in", false, true),
            ("http://localhost/in", false, true),
            ("https://127.0.0.1/in", false, true),
            ("https://10.0.0.1/in", false, true),
            // Other ways to write an address are the same address.
            ("https://0x7f.1/in", false, true),
            ("https://2130706433/in", false, true),
            ("https://[::ffff:10.0.0.1]/in", false, true),
            ("https://169.254.169.254/latest", false, false),
            ("https://[fe80::1]/", false, false),
            ("https://user:word@example.com/", false, false),
            ("https://example.com/#part", false, false),
            ("ftp://example.com/", false, false),
            ("file:///etc/passwd", false, false),
            ("audit.example.com", false, false),
            ("", false, false),
        ] {
            assert_eq!((ok(text, Reach::Public), ok(text, Reach::Private)), (public, private), "{text}");
        }
    }
}
