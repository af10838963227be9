//! Fetching an issuer's keys: encrypted but to this machine, with a limit on size and time, following nothing.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::loopback::is_loopback;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// The longest document that is read, in bytes.
const DOCUMENT_BYTES: usize = 1 << 20;

/// How long fetching one may take.
const WITHIN: Duration = Duration::from_secs(5);

/// A URL that keys may be fetched from.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUrl(Uri);

impl KeyUrl {
    /// Takes a URL.
    ///
    /// # Errors
    /// If it is neither `https` nor of this machine.
    pub fn new(text: &str) -> Result<KeyUrl, String> {
        let uri: Uri = text.parse().map_err(|_| format!("`{text}` is no URL"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(_)) => Ok(KeyUrl(uri)),
            (Some("http"), Some(host)) if is_loopback(host) => Ok(KeyUrl(uri)),
            _ => Err(format!("`{text}` must be an `https` URL: whoever can change the keys can be anybody")),
        }
    }
}

impl fmt::Debug for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The document at a URL.
pub(crate) async fn get(url: &KeyUrl) -> Result<Vec<u8>, String> {
    tokio::time::timeout(WITHIN, load(url)).await.map_err(|_| "it takes too long".to_owned())?
}

async fn load(url: &KeyUrl) -> Result<Vec<u8>, String> {
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| format!("no certificate authorities: {error}"))?
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.get(url.0.clone()).await.map_err(|error| format!("it cannot be reached: {error}"))?;
    if answer.status() != hyper::StatusCode::OK {
        return Err(format!("it answers with {}", answer.status().as_u16()));
    }
    match Limited::new(answer.into_body(), DOCUMENT_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(_) => Err(format!("it does not send all of a document of at most {DOCUMENT_BYTES} bytes")),
    }
}

/// The document in a file. Blocks.
pub(crate) fn file(path: &Path) -> Result<Vec<u8>, String> {
    let limit = u64::try_from(DOCUMENT_BYTES).unwrap_or(u64::MAX);
    let text = countersign_policy::files::read(path, limit + 1)
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    if text.len() > DOCUMENT_BYTES {
        return Err(format!("`{}` has more than {DOCUMENT_BYTES} bytes", path.display()));
    }
    Ok(text)
}
