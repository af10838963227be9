//! One connection, on which hyper answers calls over HTTP/1 until it ends or an event stream takes it over.
//!
//! Hyper is used directly, because `axum::serve` does not limit how long the head of a request may take: clients that
//! send it slowly could hold connections for ever.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::client::Peer;
use super::secured::ClientCertificate;
use super::takeover::{self, Takeover};

/// How long the head of a request may take to arrive, and how long a connection may be idle between calls.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The same while most of the connections that there may be are open.
const HURRIED_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// What is known of a connection.
#[derive(Clone)]
pub(super) struct Of {
    pub(super) peer: Peer,
    /// The client's certificate, if it sent one.
    pub(super) certificate: Option<ClientCertificate>,
    /// There is little room left, so the client must hurry.
    pub(super) crowded: bool,
    /// When it should end, if it should: no call is cut, and an event stream ends between two events.
    pub(super) until: Option<Instant>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As it should, by itself or by the client.
    Done,
    /// The client sent the head of a request, or read an answer, too slowly.
    TooSlow,
}

/// Serves a connection to its end.
pub(super) async fn serve<T>(transport: T, of: Of, router: Router, shutdown: &CancellationToken) -> End
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let until = of.until;
    // In a box, so that hyper's memory is freed before the stream begins.
    let ended = Box::pin(answer_calls(transport, of, router, shutdown)).await;
    let written = match ended {
        (_, Answered::TooSlowly) => return End::TooSlow,
        (mut transport, Answered::All) => transport.shutdown().await,
        (transport, Answered::Stream(response)) => takeover::write_response(transport, response, until).await,
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => End::TooSlow,
        // Any other error means that the client has gone away.
        _ => End::Done,
    }
}

/// What became of the calls of a connection.
enum Answered {
    /// All that came were answered.
    All,
    /// The response to the last one is to take the connection over.
    Stream(Response),
    /// One came, or its answer was read, too slowly.
    TooSlowly,
}

/// Answers call after call, until the connection ends or is to be taken over.
async fn answer_calls<T>(transport: T, of: Of, router: Router, shutdown: &CancellationToken) -> (T, Answered)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Of { peer, certificate, crowded, until } = of;
    let takeover = Arc::new(Takeover::default());
    let of_connection = Arc::clone(&takeover);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, takeover) = (router.clone(), Arc::clone(&of_connection));
        let certificate = certificate.clone();
        Box::pin(async move {
            let takeover_possible = takeover.is_possible(&request);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            if let Some(certificate) = certificate {
                request.extensions_mut().insert(certificate);
            }
            let mut response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if until.is_some_and(|until| Instant::now() >= until) {
                // Said in an answer, so that no call is sent into a connection that is being closed.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if takeover_possible { takeover.keep_long_lived(response) } else { Ok(response) }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if crowded { HURRIED_HEAD_TIMEOUT } else { HEAD_TIMEOUT })
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(transport), service);
    let mut closing = false;
    let ended = loop {
        tokio::select! {
            // An error concerns the client alone, or is `TakenOver`.
            ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)) => break ended,
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let parts = connection.into_parts();
    let answered = match (takeover.take_response(), ended) {
        (Some(response), _) => Answered::Stream(response),
        // A connection that was idle, and of which nothing is left over, may end in the same way.
        (None, Err(error)) if error.is_timeout() && !parts.read_buf.is_empty() => Answered::TooSlowly,
        (None, Err(error)) if is_write_timeout(&error) => Answered::TooSlowly,
        (None, _) => Answered::All,
    };
    (parts.io.into_inner(), answered)
}

fn is_write_timeout(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::routing::get;
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::super::takeover::LongLived;
    use super::*;

    /// A client's end of a connection, and the task that serves the other end.
    fn connect(router: Router, shutdown: &CancellationToken) -> (DuplexStream, JoinHandle<End>) {
        connect_until(None, router, shutdown)
    }

    fn connect_until(
        until: Option<Instant>,
        router: Router,
        shutdown: &CancellationToken,
    ) -> (DuplexStream, JoinHandle<End>) {
        let (client, server) = duplex(64 * 1024);
        let of = Of { peer: Peer(Ipv4Addr::LOCALHOST.into()), certificate: None, crowded: false, until };
        let shutdown = shutdown.clone();
        (client, tokio::spawn(async move { serve(server, of, router, &shutdown).await }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_too_old_ends_with_an_answer() {
        let until = Instant::now() + Duration::from_secs(20);
        let (mut client, served) = connect_until(Some(until), router(), &CancellationToken::new());
        let call = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        client.write_all(call).await.unwrap();
        let mut first = vec![0; 512];
        let read = client.read(&mut first).await.unwrap();
        assert!(!String::from_utf8_lossy(&first[..read]).contains("connection: close"));
        tokio::time::advance(Duration::from_secs(21)).await;
        client.write_all(call).await.unwrap();
        let text = read_all(&mut client).await;
        assert!(text.contains("connection: close") && text.ends_with("hello"), "{text}");
        served.await.unwrap();
    }

    /// A short call, and a stream of two events.
    fn router() -> Router {
        let stream = async || {
            let events = ["event: a\n\n", "event: b\n\n"].map(|event| Ok::<_, io::Error>(Bytes::from(event)));
            let mut response = Response::new(Body::from_stream(futures_util::stream::iter(events)));
            response.extensions_mut().insert(LongLived);
            response
        };
        Router::new().route("/stream", get(stream)).route("/", get(async || "hello"))
    }

    async fn read_all(client: &mut DuplexStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_first_call_gets_its_stream_without_hyper() {
        let (mut client, served) = connect(router(), &CancellationToken::new());
        client.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(
            read_all(&mut client).await,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
             a\r\nevent: a\n\n\r\na\r\nevent: b\n\n\r\n0\r\n\r\n"
        );
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_later_call_and_an_old_client_get_their_stream_from_hyper() {
        let (mut client, served) = connect(router(), &CancellationToken::new());
        let asks =
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(asks).await.unwrap();
        let text = read_all(&mut client).await;
        assert!(text.contains("hello") && text.ends_with("event: b\n\n\r\n0\r\n\r\n"), "{text}");
        served.await.unwrap();

        let (mut client, served) = connect(router(), &CancellationToken::new());
        client.write_all(b"GET /stream HTTP/1.0\r\n\r\n").await.unwrap();
        let text = read_all(&mut client).await;
        assert!(text.ends_with("\r\n\r\nevent: a\n\nevent: b\n\n"), "{text}");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_shutdown_lets_a_call_finish_and_takes_no_other() {
        let (begin, begun) = tokio::sync::watch::channel(false);
        let slow = async move || {
            let mut begun = begun.clone();
            let _ = begun.wait_for(|begun| *begun).await;
            "done"
        };
        let shutdown = CancellationToken::new();
        let (mut client, served) = connect(Router::new().route("/", get(slow)), &shutdown);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        while begin.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
        begin.send(true).unwrap();
        assert!(read_all(&mut client).await.ends_with("\r\n\r\ndone"));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn an_idle_connection_ends_with_the_shutdown() {
        let shutdown = CancellationToken::new();
        let (mut client, served) = connect(Router::new(), &shutdown);
        shutdown.cancel();
        served.await.unwrap();
        assert_eq!(read_all(&mut client).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_times_out() {
        let (mut client, served) = connect(Router::new(), &CancellationToken::new());
        client.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        assert_eq!(served.await.unwrap(), End::TooSlow);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_times_out_and_is_not_slow() {
        for calls in ["", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let (mut client, served) = connect(router(), &CancellationToken::new());
            client.write_all(calls.as_bytes()).await.unwrap();
            assert_eq!(served.await.unwrap(), End::Done, "{calls}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let (mut client, served) = connect(Router::new(), &CancellationToken::new());
        let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(HEAD_BYTES));
        // The gateway may hang up before it has read all of it.
        let _ = client.write_all(head.as_bytes()).await;
        let mut first = [0; 12];
        client.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 431");
        served.await.unwrap();
    }
}
