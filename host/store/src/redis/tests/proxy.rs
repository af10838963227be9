//! A proxy that loses answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Passes everything on, and ends connections in place of answers.
pub(super) struct Proxy {
    directory: tempfile::TempDir,
    to_lose: Arc<AtomicU32>,
}

impl Proxy {
    pub(super) fn start(server: &Path) -> Proxy {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("proxy.sock")).unwrap();
        let (to_lose, server) = (Arc::new(AtomicU32::new(0)), server.join("redis.sock"));
        tokio::spawn(accept(listener, server, Arc::clone(&to_lose)));
        Proxy { directory, to_lose }
    }

    pub(super) fn url(&self) -> String {
        format!("redis+unix://{}/proxy.sock", self.directory.path().display())
    }

    /// The next answer gets lost.
    pub(super) fn lose_one(&self) {
        self.to_lose.store(1, Ordering::SeqCst);
    }

    /// Whether it was lost.
    pub(super) fn has_lost(&self) -> bool {
        self.to_lose.load(Ordering::SeqCst) == 0
    }
}

async fn accept(listener: UnixListener, server: PathBuf, to_lose: Arc<AtomicU32>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = UnixStream::connect(&server).await.unwrap();
        tokio::spawn(pass_on(client, server, Arc::clone(&to_lose)));
    }
}

async fn pass_on(client: UnixStream, server: UnixStream, to_lose: Arc<AtomicU32>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut answer = vec![0; 65_536];
    while let Ok(length @ 1..) = from_server.read(&mut answer).await {
        let lost = to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if lost.is_ok() || to_client.write_all(&answer[..length]).await.is_err() {
            break;
        }
    }
    asking.abort();
}
