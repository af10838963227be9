//! The listener: takes connections until the shutdown begins, then lets them finish.
//!
//! Hyper's HTTP/1 server is driven directly, because `axum::serve` sets no limit on how long the head of a
//! request may take: who opens connections and trickles would hold them for ever. It is HTTP/1 only, which
//! keeps an idle event stream within one read buffer of 8 KiB and a small task.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::ratelimit::Peer;
use crate::shutdown::Shutdown;

/// How long the head of a request may take to arrive, and a kept connection may stay idle.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// The most that the head of a request may have, and the size of a connection's read buffer.
const HEAD_BYTES: usize = 16 * 1024;

/// How long to wait where no connection can be taken, because there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the shutdown begins, and then for at most `drain` until every call was answered.
pub async fn serve(listener: TcpListener, router: Router, shutdown: &Shutdown, drain: Duration) {
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.begun() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, Peer(peer.ip()), router.clone());
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    // That a client went away is its own affair.
                    let _ = connection.await;
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be taken; pausing");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let open = connections.count();
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::warn!(open, "some connections did not finish in time");
    }
}

fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
) -> http1::Connection<
    TokioIo<TcpStream>,
    impl hyper::service::HttpService<
        hyper::body::Incoming,
        ResBody = Body,
        Future: Send,
        Error: std::error::Error + Send + Sync + 'static,
    > + Send,
> {
    // A decision must not wait for the next packet. Where this fails, the connection is broken anyway.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
