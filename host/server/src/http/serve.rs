//! A listener: accepts connections until the shutdown begins, then lets them finish.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_io_timeout::TimeoutWriter;

use super::client::Peer;
use super::connection::{self, End, Of};
use super::connection_limit::{ConnectionLimit, Slot};
use super::router::{Surface, router};
use super::secured;
use crate::state::App;
use crate::telemetry::SecurityEvent;
use crate::tls::Tls;

/// How long to wait if no connection can be accepted, because there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take to read what was written. One that does not read is gone, as far as the gateway can know.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the gateway listens, and what it serves there.
pub struct Listener {
    /// Where.
    pub socket: TcpListener,
    /// What.
    pub surface: Surface,
    /// TLS, unless it speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// The limits of a listener.
pub struct Limits {
    /// How many connections there may be.
    pub connections: ConnectionLimit,
    /// How long a TLS connection may last.
    pub max_age: Duration,
    /// How long connections may take to end once the shutdown has begun.
    pub drain: Duration,
}

/// The bytes of a connection. A write that takes too long is an error.
pub(super) type Transport = std::pin::Pin<Box<TimeoutWriter<TcpStream>>>;

/// What the connections of a listener share.
pub(super) struct Shared {
    pub(super) app: Arc<App>,
    pub(super) router: Router,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) max_age: Duration,
}

/// Serves until the shutdown begins, and then until every connection has ended, as far as the limit allows.
pub async fn serve(listener: Listener, app: Arc<App>, limits: Limits) {
    let Listener { socket, surface, tls } = listener;
    let Limits { connections, max_age, drain } = limits;
    let router = router(Arc::clone(&app), surface);
    let shared = Arc::new(Shared { app: Arc::clone(&app), router, tls, max_age });
    // Nothing is ever sent: the channel closes when every connection has dropped its sender.
    let (open, mut all_ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = app.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(slot) = connections.open(peer.ip()) else {
                    // Nothing is said: an answer would cost what is short.
                    app.metrics.count(SecurityEvent::ConnectionRefused);
                    continue;
                };
                // A decision must not wait for the next packet. If this fails, the connection is broken anyway.
                let _ = stream.set_nodelay(true);
                let (shared, open) = (Arc::clone(&shared), open.clone());
                tokio::spawn(async move {
                    answer(stream, Peer(peer.ip()), slot, &shared).await;
                    drop(open);
                });
            }
            Err(error) if is_from_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; pausing");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((socket, open));
    if tokio::time::timeout(drain, all_ended.recv()).await.is_err() {
        tracing::warn!("shutdown: connections did not finish in time");
    }
}

/// Answers what comes over one connection, until it ends.
async fn answer(stream: TcpStream, peer: Peer, slot: Slot, shared: &Shared) {
    let transport = transport(stream);
    let end = match &shared.tls {
        // In a box, so that plain connections need no room for TLS.
        Some(tls) => Box::pin(secured::serve(transport, peer, slot.crowded, tls, shared)).await,
        None => {
            let of = Of { peer, certificate: None, crowded: slot.crowded, until: None };
            connection::serve(transport, of, shared.router.clone(), &shared.app.shutdown).await
        }
    };
    if end == End::TooSlow {
        shared.app.metrics.count(SecurityEvent::SlowClient);
    }
}

fn transport(stream: TcpStream) -> Transport {
    let mut writer = TimeoutWriter::new(stream);
    writer.set_timeout(Some(WRITE_TIMEOUT));
    Box::pin(writer)
}

fn is_from_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::body::{Body, Bytes};
    use axum::response::Response;
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::super::takeover::LongLived;
    use super::*;

    /// A client that does not read keeps neither its connection nor its place among the streams.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let endless =
            || Body::from_stream(stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from("x".repeat(4096)))));
        let streamed = async move || {
            let mut response = Response::new(endless());
            response.extensions_mut().insert(LongLived);
            response
        };
        let router = Router::new().route("/", get(async move || endless())).route("/stream", get(streamed));
        for path in ["/", "/stream"] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, peer) = listener.accept().await.unwrap();
            let call = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            client.write_all(call.as_bytes()).await.unwrap();
            let of = Of { peer: Peer(peer.ip()), certificate: None, crowded: false, until: None };
            let begun = Instant::now();
            // The clock advances once nothing else can happen.
            let end =
                connection::serve(transport(server), of, router.clone(), &CancellationToken::new()).await;
            assert_eq!(end, End::TooSlow, "{path}");
            assert_eq!(begun.elapsed().as_secs(), WRITE_TIMEOUT.as_secs(), "{path}");
        }
    }

    /// The budget of an idle stream is 8 KiB in all, or 30 KiB with TLS, and the task of its connection is a part of it.
    #[test]
    fn the_task_of_a_connection_is_small() {
        fn size<'a, F>(_: impl Fn(TcpStream, Peer, Slot, &'a Shared) -> F) -> usize {
            size_of::<F>()
        }
        fn secured_size<'a, F>(_: impl Fn(Transport, Peer, bool, &'a Tls, &'a Shared) -> F) -> usize {
            size_of::<F>()
        }
        let (task, secured) = (size(answer), secured_size(secured::serve));
        assert!(task <= 1200 && secured <= 1400, "{task} {secured}");
    }
}
