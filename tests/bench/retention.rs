//! Whether creates take longer while very many ended requests are archived and removed, and how long that takes.

use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_tests::{Ask, Gateway, Stopwatch};

use crate::creates::create;
use crate::report::{Report, cost, rate};
use crate::sample::{Sample, millis};
use crate::{machine, setup};

/// How long ended requests may take to end, and to be removed.
const PATIENCE: Duration = Duration::from_secs(1800);

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    let (ended, length) = if quick { (2_000, 1.0) } else { (100_000, 10.0) };
    // What is measured is the store: on a busy machine a judgement may take its time.
    let gateway = setup::home().with("COUNTERSIGN_POLICY_DEADLINE_MS", "1000").start().await;
    setup::open(&gateway, "brief", ended).await?;
    counted(&gateway, "expired_total", ended).await?;
    let call = Ask::new("simple").call();
    let (_, mut before) = create(&gateway, &call, 1.0, length).await?;

    let home =
        gateway.stop().await.with("REQUEST_RETENTION_SEC", "1").with("REQUEST_RETENTION_SWEEP_SEC", "1");
    let gateway = home.with_file("REQUEST_ARCHIVE_FILE", "requests.ndjson.gz").start().await;
    let watch = Stopwatch::start();
    let mut during = Sample::default();
    while removed(&gateway).await < ended {
        ensure!(watch.elapsed() < PATIENCE, "only {} were removed", removed(&gateway).await);
        during.add_all(create(&gateway, &call, 0.0, 1.0).await?.1);
    }
    let took = watch.elapsed().as_secs_f64();
    let [(p50, _), (p99, times)] = [50, 99].map(|percent| {
        let (one, other) = (before.percentile(percent), during.percentile(percent));
        (other.as_secs_f64() / one.as_secs_f64(), format!("{} → {}", millis(one), millis(other)))
    });
    report.judged(
        &format!("create while {ended} ended requests are archived and removed, compared with none"),
        "p99 ≤ 1.5 ×",
        &format!("p50 {p50:.2} ×, p99 {p99:.2} × ({times}), over {} creates", during.count()),
        p99 <= 1.5,
    );
    report.figure("create during removals, p99, compared with none", cost(p99, "×"));
    let a_second = f64::from(u32::try_from(ended)?) / took;
    let archive = machine::size(&gateway.home().path("requests.ndjson.gz"));
    let measured =
        format!("{a_second:.0} a second; {:.0} bytes of archive each", machine::each(archive, ended));
    report.compared("ended requests archived and removed meanwhile", &measured);
    report.figure("removals, a second", rate(a_second, ""));
    Ok(())
}

async fn removed(gateway: &Gateway) -> usize {
    usize::try_from(gateway.metrics().await.count("purged_requests_total", &[])).unwrap_or(usize::MAX)
}

/// Waits until a counter has come to this.
async fn counted(gateway: &Gateway, metric: &str, count: usize) -> Result<()> {
    let watch = Stopwatch::start();
    while gateway.metrics().await.count(metric, &[]) < u64::try_from(count)? {
        ensure!(watch.elapsed() < PATIENCE, "`{metric}` does not come to {count}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
