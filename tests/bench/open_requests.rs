//! Whether a decision takes longer when very many requests are open.

use anyhow::{Result, ensure};
use countersign_tests::{Click, Gateway, Stopwatch};

use crate::report::Report;
use crate::sample::{Sample, millis};
use crate::setup;

const FEW: usize = 100;

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    let (many, decisions) = if quick { (5_000, 100) } else { (100_000, 1_000) };
    let gateway = setup::gateway().await;
    setup::open(&gateway, "simple", FEW).await?;
    let mut few = decide(&gateway, decisions).await?;
    setup::open(&gateway, "simple", many - FEW).await?;
    let mut lots = decide(&gateway, decisions).await?;
    let ratios = [50, 95].map(|percent| {
        let (one, other) = (few.percentile(percent), lots.percentile(percent));
        (other.as_secs_f64() / one.as_secs_f64(), format!("p{percent} {} → {}", millis(one), millis(other)))
    });
    let [(p50, p50_times), (p95, p95_times)] = ratios;
    let measured = format!("{p50:.2} × ({p50_times}), {p95:.2} × ({p95_times})");
    let what = format!("decision with {many} open requests, compared with {FEW}");
    report.judged(&what, "≤ 1.5 ×", &measured, p50 <= 1.5);
    Ok(())
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
