//! Whether decisions, metrics and probes take longer when very many requests are open, and what each of these takes.

use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_tests::{Call, Click, Gateway, Stopwatch};

use crate::report::{Report, cost};
use crate::sample::{Sample, millis};
use crate::{machine, setup};

const FEW: usize = 100;

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    let (many, decisions) = if quick { (5_000, 100) } else { (100_000, 1_000) };
    let gateway = setup::gateway().await;
    setup::open(&gateway, "simple", FEW).await?;
    let mut few = decide(&gateway, decisions).await?;
    let (mut few_scraped, mut few_probed) =
        (ask(&gateway, "/metrics").await?, ask(&gateway, "/readyz").await?);
    let before = Used::by(&gateway)?;
    setup::open(&gateway, "simple", many - FEW).await?;
    let after = Used::by(&gateway)?;
    let mut lots = decide(&gateway, decisions).await?;
    let (mut scraped, mut probed) = (ask(&gateway, "/metrics").await?, ask(&gateway, "/readyz").await?);

    let ratios = [50, 95].map(|percent| {
        let (one, other) = (few.percentile(percent), lots.percentile(percent));
        (other.as_secs_f64() / one.as_secs_f64(), format!("p{percent} {} → {}", millis(one), millis(other)))
    });
    let [(p50, p50_times), (p95, p95_times)] = ratios;
    let measured = format!("{p50:.2} × ({p50_times}), {p95:.2} × ({p95_times})");
    let what = format!("decision with {many} open requests, compared with {FEW}");
    report.judged(&what, "≤ 1.1 ×", &measured, p50 <= 1.1);
    report.figure("decision with many open requests, compared with few", cost(p50, "×"));

    let memory = machine::each(after.memory.saturating_sub(before.memory), many - FEW);
    let disk = machine::each(after.disk.saturating_sub(before.disk), many - FEW);
    let measured = format!("{memory:.0} bytes of memory, {disk:.0} bytes on disk");
    report.judged("each open request", "≤ 1,024 bytes of memory", &measured, memory <= 1024.0);
    report.figure("open request, memory", cost(memory, "bytes"));
    report.figure("open request, disk", cost(disk, "bytes"));

    for (path, few, many_sample) in
        [("/metrics", &mut few_scraped, &mut scraped), ("/readyz", &mut few_probed, &mut probed)]
    {
        let (few, lots) = (few.percentile(50), many_sample.percentile(50));
        let measured = format!("p50 {} → {}", millis(few), millis(lots));
        let what = format!("`{path}` with {many} open requests, compared with {FEW}");
        report.judged(&what, "≤ 2 ms", &measured, lots <= Duration::from_millis(2));
        report.latency(&format!("{path} with many open requests"), many_sample);
    }
    Ok(())
}

/// What a gateway uses.
struct Used {
    /// Resident memory, in bytes.
    memory: u64,
    /// The database and its write-ahead log, in bytes.
    disk: u64,
}

impl Used {
    fn by(gateway: &Gateway) -> Result<Used> {
        let files = ["data/countersign.db", "data/countersign.db-wal"];
        let disk = files.iter().map(|file| machine::size(&gateway.home().path(file))).sum();
        Ok(Used { memory: machine::resident(gateway.pid())?, disk })
    }
}

/// Asks the same again and again, and returns how long each answer took.
async fn ask(gateway: &Gateway, path: &str) -> Result<Sample> {
    let mut connection = gateway.try_connect().await?;
    let call = Call::get(path).bytes();
    let mut sample = Sample::default();
    for _ in 0..20 {
        let watch = Stopwatch::start();
        let reply = connection.send_bytes(&call).await?;
        sample.add(watch.elapsed());
        ensure!(reply.status() == 200, "{}: {}", reply.status(), reply.text());
    }
    Ok(sample)
}

/// Approves this many requests, one after the other, from click to answer.
async fn decide(gateway: &Gateway, decisions: usize) -> Result<Sample> {
    let requests = setup::open(gateway, "simple", decisions).await?;
    let mut connection = gateway.try_connect().await?;
    let mut sample = Sample::default();
    for request in requests {
        let click = Click::approve("U0ALICE", &request.id).signed().call().bytes();
        let watch = Stopwatch::start();
        let reply = connection.send_bytes(&click).await?;
        sample.add(watch.elapsed());
        ensure!(reply.json()["status"] == "approved", "{}", reply.text());
    }
    Ok(sample)
}
