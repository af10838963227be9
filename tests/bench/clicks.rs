//! How long it takes from a signed click to the event at the waiter, the decision being durable in between.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_tests::{Click, Connection, Gateway, Receipt, Stopwatch, Stream};
use futures_util::future::{try_join, try_join_all};

use crate::report::Report;
use crate::sample::Sample;
use crate::setup;

const PENDING: usize = 200;
const STREAMS: usize = 50;

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    let gateway = setup::gateway().await;
    let (mut alone, mut together) =
        alone_and_together(&gateway, &gateway, if quick { 4 } else { 40 }).await?;
    let kept = alone.percentile(99) <= Duration::from_micros(1_500);
    let what = format!("signed click → durable decision → SSE event, {PENDING} pending, {STREAMS} streams");
    report.judged(&what, "p99 ≤ 1.5 ms", &alone.percentiles().to_string(), kept);
    report.latency("click to event", &mut alone);
    report.latency("click to event, 50 at once", &mut together);
    report.compared(&format!("the same, all {STREAMS} clicks at once"), &together.percentiles().to_string());
    Ok(())
}

/// How long clicks on one gateway take to reach streams on another, or on the same: one at a time, and as many at once as
/// there are streams.
pub(crate) async fn alone_and_together(
    clicked: &Gateway,
    streamed: &Gateway,
    rounds: usize,
) -> Result<(Sample, Sample)> {
    // Pending throughout; those with a stream come on top, and are replaced when they are decided.
    setup::open(streamed, "simple", PENDING - STREAMS).await?;
    let mut alone = Sample::default();
    let mut together = Sample::default();
    for _ in 0..rounds {
        let waiters = waiters(streamed).await?;
        let mut connection = clicked.try_connect().await?;
        for mut waiter in waiters {
            alone.add(waiter.decide(&mut connection).await?);
        }
        let mut waiters = self::waiters(streamed).await?;
        let connections = waiters.iter().map(|_| clicked.try_connect());
        let connections = try_join_all(connections).await?;
        let clicks = waiters.iter_mut().zip(connections);
        let took = clicks.map(async |(waiter, mut connection)| waiter.decide(&mut connection).await);
        together.add_all(try_join_all(took).await?.into_iter().collect());
    }
    Ok((alone, together))
}

/// Somebody who waits for a decision.
struct Waiter {
    request: Receipt,
    stream: Stream,
}

async fn waiters(gateway: &Gateway) -> Result<Vec<Waiter>> {
    let mut waiters = Vec::with_capacity(STREAMS);
    for request in setup::open(gateway, "simple", STREAMS).await? {
        let mut stream = gateway.stream(&request.token).await;
        stream.state().await;
        waiters.push(Waiter { request, stream });
    }
    Ok(waiters)
}

impl Waiter {
    /// Approves, and returns how long it took until the waiter knew.
    async fn decide(&mut self, connection: &mut Connection) -> Result<Duration> {
        let click = Click::approve("U0ALICE", &self.request.id).signed().call().bytes();
        let watch = Stopwatch::start();
        let heard = async {
            let event = self.stream.receive().await?.context("the stream goes on")?;
            Ok((watch.elapsed(), event))
        };
        let (reply, (took, event)) = try_join(connection.send_bytes(&click), heard).await?;
        ensure!(reply.json()["ok"] == true, "{}", reply.text());
        ensure!(event.status() == "approved", "{event:?}");
        Ok(took)
    }
}
