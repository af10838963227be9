//! An event stream takes the transport of its connection over from hyper.
//!
//! Hyper keeps two buffers of 8 KiB for each connection. Most connections of a gateway are event streams on which
//! nothing happens for minutes, so a stream writes to the transport itself and keeps no buffer at all.
//! The transport may be anything: TCP, TLS, or a pipe in memory.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::body::{Body, HttpBody};
use axum::http::{Method, Request, Version};
use axum::response::Response;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

/// Marks a response whose body goes on for a long time, mostly without data.
#[derive(Clone, Copy, Debug)]
pub(super) struct LongLived;

/// Whether a stream takes one connection over, and with which response.
#[derive(Default)]
pub(super) struct Takeover {
    has_had_a_call: AtomicBool,
    response: Mutex<Option<Response>>,
}

/// Makes hyper end a connection, on which it has written nothing.
#[derive(Debug, thiserror::Error)]
#[error("the connection was taken over")]
pub(super) struct TakenOver;

impl Takeover {
    /// Whether the response to this call may take the connection over; to be asked once for each call.
    ///
    /// Only the first call is surely not preceded by something that hyper has still to write, and what is left of a
    /// body is with hyper.
    pub(super) fn is_possible<B: HttpBody>(&self, request: &Request<B>) -> bool {
        let is_first = !self.has_had_a_call.swap(true, Ordering::Relaxed);
        is_first
            && request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream()
    }

    /// Keeps a long-lived response for [`Takeover::take_response`]; returns any other, for hyper to send.
    pub(super) fn keep_long_lived(&self, response: Response) -> Result<Response, TakenOver> {
        if response.extensions().get::<LongLived>().is_none() {
            return Ok(response);
        }
        *self.response.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
        Err(TakenOver)
    }

    /// The response that was kept, once hyper has ended.
    pub(super) fn take_response(&self) -> Option<Response> {
        self.response.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Writes the response, and its body as it comes, until the body ends, the client goes away, or the time has come.
pub(super) async fn write_response<T>(
    mut transport: T,
    response: Response,
    until: Option<Instant>,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut body = write_head(&mut transport, response).await?;
    let mut time = until.map(|until| Box::pin(tokio::time::sleep_until(until)));
    loop {
        let time = async {
            match &mut time {
                Some(time) => time.await,
                None => std::future::pending().await,
            }
        };
        let mut ignored = [0; 16];
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    let data = frame.data_ref().map_or(&[][..], |data| data);
                    if !data.is_empty() {
                        let size = format!("{:x}\r\n", data.len());
                        write(&mut transport, &[size.as_bytes(), data, b"\r\n"].concat()).await?;
                    }
                }
                _ => break,
            },
            () = time => break,
            // The client has nothing to say to a stream; that it closes its side means that it has gone away.
            read = transport.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
        }
    }
    write(&mut transport, b"0\r\n\r\n").await?;
    transport.shutdown().await
}

async fn write<T: AsyncWrite + Unpin>(transport: &mut T, bytes: &[u8]) -> io::Result<()> {
    transport.write_all(bytes).await?;
    transport.flush().await
}

/// Writes the status and the headers, and returns the body.
async fn write_head<T: AsyncWrite + Unpin>(transport: &mut T, response: Response) -> io::Result<Body> {
    let (parts, body) = response.into_parts();
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    write(transport, &head).await?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::{Stream, StreamExt as _, stream};
    use tokio::io::{BufStream, duplex};

    use super::*;

    fn events() -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::iter(["event: a\n\n", "", "event: b\n\n"].map(|event| Ok(Bytes::from(event))))
    }

    fn response(events: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
        let mut response = Response::new(Body::from_stream(events));
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response.extensions_mut().insert(LongLived);
        response
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
        connection: close\r\n\r\n";

    #[tokio::test]
    async fn a_stream_is_chunked_and_closed() {
        let (mut client, server) = duplex(1024);
        write_response(server, response(events()), None).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, format!("{HEAD}a\r\nevent: a\n\n\r\na\r\nevent: b\n\n\r\n0\r\n\r\n"));
    }

    /// A transport that buffers, as TLS does, must not hold an event back.
    #[tokio::test(start_paused = true)]
    async fn an_event_is_not_held_back() {
        let (mut client, server) = duplex(1024);
        let open = response(events().chain(stream::pending()));
        let written = tokio::spawn(write_response(BufStream::new(server), open, None));
        let expected = format!("{HEAD}a\r\nevent: a\n\n\r\na\r\nevent: b\n\n\r\n");
        let mut text = vec![0; expected.len()];
        // The clock advances once nothing else can happen.
        let read = tokio::time::timeout(Duration::from_secs(1), client.read_exact(&mut text)).await;
        read.expect("the events are flushed").unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert!(!written.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_between_two_events_when_its_time_has_come() {
        let (mut client, server) = duplex(1024);
        let until = Instant::now() + Duration::from_secs(60);
        let open = response(events().chain(stream::pending()));
        write_response(server, open, Some(until)).await.unwrap();
        assert_eq!(Instant::now(), until);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, format!("{HEAD}a\r\nevent: a\n\n\r\na\r\nevent: b\n\n\r\n0\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_client() {
        let (mut client, server) = duplex(1024);
        let written = tokio::spawn(write_response(server, response(stream::pending()), None));
        client.write_all(b"ignored").await.unwrap();
        let mut head = vec![0; HEAD.len()];
        client.read_exact(&mut head).await.unwrap();
        assert!(!written.is_finished());
        drop(client);
        written.await.unwrap().unwrap();
    }

    #[test]
    fn only_the_first_plain_get_may_take_over() {
        let request = |method: Method, version: Version, body: Body| {
            Request::builder().method(method).version(version).body(body).unwrap()
        };
        let plain = || request(Method::GET, Version::HTTP_11, Body::empty());
        let takeover = Takeover::default();
        assert!(takeover.is_possible(&plain()));
        assert!(!takeover.is_possible(&plain()), "hyper may still write the first response");
        for other in [
            request(Method::POST, Version::HTTP_11, Body::empty()),
            request(Method::GET, Version::HTTP_10, Body::empty()),
            request(Method::GET, Version::HTTP_11, Body::from("x")),
        ] {
            assert!(!Takeover::default().is_possible(&other), "{other:?}");
        }
    }

    #[test]
    fn only_a_long_lived_response_is_kept() {
        let takeover = Takeover::default();
        assert!(takeover.keep_long_lived(Response::new(Body::empty())).is_ok());
        assert!(takeover.take_response().is_none());
        assert!(takeover.keep_long_lived(response(stream::empty())).is_err());
        assert!(takeover.take_response().is_some());
    }
}
