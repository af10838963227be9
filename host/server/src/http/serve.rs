//! The listener: takes connections until the shutdown begins, then lets them finish.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::connection;
use super::ratelimit::Peer;
use tokio_util::sync::CancellationToken;

/// How long to wait where no connection can be taken, because there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the shutdown begins, and then for at most `drain` until every call was answered.
pub async fn serve(listener: TcpListener, router: Router, shutdown: &CancellationToken, drain: Duration) {
    // Nothing is ever sent: that every sender is gone says that every connection has ended.
    let (open, mut all_ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, shutdown, open) = (router.clone(), shutdown.clone(), open.clone());
                tokio::spawn(async move {
                    connection::serve(stream, Peer(peer.ip()), router, shutdown).await;
                    drop(open);
                });
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be taken; pausing");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((listener, open));
    if tokio::time::timeout(drain, all_ended.recv()).await.is_err() {
        tracing::warn!("some connections did not finish in time");
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
