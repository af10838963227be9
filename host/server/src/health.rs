//! `countersign health`: asks a gateway whether it is alive or ready, where there is no other program that could.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use countersign_console::{note, say};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

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
    /// For how many seconds it is asked again until its answer is good, as after a restart: a gateway listens once it has
    /// compiled its policies.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait_sec: u32,
}

/// How long is waited between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks, and prints the answer. The exit code is 1 unless it is good.
pub async fn run(health: &Health) -> ExitCode {
    match answer(health).await {
        Ok(answer) => {
            say!("{}", answer.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            note!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first good answer, or why the last one was none.
async fn answer(health: &Health) -> Result<String> {
    let until = Instant::now() + Duration::from_secs(health.wait_sec.into());
    loop {
        let asked = tokio::time::timeout(Duration::from_millis(health.timeout_ms), ask(health)).await;
        let answer = asked.unwrap_or_else(|_| bail!("no answer within {} ms", health.timeout_ms));
        if answer.is_ok() || Instant::now() + PAUSE > until {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
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
    use clap::Parser;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        health: Health,
    }

    /// A gateway that has just been restarted does not answer well at once.
    #[tokio::test]
    async fn a_good_answer_is_waited_for() {
        for (waits, expected) in [("60", "ready"), ("0", "starting")] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let gateway = tokio::spawn(async move {
                for (status, body) in [("503 Service Unavailable", "starting"), ("200 OK", "ready")] {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0, "it asks nothing");
                    let length = body.len();
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
            let words = ["health", "--ready", "--ops-listen", &address, "--wait-sec", waits];
            let answered = answer(&Command::parse_from(words).health).await;
            let said = answered.unwrap_or_else(|error| format!("{error:#}"));
            assert!(said.contains(expected), "{said}");
            gateway.abort();
        }
    }

    #[test]
    fn every_address_is_reached_on_loopback() {
        for (listens, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.7:80", "10.0.0.7:80")]
        {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), expected);
        }
    }
}
