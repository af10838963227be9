//! Traces: what the gateway does, as spans that an OpenTelemetry collector is sent.
//!
//! docs/TRACING.md lists the spans and what they say. Which span is the parent is passed along by the context of
//! OpenTelemetry, so code that makes a span needs neither a parameter for it nor to know whether anybody traces: outside of
//! what is traced, [`Span::child`] makes nothing. No span says a parameter, a secret, or who a person is.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod export;
mod queue;
mod span;
mod vocabulary;

pub use export::{Collector, Exporter, ExporterError};
pub use queue::ExportMetrics;
pub use span::{Span, Tracer, carried};
pub use vocabulary::{Key, Name};
