//! One piece of business with one registry over HTTP: each call with its time limits, what is read of an answer with a
//! limit too, and credentials shown where they are asked for and nowhere else.
//!
//! Nothing is logged here, and nothing of an answer gets into an error but its status and its code.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::challenge::{Challenge, Token};
use super::credentials::Credential;
use super::error::RegistryError;
use super::reference::Repository;
use countersign_core::loopback::is_loopback;

/// How many times a registry may send us on: to where it stores blobs, and from there once more.
const REDIRECTS: usize = 4;

/// The most that is read of an answer that says why not, or that holds a token, in bytes.
const WORDS_BYTES: usize = 64 * 1024;

const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// How long to wait for a registry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a connection.
    pub(super) connect: Duration,
    /// For the head of an answer, and then for each further part of it.
    pub(super) read: Duration,
    /// For all that a call of ours asks, however many calls of the registry's that takes.
    pub(super) whole: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(10),
            whole: Duration::from_secs(60),
        }
    }
}

/// What is to be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

/// A registry, and who we are to it.
pub(super) struct Session<'a> {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    repository: &'a Repository,
    access: Access,
    credential: Option<Credential>,
    /// What it asked for when it first wanted to know who we are.
    authorization: Option<HeaderValue>,
    patience: Patience,
}

/// A call to make.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// What is wanted, or what is sent.
    pub(super) header: (header::HeaderName, &'static str),
    pub(super) body: Bytes,
}

/// An answer whose body was not read yet.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Who answered: the registry, or where it sent us.
    from: Uri,
    body: Incoming,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        access: Access,
        credential: Option<Credential>,
        patience: Patience,
        encryption: ClientConfig,
    ) -> Session<'a> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(patience.connect));
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(encryption)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Session { http, repository, access, credential, authorization: None, patience }
    }

    pub(super) fn repository(&self) -> &Repository {
        self.repository
    }

    /// A place of the registry's API: `blobs/…`, say.
    pub(super) fn place(&self, what: &str) -> Result<Uri, RegistryError> {
        let scheme = if self.repository.is_on_this_machine() { "http" } else { "https" };
        let (host, path) = (api_host(self.repository.registry()), self.repository.path());
        let uri = format!("{scheme}://{host}/v2/{path}/{what}").parse();
        uri.map_err(|_| self.unusable(self.repository.registry(), "its address is none"))
    }

    /// Reads something, `most` bytes of it at the most; `None` where it is not there.
    pub(super) async fn read(
        &mut self,
        what: &str,
        accept: &'static str,
        most: usize,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let uri = self.place(what)?;
        let header = (header::ACCEPT, accept);
        let answer = self.call(Call { method: Method::GET, uri, header, body: Bytes::new() }).await?;
        match answer.status {
            StatusCode::OK => self.body(answer, most).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(answer).await),
        }
    }

    /// Makes a call, and makes it again as who we are where the registry wants to know.
    pub(super) async fn call(&mut self, call: Call) -> Result<Answer, RegistryError> {
        let answer = self.send(&call).await?;
        let asked = answer.status == StatusCode::UNAUTHORIZED && self.is_registry(&answer.from);
        if !asked || self.authorization.is_some() {
            return Ok(answer);
        }
        self.authorization = Some(self.authorize(&answer.headers).await?);
        self.send(&call).await
    }

    /// What an answer means that is not the one that was hoped for.
    pub(super) async fn refusal(&self, answer: Answer) -> RegistryError {
        let Answer { status, ref from, .. } = answer;
        if self.is_registry(from) && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return self.denied();
        }
        let host = host(from);
        let words = self.body(answer, WORDS_BYTES).await.unwrap_or_default();
        RegistryError::Status { host, status, code: code(&words) }
    }

    /// Whether a place is the registry itself: the only one that gets to know who we are.
    pub(super) fn is_registry(&self, place: &Uri) -> bool {
        self.place("").is_ok_and(|registry| origin(&registry) == origin(place))
    }

    /// Makes a call, and follows where a read is sent on to.
    async fn send(&self, call: &Call) -> Result<Answer, RegistryError> {
        let mut uri = call.uri.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.send_to(&uri, call).await?;
            if call.method != Method::GET || !answer.status.is_redirection() {
                return Ok(answer);
            }
            uri = self.follow(&answer)?;
        }
        Err(self.unusable(&host(&uri), "it sends us on and on"))
    }

    async fn send_to(&self, uri: &Uri, call: &Call) -> Result<Answer, RegistryError> {
        let (name, value) = &call.header;
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
        if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_registry(uri)) {
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

    /// Where an answer sends us.
    pub(super) fn follow(&self, answer: &Answer) -> Result<Uri, RegistryError> {
        let unusable = |why| self.unusable(&host(&answer.from), why);
        let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or_else(|| unusable("it sends us on, and does not say where"))?;
        let next: Uri = location.parse().map_err(|_| unusable("it sends us to no address"))?;
        let next = if next.authority().is_some() { next } else { beside(&answer.from, next) };
        if self.is_private(&next) {
            Ok(next)
        } else {
            Err(unusable("it sends us to a place that is not encrypted"))
        }
    }

    /// Whether a place may be asked: nobody between it and us can listen.
    pub(super) fn is_private(&self, place: &Uri) -> bool {
        // An address with a password in it is none that a registry should give.
        if place.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return false;
        }
        match place.scheme_str() {
            Some("https") => true,
            // Only a registry on this machine may send us to this machine.
            Some("http") => self.repository.is_on_this_machine() && place.host().is_some_and(is_loopback),
            _ => false,
        }
    }

    /// Finds out what the registry takes for who we are.
    async fn authorize(&self, headers: &HeaderMap) -> Result<HeaderValue, RegistryError> {
        let registry = self.repository.registry();
        let no_challenge = "it wants to know who we are, and not in a way that registries do";
        match (Challenge::of(headers), &self.credential) {
            (Some(Challenge::Basic), Some(Credential::Password { user, password })) => {
                super::challenge::basic(user, password)
                    .ok_or_else(|| self.unusable(registry, "the password cannot be sent"))
            }
            (Some(Challenge::Basic), Some(Credential::IdentityToken(_))) => {
                Err(self.unusable(registry, "it wants a password, and there is an identity token for it"))
            }
            (Some(Challenge::Basic), None) => Err(self.denied()),
            (Some(Challenge::Bearer { realm, service }), credential) => {
                if !self.is_private(&realm) {
                    return Err(self
                        .unusable(registry, "it wants to know who we are at a place that is not encrypted"));
                }
                let scope = match self.access {
                    Access::Pull => format!("repository:{}:pull", self.repository.path()),
                    Access::Push => format!("repository:{}:pull,push", self.repository.path()),
                };
                let request = Token { realm: &realm, service: service.as_deref(), scope: &scope };
                let request = request.request(credential.as_ref());
                let request = request.ok_or_else(|| self.unusable(registry, no_challenge))?;
                self.token(request).await
            }
            (None, _) => Err(self.unusable(registry, no_challenge)),
        }
    }

    /// Gets a token, from wherever the registry said.
    async fn token(&self, request: Request<Full<Bytes>>) -> Result<HeaderValue, RegistryError> {
        let answer = self.send_request(request).await?;
        let host = host(&answer.from);
        match answer.status {
            StatusCode::OK => {
                let words = self.body(answer, WORDS_BYTES).await?;
                super::challenge::bearer(&words).ok_or_else(|| self.unusable(&host, "its token is none"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Err(self.denied()),
            status => Err(RegistryError::Status { host, status, code: None }),
        }
    }

    /// A body, `most` bytes of it at the most.
    async fn body(&self, answer: Answer, most: usize) -> Result<Vec<u8>, RegistryError> {
        let Answer { from, mut body, .. } = answer;
        let too_large = || RegistryError::TooLarge { repository: self.repository.clone(), most };
        if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(frame) = self.in_time(&from, body.frame()).await? {
            let frame = frame.map_err(|error| unreachable(&from, &error))?;
            if let Some(part) = frame.data_ref() {
                if bytes.len() + part.len() > most {
                    return Err(too_large());
                }
                bytes.extend_from_slice(part);
            }
        }
        Ok(bytes)
    }

    async fn in_time<T>(&self, whom: &Uri, waiting: impl Future<Output = T>) -> Result<T, RegistryError> {
        let waited = tokio::time::timeout(self.patience.read, waiting).await;
        waited.map_err(|_| RegistryError::TimedOut { registry: host(whom) })
    }

    fn denied(&self) -> RegistryError {
        let with_credentials = self.credential.is_some();
        RegistryError::Denied { repository: self.repository.clone(), with_credentials }
    }

    fn unusable(&self, host: &str, why: &'static str) -> RegistryError {
        RegistryError::Unusable { host: host.to_owned(), why }
    }
}

/// How a registry proves that it is the one that it is called.
pub(super) fn encryption(repository: &Repository) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |detail: String| {
        let registry = repository.registry().to_owned();
        RegistryError::Unreachable { registry, detail }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    let config = match config.clone().with_native_roots() {
        Ok(config) => config,
        // It is spoken to without encryption.
        Err(_) if repository.is_on_this_machine() => config.with_root_certificates(RootCertStore::empty()),
        Err(error) => return Err(failed(format!("the system's certificates cannot be read: {error}"))),
    };
    Ok(config.with_no_client_auth())
}

/// Where a registry's API is.
fn api_host(registry: &str) -> &str {
    // Docker's own is called by another name than it has.
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// A place at the same registry.
fn beside(here: &Uri, next: Uri) -> Uri {
    let mut parts = next.into_parts();
    parts.scheme = here.scheme().cloned();
    parts.authority = here.authority().cloned();
    // Fails where its path is relative, and then it is still no address that may be asked.
    Uri::from_parts(parts).unwrap_or_default()
}

fn host(uri: &Uri) -> String {
    // Not the authority, for that may hold a password.
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    uri.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

/// Who answers there: a port that is usual may be named or not.
fn origin(uri: &Uri) -> (Option<&str>, String, u16) {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    (uri.scheme_str(), host, uri.port_u16().unwrap_or(usual))
}

/// A connection that failed: with the causes, which say nothing of what was sent.
fn unreachable(whom: &Uri, error: &dyn Error) -> RegistryError {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        detail.push_str(&format!(": {error}"));
        cause = error.source();
    }
    RegistryError::Unreachable { registry: host(whom), detail }
}

/// What a registry calls an error: the first code of its answer, where that is one.
fn code(words: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        code: String,
    }
    let errors: Errors = serde_json::from_slice(words).ok()?;
    let code = errors.errors.into_iter().next()?.code;
    // It is going to be shown.
    let known = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    ((1..=64).contains(&code.len()) && code.bytes().all(known)).then_some(code)
}
