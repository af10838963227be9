//! A registry with scripted replies.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A reply.
#[derive(Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Complete(Bytes),
    /// More data without end.
    Endless,
    /// One byte, then nothing, without an end.
    Stalling,
}

/// A received request: its line (`GET /v2/…`), `Authorization` header and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) line: String,
    pub(super) authorization: Option<String>,
    pub(super) body: String,
}

/// A server on this machine that stops when it is dropped.
pub(super) struct FakeRegistry {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    serving: JoinHandle<()>,
}

impl Reply {
    pub(super) fn status(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Body::Complete(Bytes::new()) }
    }

    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Reply {
        Reply::status(200).body(bytes)
    }

    pub(super) fn body(self, bytes: impl Into<Bytes>) -> Reply {
        Reply { body: Body::Complete(bytes.into()), ..self }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn without_end(self) -> Reply {
        Reply { body: Body::Endless, ..self }
    }

    pub(super) fn stalling(self) -> Reply {
        Reply { body: Body::Stalling, ..self }
    }

    fn response(self) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let one = stream::iter([Ok(Frame::data(Bytes::from_static(b"x")))]);
        let body = match self.body {
            Body::Complete(bytes) => Full::new(bytes).boxed_unsync(),
            Body::Endless => {
                StreamBody::new(stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
                    .boxed_unsync()
            }
            Body::Stalling => StreamBody::new(one.chain(stream::pending())).boxed_unsync(),
        };
        let response = Response::builder().status(self.status);
        let response =
            self.headers.iter().fold(response, |response, (name, value)| response.header(*name, value));
        response.body(body).unwrap()
    }
}

impl FakeRegistry {
    /// Starts a server whose replies `reply` decides.
    pub(super) async fn start(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (received, reply) = (Arc::new(Mutex::new(Vec::new())), Arc::new(reply));
        let log = Arc::clone(&received);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                    async move {
                        let received = Received::read(request).await;
                        log.lock().unwrap().push(received.clone());
                        Ok::<_, Infallible>(reply(&received).response())
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        FakeRegistry { address, received, serving }
    }

    /// The host and port, for references.
    pub(super) fn registry(&self) -> String {
        self.address.to_string()
    }

    /// The requests received so far.
    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Received {
    async fn read(request: Request<Incoming>) -> Received {
        let line = format!("{} {}", request.method(), request.uri());
        let authorization = request.headers().get("authorization");
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Received { line, authorization, body: String::from_utf8_lossy(&body).into_owned() }
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
