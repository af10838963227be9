//! `countersign health`: asks a gateway whether it is alive or ready, where there is no other program that could.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Args;
use countersign_console::{note, say};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The most bytes that an answer has.
const MOST: usize = 64 << 10;

/// Ask the gateway on this machine whether it is alive.
#[derive(Debug, Args)]
#[command(
    after_long_help = "It asks the listener for operations if there is one, and else that of callers, in the clear: a listener \
                       that speaks TLS is asked by something else, or beside it there is one on 127.0.0.1 for operations."
)]
pub struct Health {
    /// The gateway's address for callers.
    #[arg(long, value_name = "COUNTERSIGN_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The gateway's address for probes, metrics and admins.
    #[arg(long, value_name = "COUNTERSIGN_OPS_LISTEN")]
    ops_listen: Option<SocketAddr>,
    /// Ask whether it is ready for requests, which it is not while its embedded store cannot be written to, nor while it
    /// shuts down. While a Redis is away it is ready, and says that it is degraded.
    #[arg(long)]
    ready: bool,
    /// How many milliseconds an answer may take.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    timeout_ms: u64,
}

/// Asks, and prints the answer. The exit code is 1 unless it is good.
pub async fn run(health: &Health) -> ExitCode {
    match tokio::time::timeout(Duration::from_millis(health.timeout_ms), ask(health)).await {
        Ok(Ok(answer)) => {
            say!("{}", answer.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(&format!("{error:#}")),
        Err(_) => fail(&format!("no answer within {} ms", health.timeout_ms)),
    }
}

fn fail(why: &str) -> ExitCode {
    note!("{why}");
    ExitCode::FAILURE
}

async fn ask(health: &Health) -> Result<String> {
    let address = reachable(health.ops_listen.unwrap_or(health.listen));
    let path = if health.ready { "/readyz" } else { "/healthz" };
    let stream =
        TcpStream::connect(address).await.with_context(|| format!("cannot connect to `{address}`"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // If the connection fails, so does the call, which returns the error.
    tokio::spawn(connection);
    let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.context("the gateway did not answer")?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    ensure!(status.is_success(), "the gateway answered {status}: {}", body.trim_end());
    Ok(body)
}

/// Where a listener on every address of the machine can be reached.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_on_loopback() {
        for (listens, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.7:80", "10.0.0.7:80")]
        {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), expected);
        }
    }
}
