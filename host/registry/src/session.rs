//! HTTP requests to one repository: time and size limits, redirects, and authentication.
//!
//! Nothing is logged here. Errors contain nothing of an answer except its status and its error code.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde::Deserialize;

use super::challenge::{self, Challenge, TokenRequest};
use super::credentials::Credential;
use super::error::RegistryError;
use super::reference::Repository;
use super::url;

/// The maximum number of redirects.
const MAX_REDIRECTS: usize = 4;

/// The maximum size of an error or a token, in bytes.
const MAX_SMALL_BYTES: usize = 64 * 1024;

const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// How long to wait for a registry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For a connection.
    pub(super) connect: Duration,
    /// For the head of an answer, and for each further part of it.
    pub(super) read: Duration,
    /// For all requests of one call to [`Registries`](super::Registries).
    pub(super) total: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(10),
            total: Duration::from_secs(60),
        }
    }
}

/// The access to a repository that a token is requested for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

/// A client for one repository.
pub(super) struct Session<'a> {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    repository: &'a Repository,
    access: Access,
    credential: Option<Credential>,
    /// Set once the registry has asked for authentication.
    authorization: Option<HeaderValue>,
    timeouts: Timeouts,
}

/// A request to send, again if the registry asks for authentication.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Uri,
    /// `Accept` or `Content-Type`.
    pub(super) header: (header::HeaderName, &'static str),
    pub(super) body: Bytes,
}

/// An answer whose body has not been read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The URL that answered: the registry's, or one that it redirected to.
    from: Uri,
    body: Incoming,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        access: Access,
        credential: Option<Credential>,
        timeouts: Timeouts,
        tls: ClientConfig,
    ) -> Session<'a> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeouts.connect));
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Session { http, repository, access, credential, authorization: None, timeouts }
    }

    pub(super) fn repository(&self) -> &Repository {
        self.repository
    }

    /// The URL of an endpoint in the repository, such as `blobs/…`.
    pub(super) fn url(&self, endpoint: &str) -> Result<Uri, RegistryError> {
        let url = url::endpoint(self.repository, endpoint);
        url.ok_or_else(|| self.unusable(self.repository.registry(), "its name makes no valid URL"))
    }

    /// Reads an endpoint, at most `limit` bytes; `None` if it does not exist.
    pub(super) async fn read(
        &mut self,
        endpoint: &str,
        accept: &'static str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self.url(endpoint)?;
        let header = (header::ACCEPT, accept);
        let answer = self.call(Call { method: Method::GET, url, header, body: Bytes::new() }).await?;
        match answer.status {
            StatusCode::OK => self.body(answer, limit).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(answer).await),
        }
    }

    /// Sends a request, and sends it again with authentication if the registry asks for that.
    pub(super) async fn call(&mut self, call: Call) -> Result<Answer, RegistryError> {
        let answer = self.send(&call).await?;
        let challenged =
            answer.status == StatusCode::UNAUTHORIZED && url::is_registry(self.repository, &answer.from);
        if !challenged || self.authorization.is_some() {
            return Ok(answer);
        }
        self.authorization = Some(self.authorize(&answer.headers).await?);
        self.send(&call).await
    }

    /// The error that an unsuccessful answer stands for.
    pub(super) async fn refusal(&self, answer: Answer) -> RegistryError {
        let Answer { status, ref from, .. } = answer;
        let denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if denied && url::is_registry(self.repository, from) {
            return self.denied();
        }
        let host = url::host(from);
        let body = self.body(answer, MAX_SMALL_BYTES).await.unwrap_or_default();
        RegistryError::Status { host, status, code: error_code(&body) }
    }

    /// Sends a request, and follows the redirects of a `GET`.
    async fn send(&self, call: &Call) -> Result<Answer, RegistryError> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_to(&url, call).await?;
            if call.method != Method::GET || !answer.status.is_redirection() {
                return Ok(answer);
            }
            url = self.location(&answer)?;
        }
        Err(self.unusable(&url::host(&url), "too many redirects"))
    }

    async fn send_to(&self, url: &Uri, call: &Call) -> Result<Answer, RegistryError> {
        let (name, value) = &call.header;
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
        let is_registry = url::is_registry(self.repository, url);
        if let Some(authorization) = self.authorization.as_ref().filter(|_| is_registry) {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        self.send_request(request).await
    }

    async fn send_request(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, RegistryError> {
        let from = request.uri().clone();
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let answered = self.in_time(&from, self.http.request(request)).await?;
        let (head, body) = answered.map_err(|error| unreachable(&from, &error))?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, from, body })
    }

    /// The URL in an answer's `Location`, if it may be requested.
    pub(super) fn location(&self, answer: &Answer) -> Result<Uri, RegistryError> {
        let unusable = |why| self.unusable(&url::host(&answer.from), why);
        let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or_else(|| unusable("no `Location` header"))?;
        let location = location.parse().map_err(|_| unusable("its `Location` is not a URL"))?;
        let next = url::resolve(&answer.from, location);
        if url::is_private(self.repository, &next) {
            Ok(next)
        } else {
            Err(unusable("its `Location` is not a secure URL"))
        }
    }

    /// The `Authorization` header that answers the challenge in these headers.
    async fn authorize(&self, headers: &HeaderMap) -> Result<HeaderValue, RegistryError> {
        let registry = self.repository.registry();
        let unsupported = "unsupported authentication challenge";
        match (Challenge::of(headers), &self.credential) {
            (Some(Challenge::Basic), Some(Credential::Password { user, password })) => {
                challenge::basic(user, password)
                    .ok_or_else(|| self.unusable(registry, "the password cannot be sent in a header"))
            }
            (Some(Challenge::Basic), Some(Credential::IdentityToken(_))) => {
                Err(self
                    .unusable(registry, "it requires a password, but the credential is an identity token"))
            }
            (Some(Challenge::Basic), None) => Err(self.denied()),
            (Some(Challenge::Bearer { realm, service }), credential) => {
                if !url::is_private(self.repository, &realm) {
                    return Err(self.unusable(registry, "the realm of its challenge is not a secure URL"));
                }
                let scope = match self.access {
                    Access::Pull => format!("repository:{}:pull", self.repository.path()),
                    Access::Push => format!("repository:{}:pull,push", self.repository.path()),
                };
                let token = TokenRequest { realm: &realm, service: service.as_deref(), scope: &scope };
                let request = token.request(credential.as_ref());
                self.token(request.ok_or_else(|| self.unusable(registry, unsupported))?).await
            }
            (None, _) => Err(self.unusable(registry, unsupported)),
        }
    }

    /// Requests a token, and returns it as an `Authorization` header.
    async fn token(&self, request: Request<Full<Bytes>>) -> Result<HeaderValue, RegistryError> {
        let answer = self.send_request(request).await?;
        let host = url::host(&answer.from);
        match answer.status {
            StatusCode::OK => {
                let body = self.body(answer, MAX_SMALL_BYTES).await?;
                challenge::bearer(&body).ok_or_else(|| self.unusable(&host, "no usable token"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Err(self.denied()),
            status => Err(RegistryError::Status { host, status, code: None }),
        }
    }

    /// Reads a body of at most `limit` bytes.
    async fn body(&self, answer: Answer, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let Answer { from, mut body, .. } = answer;
        let too_large = || RegistryError::TooLarge { repository: self.repository.clone(), limit };
        if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(frame) = self.in_time(&from, body.frame()).await? {
            let frame = frame.map_err(|error| unreachable(&from, &error))?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > limit {
                    return Err(too_large());
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes)
    }

    async fn in_time<T>(&self, url: &Uri, waiting: impl Future<Output = T>) -> Result<T, RegistryError> {
        let waited = tokio::time::timeout(self.timeouts.read, waiting).await;
        waited.map_err(|_| RegistryError::TimedOut { registry: url::host(url) })
    }

    fn denied(&self) -> RegistryError {
        let with_credentials = self.credential.is_some();
        RegistryError::Denied { repository: self.repository.clone(), with_credentials }
    }

    fn unusable(&self, host: &str, why: &'static str) -> RegistryError {
        RegistryError::Unusable { host: host.to_owned(), why }
    }
}

/// A connection error with its causes, which contain nothing of what was sent.
fn unreachable(url: &Uri, error: &dyn Error) -> RegistryError {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        detail.push_str(&format!(": {error}"));
        cause = error.source();
    }
    RegistryError::Unreachable { registry: url::host(url), detail }
}

/// The first code in an error body, if it looks like one of the OCI specification's.
fn error_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Coded>,
    }
    #[derive(Deserialize)]
    struct Coded {
        code: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let code = errors.errors.into_iter().next()?.code;
    // It will be shown, so it must not be arbitrary text.
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    ((1..=64).contains(&code.len()) && code.bytes().all(allowed)).then_some(code)
}
