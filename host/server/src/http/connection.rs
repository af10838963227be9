//! One connection: HTTP/1 by hyper, and an event stream without it.
//!
//! Hyper is driven directly, because `axum::serve` sets no limit on how long the head of a request may take:
//! who opens connections and trickles would hold them for ever.
//!
//! Hyper keeps two buffers of 8 KiB for each connection. Most connections of a gateway are event streams on
//! which nothing happens for minutes, so a stream takes the socket over from hyper and keeps no buffer at all.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Version};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::ratelimit::Peer;
use tokio_util::sync::CancellationToken;

/// How long the head of a request may take to arrive, and a kept connection may stay idle.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// The most that the head of a request may have, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Marks a response whose body goes on for a long time, mostly in silence.
#[derive(Clone, Copy, Debug)]
pub(super) struct LongLived;

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: Peer, router: Router, shutdown: CancellationToken) {
    // A decision must not wait for the next packet. Where this fails, the connection is broken anyway.
    let _ = stream.set_nodelay(true);
    // In a box, so that what hyper needs is given back before the stream begins.
    let ended = Box::pin(answer_calls(stream, peer, router, shutdown)).await;
    // That a client went away is its own affair.
    let _ = match ended {
        (mut socket, None) => socket.shutdown().await,
        (socket, Some(response)) => stream_events(socket, response).await,
    };
}

/// Answers call after call, until the connection ends or one is to be answered with a stream.
async fn answer_calls(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    shutdown: CancellationToken,
) -> (TcpStream, Option<Response>) {
    let handed_over: Arc<Mutex<Option<Response>>> = Arc::default();
    let handing_over = Arc::clone(&handed_over);
    let is_first = AtomicBool::new(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // Only the first call of a connection is surely preceded by nothing that hyper has still to send.
        // The body must be empty, since what is left of it is with hyper.
        let can_hand_over = is_first.swap(false, Ordering::Relaxed)
            && request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream();
        let (router, handing_over) = (router.clone(), Arc::clone(&handing_over));
        Box::pin(async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if can_hand_over && response.extensions().get::<LongLived>().is_some() {
                *handing_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
                // To hyper this is the end of the connection, on which it has written nothing.
                return Err(HandedOver);
            }
            Ok(response)
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut closing = false;
    loop {
        tokio::select! {
            // Whether it ended well matters to nobody.
            _ = std::future::poll_fn(|context| connection.poll_without_shutdown(context)) => break,
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
    let response = handed_over.lock().unwrap_or_else(PoisonError::into_inner).take();
    (connection.into_parts().io.into_inner(), response)
}

#[derive(Debug, thiserror::Error)]
#[error("the connection was handed over")]
struct HandedOver;

/// Writes the response itself, and its body as it comes, until either side ends it.
async fn stream_events(mut socket: TcpStream, response: Response) -> io::Result<()> {
    let (parts, mut body) = response.into_parts();
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    drop(parts);
    socket.write_all(&head).await?;
    drop(head);
    loop {
        let mut ignored = [0; 16];
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    let data = frame.data_ref().map_or(&[][..], |data| data);
                    if !data.is_empty() {
                        let size = format!("{:x}\r\n", data.len());
                        socket.write_all(&[size.as_bytes(), data, b"\r\n"].concat()).await?;
                    }
                }
                _ => break,
            },
            // Nobody has anything to say to a stream; the end of what is said is the end of the client.
            read = socket.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
        }
    }
    socket.write_all(b"0\r\n\r\n").await?;
    socket.shutdown().await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use bytes::Bytes;
    use tokio::net::TcpListener;

    use super::*;

    /// A connection to a router, and the task that serves it.
    async fn connect(
        router: Router,
        shutdown: &CancellationToken,
    ) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        (client, tokio::spawn(serve(socket, Peer(peer.ip()), router, shutdown.clone())))
    }

    /// A route that streams `pieces`, and then whatever `rest` does.
    fn streaming<S>(rest: impl Fn() -> S + Clone + Send + Sync + 'static) -> Router
    where
        S: futures_util::Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
    {
        use futures_util::StreamExt as _;
        let handler = async move || {
            let pieces = ["event: a\n\n", "", "event: b\n\n"].map(|piece| Ok(Bytes::from(piece)));
            let body = futures_util::stream::iter(pieces).chain(rest());
            let mut response = Response::new(Body::from_stream(body));
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response.extensions_mut().insert(LongLived);
            response
        };
        Router::new().route("/stream", get(handler)).route("/", get(async || "hello"))
    }

    async fn read_all(client: &mut TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    const ASK: &[u8] = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn a_stream_is_whole_chunked_and_closed() {
        let router = streaming(futures_util::stream::empty);
        let (mut client, served) = connect(router, &CancellationToken::new()).await;
        client.write_all(ASK).await.unwrap();
        assert_eq!(
            read_all(&mut client).await,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
             connection: close\r\n\r\na\r\nevent: a\n\n\r\na\r\nevent: b\n\n\r\n0\r\n\r\n"
        );
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_client() {
        let (mut client, served) =
            connect(streaming(futures_util::stream::pending), &CancellationToken::new()).await;
        client.write_all(ASK).await.unwrap();
        let mut some = [0; 20];
        client.read_exact(&mut some).await.unwrap();
        assert!(!served.is_finished());
        drop(client);
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_later_call_and_an_old_client_get_their_stream_from_hyper() {
        let router = streaming(futures_util::stream::empty);
        let (mut client, served) = connect(router.clone(), &CancellationToken::new()).await;
        let asks =
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(asks).await.unwrap();
        let text = read_all(&mut client).await;
        assert!(text.contains("hello") && text.ends_with("event: b\n\n\r\n0\r\n\r\n"), "{text}");
        served.await.unwrap();

        let (mut client, served) = connect(router, &CancellationToken::new()).await;
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
        let (mut client, served) = connect(Router::new().route("/", get(slow)), &shutdown).await;
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
        let (mut client, served) = connect(Router::new(), &shutdown).await;
        shutdown.cancel();
        served.await.unwrap();
        assert_eq!(read_all(&mut client).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_given_up() {
        let (mut client, served) = connect(Router::new(), &CancellationToken::new()).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        served.await.unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let (mut client, served) = connect(Router::new(), &CancellationToken::new()).await;
        let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(HEAD_BYTES));
        // The gateway may hang up before it has read all of it.
        let _ = client.write_all(head.as_bytes()).await;
        let mut first = [0; 12];
        client.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 431");
        served.await.unwrap();
    }
}
