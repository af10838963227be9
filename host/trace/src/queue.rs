//! The queue between what is done and the export: bounded, and nobody waits for it.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// How many spans wait for their export at most: some megabytes.
pub(crate) const MOST_WAITING: usize = 4096;

/// What is counted of the export.
#[derive(Clone, Debug)]
pub struct ExportMetrics {
    pub(crate) exported: IntCounter,
    dropped: IntCounterVec,
}

/// Why spans are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Too many wait already.
    QueueFull,
    /// The collector did not take them.
    ExportFailed,
    /// The collector took the rest of what they came with.
    Rejected,
    /// The process has ended first.
    Shutdown,
}

impl Dropped {
    const ALL: [Dropped; 4] =
        [Dropped::QueueFull, Dropped::ExportFailed, Dropped::Rejected, Dropped::Shutdown];

    const fn as_str(self) -> &'static str {
        match self {
            Dropped::QueueFull => "queue_full",
            Dropped::ExportFailed => "export_failed",
            Dropped::Rejected => "rejected",
            Dropped::Shutdown => "shutdown",
        }
    }
}

impl ExportMetrics {
    /// Registers the metrics, at zero.
    ///
    /// # Errors
    /// If there is one of the same name.
    pub fn new(registry: &Registry) -> prometheus::Result<ExportMetrics> {
        let exported = IntCounter::new("trace_spans_exported_total", "Spans that the collector took.")?;
        registry.register(Box::new(exported.clone()))?;
        let about = "Spans that were dropped, by why the collector did not get them.";
        let dropped = IntCounterVec::new(Opts::new("trace_spans_dropped_total", about), &["reason"])?;
        registry.register(Box::new(dropped.clone()))?;
        for reason in Dropped::ALL {
            dropped.with_label_values(&[reason.as_str()]);
        }
        Ok(ExportMetrics { exported, dropped })
    }

    pub(crate) fn dropped(&self, reason: Dropped, spans: usize) {
        self.dropped.with_label_values(&[reason.as_str()]).inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}

/// Where spans go in when they end.
#[derive(Debug)]
pub(crate) struct Entrance {
    queue: Sender<SpanData>,
    metrics: ExportMetrics,
}

/// A queue that is empty.
pub(crate) fn new(metrics: &ExportMetrics) -> (Entrance, Receiver<SpanData>) {
    let (queue, exit) = mpsc::channel(MOST_WAITING);
    (Entrance { queue, metrics: metrics.clone() }, exit)
}

impl SpanProcessor for Entrance {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        match self.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.metrics.dropped(Dropped::QueueFull, 1),
            Err(TrySendError::Closed(_)) => self.metrics.dropped(Dropped::Shutdown, 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let metrics = ExportMetrics::new(&Registry::new()).unwrap();
        let (entrance, mut exit) = new(&metrics);
        let provider = SdkTracerProvider::builder().with_span_processor(entrance).build();
        let tracer = provider.tracer("test");
        let end = |spans: usize| (0..spans).for_each(|_| tracer.start("span").end());
        let dropped = |reason: Dropped| metrics.dropped.with_label_values(&[reason.as_str()]).get();
        end(MOST_WAITING);
        assert_eq!(dropped(Dropped::QueueFull), 0);
        end(7);
        assert_eq!(dropped(Dropped::QueueFull), 7);
        assert!(exit.try_recv().is_ok());
        end(1);
        assert_eq!(dropped(Dropped::QueueFull), 7, "there was room again");
        drop(exit);
        end(3);
        assert_eq!(dropped(Dropped::Shutdown), 3);
    }
}
