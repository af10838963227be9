//! How long it takes from the start of the process until it serves.

use std::time::Duration;

use crate::report::Report;
use crate::sample::Sample;
use crate::setup;

pub(crate) async fn measure(report: &mut Report, quick: bool) {
    let mut sample = Sample::default();
    let mut home = setup::home();
    for _ in 0..if quick { 3 } else { 20 } {
        let gateway = home.start().await;
        sample.add(gateway.ready_after);
        home = gateway.stop().await;
    }
    let kept = sample.percentile(95) <= Duration::from_millis(50);
    let what = "start with a warm module cache, to ready";
    report.latency("start", &mut sample);
    report.judged(what, "p95 ≤ 50 ms", &sample.percentiles().to_string(), kept);
}
