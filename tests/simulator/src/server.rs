//! Listens, and answers calls with the faults in force.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::api::{self, Arguments, Outcome, Refusal};
use crate::faults::Fate;
use crate::shared::Shared;
use crate::world::World;
use crate::{page, sockets};

/// The largest body that is read.
const MOST_BYTES: usize = 4 << 20;

/// In place of an answer: the connection is reset.
#[derive(Clone, Copy, Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is reset")
    }
}

impl std::error::Error for Reset {}

/// Serves until `stop` is closed.
pub(crate) fn serve(shared: &Arc<Shared>, http: TcpListener, ws: TcpListener, stop: &watch::Receiver<()>) {
    let router =
        Router::new().route("/api/{method}", any(call)).merge(page::routes()).with_state(Arc::clone(shared));
    let of_http = Arc::clone(shared);
    tokio::spawn(accept(http, stop.clone(), move |stream| {
        connection(Arc::clone(&of_http), router.clone(), stream)
    }));
    let of_ws = Arc::clone(shared);
    tokio::spawn(accept(ws, stop.clone(), move |stream| sockets::serve(Arc::clone(&of_ws), stream)));
}

async fn accept<F>(listener: TcpListener, mut stop: watch::Receiver<()>, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
            _ = stop.changed() => return,
        };
        let Ok(stream) = stream else {
            // Most likely there are no file descriptors left; they are freed when connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let serving = serve(stream);
        let mut stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serving => {}
                _ = stop.changed() => {}
            }
        });
    }
}

/// One connection, until either side ends it, Slack restarts, or a call on it is answered by a reset.
async fn connection(shared: Arc<Shared>, router: Router, stream: TcpStream) {
    let mut restarts = shared.restarts.subscribe();
    let Ok((stream, twin)) = twins(stream) else { return };
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answering = router.clone().oneshot(request.map(Body::new));
        async move {
            let Ok(response) = answering.await.map_err(|never: Infallible| never);
            if response.extensions().get::<Reset>().is_some() { Err(Reset) } else { Ok(response) }
        }
    });
    {
        let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        let broken = tokio::select! {
            ended = serving.as_mut() => ended.is_err(),
            _ = restarts.changed() => true,
        };
        if broken {
            // With this set, closing resets the connection.
            let _ = twin.set_zero_linger();
        }
    }
}

/// Two handles of a connection: one to serve it, and one to reset it.
fn twins(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let twin = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, TcpStream::from_std(twin)?))
}

/// A call of the Web API.
async fn call(State(shared): State<Arc<Shared>>, Path(method): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MOST_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    shared.receive(format!("{method} {}", parts.uri.query().unwrap_or_default()), &body);
    let arguments = arguments(parts.uri.query(), &parts.headers, &body);
    let (delay, fate) = shared.change(|world| world.chance.fate(&method));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    // The call is carried out and counted in one step, so that nobody sees one without the other.
    let outcome = shared.change(|world| {
        let carry_out =
            |world: &mut World| api::call(world, &shared.tokens, &shared.addresses, &method, arguments);
        let outcome = fate.is_carried_out().then(|| carry_out(world));
        let answered = matches!(outcome, Some(Outcome::Answered(_)));
        if answered && fate != Fate::Answered {
            world.counts.add_unanswered_but_done();
        }
        let code = fate.code().or(outcome.as_ref().map(Outcome::code)).unwrap_or_default();
        world.counts.add(&method, code);
        outcome
    });
    match (fate, outcome) {
        (Fate::Answered, Some(outcome)) => answer(outcome),
        (Fate::RateLimited { retry_after }, _) => answer(Outcome::RateLimited { retry_after }),
        (Fate::ServerError { status, .. }, _) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, "upstream connect error or disconnect/reset before headers").into_response()
        }
        (Fate::InternalError { .. }, _) => answer(Outcome::Refused(Refusal::from("internal_error"))),
        (Fate::Unanswered { .. }, _) => std::future::pending().await,
        (Fate::Reset { .. } | Fate::Down | Fate::Answered, _) => {
            let mut response = Response::default();
            response.extensions_mut().insert(Reset);
            response
        }
    }
}

fn arguments(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Arguments, Refusal> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    Arguments::read(query.unwrap_or_default(), text(header::AUTHORIZATION), text(header::CONTENT_TYPE), body)
}

fn answer(outcome: Outcome) -> Response {
    let json = |status: StatusCode, json: &Value| {
        let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
        (status, kind, json.to_string()).into_response()
    };
    match outcome {
        Outcome::Answered(answer) => json(StatusCode::OK, &answer),
        Outcome::Refused(refusal) => json(StatusCode::OK, &refusal.json()),
        Outcome::RateLimited { retry_after } => {
            let body = json!({"ok": false, "error": "ratelimited"});
            let mut response = json(StatusCode::TOO_MANY_REQUESTS, &body);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
            response
        }
    }
}
