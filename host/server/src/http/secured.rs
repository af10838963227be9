//! A connection over TLS: the handshake, the client's certificate, and its end if that certificate counts no longer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use countersign_access::{CertificateError, CertificateName};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::Peer;
use super::connection::{self, End, Of};
use super::serve::{Shared, Transport};
use crate::telemetry::SecurityEvent;
use crate::tls::{InForce, Tls};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The same while most of the connections that there may be are open.
const HURRIED_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections may end up to a tenth earlier than they must: clients that came at once do not all come back at once.
const SPREAD: u32 = 10;

/// The client's certificate, which was verified: the name that it is known by, or why it has none.
#[derive(Clone, Debug)]
pub(super) struct ClientCertificate(pub(super) Arc<Result<CertificateName, CertificateError>>);

/// Serves a connection to its end.
pub(super) async fn serve(
    transport: Transport,
    peer: Peer,
    crowded: bool,
    tls: &Tls,
    shared: &Shared,
) -> End {
    let mut in_force = tls.subscribe();
    let config = Arc::clone(&in_force.borrow_and_update().config);
    let within = if crowded { HURRIED_HANDSHAKE_TIMEOUT } else { HANDSHAKE_TIMEOUT };
    // In boxes: this future has room for everything that is ever in it, as long as the connection lasts.
    let handshake = Box::pin(tokio::time::timeout(within, TlsAcceptor::from(config).accept(transport)));
    let stream = tokio::select! {
        shaken = handshake => match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Box::new(stream),
            Err(error) => {
                failed(&error, peer, shared);
                return End::Done;
            }
        },
        () = shared.app.shutdown.cancelled() => return End::Done,
    };
    let chain = chain(&stream);
    let certificate = chain.first().map(|own| ClientCertificate(Arc::new(CertificateName::of(own))));
    let spread = shared.max_age / SPREAD;
    let until = Instant::now() + shared.max_age - spread.mul_f64(fastrand::f64());
    let of = Of { peer, certificate, crowded, until: Some(until) };
    let served = connection::serve(stream, of, shared.router.clone(), &shared.app.shutdown);
    if chain.is_empty() {
        return served.await;
    }
    tokio::select! {
        end = served => end,
        error = counts_no_longer(&chain, in_force) => {
            tracing::info!(%error, "connection ended: its client certificate counts no longer");
            rejected(peer, shared);
            End::Done
        }
    }
}

/// The client's certificates, its own first; empty if it sent none.
fn chain(stream: &TlsStream<Transport>) -> Vec<CertificateDer<'static>> {
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    chain.iter().map(|certificate| certificate.clone().into_owned()).collect()
}

/// Waits until the certificates count no longer under what is in force; for ever if that never happens.
async fn counts_no_longer(
    chain: &[CertificateDer<'static>],
    mut in_force: watch::Receiver<Arc<InForce>>,
) -> rustls::Error {
    while in_force.changed().await.is_ok() {
        if let Err(error) = in_force.borrow_and_update().counts(chain) {
            return error;
        }
    }
    std::future::pending().await
}

/// Counts a handshake that failed. That a client goes away before it has said anything is no failure.
fn failed(error: &io::Error, peer: Peer, shared: &Shared) {
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match reason {
        Some(
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidCertRevocationList(_)
            | rustls::Error::NoCertificatesPresented,
        ) => {
            tracing::debug!(%error, "client certificate rejected");
            rejected(peer, shared);
        }
        None if error.kind() != io::ErrorKind::TimedOut => {}
        _ => {
            tracing::debug!(%error, "TLS handshake failed");
            shared.app.metrics.count(SecurityEvent::TlsHandshake);
        }
    }
}

fn rejected(Peer(address): Peer, shared: &Shared) {
    shared.app.metrics.count(SecurityEvent::ClientCertificate);
    shared.app.rejections.stranger(address, "bad_certificate");
}
