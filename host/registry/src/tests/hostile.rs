//! A registry whose answers a test makes up.

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

/// What it answers.
#[derive(Clone)]
pub(super) struct Says {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Whole(Bytes),
    /// More and more of it.
    Endless,
    /// One byte, and then no more, and no end.
    Stalling,
}

/// What it was asked: `GET /v2/…`, and the header that says by whom, and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) what: String,
    pub(super) authorization: Option<String>,
    pub(super) body: String,
}

/// A server on this machine, until it is dropped.
pub(super) struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: JoinHandle<()>,
}

impl Says {
    pub(super) fn status(status: u16) -> Says {
        Says { status, headers: Vec::new(), body: Body::Whole(Bytes::new()) }
    }

    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Says {
        Says::status(200).body(bytes)
    }

    pub(super) fn body(self, bytes: impl Into<Bytes>) -> Says {
        Says { body: Body::Whole(bytes.into()), ..self }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Says {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn without_end(self) -> Says {
        Says { body: Body::Endless, ..self }
    }

    pub(super) fn stalling(self) -> Says {
        Says { body: Body::Stalling, ..self }
    }

    fn response(self) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let one = stream::iter([Ok(Frame::data(Bytes::from_static(b"x")))]);
        let body = match self.body {
            Body::Whole(bytes) => Full::new(bytes).boxed_unsync(),
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

impl Fake {
    /// Starts one that answers each request, `METHOD /path`, as `answer` says for it and for who asks.
    pub(super) async fn start(answer: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let log = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                    async move {
                        let asked = Asked::read(request).await;
                        log.lock().unwrap().push(asked.clone());
                        Ok::<_, Infallible>(answer(&asked).response())
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        Fake { address, asked, serving }
    }

    /// Its name, as references have it.
    pub(super) fn registry(&self) -> String {
        self.address.to_string()
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Asked {
    async fn read(request: Request<Incoming>) -> Asked {
        let what = format!("{} {}", request.method(), request.uri());
        let authorization = request.headers().get("authorization");
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Asked { what, authorization, body: String::from_utf8_lossy(&body).into_owned() }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
