//! The listener: accepts connections until the shutdown begins, then lets them finish.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::Peer;
use super::connection;
use super::connection_limit::ConnectionLimit;

/// How long to wait if no connection can be accepted, because there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the shutdown begins, and then for at most `drain` until every connection has ended. `refused` is called
/// for each connection over the limit.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limit: ConnectionLimit,
    refused: impl Fn(),
    shutdown: &CancellationToken,
    drain: Duration,
) {
    // Nothing is ever sent: the channel closes when every connection has dropped its sender.
    let (open, mut all_ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(slot) = limit.open(peer.ip()) else {
                    // Nothing is said: an answer would cost what is short.
                    refused();
                    continue;
                };
                // A decision must not wait for the next packet. If this fails, the connection is broken anyway.
                let _ = stream.set_nodelay(true);
                let (router, shutdown, open) = (router.clone(), shutdown.clone(), open.clone());
                tokio::spawn(async move {
                    connection::serve(stream, Peer(peer.ip()), slot.crowded, router, shutdown).await;
                    drop((slot, open));
                });
            }
            Err(error) if is_from_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; pausing");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((listener, open));
    if tokio::time::timeout(drain, all_ended.recv()).await.is_err() {
        tracing::warn!("shutdown: connections did not finish in time");
    }
}

fn is_from_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
