//! A minimal HTTP client for a gateway on this machine: no TLS, one connection a call.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use countersign_core::loopback::is_loopback;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A running gateway.
pub(super) struct Gateway {
    authority: String,
}

/// An answer; a body that is not JSON becomes null.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Gateway {
    /// The gateway at an `http` URL of this machine: nothing here is encrypted, and a press is signed with Slack's secret.
    pub(super) fn at(url: &str) -> Result<Gateway> {
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let Some(authority) = authority.filter(|authority| !authority.is_empty() && !authority.contains('/'))
        else {
            bail!("`{url}` is not of the form `http://HOST:PORT`");
        };
        let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
            // The last colon of a bare IPv6 address is none before a port.
            if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { authority }
        });
        if !is_loopback(host) {
            bail!("`{url}` is not this machine; these commands are for a gateway on it");
        }
        let with_port =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Gateway { authority: with_port })
    }

    /// Posts `body`, and reads the answer.
    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], body: String) -> Result<Answer> {
        let request =
            headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        read(self.send(request.body(Full::from(body))?).await?).await
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let authority = &self.authority;
        request.headers_mut().insert("host", authority.parse().context("the host is malformed")?);
        let stream = TcpStream::connect(authority)
            .await
            .with_context(|| format!("cannot connect to `{authority}`"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // If the connection fails, so does the call, which returns the error.
        tokio::spawn(connection);
        sender.send_request(request).await.context("the gateway did not answer")
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer> {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.context("the answer is incomplete")?.to_bytes();
    Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_called() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.0.0.1", true),
            ("http://localhost:8080/", true),
            ("http://[::1]:8080", true),
            ("http://gateway.example:8080", false),
            ("http://10.0.0.1:8080", false),
            ("http://localhost.example:8080", false),
            ("http://127.0.0.1.example", false),
            ("http://evil@127.0.0.1:8080", false),
            ("https://127.0.0.1:8080", false),
            ("http://", false),
        ] {
            assert_eq!(Gateway::at(url).is_ok(), expected, "{url}");
        }
    }
}
