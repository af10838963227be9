//! What an idle stream costs in memory.

use anyhow::{Context as _, Result};
use countersign_tests::{Gateway, Stream};
use futures_util::stream::{self, StreamExt as _};

use crate::report::{Report, cost};
use crate::{machine, setup};

/// File descriptors that are needed for other things.
const SPARE: u64 = 500;

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    idle(report, quick, "", setup::gateway().await, 8).await?;
    idle(report, quick, " over TLS", setup::secured().await, 30).await
}

/// Opens the streams, each of which may take this many KiB.
async fn idle(report: &mut Report, quick: bool, how: &str, gateway: Gateway, budget_kib: u64) -> Result<()> {
    let wanted = if quick { 500 } else { 10_000 };
    let allowed = usize::try_from(machine::raise_file_limit()?.saturating_sub(SPARE))?;
    let count = allowed.min(wanted);
    let requests = setup::open(&gateway, "simple", count).await?;
    let before = machine::resident(gateway.pid())?;
    let streams = stream::iter(&requests).map(async |request| {
        let mut stream = gateway.stream(&request.token).await;
        stream.state().await;
        stream
    });
    let mut streams: Vec<Stream> = streams.buffered(64).collect().await;
    let opened = machine::resident(gateway.pid())?;
    let mut idle = opened.saturating_sub(before);
    let mut measured = format!("{} KiB each", kib(idle, count));
    if !quick {
        // Heartbeats come after 16 to 20 s, so each has been written to once more when the last one has twice.
        let last = streams.last_mut().context("there are streams")?;
        for _ in 0..2 {
            last.receive().await?.context("the stream goes on")?;
        }
        // The allocator gives back what opening the streams took a moment later.
        idle = machine::resident(gateway.pid())?.saturating_sub(before);
        measured =
            format!("{} KiB each after a heartbeat; as soon as they were open {measured}", kib(idle, count));
    }
    if count < wanted {
        measured = format!("{measured} (only {count}: no more files may be open)");
    }
    report.figure(&format!("idle stream{how}"), cost(machine::each(idle, count), "bytes"));
    let kept = idle <= budget_kib * 1024 * u64::try_from(count)?;
    let budget = format!("≤ {budget_kib} KiB each");
    report.judged(&format!("{count} idle SSE streams{how}"), &budget, &measured, kept);
    Ok(())
}

fn kib(bytes: u64, count: usize) -> String {
    format!("{:.1}", machine::each(bytes, count) / 1024.0)
}
