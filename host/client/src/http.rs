//! HTTP to one host: limits on time and size, no redirects.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::{CallError, SettingsError};

/// The largest answer that is read, in bytes: parameters, a receipt, and what else there is.
const MOST_BYTES: usize = 4 << 20;

const CONNECT: Duration = Duration::from_secs(5);

/// The longest `Retry-After` that is followed: a number that is no time would end all waiting.
const LATEST_RETRY: Duration = Duration::from_secs(3600);

const USER_AGENT: &str = concat!("countersign-client/", env!("CARGO_PKG_VERSION"));

/// Which certificates a host is believed by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// The system's.
    System,
    /// Those in this file alone.
    File(&'a Path),
    /// None: for a host that is not spoken to over TLS.
    Nobody,
}

/// A client of one host.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// A variable with a proxy, which is not used: named if the host is not reached without.
    unused_proxy: Option<&'static str>,
}

/// A call. Its body is JSON, if it has one.
pub(crate) struct Call<'a> {
    pub(crate) url: &'a Uri,
    pub(crate) body: Option<Bytes>,
    pub(crate) authorization: Option<HeaderValue>,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, HeaderValue)>,
}

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Http {
    /// Blocks while it reads certificates.
    pub(crate) fn new(trust: Trust<'_>, unused_proxy: Option<&'static str>) -> Result<Http, SettingsError> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(trust)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Http { client: Client::builder(TokioExecutor::new()).build(connector), unused_proxy })
    }

    /// Sends a call, and returns the answer once its head is there.
    pub(crate) async fn open(
        &self,
        call: Call<'_>,
        within: Duration,
    ) -> Result<Response<Incoming>, CallError> {
        let mut request = Request::new(Full::new(call.body.clone().unwrap_or_default()));
        *request.method_mut() = if call.body.is_some() { Method::POST } else { Method::GET };
        *request.uri_mut() = call.url.clone();
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if call.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(mut authorization) = call.authorization {
            authorization.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, authorization);
        }
        for (name, value) in call.headers {
            headers.insert(name, value);
        }
        match tokio::time::timeout(within, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreached(unreachable(call.url, &error))),
            Err(_) => Err(self.unreached(format!("{} does not answer", host(call.url)))),
        }
    }

    /// The host was not reached: in a network that is left by a proxy alone, that is why.
    fn unreached(&self, mut detail: String) -> CallError {
        if let Some(name) = self.unused_proxy {
            detail.push_str(&format!("; `{name}` is set, and no proxy is used"));
        }
        unavailable(detail)
    }

    /// Sends a call, and reads all of the answer.
    pub(crate) async fn send(&self, call: Call<'_>, within: Duration) -> Result<Reply, CallError> {
        let host = host(call.url);
        let whole = async {
            let response = self.open(call, within).await?;
            read(response, &host).await
        };
        let late = || self.unreached(format!("{host} does not answer in time"));
        tokio::time::timeout(within, whole).await.map_err(|_| late())?
    }
}

/// Reads all of an answer.
pub(crate) async fn read(response: Response<Incoming>, host: &str) -> Result<Reply, CallError> {
    let (head, body) = response.into_parts();
    match Limited::new(body, MOST_BYTES).collect().await {
        Ok(body) => Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() }),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(CallError::Nonsense(format!("it has more than {MOST_BYTES} bytes")))
        }
        Err(_) => Err(unavailable(format!("the answer of {host} is incomplete"))),
    }
}

impl Reply {
    /// The media type, without its parameters.
    pub(crate) fn media_type(&self) -> &str {
        media_type(&self.headers)
    }

    /// When to try again, by what was said, and within an hour.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        Some(Duration::from_secs(seconds.parse().ok()?).min(LATEST_RETRY))
    }
}

pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// `Authorization` with a bearer token; `None` if it cannot be sent in a header.
pub(crate) fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let text = zeroize::Zeroizing::new([b"Bearer ", token].concat());
    let mut value = HeaderValue::from_bytes(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(crate) fn unavailable(detail: String) -> CallError {
    CallError::Unavailable { detail, retry_after: None }
}

/// The host and port of a URL: nothing else of it, which may hold secrets.
pub(crate) fn host(url: &Uri) -> String {
    url.authority().map_or_else(String::new, ToString::to_string)
}

fn unreachable(url: &Uri, error: &hyper_util::client::legacy::Error) -> String {
    // The innermost cause says what happened; those around it say that something did.
    let mut cause = error.source();
    let mut last = error.to_string();
    while let Some(inner) = cause {
        last = inner.to_string();
        cause = inner.source();
    }
    format!("{} cannot be reached: {last}", host(url))
}

fn tls(trust: Trust<'_>) -> Result<ClientConfig, SettingsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError::Tls(error.to_string()))?;
    let config = match trust {
        Trust::System => {
            config.with_native_roots().map_err(|error| SettingsError::Roots(error.to_string()))?
        }
        Trust::File(path) => config.with_root_certificates(roots(path)?),
        Trust::Nobody => config.with_root_certificates(RootCertStore::empty()),
    };
    Ok(config.with_no_client_auth())
}

fn roots(path: &Path) -> Result<RootCertStore, SettingsError> {
    let wrong = |detail: String| SettingsError::File { path: path.display().to_string(), detail };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it has no certificates".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::environment::Environment;

    #[tokio::test]
    async fn a_proxy_that_is_not_used_is_named_if_nothing_is_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Whoever comes is hung up on.
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let url: Uri = format!("http://{address}/").parse().unwrap();
        for (environment, expected) in [
            (Environment::from([("https_proxy", "http://proxy:3128")]), Some("`https_proxy` is set")),
            (
                Environment::from([("ALL_PROXY", "socks5://proxy"), ("HTTPS_PROXY", "")]),
                Some("`ALL_PROXY` is"),
            ),
            (Environment::default(), None),
        ] {
            let http = Http::new(Trust::Nobody, environment.unused_proxy()).unwrap();
            let call = Call { url: &url, body: None, authorization: None, headers: Vec::new() };
            let error = http.send(call, CONNECT).await.err().expect("nobody answers").to_string();
            assert!(error.starts_with(&format!("{address} cannot be reached")), "{error}");
            assert!(expected.map_or(!error.contains("proxy"), |said| error.contains(said)), "{error}");
        }
    }
}
