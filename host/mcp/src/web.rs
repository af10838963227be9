//! The tools by streamable HTTP, for whoever has the token. There are no sessions: each request says all that it needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_client::commands::Ended;
use countersign_console::say;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::server::Server;
use crate::strict::refusal;
use crate::{MOST_BYTES, TOKEN};

/// The most connections at a time.
const CONNECTIONS: usize = 64;

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);

/// The shortest token, in bytes.
const LEAST: usize = 16;

type Body = BoxBody<Bytes, std::convert::Infallible>;
type Service = StreamableHttpService<Server, NeverSessionManager>;

/// Where the tools are served, and to whom.
pub(crate) struct Web {
    address: SocketAddr,
    hosts: Vec<String>,
    token: Zeroizing<String>,
}

impl Web {
    pub(crate) fn new(address: SocketAddr, hosts: Vec<String>, token: Option<&str>) -> Result<Web, Ended> {
        let token = token.filter(|token| token.len() >= LEAST).ok_or_else(|| {
            Ended::usage(format!(
                "`--listen` needs a token of at least {LEAST} bytes in the variable `{TOKEN}`"
            ))
        })?;
        if hosts.is_empty() && !address.ip().is_loopback() {
            let why = format!("`{address}` is open to other machines: `--host` says under which name");
            return Err(Ended::usage(why));
        }
        Ok(Web { address, hosts, token: Zeroizing::new(token.to_owned()) })
    }

    pub(crate) async fn serve(self, server: Server) -> Result<(), Ended> {
        let unusable = |error| Ended::usage(format!("cannot listen on `{}`: {error}", self.address));
        let listener = TcpListener::bind(self.address).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        say!("listening on http://{address}/mcp");
        let mut config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(MOST_BYTES)
            // No page in a browser has any business here.
            .enforce_origin_validation();
        config.allowed_hosts.extend(self.hosts);
        let service = Service::new(move || Ok(server.clone()), Arc::default(), config);
        let (token, permits) = (Arc::new(self.token), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(Ended::doubt)?;
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, say: some are given back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (service, token) = (service.clone(), Arc::clone(&token));
            tokio::spawn(async move {
                let answering = service_fn(|request| {
                    let (service, token) = (service.clone(), Arc::clone(&token));
                    async move { Ok::<_, std::convert::Infallible>(answer(&service, &token, request).await) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEAD);
                // A connection that breaks is its client's affair.
                let _ = http.serve_connection(TokioIo::new(stream), answering).await;
                drop(permit);
            });
        }
    }
}

async fn answer(service: &Service, token: &str, request: Request<Incoming>) -> Response<Body> {
    if !is_caller(request.headers(), token) {
        let mut refused = plain(StatusCode::UNAUTHORIZED, "this needs the bearer token of this server\n");
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refused;
    }
    if request.uri().path() != "/mcp" {
        return plain(StatusCode::NOT_FOUND, "the tools are at `/mcp`\n");
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MOST_BYTES).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the message is too long, or was cut\n");
    };
    let body = body.to_bytes();
    match refusal(&body).and_then(|refusal| serde_json::to_vec(&refusal).ok()) {
        Some(refusal) => {
            let mut response = Response::new(Full::new(refusal.into()).boxed());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        None => service.handle(Request::from_parts(head, Full::new(body))).await,
    }
}

/// In a time that says nothing of the token but its length.
fn is_caller(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|given| given.split_at_checked(7));
    given.is_some_and(|(scheme, given)| {
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(given.ct_eq(token.as_bytes()))
    })
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        for (given, expected) in [
            (None, false),
            (Some("Bearer sixteen-bytes-at-least"), true),
            (Some("bearer sixteen-bytes-at-least"), true),
            (Some("Bearer sixteen-bytes-at-leasu"), false),
            (Some("Bearer sixteen-bytes"), false),
            (Some("Bearer "), false),
            (Some("Basic sixteen-bytes-at-least"), false),
            (Some("sixteen-bytes-at-least"), false),
        ] {
            let headers = given.map(|text| (AUTHORIZATION, HeaderValue::from_static(text)));
            let headers: HeaderMap = headers.into_iter().collect();
            assert_eq!(is_caller(&headers, "sixteen-bytes-at-least"), expected, "{given:?}");
        }
    }

    #[test]
    fn it_is_not_open_by_mistake() {
        let token = Some("sixteen-bytes-at-least");
        let tried = |address: &str, hosts: &[&str], token| {
            let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
            Web::new(address.parse().expect("an address"), hosts, token).is_ok()
        };
        assert!(tried("127.0.0.1:0", &[], token) && tried("0.0.0.0:0", &["mcp.acme.example"], token));
        assert!(!tried("127.0.0.1:0", &[], None) && !tried("127.0.0.1:0", &[], Some("short")));
        assert!(!tried("0.0.0.0:0", &[], token));
    }
}
