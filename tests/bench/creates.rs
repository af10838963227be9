//! How many requests a second are made, each durable before it is answered.

use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_tests::{Ask, Connection, Stopwatch};
use futures_util::future::try_join_all;

use crate::report::Report;
use crate::sample::Sample;
use crate::setup;

const CONNECTIONS: usize = 32;

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    let (rate, mut sample) = run("simple", quick).await?;
    let kept = rate >= 10_000.0 && sample.percentile(99) <= Duration::from_millis(15);
    let measured = format!("{rate:.0} a second, {}", sample.percentiles());
    let what = format!("create, durable in SQLite, {CONNECTIONS} connections, one policy");
    report.judged(&what, "≥ 10,000 a second, p99 ≤ 15 ms", &measured, kept);
    let (rate, mut sample) = run("full", quick).await?;
    report.compared("the same, three policies", &format!("{rate:.0} a second, {}", sample.percentiles()));
    Ok(())
}

async fn run(action: &str, quick: bool) -> Result<(f64, Sample)> {
    let gateway = setup::gateway().await;
    let (warm_up, length) = if quick { (0.2, 1.0) } else { (2.0, 10.0) };
    let (warm_up, length) = (Duration::from_secs_f64(warm_up), Duration::from_secs_f64(length));
    let create = Ask::new(action).call().bytes();
    let watch = Stopwatch::start();
    let work = (0..CONNECTIONS).map(async |_| {
        let mut connection = Connection::open(gateway.address()).await?;
        let mut sample = Sample::default();
        while watch.elapsed() < warm_up + length {
            let began = watch.elapsed();
            let reply = connection.send_bytes(&create).await?;
            ensure!(reply.status() == 200, "{}: {}", reply.status(), reply.text());
            if began >= warm_up {
                sample.add(watch.elapsed() - began);
            }
        }
        Ok(sample)
    });
    let mut all = Sample::default();
    for sample in try_join_all(work).await? {
        all.add_all(sample);
    }
    let rate = f64::from(u32::try_from(all.count())?) / (watch.elapsed() - warm_up).as_secs_f64();
    Ok((rate, all))
}
